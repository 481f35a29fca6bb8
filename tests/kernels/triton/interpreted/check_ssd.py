"""The Triton kernels of Mamba-2's scan against the float64 definition: outputs and every gradient."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from genossm.kernels.ssd import ssd, triton_op
from genossm.kernels.ssd.reference import ssd_ref
from genossm.kernels.ssd.triton_op import Blocks, ssd_triton
from tests.kernels.conftest import LAYOUTS, outputs_and_gradients, relative_errors
from tests.kernels.test_ssd import make_inputs


def errors(
    inputs: dict[str, torch.Tensor], layout: int = 0, dtype: torch.dtype = torch.float32, **options
) -> dict[str, float]:
    """Against the definition in float64, on the values that ``dtype`` holds."""
    mask, segments = LAYOUTS[layout].make(*inputs["x"].shape[:2])
    options |= {"mask": mask, "segments": segments}
    inputs = {name: value.to(dtype) for name, value in inputs.items()}
    truth = outputs_and_gradients(partial(ssd_ref, **options), inputs, torch.float64, mask)
    got = outputs_and_gradients(partial(ssd_triton, **options), inputs, dtype, mask)
    return relative_errors(truth, got)


@pytest.mark.parametrize(
    ("layout", "reverse"), [(0, False), (0, True), (1, True), (2, False), (3, False), (3, True)], ids=str
)
def test_outputs_and_gradients(layout: int, reverse: bool) -> None:
    """Three chunks, the last one not full; two heads a group, and blocks wider than what is in them."""
    torch.manual_seed(0)
    assert max(errors(make_inputs(2, 37, 4, 2, 3, 5), layout, reverse=reverse).values()) < 5e-6


@pytest.mark.parametrize("seqlen", [1, 16, 33])
def test_lengths_around_a_chunk(seqlen: int) -> None:
    torch.manual_seed(1)
    inputs = make_inputs(1, seqlen, 1, 1, 17, 3) | {"D": torch.randn(1, 17)}
    found = errors(inputs, dt_limit=(1e-3, 1.0))
    assert found.pop("dA") < 1e-4  # one number, the small sum of large terms: the chunked form in torch has 1.5e-5
    assert max(found.values()) < 5e-6


def test_without_options() -> None:
    torch.manual_seed(2)
    inputs = {k: v for k, v in make_inputs(1, 20, 2, 1, 3, 3).items() if k in ("x", "dt", "A", "B", "C")}
    inputs["dt"] = inputs["dt"].abs() / 10
    assert max(errors(inputs, dt_softplus=False).values()) < 5e-6


def test_half_precision_with_a_float32_state() -> None:
    """float16 alone: the interpreter of Triton 3.9 cannot multiply bfloat16 matrices."""
    torch.manual_seed(3)
    inputs = make_inputs(1, 20, 2, 1, 3, 3)
    assert max(errors(inputs, dtype=torch.float16).values()) < 1e-2
    assert ssd_triton(**{name: value.half() for name, value in inputs.items()})[1].dtype == torch.float32


def test_more_states_than_a_program_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(4)
    monkeypatch.setattr(triton_op, "LARGEST_STATE", 2)
    assert max(errors(make_inputs(1, 18, 2, 1, 3, 5)).values()) < 5e-6


@pytest.mark.parametrize("blocks", sorted({*triton_op.BLOCKS.values()}, key=repr), ids=repr)
def test_shipped_block_shapes(monkeypatch: pytest.MonkeyPatch, blocks: Blocks) -> None:
    torch.manual_seed(5)
    monkeypatch.setitem(triton_op.BLOCKS, "interpreter", blocks)
    assert max(errors(make_inputs(1, 70, 1, 1, 17, 3), 2, reverse=True).values()) < 5e-6


def test_strided_slices_are_read_in_place() -> None:
    torch.manual_seed(6)
    x, B, C = torch.randn(2, 20, 4 * 3 + 2 * 5).split([12, 5, 5], dim=-1)
    x, B, C = x.unflatten(-1, (4, 3)), B.unflatten(-1, (1, 5)), C.unflatten(-1, (1, 5))
    dt, A = torch.randn(2, 20, 4), -torch.rand(4)
    sliced, _ = ssd_triton(x, dt, A, B, C, reverse=True)
    copied, _ = ssd_triton(x.contiguous(), dt, A, B.contiguous(), C.contiguous(), reverse=True)
    assert torch.equal(sliced, copied)


def test_chosen_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(7)
    inputs = make_inputs(1, 5, 2, 1, 3, 2)
    monkeypatch.setenv("GENOSSM_KERNELS", "triton")
    assert torch.equal(ssd(**inputs)[0], ssd_triton(**inputs)[0])
    with pytest.raises(ValueError, match=r"takes float32, bfloat16 or float16; x is torch\.float64"):
        ssd(**{name: value.double() for name, value in inputs.items()})


def test_operator_contract() -> None:
    """torch's own checks of a custom operator: schema, autograd registration, fake tensors."""
    torch.manual_seed(8)
    shapes = [(1, 9, 2, 3), (1, 9, 2), (1, 9, 2), (1, 9, 1, 2), (1, 9, 1, 2), (2, 3), (1, 2, 2, 3)]
    leaves = [torch.randn(shape) for shape in shapes]
    leaves[2] = -leaves[2].abs()
    arguments = (*(v.requires_grad_() for v in leaves), None, True)
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    outcome = torch.library.opcheck(torch.ops.genossm.ssd_triton.default, arguments, test_utils=checks)
    assert set(outcome.values()) == {"SUCCESS"}
