"""Discretisation and initial values."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from genossm.models.ssm.discretize import inverse_softplus, zoh
from genossm.models.ssm.init import log_uniform_dt, s4d_eigenvalues


def test_zero_order_hold_keeps_its_digits_at_small_steps() -> None:
    """(exp(x) - 1) / lambda in float32 loses its digits at dt = 1e-6; expm1 does not."""
    eigenvalues = torch.complex(-torch.rand(4, 8) - 0.5, torch.randn(4, 8) * 10)
    for dt in (1e-6, 1e-3, 0.1):
        step = torch.full((4, 1), dt)
        _, factor = zoh(eigenvalues, step)
        _, exact = zoh(eigenvalues.to(torch.complex128), step.double())
        assert ((factor - exact).abs() / exact.abs()).max() < 1e-6


def test_zero_order_hold_is_scipys() -> None:
    signal = pytest.importorskip("scipy.signal")
    a, dt = -0.7, 0.3
    lam, factor = zoh(torch.tensor([[a + 0j]], dtype=torch.complex128), torch.tensor([[dt]], dtype=torch.float64))
    discrete = signal.cont2discrete((np.array([[a]]), np.array([[1.0]]), np.eye(1), np.zeros((1, 1))), dt, "zoh")
    assert math.isclose(torch.exp(lam).real.item(), discrete[0][0, 0], rel_tol=1e-12)
    assert math.isclose(factor.real.item(), discrete[1][0, 0], rel_tol=1e-12)


def test_legs_eigenvalues_are_those_of_the_normal_part() -> None:
    """A + P P^T of HiPPO-LegS has real parts -1/2 and these imaginary parts (S4D, section 4)."""
    n = 8
    k = np.arange(2 * n)
    root = np.sqrt(2 * k + 1)
    a = -np.where(k[:, None] > k, np.outer(root, root), np.where(k[:, None] == k, np.diag(k + 1), 0.0))
    p = np.sqrt(k + 0.5)
    spectrum = np.linalg.eigvals(a + np.outer(p, p))
    wanted = np.sort(spectrum.imag[spectrum.imag > 0])
    got = s4d_eigenvalues("legs", n)
    assert np.allclose(got.imag.numpy(), wanted, rtol=1e-9)
    assert np.allclose(spectrum.real, -0.5)
    assert (got.real == -0.5).all()


def test_time_steps_fill_their_range() -> None:
    torch.manual_seed(0)
    dt = log_uniform_dt(1000, 1e-5, 1e-1)
    assert dt.min() >= 1e-5
    assert dt.max() <= 1e-1
    assert 0.4 < (dt < 1e-3).float().mean() < 0.6
    assert torch.allclose(torch.nn.functional.softplus(inverse_softplus(dt)), dt, rtol=1e-3)
