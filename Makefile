# Works on a fresh machine with Python 3.11 or newer, make and a package index.

.DEFAULT_GOAL := help
.NOTPARALLEL:

VENV := .venv
BIN := $(VENV)/bin
# The first interpreter that is new enough; name another with `make PYTHON=…`.
PYTHON = $(firstword $(foreach name,python3 python3.13 python3.12 python3.11 python3.14,$(shell \
	$(name) -c 'import sys; sys.version_info >= (3, 11) and print("$(name)")' 2>/dev/null)))

# An environment that came along with a copied folder still points to the folder it came from.
ifneq ($(shell cat $(VENV)/created 2>/dev/null),$(CURDIR))
$(VENV)/created: FORCE
endif

.PHONY: help demo test teacher clean FORCE

help:
	@echo 'make demo      distil the small teacher of the package offline; leaves runs/demo/report.html'
	@echo 'make test      lint, types and all tests'
	@echo 'make teacher   make the demo teacher again (minutes; needed only after changing its recipe)'
	@echo 'make clean     remove $(VENV) and what building leaves behind; runs/ stays'

demo: $(VENV)/installed-train
	@$(BIN)/clip-distill demo

test: $(VENV)/installed-dev
	$(BIN)/python -m ruff check
	$(BIN)/python -m ruff format --check
	$(BIN)/python -m mypy
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m 'slow or not slow' -n 2 --dist loadfile

teacher: $(VENV)/installed-train
	$(BIN)/python -m distill.demo.make_teacher

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache
	find students distill export benchmarks tests -name __pycache__ -prune -exec rm -rf {} +

# Each step leaves a stamp, so that it is done once, and again when what it stands on has changed.
# An environment that is there and fits is taken as it is.
$(VENV)/created:
	@test -n '$(PYTHON)' || { echo 'clip-distill needs Python 3.11 or newer, and none is on the' \
		'PATH: install one, or name it with make PYTHON=/path/to/python3' >&2; exit 1; }
	@'$(PYTHON)' -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo 'clip-distill' \
		'needs Python 3.11 or newer, and $(PYTHON) is not: name another with make' \
		'PYTHON=/path/to/python3' >&2; exit 1; }
	@$(BIN)/python -c 'import sys, pip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
		|| { set -x; '$(PYTHON)' -m venv --clear $(VENV); }
	@echo '$(CURDIR)' > $@

$(VENV)/installed-train: $(VENV)/created pyproject.toml constraints.txt
	$(call install,train)
	@touch $@

$(VENV)/installed-dev: $(VENV)/created pyproject.toml constraints.txt
	$(call install,dev)
	@touch $@ $(VENV)/installed-train

# An install that was cut short can leave a package without its RECORD, which pip takes for whole.
define install
@for info in $(VENV)/lib/python3*/site-packages/*.dist-info; do \
	test -e "$$info/RECORD" || rm -rf "$$info"; done
$(BIN)/python -m pip install --disable-pip-version-check -e '.[$(1)]' -c constraints.txt
@$(BIN)/python -c "$$check_torch"
endef

# torch and torchvision from different indexes install without a word and fail when they are used.
define check_torch
import sys
from importlib.metadata import version
try:
    import torch
    import torchvision
    torchvision.ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
except Exception as error:
    sys.exit(
        f"torch {version('torch')} and torchvision {version('torchvision')} do not work together "
        f"({type(error).__name__}: {str(error).strip().splitlines()[0]}): both must come from the "
        "same index and be built for the same machine; make clean and repeat this, or install "
        "such a pair into .venv with .venv/bin/python -m pip and repeat this"
    )
endef
export check_torch
