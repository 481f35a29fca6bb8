"""The operators of RWKV-4 and RWKV-7 against their definitions and the official outputs."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from genossm.kernels import delta_rule as rwkv7
from genossm.kernels import wkv as rwkv4
from tests.conftest import Equality

from .conftest import LAYOUTS, Layout, outputs_and_gradients, relative_errors


def wkv_inputs(batch: int, seqlen: int, dim: int) -> dict[str, Tensor]:
    return {
        "k": 3 * torch.randn(batch, seqlen, dim),
        "v": torch.randn(batch, seqlen, dim),
        "w": -torch.rand(dim),
        "u": torch.randn(dim),
        "num": torch.randn(batch, dim),
        "den": torch.rand(batch, dim) + 1,
        "top": torch.randn(batch, dim),
    }


def run_wkv(run, *, num: Tensor, den: Tensor, top: Tensor, **inputs) -> tuple[Tensor, Tensor]:
    y, state = run(**inputs, initial_state=(num, den, top))
    return y, torch.stack(state)


def delta_inputs(batch: int, seqlen: int, heads: int) -> dict[str, Tensor]:
    r, k, v, kappa = torch.randn(4, batch, seqlen, heads, 4)
    return {
        "r": r,
        "w": -0.6 * torch.rand(batch, seqlen, heads, 4),
        "k": k,
        "v": v[..., :3],
        "kappa": torch.nn.functional.normalize(kappa, dim=-1),
        "a": torch.rand(batch, seqlen, heads, 4),
        "initial_state": torch.randn(batch, heads, 4, 3),
    }


CASES = {
    "wkv": (wkv_inputs, partial(run_wkv, rwkv4.wkv_ref), partial(run_wkv, rwkv4.wkv_lanes)),
    "delta_rule": (delta_inputs, *rwkv7.BACKENDS.values()),
}


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda v: v.name)
@pytest.mark.parametrize("size", [(2, 1, 3), (2, 64, 2), (3, 131, 2)], ids=str)
@pytest.mark.parametrize("operator", CASES)
def test_the_torch_backend_equals_the_definition(
    operator: str, size: tuple[int, ...], layout: Layout, reverse: bool
) -> None:
    torch.manual_seed(0)
    make_inputs, reference, fast = CASES[operator]
    mask, segments = layout.make(*size[:2])
    inputs = make_inputs(*size)
    options = {"mask": mask, "segments": segments, "reverse": reverse}
    truth = outputs_and_gradients(partial(reference, **options), inputs, torch.float64, mask)
    for dtype, bound in ((torch.float64, 1e-11), (torch.float32, 2e-5)):
        got = outputs_and_gradients(partial(fast, **options), inputs, dtype, mask)
        errors = relative_errors(truth, got)
        assert max(errors.values()) < bound, errors


@pytest.mark.parametrize("backend", rwkv4.BACKENDS)
@pytest.mark.parametrize("case", ["wkv", "wkv_carry_bigkeys"])
def test_golden_official_wkv(shared: Path, equality: Equality, backend: str, case: str) -> None:
    """Keys near 150 and a state from the start: exp would overflow."""
    data = np.load(shared / "golden" / "o08_rwkv4_wkv" / f"{case}.npz")
    names = [n for n in ("time_decay", "time_first", "key", "value", "num0", "den0", "max0") if n in data]
    decay, u, k, v, *state = leaves = [torch.from_numpy(data[n]).requires_grad_() for n in names]
    y, last = rwkv4.BACKENDS[backend](k, v, -torch.exp(decay), u, initial_state=tuple(state) if state else None)
    got = dict(zip(("out", "num_state", "den_state", "max_state"), (y, *last), strict=True))
    loss = sum((value * torch.from_numpy(data[f"G_{name}"])).sum() for name, value in got.items())
    got |= {f"grad_{n}": g for n, g in zip(names, torch.autograd.grad(loss, leaves), strict=True)}
    errors = relative_errors({n: torch.from_numpy(data[n]) for n in got}, got)
    equality("RWKV-4", "transformers", max(errors.values()), 1e-12)


@pytest.mark.parametrize("backend", rwkv7.BACKENDS)
def test_golden_official_recurrence(shared: Path, equality: Equality, backend: str) -> None:
    data = np.load(shared / "golden" / "o09_rwkv7" / "recurrence.npz")
    names = ("r_", "w", "k", "v", "kappa", "a", "S0")
    leaves = [torch.from_numpy(data[n]).requires_grad_() for n in names]
    parts = [leaf.transpose(1, 2) for leaf in leaves[:-1]]
    y, S = rwkv7.BACKENDS[backend](*parts, initial_state=leaves[-1])
    got = {"y": y.transpose(1, 2), "S": S}
    loss = sum((value * torch.from_numpy(data[f"G_{name}"])).sum() for name, value in got.items())
    got |= {f"grad_{n}": g for n, g in zip(names, torch.autograd.grad(loss, leaves), strict=True)}
    errors = relative_errors({n: torch.from_numpy(data[n]) for n in got}, got)
    equality("RWKV-7", "flash-linear-attention", max(errors.values()), 1e-11)


def test_wrong_shapes_are_named() -> None:
    k = torch.randn(1, 5, 3)
    with pytest.raises(ValueError, match=r"u must be \(3,\), is \(2,\)"):
        rwkv4.wkv(k, k, k[0, 0], k[0, 0, :2])
    inputs = delta_inputs(1, 5, 2)
    with pytest.raises(ValueError, match=r"kappa must be \(1, 5, 2, 4\), is \(1, 5, 2, 3\)"):
        rwkv7.delta_rule(**{**inputs, "kappa": inputs["kappa"][..., :3]})
