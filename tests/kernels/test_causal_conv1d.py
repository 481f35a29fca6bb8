"""The CPU convolution against the float64 definition, and the definition against torch's own convolution."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from genossm.kernels.causal_conv1d import causal_conv1d, causal_conv1d_cpu, causal_conv1d_ref

from .conftest import LAYOUTS, Layout, outputs_and_gradients, relative_errors

SIZES = [(2, 1, 5, 3), (2, 2, 8, 4), (2, 63, 16, 4), (3, 50, 136, 2)]  # batch, seqlen, dim, width


def make_inputs(batch: int, seqlen: int, dim: int, width: int, carried: bool) -> dict[str, Tensor]:
    inputs = {
        "x": torch.randn(batch, seqlen, dim),
        "weight": torch.randn(dim, width),
        "bias": torch.randn(dim),
    }
    return {**inputs, "initial_taps": torch.randn(batch, width - 1, dim)} if carried else inputs


@pytest.mark.parametrize("carried", [False, True], ids=["fresh", "carried"])
@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda v: v.name)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_cpu_equals_the_definition(size: tuple[int, ...], layout: Layout, reverse: bool, carried: bool) -> None:
    torch.manual_seed(0)
    mask, segments = layout.make(*size[:2])
    inputs = make_inputs(*size, carried)  # type: ignore[call-arg, arg-type]
    options = {"mask": mask, "segments": segments, "reverse": reverse}
    truth = outputs_and_gradients(partial(causal_conv1d_ref, **options), inputs, torch.float64, mask)
    fast = outputs_and_gradients(partial(causal_conv1d_cpu, **options), inputs, torch.float32, mask)
    assert max(relative_errors(truth, fast).values()) < 2e-6


@pytest.mark.parametrize("silu", [False, True])
def test_definition_is_torchs_convolution(silu: bool) -> None:
    torch.manual_seed(1)
    x, weight, bias = torch.randn(2, 20, 6).double(), torch.randn(6, 4).double(), torch.randn(6).double()
    wanted = F.conv1d(F.pad(x.mT, (3, 0)), weight[:, None], bias, groups=6).mT
    y, taps = causal_conv1d_ref(x, weight, bias, silu=silu)
    assert (y - (F.silu(wanted) if silu else wanted)).abs().max() < 1e-14
    assert torch.equal(taps, x[:, -3:])


@pytest.mark.parametrize("case", ["w2_bias_none", "w3_nobias_none_init", "w4_bias_silu", "w4_short_init"])
def test_golden_official_implementation(shared: Path, case: str) -> None:
    """Outputs and carried taps of the official causal_conv1d_ref."""
    data = np.load(shared / "golden" / "o03_causal_conv1d" / f"{case}.npz")
    x, weight = torch.from_numpy(data["x"]).mT, torch.from_numpy(data["weight"])
    bias = torch.from_numpy(data["bias"]) if "bias" in data else None
    taps = torch.from_numpy(data["initial_states"]).mT if "initial_states" in data else None
    y, final = causal_conv1d_ref(x, weight, bias, silu="silu" in case or bool(data.get("silu", 0)), initial_taps=taps)
    assert (y - torch.from_numpy(data["out"]).mT).abs().max() < 1e-12
    if "final_states" in data:
        assert (final - torch.from_numpy(data["final_states"]).mT).abs().max() < 1e-12


def test_operator_contract() -> None:
    """torch's own checks of a custom operator: schema, autograd registration, fake tensors."""
    x, weight, bias = torch.randn(1, 9, 8), torch.randn(8, 4), torch.randn(8)
    leaves = [v.requires_grad_() for v in (x, weight, bias)]
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    operator = torch.ops.genossm.causal_conv1d_cpu.default
    outcome = torch.library.opcheck(operator, (*leaves, None, None, None, True, False), test_utils=checks)
    assert set(outcome.values()) == {"SUCCESS"}


def test_wrong_shapes_are_named() -> None:
    x, weight = torch.randn(1, 5, 8), torch.randn(8, 4)
    with pytest.raises(ValueError, match=r"bias must be \(8,\), is \(7,\)"):
        causal_conv1d(x, weight, torch.zeros(7))
    with pytest.raises(ValueError, match=r"weight must be \(8, width\)"):
        causal_conv1d(x, weight[:4])
