"""The Mamba-2 block against the official implementation, parameters copied."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from genossm.config import ModelConfig
from genossm.models.mixers.ssd import SSD, GatedRMSNorm, SSDCore
from tests.conftest import Equality


def relative_error(got: torch.Tensor, wanted: np.ndarray) -> float:
    truth = torch.from_numpy(wanted)
    return ((got.double().reshape(truth.shape) - truth).abs().max() / truth.abs().max()).item()


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_golden_official_block(shared: Path, equality: Equality, dtype: torch.dtype, bound: float) -> None:
    data = np.load(shared / "golden" / "o11_mamba_blocks" / "mamba2.npz")
    config = ModelConfig(
        d_model=8, n_layer=1, mixer="ssd", d_state=5, bidirectional=False, ssd={"headdim": 4, "n_groups": 2}
    )
    block = SSD(config).to(dtype)
    core = block.core
    assert isinstance(core, SSDCore)
    ours = {
        "in_proj__weight": block.in_proj.weight,
        "conv1d__weight": core.conv_weight,
        "conv1d__bias": core.conv_bias,
        "dt_bias": core.dt_bias,
        "A_log": core.A_log,
        "D": core.D,
        "norm__weight": block.norm.weight,
        "out_proj__weight": block.out_proj.weight,
    }
    with torch.no_grad():
        for name, parameter in ours.items():
            parameter.copy_(torch.from_numpy(data[name]).view_as(parameter))
    x = torch.from_numpy(data["x"]).to(dtype).requires_grad_()
    y, (taps, state) = block(x)
    grads = torch.autograd.grad((y * torch.from_numpy(data["G_y"])).sum(), [x, *ours.values()])
    errors = {"y": relative_error(y, data["y"]), "state": relative_error(state, data["ssm_state"])}
    errors["taps"] = relative_error(taps.mT, data["conv_state"][..., 1:])
    for name, grad in zip(("x", *ours), grads, strict=True):
        errors[name] = relative_error(grad, data[f"grad_{name}"])
    equality("Mamba-2", "state-spaces/mamba", max(errors.values()), bound, str(dtype).removeprefix("torch."))


@pytest.mark.parametrize("case", ["gated_rms_after", "gated_rms_grouped_after"])
def test_golden_official_gated_norm(shared: Path, case: str) -> None:
    data = np.load(shared / "golden" / "o12_norms" / f"{case}.npz")
    norm = GatedRMSNorm(8, 8 // int(data["group_size"]), float(data["eps"])).double()
    with torch.no_grad():
        norm.weight.copy_(torch.from_numpy(data["weight"]))
    x, z = (torch.from_numpy(data[name]).requires_grad_() for name in ("x", "z"))
    out = norm(x, z)
    grads = torch.autograd.grad((out * torch.from_numpy(data["G_out"])).sum(), [x, norm.weight, z])
    assert relative_error(out, data["out"]) < 1e-12
    for name, grad in zip(("x", "weight", "z"), grads, strict=True):
        assert relative_error(grad, data[f"grad_{name}"]) < 1e-12, name


def test_initial_values_are_those_of_the_official_block() -> None:
    torch.manual_seed(0)
    config = ModelConfig(d_model=512, n_layer=1, mixer="ssd", ssd={"headdim": 4}, dt_window=10_000)
    core = SSD(config).core
    assert isinstance(core, SSDCore)
    decay, dt = torch.exp(core.A_log), torch.nn.functional.softplus(core.dt_bias)
    assert 1 <= decay.min() < 2 < 15 < decay.max() <= 16
    assert 1e-4 * 0.999 <= dt.min() < 2e-4  # 1 / dt_window, below the official dt_min
    assert dt.max() <= 0.1 * 1.001
    assert (core.D == 1).all()
