"""Tiles of any size give the same as whole matrices, in linear memory."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.distill.losses.cases import CASES, NAMES
from tests.distill.losses.references import ONE_PASS_TERMS, ROWS, make
from tests.lazy import lazy_imports

with lazy_imports():
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from distill.losses.contrastive import contrastive
    from distill.losses.distributions import kl_divergence
    from distill.losses.tiled.tiles import tiling

MEMORY = """
import json, os, resource, sys, torch
from distill.losses.catalogue import TERMS
from distill.losses.embeddings import Embeddings
from distill.losses.weighted import term_function
torch.set_num_threads(1)
def model(rows):
    image, text = (torch.nn.functional.normalize(torch.randn(rows, 64), dim=1) for _ in range(2))
    return Embeddings(image.requires_grad_(), text.requires_grad_(), torch.tensor(20.0))
def step(name, rows):
    student, teacher = model(rows), model(rows)
    if name == "a whole matrix":
        return student.image @ student.text.T
    partners = torch.arange(rows)[:, None].expand(-1, 2)
    given = dict(
        student=student, teacher=teacher, groups=torch.arange(rows) // 2,
        student_image=student.image, teacher_image=teacher.image,
        student_scale=student.scale, teacher_scale=teacher.scale,
        bank=teacher.text, corpus_image=teacher.image, corpus_text=teacher.text,
        image_partners=partners, text_partners=partners,
    )
    row = TERMS[name]
    value = term_function(row.name)(*(given[name] for name in row.inputs))
    value.backward()
def limited(name):
    torch.manual_seed(0)
    step(name, 256)
    # Resident memory is a poor measure: the system may reclaim idle pages.
    held = next(line.split() for line in open("/proc/self/status") if line.startswith("VmData:"))
    resource.setrlimit(resource.RLIMIT_DATA, (1024 * int(held[1]) + int(sys.argv[1]),) * 2)
    step(name, 8192)
found = {}
for name in sys.argv[2:]:
    # Each term runs in its own process, so limits do not mix; torch is imported once.
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            limited(name)
        except BaseException as error:
            os.write(writer, f"{type(error).__name__}: {error}".encode()[:4096])
            os._exit(1)
        os._exit(0)
    os.close(writer)
    with open(reader) as file:
        said = file.read()
    found[name] = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), said
print(json.dumps(found))
"""


def gradients(function, *, dtype, **arguments):
    student = make(0, dtype=dtype, grad=True, **arguments)
    value = function(student, make(1, dtype=dtype, **arguments))
    value.backward()
    found = [value.detach(), student.image.grad, student.text.grad, student.scale.grad]
    return [torch.zeros(()) if tensor is None else tensor for tensor in found]


@pytest.mark.parametrize(("precision", "tolerance"), [("float64", 1e-9), ("float32", 1e-6)])
@pytest.mark.parametrize("rows", [1, 2, 3, ROWS, 100])
@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_tiles_of_any_size_equal_plain_torch(case, rows, precision, tolerance):
    dtype = getattr(torch, precision)

    def tiled(student, teacher):
        with tiling(rows=rows):
            return case(student, teacher)

    expected = gradients(case.in_plain_torch, dtype=dtype)
    for ours, theirs in zip(gradients(tiled, dtype=dtype), expected, strict=True):
        largest = max(1.0, theirs.abs().max().item())
        torch.testing.assert_close(ours, theirs, rtol=0, atol=tolerance * largest)


@pytest.mark.parametrize("scale", [100.0, 1e4])
@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_rows_with_distant_logits_keep_their_accuracy(case, scale):
    def tiled(student, teacher):
        with tiling(rows=3):
            return case(student, teacher)

    arguments = {"dtype": torch.float64, "scale": scale}
    expected = gradients(case.in_plain_torch, **arguments)
    for ours, theirs in zip(gradients(tiled, **arguments), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


ONE_PASS = [case for case in CASES if case.term in ONE_PASS_TERMS]


def operations(function):
    with FlopCounterMode(display=False) as counter:
        function()
    return counter.get_total_flops()


@pytest.mark.parametrize("rows", [2, None])
@pytest.mark.parametrize("case", ONE_PASS, ids=str)
def test_one_pass_terms_compute_no_more_products_than_whole_matrices(case, rows):
    def step(function):
        student, teacher = make(0, grad=True), make(1)
        with tiling(rows=rows):
            return operations(lambda: function(student, teacher).backward())

    assert 0 < step(case) <= step(case.in_plain_torch)


@pytest.mark.parametrize("rows", [2, None])
@pytest.mark.parametrize("case", ONE_PASS, ids=str)
def test_nothing_is_computed_for_a_gradient_that_is_not_needed(case, rows):
    def forward(*, grad):
        student, teacher = make(0, grad=grad), make(1, grad=True)
        with tiling(rows=rows):
            return operations(lambda: case(student, teacher))

    with torch.no_grad():
        expected = operations(lambda: case.in_plain_torch(make(0), make(1)))
        assert 0 < forward(grad=True) <= expected
    assert 0 < forward(grad=False) <= expected


def test_the_setting_of_the_forward_pass_holds_in_the_backward_pass():
    student, teacher = make(0, grad=True), make(1)
    with tiling(rows=2):
        value = kl_divergence(student, teacher)
    value.backward()
    inside = student.image.grad
    student = make(0, grad=True)
    kl_divergence(student, teacher).backward()
    torch.testing.assert_close(inside, student.image.grad)


def test_spreading_over_a_single_process_changes_nothing():
    student = make(0)
    with tiling(spread=True):
        spread = contrastive(student)
    assert torch.equal(spread, contrastive(student))


@pytest.mark.parametrize("rows", [0, -1])
def test_a_tile_needs_at_least_one_row(rows):
    with pytest.raises(ValueError, match="must be at least 1"), tiling(rows=rows):
        pass


@pytest.fixture(scope="module")
def with_half_a_matrix():
    """Run each step of 8,192 rows in a process that may take only half of a matrix more.

    Return exit status and error of each.
    """
    if not Path("/proc/self/status").exists():
        pytest.skip("the size is read from /proc")
    names = [*sorted({case.term for case in CASES}), "a whole matrix"]
    half = 8192 * 8192 * 4 // 2
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(half), *names], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("term", sorted({case.term for case in CASES}))
def test_no_whole_matrix_is_held(term, with_half_a_matrix):
    assert with_half_a_matrix[term] == [0, ""]


@pytest.mark.slow
def test_a_whole_matrix_would_not_fit(with_half_a_matrix):
    status, error = with_half_a_matrix["a whole matrix"]
    assert status == 1
    assert "can't allocate memory" in error
