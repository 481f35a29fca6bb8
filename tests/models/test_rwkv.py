"""RWKV blocks against the official numpy model, parameters copied."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from genossm.config import ModelConfig
from genossm.models.mixers.rwkv import RWKV, RWKV4Core, RWKV7Core, RWKVChannelMix
from tests.conftest import Equality


def tensors(path: Path) -> dict[str, Tensor]:
    data = np.load(path)
    return {name: torch.from_numpy(data[name]) for name in data.files}


def copy_(parameters: dict[str, Tensor], data: dict[str, Tensor]) -> None:
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(data[name])


def relative(got: Tensor, truth: Tensor) -> float:
    return ((got - truth).abs().max() / truth.abs().max()).item()


def test_golden_official_time_mixing(shared: Path, equality: Equality) -> None:
    data = tensors(shared / "golden" / "o09_rwkv7" / "time_mixing_first_layer.npz")
    config = ModelConfig(d_model=12, n_layer=1, mixer="rwkv7", bidirectional=False, rwkv={"headdim": 4, "rank": 3})
    block = RWKV(config).double()
    core = block.core
    assert isinstance(core, RWKV7Core)
    ours = {name: parameter for name, parameter in core.named_parameters() if "." not in name}
    ours |= {"Wr": core.Wr.weight, "Wk": core.Wk.weight, "Wv": core.Wv.weight, "Wo": block.out_proj.weight}
    ours |= {"ln_w": core.ln.weight, "ln_b": core.ln.bias}
    assert len(ours) == len(list(block.parameters()))
    copy_(ours, data)
    y, (last, S) = block(data["x"][None], state=(data["last_x0"][None, None], data["S0"].mT[None]))
    error = max(relative(y[0], data["y"]), relative(S[0].mT, data["S"]))
    equality("RWKV-7 block", "RWKV-LM", error, 1e-12)
    assert torch.equal(last[0, 0], data["x"][-1])


def test_golden_official_channel_mixing(shared: Path, equality: Equality) -> None:
    data = tensors(shared / "golden" / "o09_rwkv7" / "channel_mixing.npz")
    config = ModelConfig(d_model=12, n_layer=1, mixer="rwkv_channel_mix", bidirectional=False)
    block = RWKVChannelMix(config).double()
    copy_({"mix": block.core.mix, "Wk": block.core.key.weight, "Wv": block.out_proj.weight}, data)  # type: ignore
    y, _ = block(data["x"][None], state=(data["last_x0"][None, None],))
    equality("RWKV channel mixing", "RWKV-LM", relative(y[0], data["y"]), 1e-13)


def test_a_window_sets_the_slowest_decay() -> None:
    options = {"d_model": 64, "n_layer": 1, "dt_window": 100_000, "bidirectional": False}
    four = RWKV4Core(ModelConfig(mixer="rwkv4", **options))
    seven = RWKV7Core(ModelConfig(mixer="rwkv7", **options))
    assert torch.exp(four.time_decay).min().item() == pytest.approx(1e-5, rel=1e-3)
    assert (np.exp(-0.5) * torch.sigmoid(seven.w_bias)).min().item() == pytest.approx(1e-5, rel=1e-3)
