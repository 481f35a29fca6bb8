"""The time-invariant recurrence's Triton kernels against the float64 definition: outputs and every gradient."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from genossm.kernels.lti import triton_op
from genossm.kernels.lti.reference import lti_ref
from genossm.kernels.lti.triton_op import lti_triton
from genossm.kernels.targets import ScanBlocks
from tests.kernels.conftest import LAYOUTS, outputs_and_gradients, relative_errors
from tests.kernels.test_lti import make_inputs


@pytest.fixture(autouse=True)
def several_of_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of 4 tokens and blocks of 2, so that small inputs have several, the last one not full."""
    monkeypatch.setattr(triton_op, "chunk_length", lambda _seqlen: 4)
    blocks = ScanBlocks(channels=4, warps=1, back_channels=4, back_warps=1, block=2)
    monkeypatch.setitem(triton_op.BLOCKS, "interpreter", blocks)


def errors(size: tuple[int, ...], layout: int = 0, reverse: bool = False) -> dict[str, float]:
    torch.manual_seed(0)
    mask, segments = LAYOUTS[layout].make(*size[:2])
    options = {"mask": mask, "segments": segments, "reverse": reverse}
    inputs = make_inputs(*size)  # type: ignore[call-arg, arg-type]
    truth = outputs_and_gradients(partial(lti_ref, **options), inputs, torch.float64, mask)
    return relative_errors(truth, outputs_and_gradients(partial(lti_triton, **options), inputs, torch.float32, mask))


@pytest.mark.parametrize(
    ("layout", "reverse"), [(0, False), (0, True), (1, True), (2, False), (3, False), (3, True)], ids=str
)
def test_outputs_and_gradients(layout: int, reverse: bool) -> None:
    assert max(errors((2, 9, 5, 2), layout, reverse).values()) < 2e-6


def test_more_states_than_registers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton_op, "LARGEST_STATE", 2)
    assert max(errors((1, 5, 3, 3)).values()) < 2e-6


@pytest.mark.parametrize("blocks", sorted({*triton_op.BLOCKS.values()}, key=repr), ids=repr)
def test_shipped_block_shapes(monkeypatch: pytest.MonkeyPatch, blocks: ScanBlocks) -> None:
    monkeypatch.setattr(triton_op, "chunk_length", lambda _seqlen: 8)
    monkeypatch.setitem(triton_op.BLOCKS, "interpreter", blocks)
    assert max(errors((1, 11, 67, 1), 2, True).values()) < 5e-6


def test_half_precision_with_a_float32_state() -> None:
    torch.manual_seed(1)
    inputs = make_inputs(1, 7, 3, 2)
    narrow = inputs["u"].bfloat16()
    truth, last = lti_ref(**{k: v.to(torch.cdouble) for k, v in inputs.items()} | {"u": narrow.double()})
    y, state = lti_triton(**inputs | {"u": narrow})
    assert (y.double() - truth).abs().max() < 1e-2 * truth.abs().max()
    assert (state - last).abs().max() < 1e-6 * last.abs().max()
    with pytest.raises(ValueError, match="takes complex64"):
        lti_triton(**inputs | {"lam": inputs["lam"].to(torch.cdouble)})


def test_operator_contract() -> None:
    """torch's own checks of a custom operator: schema, autograd registration, fake tensors."""
    leaves = [torch.randn(size, requires_grad=True) for size in ((1, 5, 3), (2, 3, 1), (2, 3, 1), (2, 1, 3, 1))]
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    outcome = torch.library.opcheck(torch.ops.genossm.lti_triton.default, (*leaves, None, 0, True), test_utils=checks)
    assert set(outcome.values()) == {"SUCCESS"}
