"""HiPPO as a memory: how well the past is rebuilt from 64 coefficients, against the length read."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from genossm.models.ssm.discretize import dense_zoh
from genossm.models.ssm.hippo import transition
from genossm.report.plots import Line, Plot
from genossm.science.result import Claim, Figure, Setting

STATES = 64
Array = npt.NDArray[np.float64]


def smooth_signal(x: Array, seed: int) -> Array:
    """A sum of four sines with random phases, at most four turns over the unit interval."""
    generator = np.random.default_rng(seed)
    phases, weights = generator.uniform(0, 2 * np.pi, 4), generator.standard_normal(4)
    turns = np.arange(1, 5)
    return np.asarray(np.sin(2 * np.pi * turns * x[:, None] + phases) @ weights)


def relative_rmse(got: Array, truth: Array) -> float:
    """The root of the mean squared error over that of the truth."""
    return float(np.sqrt(np.mean((got - truth) ** 2) / np.mean(truth**2)))


def legendre_series(coefficients: Array, x: Array) -> Array:
    """sum_n c_n sqrt(2n + 1) P_n(2x - 1) at x in 0..1."""
    scale = np.sqrt(2 * np.arange(len(coefficients)) + 1)
    return np.asarray(np.polynomial.legendre.legval(2 * x - 1, coefficients * scale))


def legs_online(signal: Array, n: int) -> Array:
    """c_k of the true, time-varying HiPPO-LegS, read one sample at a time (arXiv:2008.07669, equation 4, bilinear).

    (I - A / 2k) c_k = (I + A / 2k) c_{k-1} + B f_k / k; A is triangular, so a step costs O(n^2).
    """
    A, B = transition("legs", n)
    identity, c = torch.eye(n, dtype=torch.float64), torch.zeros(n, dtype=torch.float64)
    for k, value in enumerate(signal.tolist(), start=1):
        half = A / (2 * k)
        right = (identity + half) @ c + B * (value / k)
        c = torch.linalg.solve_triangular(identity - half, right[:, None], upper=False)[:, 0]
    return c.numpy()


def legs_error(length: int, seed: int) -> float:
    """Relative RMSE of everything that was read, rebuilt from the last coefficients."""
    x = (np.arange(length) + 0.5) / length
    signal = smooth_signal(x, seed)
    return relative_rmse(legendre_series(legs_online(signal, STATES), x), signal)


def legt_error(length: int, seed: int) -> float:
    """Relative RMSE of the last half of a signal, rebuilt from LegT with a window of that half; ZOH."""
    x = (np.arange(length) + 0.5) / length
    signal, window = smooth_signal(2 * x, seed), length // 2
    A_bar, B_bar = dense_zoh(*transition("legt", STATES), torch.tensor(2 / window, dtype=torch.float64))
    c = torch.zeros(STATES, dtype=torch.float64)
    for value in signal.tolist():
        c = A_bar @ c + B_bar * value
    kept = signal[-window:]
    return relative_rmse(legendre_series(c.numpy(), (np.arange(window) + 0.5) / window), kept)


def check(setting: Setting) -> Claim:
    """Errors of LegS and LegT against the length, and the fitted slope."""
    lengths = [250, 500, 1000] if setting.quick else [500, 1000, 2000, 4000, 8000]
    legs, legt = [], []
    for length in lengths:
        legs.append(legs_error(length, setting.seed))
        legt.append(legt_error(length, setting.seed))
        setting.advance(f"{length} samples")
    slope = float(np.polyfit(np.log(lengths), np.log(legs), 1)[0])
    figures = [
        Figure(f"LegS, relative error after {lengths[-1]:,} samples", legs[-1], high=STATES / lengths[-1]),
        Figure("LegS, slope of log error against log length", slope, -1.3, -0.7),
        Figure(f"LegT, relative error of the window, {lengths[-1]:,} samples", legt[-1], high=20 / lengths[-1]),
    ]
    guide = [legs[0] * lengths[0] / length for length in lengths]
    lines = [Line("LegS, whole past", lengths, legs), Line("LegT, sliding window", lengths, legt)]
    plot = Plot(
        "Reconstruction from 64 coefficients", "samples read", "relative error",
        [*lines, Line("1 / length", lengths, guide, dashed=True)], logx=True, logy=True,
    )  # fmt: skip
    return Claim(
        "HiPPO coefficients hold the whole history: the error is that of the sampling, and falls as 1 / length.",
        "a smooth signal of at most 4 turns, read sample by sample; LegS time-varying, LegT by ZOH",
        figures,
        [plot],
    )
