"""The S4 kernel: its accuracy against the dense power series, and its cost at full length."""

from __future__ import annotations

import time

import torch
from torch import Tensor

from genossm.config import ModelConfig
from genossm.models.mixers.lti import DPLRCore
from genossm.models.ssm.discretize import dense_gbt
from genossm.models.ssm.hippo import nplr
from genossm.models.ssm.kernel import dplr_kernel, krylov, real_form
from genossm.report.plots import Plot
from genossm.science.result import Claim, Figure, Setting

STATES, CHANNELS = 64, 256


def power_series(A_bar: Tensor, B_bar: Tensor, C: Tensor, length: int) -> Tensor:
    """C A_bar^l B_bar for l < length, one dense product after another: (length,)."""
    x, out = B_bar, []
    for _ in range(length):
        out.append(C @ x)
        x = A_bar @ x
    return torch.stack(out)


def errors(dtype: torch.dtype, length: int, seed: int) -> dict[str, float]:
    """Largest error over the largest value, of the generating function and of doubling, at dt = 1e-3."""
    form = nplr("legs", STATES)
    dt = torch.tensor([1e-3], dtype=dtype)
    weights = torch.randn(STATES // 2, dtype=torch.complex128, generator=torch.Generator().manual_seed(seed))
    system = (form.eigenvalues, form.P, form.B, weights)
    eigenvalues, P, B, C = (value.to(dtype.to_complex())[None] for value in system)
    A, b, c = real_form(*(value.to(torch.complex128) for value in (eigenvalues, P, B, C)))
    A_bar, B_bar = dense_gbt(A, b, dt.double())
    truth = power_series(A_bar[0], B_bar[0], c[0], length)
    found = {
        "generating function": dplr_kernel(eigenvalues, P, B, C, dt, length)[0],
        "doubling": krylov(A_bar.to(dtype), B_bar.to(dtype), c.to(dtype), length)[0],
    }
    return {name: float((kernel - truth).abs().max() / truth.abs().max()) for name, kernel in found.items()}


def seconds(length: int) -> float:
    """The fastest of three, for the kernels of all channels of a layer of the preset ``s4``, float32.

    By doubling, as the layer itself computes; the discretisation is in it.
    """
    core = DPLRCore(ModelConfig(d_model=CHANNELS, expand=1, n_layer=1, mixer="s4", d_state=STATES))
    found = []
    with torch.inference_mode():
        for _ in range(3):
            begin = time.perf_counter()
            A_bar, B_bar, C = core.discrete()
            krylov(A_bar.to(C.dtype), B_bar.to(C.dtype), C, length)
            found.append(time.perf_counter() - begin)
    return min(found)


def check(setting: Setting) -> Claim:
    """Errors at 16,384 steps, seconds for 256 kernels of 131,072 steps."""
    length, long = (1024, 4096) if setting.quick else (16_384, 131_072)
    torch.manual_seed(setting.seed)
    double = errors(torch.float64, length, setting.seed)
    setting.advance("float64")
    single = errors(torch.float32, length, setting.seed)
    setting.advance("float32")
    cost = seconds(long)
    setting.advance(f"{CHANNELS} kernels")
    figures = [
        *(Figure(f"float64, {name}", error, high=1e-12) for name, error in double.items()),
        *(Figure(f"float32, {name}", error, high=1e-5) for name, error in single.items()),
        Figure(f"seconds, {CHANNELS} kernels of {long:,} steps, doubling", cost, high=1.0),
    ]
    bars = {f"float64\n{n}": e for n, e in double.items()} | {f"float32\n{n}": e for n, e in single.items()}
    plot = Plot(f"Relative error, N = {STATES}, L = {length:,}", "", "relative error", bars=bars, logy=True)
    return Claim(
        "The S4 kernel, by its generating function or by doubling, is as exact as the power series; doubling is fast.",
        f"HiPPO-LegS with {STATES} states, dt 1e-3, against the dense power series in float64",
        figures,
        [plot],
    )
