"""Effective memory dimensions: how many past inputs a linear state space can tell apart, without any training."""

from __future__ import annotations

import torch
from torch import Tensor

from genossm.models.ssm.discretize import dense_gbt
from genossm.models.ssm.hippo import transition
from genossm.models.ssm.init import S4DInit, s4d_eigenvalues
from genossm.report.plots import Plot
from genossm.science.result import Claim, Figure, Setting

RIDGE = 1e-2
STATES = 64
STEP = 1 / 1024
HORIZON = 1 << 15
"""Delays that are summed over; past them the slowest of these systems has lost e^-16 of its state."""


def impulse_states(A: Tensor, B: Tensor, dt: float, length: int) -> Tensor:
    """A_bar^d B_bar for d < length, (length, n), of the bilinear rule; powers by doubling."""
    power, first = dense_gbt(A, B, torch.tensor(dt, dtype=torch.float64))
    states = first[None]
    while len(states) < length:
        states = torch.cat([states, states @ power.T])
        power = power @ power
    return states[:length]


def capacity(states: Tensor) -> float:
    """sum_d w_d^T (G + ridge I)^-1 w_d, G = sum_d w_d w_d^T: Jaeger's memory capacity of white input, at most n.

    The rows w_d are scaled so that G has trace n: the ridge then means the same noise for every system.
    """
    gram = states.T @ states
    gram *= len(gram) / gram.trace()
    values = torch.linalg.eigvalsh(gram).clamp(min=0)
    return float((values / (values + RIDGE)).sum())


def diagonal_system(kind: S4DInit, n: int) -> tuple[Tensor, Tensor]:
    """A (n, n) and B (n,) in real form of an S4D start; ``real`` has n real modes, the others n / 2 pairs."""
    if kind == "real":
        return torch.diag(s4d_eigenvalues(kind, n).real), torch.ones(n, dtype=torch.float64)
    eigenvalues = s4d_eigenvalues(kind, n // 2)
    real, imag = torch.diag(eigenvalues.real), torch.diag(eigenvalues.imag)
    A = torch.cat([torch.cat([real, -imag], dim=1), torch.cat([imag, real], dim=1)])
    return A, torch.cat([torch.ones(n // 2), torch.zeros(n // 2)]).double()


def random_dense(n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A Gaussian A, shifted so that its slowest mode decays at rate 1/2, and a Gaussian B."""
    A = torch.randn(n, n, generator=generator, dtype=torch.float64) / n**0.5
    shift = torch.linalg.eigvals(A).real.max() + 0.5
    return A - shift * torch.eye(n, dtype=torch.float64), torch.randn(n, generator=generator, dtype=torch.float64)


def random_diagonal(n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Real decay rates, log-uniform between 1/2 and n, and B = 1."""
    rates = 0.5 * (2 * n) ** torch.rand(n, generator=generator, dtype=torch.float64)
    return torch.diag(-rates), torch.ones(n, dtype=torch.float64)


def systems(n: int, seed: int) -> dict[str, tuple[Tensor, Tensor, float]]:
    """Name: A, B, dt of every start that is compared."""
    generator = torch.Generator().manual_seed(seed)
    found = {
        "LegS": (*transition("legs", n), STEP),
        "LegT": (*transition("legt", n), STEP),
        "FouT": (*transition("fout", n), STEP),
        "LagT": (*transition("lagt", n), 32 * STEP),
    }
    for label, kind in (("S4D-Lin", "lin"), ("S4D-Inv", "inv"), ("S4D-LegS", "legs"), ("S4D-Real (Mamba)", "real")):
        found[label] = (*diagonal_system(kind, n), STEP)  # type: ignore[arg-type]
    found["random dense"] = (*random_dense(n, generator), STEP)
    found["random diagonal"] = (*random_diagonal(n, generator), STEP)
    return found


def check(setting: Setting) -> Claim:
    """Capacities of HiPPO and diagonal starts against random ones, all with 64 states."""
    n, horizon = STATES, HORIZON // 4 if setting.quick else HORIZON
    found = {}
    for name, (A, B, dt) in systems(n, setting.seed).items():
        found[name] = capacity(impulse_states(A, B, dt, horizon))
        setting.advance(name)
    figures = [
        Figure(f"least of LegS, LegT, FouT, LagT, {n} states", min(list(found.values())[:4]), low=0.6 * n),
        Figure("least of S4D-Lin, S4D-Inv, S4D-LegS", min(list(found.values())[4:7]), low=0.6 * n),
        Figure("largest random start", max(list(found.values())[8:]), high=n / 6),
        Figure("S4D-Real, the start of Mamba", found["S4D-Real (Mamba)"], high=n / 6),
    ]
    plot = Plot("Effective memory dimensions", "start", f"of {n} states", bars=found, levels={"all": n})
    return Claim(
        "HiPPO starts remember in almost every state; random starts in a few.",
        f"memory capacity of white input over {horizon:,} steps, bilinear dt 1/1024, ridge {RIDGE}; no training",
        figures,
        [plot],
    )
