"""How far back a gradient reaches: |dy_L / du_{L - lag}| of recurrent nets and of S4, before any training."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from genossm.config import ModelConfig
from genossm.config.model import MixerName
from genossm.models.mixers import build_mixer
from genossm.report.plots import Line, Plot
from genossm.science.result import Claim, Figure, Setting

D_MODEL = 32
MIXERS: dict[str, MixerName] = {"S4": "s4", "S4D": "s4d", "LSTM": "lstm", "GRU": "gru"}
TINY = 1e-30
"""Gradients below are drawn here: nothing is left of them in float32."""


def gradient_by_lag(y: Tensor, u: Tensor) -> Tensor:
    """|d sum(y_L) / d u_t| summed over channels, by lag L - t: (seqlen,) for y, u (batch, seqlen, dim)."""
    (gradient,) = torch.autograd.grad(y[:, -1].sum(), u)
    return gradient.abs().sum(-1).mean(0).flip(0)


def trace(name: str, length: int) -> Tensor:
    """The gradients of one layer, as the project starts it (the plain RNN: as PyTorch does), (length,)."""
    u = torch.randn(2, length, D_MODEL, requires_grad=True)
    if name == "RNN":
        return gradient_by_lag(nn.RNN(D_MODEL, D_MODEL, batch_first=True)(u)[0], u)
    config = ModelConfig(d_model=D_MODEL, n_layer=1, mixer=MIXERS[name], bidirectional=False)
    return gradient_by_lag(build_mixer(config)(u)[0], u)


def check(setting: Setting) -> Claim:
    """Gradients at lag 100 and at the far end."""
    length = 1024 if setting.quick else 4096
    far = length - 96
    torch.manual_seed(setting.seed)
    found = {}
    for name in ("RNN", *MIXERS):
        found[name] = trace(name, length)
        setting.advance(name)
    found = {name: values / values[0] for name, values in found.items()}
    figures = [Figure(f"{name} at lag 100", float(found[name][100]), high=1e-8) for name in ("RNN", "LSTM")]
    figures += [Figure(f"{name} at lag {far:,}", float(found[name][far]), low=1e-5) for name in ("S4", "S4D")]
    figures.append(Figure("GRU at lag 100", float(found["GRU"][100])))
    lags = np.unique(np.geomspace(1, length - 1, 120).astype(int))
    lines = [Line(name, lags.tolist(), values[lags].clamp(min=TINY).tolist()) for name, values in found.items()]
    plot = Plot("Gradient of the last output", "lag", "over that at lag 0", lines, logx=True, logy=True)
    return Claim(
        "Gradients vanish within a hundred steps of an RNN or LSTM, and reach back thousands of steps in S4.",
        f"|dy_L/du| of one fresh layer of {D_MODEL} channels over {length:,} steps of noise, over its value at lag 0",
        figures,
        [plot],
    )
