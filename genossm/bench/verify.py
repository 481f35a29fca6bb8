"""An operator against its definition in float64: outputs and every gradient, in every variant that it declares."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from genossm.kernels import backend
from genossm.kernels.benchmark import Case, Run

OUTPUT_BOUND, GRADIENT_BOUND = 1e-5, 1e-4
"""Largest error in float32, as a share of the largest value."""


@dataclass(frozen=True)
class Error:
    """How far one result is from the definition.

    Attributes:
        quantity: ``y``, ``y1`` ... for outputs, ``dNAME`` for the gradient of an input.
        error: largest absolute difference over the largest absolute value; infinite for NaN.
        bound: what it must stay below; None in half precision, which is shown only.
    """

    operator: str
    variant: str
    dtype: str
    quantity: str
    error: float
    bound: float | None

    @property
    def failed(self) -> bool:
        """Whether the operator must not be timed."""
        return self.bound is not None and not self.error < self.bound


def errors(case: Case, device: torch.device) -> list[Error]:
    """Every error of a case in float32, and in bfloat16 where it has activations and can take them."""
    found = []
    variants = {"plain": {}, **case.variants(case.probe)}
    for variant, extra in variants.items():
        found += _errors(case, variant, extra, torch.float32, device)
    if case.activations:
        try:
            found += _errors(case, "plain", {}, torch.bfloat16, device)
        except (RuntimeError, ValueError) as refusal:  # half precision is a GPU's; a CPU path may refuse it
            text = str(refusal).split("\n")[0]
            found.append(
                Error(case.name, "plain", "bfloat16", f"not supported on {device.type}: {text}", math.nan, None)
            )
    return found


def _errors(
    case: Case, variant: str, extra: Mapping[str, Any], dtype: torch.dtype, device: torch.device
) -> list[Error]:
    given = {
        name: value.to(dtype) if name in case.activations else value for name, value in case.inputs(case.probe).items()
    }
    with _definitions():
        truth = _results(case.reference, _cast(given, torch.float64), _cast(extra, torch.float64))
    on_device = {name: v.to(device) if isinstance(v, Tensor) else v for name, v in extra.items()}
    got = _results(case.run, {name: value.to(device) for name, value in given.items()}, on_device)
    rows = []
    for quantity, value in truth.items():
        bound = None
        if dtype == torch.float32:
            bound = GRADIENT_BOUND if quantity.startswith("d") else OUTPUT_BOUND
        error = _relative(got[quantity].cpu().to(value.dtype), value)
        rows.append(Error(case.name, variant, str(dtype).removeprefix("torch."), quantity, error, bound))
    return rows


@contextlib.contextmanager
def _definitions() -> Iterator[None]:
    """Inside, every operator is its definition."""
    before = os.environ.get(backend.VARIABLE)
    os.environ[backend.VARIABLE] = "reference"
    try:
        yield
    finally:
        if before is None:
            del os.environ[backend.VARIABLE]
        else:
            os.environ[backend.VARIABLE] = before


def _cast(given: Mapping[str, Any], dtype: torch.dtype) -> dict[str, Any]:
    def one(value: Any) -> Any:
        if not isinstance(value, Tensor) or not (value.is_floating_point() or value.is_complex()):
            return value
        return value.to(dtype.to_complex() if value.is_complex() else dtype)

    return {name: one(value) for name, value in given.items()}


def _results(run: Run, given: Mapping[str, Tensor], extra: Mapping[str, Any]) -> dict[str, Tensor]:
    """Outputs, and gradients of one weighted sum of them; y means nothing at padding, so it has no weight there."""
    leaves = {
        name: value.detach().clone().requires_grad_(value.is_floating_point() or value.is_complex())
        for name, value in given.items()
    }
    outputs = run(**leaves, **extra)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    mask = extra.get("mask")
    named = {f"y{index or ''}": value for index, value in enumerate(outputs)}
    if mask is not None:
        named["y"] = torch.where(mask.view(*mask.shape, *[1] * (named["y"].dim() - 2)), named["y"], 0)
    loss = sum((_real(value) * _weights(value)).sum() for value in named.values())
    differentiable = {name: leaf for name, leaf in leaves.items() if leaf.requires_grad}
    gradients = torch.autograd.grad(loss, list(differentiable.values()), allow_unused=True)  # type: ignore[arg-type]
    results = {name: value.detach() for name, value in named.items()}
    for name, gradient in zip(differentiable, gradients, strict=True):
        if gradient is not None:
            results[f"d{name}"] = gradient
    return results


def _real(value: Tensor) -> Tensor:
    return torch.view_as_real(value) if value.is_complex() else value


def _weights(value: Tensor) -> Tensor:
    shape = _real(value).shape
    order = torch.arange(shape.numel(), dtype=torch.float64)
    return torch.cos(order).view(shape).to(value.device, _real(value).dtype)


def _relative(got: Tensor, truth: Tensor) -> float:
    scale = truth.abs().max().item() or 1.0
    error = (got - truth).abs().max().item() / scale
    return error if error == error else float("inf")
