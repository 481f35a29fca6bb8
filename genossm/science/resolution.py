"""A change of resolution: the same signal sampled twice as often, with half the time step."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from genossm.kernels.lti import lti
from genossm.models.ssm.discretize import bilinear, zoh
from genossm.models.ssm.init import s4d_eigenvalues
from genossm.report.plots import Line, Plot
from genossm.science.result import Claim, Figure, Setting

DIM, PAIRS = 16, 32


def euler_input(eigenvalues: Tensor, dt: Tensor) -> tuple[Tensor, Tensor]:
    """Mamba's rule: exact decay, B_bar = dt B."""
    return eigenvalues * dt, dt.expand_as(eigenvalues).to(eigenvalues.dtype)


RULES = {"zero-order hold": zoh, "bilinear": bilinear, "Mamba's (Euler input)": euler_input}


def mismatch(rule: str, u: Tensor, dt: Tensor, C: Tensor) -> float:
    """Largest difference, over the largest output, of u at dt and of every u twice at dt / 2; u (1, seqlen, DIM)."""
    eigenvalues = s4d_eigenvalues("lin", PAIRS).repeat(DIM, 1)
    outputs = []
    for repeat in (1, 2):
        log_decay, factor = RULES[rule](eigenvalues, dt[:, None] / repeat)
        y, _ = lti(u.repeat_interleave(repeat, dim=1), log_decay, C * factor)
        outputs.append(y[:, repeat - 1 :: repeat])
    return float((outputs[0] - outputs[1]).abs().max() / outputs[0].abs().max())


def check(setting: Setting) -> Claim:
    """Mismatches of three discretisations on a smooth signal and on noise."""
    length = 256 if setting.quick else 2048
    generator = torch.Generator().manual_seed(setting.seed)
    t = torch.linspace(0, 1, length, dtype=torch.float64)
    smooth = torch.sin(2 * torch.pi * torch.outer(t, torch.linspace(1, 4, DIM, dtype=torch.float64)))[None]
    noise = torch.randn(1, length, DIM, generator=generator, dtype=torch.float64)
    C = torch.randn(DIM, PAIRS, generator=generator, dtype=torch.complex128)
    steps = np.geomspace(1e-3, 1e-1, 3 if setting.quick else 7).tolist()
    on_noise: dict[str, list[float]] = {rule: [] for rule in RULES}
    on_smooth: dict[str, list[float]] = {rule: [] for rule in RULES}
    for step in steps:
        dt = torch.full((DIM,), step, dtype=torch.float64)
        for rule in RULES:
            on_noise[rule].append(mismatch(rule, noise, dt, C))
            on_smooth[rule].append(mismatch(rule, smooth, dt, C))
        setting.advance(f"dt {step:.2g}")
    figures = [
        Figure("zero-order hold, largest mismatch", max(*on_noise["zero-order hold"], *on_smooth["zero-order hold"]),
               high=1e-11),
        Figure("bilinear on a smooth signal, largest", max(on_smooth["bilinear"])),
        Figure("bilinear on noise, largest", max(on_noise["bilinear"]), low=1e-3),
        Figure("Mamba's rule on noise, largest", max(on_noise["Mamba's (Euler input)"]), low=1e-3),
    ]  # fmt: skip
    lines = [Line(f"{rule}, noise", steps, values) for rule, values in on_noise.items()]
    lines += [Line(f"{rule}, smooth", steps, values, dashed=True) for rule, values in on_smooth.items()]
    plot = Plot("Twice the resolution, half the time step", "dt", "relative mismatch", lines, logx=True, logy=True)
    return Claim(
        "S4 reads another resolution by rescaling its time step; with zero-order hold exactly, else approximately.",
        f"{DIM} diagonal channels of {PAIRS} pairs, {length:,} samples; meaningful for signal tracks, not for bases",
        figures,
        [plot],
    )
