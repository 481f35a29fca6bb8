"""Every Triton operator on a real GPU against its definition. NOBODY HAS RUN THIS YET.

The kernels were written and checked without a GPU (tests/kernels/triton: the interpreter, and compilation ahead of
time). ``pytest -m gpu tests/kernels/test_gpu.py`` on a machine with a GPU is the first real run; please report it.
Bounds are those of the CPU kernels, doubled: a GPU's exp2 and reciprocal are approximations of two ulp.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from genossm.kernels.causal_conv1d import causal_conv1d, causal_conv1d_ref
from genossm.kernels.cross_entropy import cross_entropy, cross_entropy_ref
from genossm.kernels.embedding import embedding
from genossm.kernels.lti import lti, lti_blocked
from genossm.kernels.rms_norm import rms_norm, rms_norm_ref
from genossm.kernels.selective_scan import selective_scan, selective_scan_blocked
from genossm.kernels.ssd import ssd, ssd_chunked

from .conftest import LAYOUTS, Layout, outputs_and_gradients, relative_errors
from .test_causal_conv1d import make_inputs as conv_inputs
from .test_lti import make_inputs as lti_inputs
from .test_selective_scan import make_inputs as scan_inputs
from .test_ssd import make_inputs as ssd_inputs

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU that torch can use"),
]
BOUND = 2e-5
HALF = {torch.bfloat16: 2e-2, torch.float16: 3e-3}


def compare(
    run: Callable[..., tuple[Tensor, Tensor]],
    definition: Callable[..., tuple[Tensor, Tensor]],
    inputs: dict[str, Tensor],
    mask: Tensor | None = None,
    dtype: torch.dtype = torch.float32,
    **options: object,
) -> dict[str, float]:
    """Errors of ``run`` on the GPU against the definition in float64 there, on the values that ``dtype`` holds."""
    inputs = {k: (v if v.is_complex() else v.to(dtype)).cuda() for k, v in inputs.items()}
    options = {k: v.cuda() if isinstance(v, Tensor) else v for k, v in options.items()}
    mask = None if mask is None else mask.cuda()
    truth = outputs_and_gradients(partial(definition, mask=mask, **options), inputs, torch.float64, mask)
    return relative_errors(truth, outputs_and_gradients(partial(run, mask=mask, **options), inputs, dtype, mask))


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda v: v.name)
@pytest.mark.parametrize("size", [(2, 1, 5, 3), (2, 63, 16, 16), (3, 333, 131, 7), (1, 9001, 96, 40)], ids=str)
def test_selective_scan(size: tuple[int, ...], layout: Layout, reverse: bool) -> None:
    torch.manual_seed(0)
    mask, segments = layout.make(*size[:2])
    inputs = scan_inputs(*size)
    extra = {} if segments is None else {"segments": segments}
    errors = compare(selective_scan, selective_scan_blocked, inputs, mask, reverse=reverse, **extra)
    assert max(errors.values()) < BOUND, errors


@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_selective_scan_in_half_precision(dtype: torch.dtype) -> None:
    torch.manual_seed(1)
    inputs = scan_inputs(1, 7, 5, 4)
    errors = compare(selective_scan, selective_scan_blocked, inputs, dtype=dtype)
    assert max(errors.values()) < HALF[dtype], errors


def test_selective_scan_keeps_digits_over_a_long_memory() -> None:
    torch.manual_seed(2)
    inputs = scan_inputs(1, 131072, 32, 16)
    inputs["dt"] = torch.randn_like(inputs["dt"]) / 2 - 9.0
    inputs.pop("dt_bias")
    inputs = {name: value.cuda() for name, value in inputs.items()}
    truth = selective_scan_blocked(**{name: value.double() for name, value in inputs.items()})
    fast = selective_scan(**inputs)
    assert all((a - b).abs().max() / a.abs().max() < 5e-5 for a, b in zip(truth, fast, strict=True))


def test_equal_bits_in_every_run() -> None:
    torch.manual_seed(3)
    inputs = {k: v.cuda() for k, v in scan_inputs(2, 500, 160, 16).items()}
    runs = [outputs_and_gradients(selective_scan, inputs, torch.float32, None) for _ in range(3)]
    assert all(torch.equal(run[name], runs[0][name]) for run in runs for name in run)


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda v: v.name)
def test_lti(layout: Layout, reverse: bool) -> None:
    torch.manual_seed(4)
    mask, segments = layout.make(2, 333)
    extra = {} if segments is None else {"segments": segments}
    errors = compare(lti, lti_blocked, lti_inputs(2, 333, 67, 18), mask, reverse=reverse, **extra)
    assert max(errors.values()) < BOUND, errors


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda v: v.name)
@pytest.mark.parametrize("size", [(2, 1, 2, 1, 3, 2), (2, 333, 4, 2, 24, 18), (1, 1000, 2, 1, 64, 130)], ids=str)
def test_ssd(size: tuple[int, ...], layout: Layout, reverse: bool) -> None:
    torch.manual_seed(9)
    mask, segments = layout.make(*size[:2])
    extra = {} if segments is None else {"segments": segments}
    errors = compare(ssd, ssd_chunked, ssd_inputs(*size), mask, reverse=reverse, **extra)
    assert max(errors.values()) < BOUND, errors


@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_ssd_in_half_precision(dtype: torch.dtype) -> None:
    torch.manual_seed(10)
    errors = compare(ssd, ssd_chunked, ssd_inputs(1, 70, 2, 1, 16, 16), dtype=dtype)
    assert max(errors.values()) < 2 * HALF[dtype], errors


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda v: v.name)
def test_causal_conv1d(layout: Layout, reverse: bool) -> None:
    torch.manual_seed(5)
    mask, segments = layout.make(2, 333)
    inputs = conv_inputs(2, 333, 131, 4, True)
    extra = {} if segments is None else {"segments": segments}
    errors = compare(causal_conv1d, causal_conv1d_ref, inputs, mask, reverse=reverse, **extra)
    assert max(errors.values()) < BOUND, errors


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 333, 130), (1, 77, 1024)], ids=str)
def test_rms_norm(shape: tuple[int, ...]) -> None:
    torch.manual_seed(6)
    leaves = {"x": torch.randn(shape), "weight": torch.randn(shape[-1]), "residual": torch.randn(shape)}
    leaves = {name: value.cuda() for name, value in leaves.items()}
    truth = outputs_and_gradients(rms_norm_ref, leaves, torch.float64, None)
    errors = relative_errors(truth, outputs_and_gradients(rms_norm, leaves, torch.float32, None))
    assert max(errors.values()) < BOUND, errors


@pytest.mark.parametrize("d_model", [5, 128, 1000])
def test_cross_entropy(d_model: int) -> None:
    torch.manual_seed(7)
    leaves = [v.cuda().requires_grad_() for v in (torch.randn(3, 333, d_model), torch.randn(12, d_model))]
    labels = torch.randint(0, 12, (3, 333), device="cuda")
    labels[:, ::5] = -100
    truth = cross_entropy_ref(*(v.double() for v in leaves), labels)
    loss = cross_entropy(*leaves, labels)
    assert (loss - truth).abs().max() < BOUND * truth.abs().max()
    wanted, got = torch.autograd.grad(truth.sum(), leaves), torch.autograd.grad(loss.sum(), leaves)
    assert all((a - b).abs().max() < BOUND * a.abs().max() for a, b in zip(wanted, got, strict=True))


def test_embedding() -> None:
    torch.manual_seed(8)
    weight, ids = torch.randn(16, 130, device="cuda", requires_grad=True), torch.randint(0, 16, (3, 777), device="cuda")
    y = embedding(ids, weight)
    assert torch.equal(y, F.embedding(ids, weight))
    dy = torch.randn_like(y)
    (wanted,) = torch.autograd.grad(F.embedding(ids, weight.double()), weight, dy.double())
    (got,) = torch.autograd.grad(y, weight, dy)
    assert (got - wanted).abs().max() < BOUND * wanted.abs().max()


@pytest.mark.parametrize("operator", ["selective_scan_triton", "lti_triton", "ssd_triton", "causal_conv1d_triton"])
def test_operator_contract(operator: str) -> None:
    """torch's own checks of a custom operator: schema, autograd registration, fake tensors."""

    def leaf(*shape: int) -> Tensor:
        return torch.randn(shape, device="cuda", requires_grad=True)

    A = (-torch.rand(8, 2, device="cuda")).requires_grad_()
    arguments = {
        "selective_scan_triton": (
            leaf(1, 9, 8), leaf(1, 9, 8), A, leaf(1, 9, 2), leaf(1, 9, 2), leaf(8), leaf(1, 9, 8), leaf(8),
            leaf(1, 8, 2), None, 0, True, False,
        ),
        "lti_triton": (leaf(1, 9, 8), leaf(2, 8, 2), leaf(2, 8, 2), leaf(2, 1, 8, 2), None, 0, True),
        "ssd_triton": (
            leaf(1, 9, 2, 4), leaf(1, 9, 2), leaf(1, 9, 2), leaf(1, 9, 1, 2), leaf(1, 9, 1, 2), leaf(2, 4),
            leaf(1, 2, 2, 4), None, True,
        ),
        "causal_conv1d_triton": (leaf(1, 9, 8), leaf(8, 4), leaf(8), None, None, None, True, False),
    }  # fmt: skip
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    outcome = torch.library.opcheck(
        getattr(torch.ops.genossm, operator).default, arguments[operator], test_utils=checks
    )
    assert set(outcome.values()) == {"SUCCESS"}
