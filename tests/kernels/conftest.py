"""What the operators' tests share: inputs of odd sizes, and the comparison with the float64 definition."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor


@pytest.fixture(autouse=True)
def nan_filled_memory() -> Iterator[None]:
    """``torch.empty`` gives NaN, so an operator that reads what it did not write is seen."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@dataclass(frozen=True)
class Layout:
    """One way to lay sequences out in a batch."""

    name: str
    masked: bool = False
    packed: bool = False

    def make(self, batch: int, seqlen: int) -> tuple[Tensor | None, Tensor | None]:
        """mask and segments for a batch."""
        mask = segments = None
        if self.masked:
            mask = torch.ones(batch, seqlen, dtype=torch.bool)
            mask[0, seqlen - seqlen // 4 :] = False
            mask[-1, : seqlen // 3] = False
        if self.packed:
            segments = torch.sort(torch.randint(0, 5, (batch, seqlen)), dim=1).values
        return mask, segments


LAYOUTS = [Layout("plain"), Layout("padded", masked=True), Layout("packed", packed=True), Layout("both", True, True)]


def outputs_and_gradients(
    run: Callable[..., tuple[Tensor, Tensor]], inputs: dict[str, Tensor], dtype: torch.dtype, mask: Tensor | None
) -> dict[str, Tensor]:
    """y (zero at padding), the last state, and the gradient of every input, all from one weighted sum."""

    def cast(v: Tensor) -> Tensor:
        return v.to(dtype.to_complex() if v.is_complex() else dtype).requires_grad_()

    leaves = {name: cast(v) for name, v in inputs.items()}
    y, last = run(**leaves)
    if mask is not None:
        y = torch.where(mask.view(*mask.shape, *[1] * (y.dim() - 2)), y, 0)
    weights = torch.cos(torch.arange(y.numel(), dtype=y.dtype)).view_as(y)
    loss = (y * weights).sum() + last.abs().pow(2).sum()
    gradients = torch.autograd.grad(loss, list(leaves.values()))
    return {"y": y, "last": last, **{f"d{name}": g for name, g in zip(leaves, gradients, strict=True)}}


def relative_errors(truth: dict[str, Tensor], got: dict[str, Tensor]) -> dict[str, float]:
    """The largest absolute difference over the largest absolute value, name by name; NaN counts as infinite."""
    errors = {}
    for name, value in truth.items():
        scale = value.abs().max().item() or 1.0
        error = (value - got[name].to(value.dtype)).abs().max().item() / scale
        errors[name] = float("inf") if error != error else error
    return errors
