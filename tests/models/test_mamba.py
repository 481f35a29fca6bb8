"""The Mamba block against the official implementation, parameters copied."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from genossm.config import ModelConfig
from genossm.models.mixers.mamba import Mamba, MambaCore
from tests.conftest import Equality


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_golden_official_block(shared: Path, equality: Equality, dtype: torch.dtype, bound: float) -> None:
    data = np.load(shared / "golden" / "o11_mamba_blocks" / "mamba1.npz")
    config = ModelConfig(d_model=6, n_layer=1, d_state=4, dt_rank=1, bidirectional=False)
    block = Mamba(config).to(dtype)
    core = block.core
    assert isinstance(core, MambaCore)
    ours = {
        "in_proj__weight": block.in_proj.weight,
        "conv1d__weight": core.conv_weight,
        "conv1d__bias": core.conv_bias,
        "x_proj__weight": core.x_proj.weight,
        "dt_proj__weight": core.dt_proj.weight,
        "dt_proj__bias": core.dt_bias,
        "A_log": core.A_log,
        "D": core.D,
        "out_proj__weight": block.out_proj.weight,
    }
    with torch.no_grad():
        for name, parameter in ours.items():
            parameter.copy_(torch.from_numpy(data[name]).view_as(parameter))
    x = torch.from_numpy(data["x"]).to(dtype).requires_grad_()
    y, (taps, h) = block(x)
    grads = torch.autograd.grad((y * torch.from_numpy(data["G_y"])).sum(), [x, *ours.values()])

    def error(got: Tensor, wanted: np.ndarray) -> float:
        truth = torch.from_numpy(wanted)
        return ((got.double().reshape(truth.shape) - truth).abs().max() / truth.abs().max()).item()

    errors = {"y": error(y, data["y"]), "h": error(h, data["ssm_state"])}
    errors["taps"] = error(taps.mT, data["conv_state"][..., 1:])
    errors |= {name: error(grad, data[f"grad_{name}"]) for name, grad in zip(("x", *ours), grads, strict=True)}
    equality("Mamba", "state-spaces/mamba", max(errors.values()), bound, str(dtype).removeprefix("torch."))
