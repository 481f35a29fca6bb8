"""The convolution's Triton kernels against the float64 definition: outputs and every gradient."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from genossm.kernels.causal_conv1d import causal_conv1d_ref, causal_conv1d_triton, triton_op
from genossm.kernels.targets import RowBlocks
from tests.kernels.conftest import LAYOUTS, outputs_and_gradients, relative_errors
from tests.kernels.test_causal_conv1d import make_inputs


@pytest.fixture(autouse=True)
def several_of_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of 4 tokens and blocks of 4 channels, so that small inputs have several."""
    monkeypatch.setattr(triton_op, "CHUNK", 4)
    monkeypatch.setitem(triton_op.BLOCKS, "interpreter", RowBlocks(elements=4, warps=1))


def errors(size: tuple[int, ...], layout: int, carried: bool, dtype=torch.float32, **options) -> dict[str, float]:
    torch.manual_seed(0)
    mask, segments = LAYOUTS[layout].make(*size[:2])
    options |= {"mask": mask, "segments": segments}
    inputs = {name: value.to(dtype) for name, value in make_inputs(*size, carried).items()}  # type: ignore[call-arg]
    truth = outputs_and_gradients(partial(causal_conv1d_ref, **options), inputs, torch.float64, mask)
    got = outputs_and_gradients(partial(causal_conv1d_triton, **options), inputs, dtype, mask)
    return relative_errors(truth, got)


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize("layout", range(4), ids=lambda i: LAYOUTS[i].name)
def test_outputs_and_gradients(layout: int, reverse: bool) -> None:
    carried = reverse == (layout % 2 == 1)
    assert max(errors((2, 9, 3, 4), layout, carried, reverse=reverse).values()) < 2e-6


@pytest.mark.parametrize("size", [(1, 1, 3, 4), (1, 2, 3, 4), (1, 5, 5, 2)], ids=str)
def test_short_rows_and_few_taps(size: tuple[int, ...]) -> None:
    assert max(errors(size, 0, True, silu=False).values()) < 2e-6


def test_one_tap() -> None:
    x, weight = torch.randn(1, 5, 3).requires_grad_(), torch.randn(3, 1)
    y, taps = causal_conv1d_triton(x, weight, silu=False)
    assert torch.allclose(y, x * weight.T)
    assert torch.allclose(torch.autograd.grad(y.sum(), x)[0], weight.T.expand(1, 5, 3))
    assert taps.shape == (1, 0, 3)


@pytest.mark.parametrize("blocks", sorted({*triton_op.BLOCKS.values()}, key=repr), ids=repr)
def test_shipped_block_shapes(monkeypatch: pytest.MonkeyPatch, blocks: RowBlocks) -> None:
    monkeypatch.setitem(triton_op.BLOCKS, "interpreter", blocks)
    assert max(errors((1, 6, 131, 4), 2, False).values()) < 2e-6


@pytest.mark.parametrize(("dtype", "bound"), [(torch.bfloat16, 2e-2), (torch.float16, 2e-3)], ids=str)
def test_half_precision(dtype: torch.dtype, bound: float) -> None:
    assert max(errors((1, 6, 5, 4), 0, True, dtype=dtype).values()) < bound


def test_strided_input_is_read_in_place() -> None:
    wide, weight = torch.randn(2, 6, 10), torch.randn(5, 3)
    sliced, _ = causal_conv1d_triton(wide[..., 2:7], weight, reverse=True)
    copied, _ = causal_conv1d_triton(wide[..., 2:7].contiguous(), weight, reverse=True)
    assert torch.equal(sliced, copied)
