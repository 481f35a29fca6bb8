"""The selective scan's Triton kernels against the float64 definition: outputs and every gradient."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from genossm.kernels.selective_scan import selective_scan, triton_op
from genossm.kernels.selective_scan.reference import selective_scan_ref
from genossm.kernels.selective_scan.triton_op import selective_scan_triton
from genossm.kernels.targets import ScanBlocks
from tests.kernels.conftest import LAYOUTS, Layout, outputs_and_gradients, relative_errors
from tests.kernels.test_selective_scan import make_inputs

PLAIN = LAYOUTS[0]


@pytest.fixture(autouse=True)
def several_of_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of 4 tokens and blocks of 2, so that small inputs have several, the last one not full."""
    monkeypatch.setattr(triton_op, "chunk_length", lambda _seqlen: 4)
    blocks = ScanBlocks(channels=4, warps=1, back_channels=4, back_warps=1, block=2)
    monkeypatch.setitem(triton_op.BLOCKS, "interpreter", blocks)


def errors(inputs: dict[str, torch.Tensor], layout: Layout = PLAIN, dtype=torch.float32, **options) -> dict[str, float]:
    """Against the definition in float64, on the values that ``dtype`` holds."""
    mask, segments = layout.make(*inputs["u"].shape[:2])
    options |= {"mask": mask, "segments": segments}
    inputs = {name: value.to(dtype) for name, value in inputs.items()}
    truth = outputs_and_gradients(partial(selective_scan_ref, **options), inputs, torch.float64, mask)
    got = outputs_and_gradients(partial(selective_scan_triton, **options), inputs, dtype, mask)
    return relative_errors(truth, got)


@pytest.mark.parametrize(
    ("layout", "reverse"), [(0, False), (0, True), (1, True), (2, False), (3, False), (3, True)], ids=str
)
def test_outputs_and_gradients(layout: int, reverse: bool) -> None:
    torch.manual_seed(0)
    found = errors(make_inputs(2, 9, 5, 2), LAYOUTS[layout], reverse=reverse)
    assert max(found["y"], found["last"]) < 1e-6
    assert max(found.values()) < 2e-6


def test_without_options() -> None:
    torch.manual_seed(1)
    inputs = {k: v for k, v in make_inputs(1, 7, 3, 3).items() if k in ("u", "dt", "A", "B", "C")}
    inputs["dt"] = inputs["dt"].abs()
    assert max(errors(inputs, dt_softplus=False).values()) < 2e-6


@pytest.mark.parametrize(("dtype", "bound"), [(torch.bfloat16, 2e-2), (torch.float16, 2e-3)], ids=str)
def test_half_precision_with_a_float32_state(dtype: torch.dtype, bound: float) -> None:
    torch.manual_seed(2)
    assert max(errors(make_inputs(1, 6, 5, 2), dtype=dtype).values()) < bound


def test_more_states_than_registers(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(3)
    monkeypatch.setattr(triton_op, "LARGEST_STATE", 2)
    assert max(errors(make_inputs(1, 5, 3, 3)).values()) < 2e-6


@pytest.mark.parametrize("blocks", sorted({*triton_op.BLOCKS.values()}, key=repr), ids=repr)
def test_shipped_block_shapes(monkeypatch: pytest.MonkeyPatch, blocks: ScanBlocks) -> None:
    """The shapes of every GPU, with a block of tokens and a block of channels that are not full."""
    torch.manual_seed(4)
    monkeypatch.setattr(triton_op, "chunk_length", lambda _seqlen: 8)
    monkeypatch.setitem(triton_op.BLOCKS, "interpreter", blocks)
    assert max(errors(make_inputs(1, 11, 67, 1), LAYOUTS[2], reverse=True).values()) < 5e-6


def test_strided_slices_are_read_in_place() -> None:
    torch.manual_seed(5)
    xz, parameters = torch.randn(2, 6, 10), torch.randn(2, 6, 9)
    (u, z), (dt, B, C) = xz.chunk(2, dim=-1), parameters.split([5, 2, 2], dim=-1)
    A = -torch.rand(5, 2)
    sliced, _ = selective_scan_triton(u, dt, A, B, C, z=z, reverse=True)
    copied, _ = selective_scan_triton(*(v.contiguous() for v in (u, dt, A, B, C)), z=z.contiguous(), reverse=True)
    assert torch.equal(sliced, copied)


def test_long_memory_keeps_its_digits() -> None:
    """Time steps near 1e-4, where log(1 + exp(x)) taken literally would keep three digits."""
    torch.manual_seed(6)
    inputs = make_inputs(1, 6, 4, 1) | {"dt": torch.randn(1, 6, 4) / 2 - 9.0}
    inputs.pop("dt_bias")
    assert max(errors(inputs).values()) < 2e-6


def test_chosen_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(7)
    inputs = make_inputs(1, 5, 3, 1)
    monkeypatch.setenv("GENOSSM_KERNELS", "triton")
    chosen, _ = selective_scan(**inputs)
    assert torch.equal(chosen, selective_scan_triton(**inputs)[0])
    with pytest.raises(ValueError, match=r"takes float32, bfloat16 or float16; u is torch\.float64"):
        selective_scan(**{name: value.double() for name, value in inputs.items()})


def test_operator_contract() -> None:
    """torch's own checks of a custom operator: schema, autograd registration, fake tensors."""
    inputs = [v.requires_grad_() for v in make_inputs(1, 5, 3, 1).values()]
    arguments = (*inputs, None, 0, True, True)
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    outcome = torch.library.opcheck(torch.ops.genossm.selective_scan_triton.default, arguments, test_utils=checks)
    assert set(outcome.values()) == {"SUCCESS"}
