# Works on a fresh machine with Python 3.11 or newer, make and a package index.

.DEFAULT_GOAL := help
.NOTPARALLEL:

VENV := .venv
BIN := $(VENV)/bin
# The first interpreter that is new enough. To use another: make check PYTHON=python3.13
PYTHON = $(firstword $(foreach name,python3 python3.13 python3.12 python3.11 python3.14,$(shell \
	$(name) -c 'import sys; sys.version_info >= (3, 11) and print("$(name)")' 2>/dev/null)))

# One process of pytest per core, up to four. Each computes on one thread and takes whole files, in
# the order that tests/conftest.py gives them. Bytecode is kept, because tests start many processes
# that would each compile our modules again.
PYTEST := OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest \
	-n logical --maxprocesses=4 --dist loadfile --no-loadscope-reorder

# An environment copied along with its folder still points to the original folder.
ifneq ($(shell cat $(VENV)/created 2>/dev/null),$(CURDIR))
$(VENV)/created: FORCE
endif

.PHONY: help demo check test docs tables teacher clean static FORCE

help:
	@echo 'make demo      distil the bundled teacher, offline; leaves runs/demo/report.html'
	@echo 'make check     lint, types and the fast tests: run it while you work'
	@echo 'make test      lint, types and all tests: run it before you push'
	@echo 'make docs      build the documentation into build/docs; broken links fail'
	@echo 'make tables    write the schema of recipes and the tables in docs/ that follow from rows'
	@echo 'make teacher   train the bundled teacher again; needed only if its recipe changes'
	@echo 'make clean     remove $(VENV) and all build and tool output; keep runs/'

demo: $(VENV)/installed-train
	@$(BIN)/clip-distill demo

check: static
	$(PYTEST)

test: static
	$(PYTEST) -m 'slow or not slow'

static: $(VENV)/installed-dev
	$(BIN)/python -m ruff check
	$(BIN)/python -m ruff format --check
	$(BIN)/python -m mypy

docs: $(VENV)/installed-docs
	$(BIN)/python -m mkdocs build --strict

# What follows from rows in the code; tests fail while it is out of date.
tables: $(VENV)/installed-dev
	$(BIN)/python -m tests.doc_tables
	$(BIN)/clip-distill recipe --schema > configs/.schema.json.tmp
	mv configs/.schema.json.tmp configs/schema.json

teacher: $(VENV)/installed-train
	$(BIN)/python -m distill.demo.make_teacher

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache
	find students distill export benchmarks tests docs -name __pycache__ -prune -exec rm -rf {} +

# Each step leaves a stamp file: it runs once, and again only if something it depends on changes.
# An environment that already exists is used if it is new enough.
$(VENV)/created:
	@test -n '$(PYTHON)' || { echo 'clip-distill needs Python 3.11 or newer, but the PATH has' \
		'none: install one, or name it with make PYTHON=/path/to/python3' >&2; exit 1; }
	@'$(PYTHON)' -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo 'clip-distill' \
		'needs Python 3.11 or newer, but $(PYTHON) is older: name another with make' \
		'PYTHON=/path/to/python3' >&2; exit 1; }
	@$(BIN)/python -c 'import sys, pip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
		|| { set -x; '$(PYTHON)' -m venv --clear $(VENV); }
	@echo '$(CURDIR)' > $@

$(VENV)/installed-train: $(VENV)/created pyproject.toml constraints.txt
	$(call install,train)
	@$(BIN)/python -c "$$check_torch"
	@touch $@

$(VENV)/installed-dev: $(VENV)/created pyproject.toml constraints.txt
	$(call install,dev)
	@$(BIN)/python -c "$$check_torch"
	@touch $@ $(VENV)/installed-train

# The documentation is built from the sources alone, so it needs no torch.
$(VENV)/installed-docs: $(VENV)/created pyproject.toml constraints.txt
	$(call install,docs)
	@touch $@

# An interrupted install can leave a package without its RECORD, which pip takes for installed.
define install
@for info in $(VENV)/lib/python3*/site-packages/*.dist-info; do \
	test -e "$$info/RECORD" || rm -rf "$$info"; done
$(BIN)/python -m pip install --disable-pip-version-check -e '.[$(1)]' -c constraints.txt
endef

# torch and torchvision from different indexes install without a warning, but fail when used.
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
        "same index and be built for the same machine; run make clean and try again, or install "
        "a matching pair with .venv/bin/python -m pip and try again"
    )
endef
export check_torch
