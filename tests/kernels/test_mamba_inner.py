"""The fused inside of a Mamba block against the float64 definition: outputs, states and all gradients."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from genossm.kernels.mamba_inner import Direction, mamba_inner
from genossm.kernels.mamba_inner.fused import fits, mamba_inner_fused
from genossm.kernels.mamba_inner.reference import mamba_inner_ref

from .conftest import LAYOUTS, Layout, relative_errors

RANK = 3
SIZES = [(2, 1, 8, 2), (2, 67, 24, 4), (1, 131, 136, 16)]  # batch, seqlen, d_inner, d_state


def make_inputs(size: tuple[int, ...], reverses: tuple[bool, ...], carried: bool) -> dict[str, Tensor]:
    batch, seqlen, dim, d_state = size
    inputs = {"xz": torch.randn(batch, seqlen, 2 * dim)}
    for i in range(len(reverses)):
        parts = {
            "conv_weight": torch.randn(dim, 4),
            "conv_bias": torch.randn(dim),
            "x_proj": torch.randn(RANK + 2 * d_state, dim) * dim**-0.5,
            "dt_proj": torch.randn(dim, RANK),
            "dt_bias": torch.randn(dim),
            "A": -torch.rand(dim, d_state) - 0.1,
            "D": torch.randn(dim),
        }
        if carried:
            parts |= {"taps": torch.randn(batch, 3, dim), "state": torch.randn(batch, dim, d_state)}
        inputs |= {f"{name}.{i}": value for name, value in parts.items()}
    return inputs


def evaluate(
    run: Callable[..., tuple[Tensor, list[tuple[Tensor, Tensor]]]],
    inputs: dict[str, Tensor],
    reverses: tuple[bool, ...],
    dtype: torch.dtype,
    mask: Tensor | None,
    segments: Tensor | None,
) -> dict[str, Tensor]:
    leaves = {name: value.to(dtype).requires_grad_() for name, value in inputs.items()}
    directions = [
        Direction(**{name.split(".")[0]: v for name, v in leaves.items() if name.endswith(f".{i}")}, reverse=reverse)
        for i, reverse in enumerate(reverses)
    ]
    y, states = run(leaves["xz"], directions, mask=mask, segments=segments)
    if mask is not None:
        y = torch.where(mask[..., None], y, 0)
    ends = {f"{name}.{i}": v for i, pair in enumerate(states) for name, v in zip(("taps", "last"), pair, strict=True)}
    weights = torch.cos(torch.arange(y.numel(), dtype=y.dtype)).view_as(y)
    loss = (y * weights).sum() + sum(v.pow(2).sum() for v in ends.values())
    gradients = torch.autograd.grad(loss, list(leaves.values()))
    return {"y": y, **ends, **{f"d{name}": g for name, g in zip(leaves, gradients, strict=True)}}


@pytest.mark.parametrize("reverses", [(False,), (True,), (False, True)], ids=["forward", "reverse", "both"])
@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda v: v.name)
@pytest.mark.parametrize("carried", [False, True], ids=["fresh", "carried"])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_fused_equals_the_definition(
    size: tuple[int, ...], carried: bool, layout: Layout, reverses: tuple[bool, ...]
) -> None:
    torch.manual_seed(0)
    mask, segments = layout.make(*size[:2])
    inputs = make_inputs(size, reverses, carried)
    fast = evaluate(mamba_inner_fused, inputs, reverses, torch.float32, mask, segments)
    truth = evaluate(mamba_inner_ref, inputs, reverses, torch.float64, mask, segments)
    errors = relative_errors(truth, fast)
    outputs = {name: error for name, error in errors.items() if not name.startswith("d")}
    assert max(outputs.values()) < 1e-5, outputs
    assert max(errors.values()) < 1e-4, errors


def test_what_is_kept_for_backward_is_few() -> None:
    """Beside xz: one tensor of d_inner columns, and what is much smaller."""
    torch.manual_seed(1)
    size, reverses = (1, 256, 128, 4), (False, True)
    inputs = {name: value.requires_grad_() for name, value in make_inputs(size, reverses, False).items()}
    directions = [
        Direction(**{n.split(".")[0]: v for n, v in inputs.items() if n.endswith(f".{i}")}, reverse=reverse)
        for i, reverse in enumerate(reverses)
    ]
    kept: dict[int, int] = {}

    def note(value: Tensor) -> Tensor:
        kept[value.data_ptr()] = value.numel()
        return value

    with torch.autograd.graph.saved_tensors_hooks(note, lambda value: value):
        mamba_inner(inputs["xz"], directions)
    tensor = 256 * 128
    assert sorted(kept.values())[-2:] == [tensor, 2 * tensor]
    assert sorted(kept.values())[-3] < tensor / 4


def test_without_gradients_and_with_odd_sizes() -> None:
    torch.manual_seed(2)
    inputs = make_inputs((2, 9, 8, 2), (False, True), False)
    directions = [Direction(**{n.split(".")[0]: v for n, v in inputs.items() if n.endswith(".0")})]
    with torch.no_grad():
        quiet, _ = mamba_inner(inputs["xz"], directions)
    assert torch.equal(quiet, mamba_inner(inputs["xz"].requires_grad_(), directions)[0])
    odd = make_inputs((2, 9, 5, 3), (False,), False)
    directions = [Direction(**{n.split(".")[0]: v for n, v in odd.items() if n.endswith(".0")})]
    assert not fits(odd["xz"], directions)
    truth, _ = mamba_inner_ref(odd["xz"], directions)
    assert torch.equal(mamba_inner(odd["xz"], directions)[0], truth)


def test_wrong_shapes_are_named() -> None:
    inputs = make_inputs((1, 5, 8, 2), (False,), False)
    directions = [Direction(**{n.split(".")[0]: v for n, v in inputs.items() if n.endswith(".0")})]
    with pytest.raises(ValueError, match="xz must have 16 columns, has 15"):
        mamba_inner(inputs["xz"][..., :15], directions)
    with pytest.raises(ValueError, match=r"mask must be \(1, 5\), is \(1, 4\)"):
        mamba_inner(inputs["xz"], directions, mask=torch.ones(1, 4, dtype=torch.bool))
