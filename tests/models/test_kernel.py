"""HiPPO, discretisation and the kernels of S4 against definitions and official outputs."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from genossm.kernels.long_conv import long_conv
from genossm.models.ssm.discretize import bilinear, dense_gbt, dense_zoh, zoh
from genossm.models.ssm.hippo import low_rank, nplr, transition
from genossm.models.ssm.init import s4d_eigenvalues
from genossm.models.ssm.kernel import (
    dplr_bilinear,
    dplr_kernel,
    dplr_step,
    generating_kernel,
    krylov,
    real_form,
    vandermonde,
    with_conjugates,
)
from tests.conftest import Equality

MEASURES = ["legs", "legt", "lagt", "fout"]


def relative(got: Tensor, truth: Tensor) -> float:
    return ((got - truth).abs().max() / truth.abs().max()).item()


def power_series(A_bar: Tensor, B_bar: Tensor, C: Tensor, length: int) -> Tensor:
    """C A_bar^l B_bar, one power after the other."""
    x, out = B_bar, []
    for _ in range(length):
        out.append((C * x).sum(-1))
        x = (A_bar @ x[..., None])[..., 0]
    return torch.stack(out, dim=-1)


@pytest.mark.parametrize("n", [8, 16])
@pytest.mark.parametrize(("measure", "official"), [*zip(MEASURES, ["legs", "legt", "lagt", "fourier"], strict=True)])
def test_golden_official_transition(shared: Path, equality: Equality, measure, official: str, n: int) -> None:
    data = np.load(shared / "golden" / "o10_hippo" / "transition.npz")
    A, B = transition(measure, n)
    errors = [relative(made, torch.from_numpy(data[f"{official}_{n}_{name}"])) for name, made in (("A", A), ("B", B))]
    equality("HiPPO matrices", "state-spaces/s4", max(errors), 1e-14)


def test_golden_official_nplr(shared: Path) -> None:
    data = np.load(shared / "golden" / "o10_hippo" / "nplr_legs.npz")
    form = nplr("legs", 16)
    order = np.argsort(data["Lambda"].imag)[8:]
    assert np.allclose(form.eigenvalues, data["Lambda"][order], atol=1e-12)
    assert np.allclose(low_rank("legs", 16)[0], data["P_low_rank"], atol=1e-13)
    assert np.allclose(form.P[0].abs(), data["abs_VP"][order], atol=1e-12)
    assert np.allclose(form.B.abs(), data["abs_VB"][order], atol=1e-12)


@pytest.mark.parametrize("measure", MEASURES)
def test_normal_plus_low_rank_gives_the_matrix_back(measure) -> None:
    n = 64
    A, B = transition(measure, n)
    form = nplr(measure, n)
    V = torch.cat([form.V, form.V.conj()], dim=1)
    eigenvalues, P, b = with_conjugates(form.eigenvalues, form.P, form.B)
    assert torch.linalg.cond(V).item() == pytest.approx(1, abs=1e-9)
    back = V @ (torch.diag(eigenvalues) - P.mT @ P.conj()) @ V.mH
    assert (back - A).abs().max() < 1e-11
    assert (V @ b - B).abs().max() < 1e-11
    assert form.eigenvalues.imag.min() > -1e-12


def test_diagonalising_hippo_itself_is_hopeless() -> None:
    _, vectors = torch.linalg.eig(transition("legs", 64)[0])
    assert torch.linalg.cond(vectors) > 1e12


@pytest.mark.parametrize("method", ["gbt", "bilinear", "euler", "backward_diff", "zoh"])
def test_dense_discretisation_is_scipys(method: str) -> None:
    signal = pytest.importorskip("scipy.signal")
    A, B = transition("legs", 6)
    dt = torch.tensor(0.1, dtype=torch.float64)
    alpha = {"gbt": 0.3, "bilinear": 0.5, "euler": 0.0, "backward_diff": 1.0}.get(method)
    got = dense_zoh(A, B, dt) if alpha is None else dense_gbt(A, B, dt, alpha)
    system = (A.numpy(), B.numpy()[:, None], np.eye(6), np.zeros((6, 1)))
    wanted = signal.cont2discrete(system, 0.1, method, **({"alpha": 0.3} if method == "gbt" else {}))
    assert np.allclose(got[0], wanted[0], atol=1e-12)
    assert np.allclose(got[1], wanted[1][:, 0], atol=1e-12)


@pytest.mark.parametrize("rule", [zoh, bilinear])
def test_diagonal_discretisation_is_the_dense_one(rule) -> None:
    eigenvalues = s4d_eigenvalues("lin", 5)[None]
    log_decay, factor = rule(eigenvalues, torch.full((1, 1), 0.03, dtype=torch.float64))
    dense = dense_zoh if rule is zoh else dense_gbt
    A_bar, B_bar = dense(torch.diag(eigenvalues[0]), torch.ones_like(eigenvalues[0]), torch.tensor(0.03).double())
    assert torch.allclose(torch.exp(log_decay[0]), A_bar.diagonal(), atol=1e-13)
    assert torch.allclose(factor[0], B_bar, atol=1e-13)


@pytest.mark.parametrize("case", ["N16_L64", "N64_L1000"])
def test_golden_official_s4_kernel(shared: Path, equality: Equality, case: str) -> None:
    """Kernel, convolution and every gradient; the set is not symmetric, and C comes as C~, conjugated."""
    data = np.load(shared / "golden" / "o04_s4_dplr_kernel" / f"{case}.npz")
    names = ("Lambda", "P", "B", "Ctilde", "step")
    leaves = {name: torch.from_numpy(data[name]).requires_grad_() for name in names}
    Lambda, P, B, C, step = leaves.values()
    length = int(data["L"])
    K = generating_kernel(Lambda, P[None], B, C.conj(), step, length, real=False)
    errors = [relative(K, torch.from_numpy(data["K"]))]
    u = torch.from_numpy(data["u"])
    errors.append(relative(long_conv(u[None, :, None], K[None])[0, :, 0], torch.from_numpy(data["y"])))
    grads = torch.autograd.grad((K * torch.from_numpy(data["G_K"])).sum(), list(leaves.values()))
    for name, grad in zip(names, grads, strict=True):
        official = data["grad_step"] if name == "step" else data[f"grad_{name}_re"] + 1j * data[f"grad_{name}_im"]
        errors.append(relative(grad, torch.from_numpy(np.asarray(official))))
    equality("S4 kernel", "annotated S4", max(errors), 1e-10)
    C_time = torch.from_numpy(data["C_time"])
    same = dplr_kernel(Lambda, P[None], B, C_time, step, length, conjugate_pairs=False)
    assert relative(same, torch.from_numpy(data["K"])) < 1e-11


def test_a_pole_on_the_axis_is_refused() -> None:
    form = nplr("fout", 8)
    with pytest.raises(ValueError, match="an eigenvalue is 0"):
        dplr_kernel(form.eigenvalues, form.P, form.B, torch.ones_like(form.B), torch.tensor(0.01).double(), 64)


@pytest.mark.parametrize("measure", MEASURES)
def test_every_way_to_a_kernel_gives_the_power_series(measure) -> None:
    """Cauchy sums at the roots of unity, doubling, and the series itself: complex pairs and real form."""
    torch.manual_seed(0)
    form = nplr(measure, 16)
    C = torch.randn(8, dtype=torch.complex128)
    eigenvalues = form.eigenvalues - 1e-4 * (form.eigenvalues.real > -1e-4)
    dt, length = torch.tensor(0.02, dtype=torch.float64), 301
    A, B, C_real = real_form(eigenvalues, form.P, form.B, C)
    A_bar, B_bar = dense_gbt(A, B, dt)
    series = power_series(A_bar, B_bar, C_real, length)
    assert relative(dplr_kernel(eigenvalues, form.P, form.B, C, dt, length), series) < 1e-11
    assert relative(krylov(A_bar, B_bar, C_real, length), series) < 1e-12
    full = with_conjugates(eigenvalues, form.P, form.B, C)
    A_complex, B_complex = dplr_bilinear(*full[:3], dt)
    assert relative(power_series(A_complex, B_complex, full[3], length).real, series) < 1e-12


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_s4_kernel_of_64_states_and_16384_steps(dtype: torch.dtype, bound: float) -> None:
    """The dense power series in float64 is the truth; public float32 code is off by 1e-3 here."""
    torch.manual_seed(0)
    form = nplr("legs", 64)
    length, dt = 16384, torch.tensor([1e-3], dtype=dtype)
    values = [v.to(dtype.to_complex())[None] for v in (form.eigenvalues, form.P, form.B)]
    C = torch.randn(1, 32, dtype=dtype.to_complex())
    A, B, C_real = real_form(*(v.to(torch.complex128) for v in (*values, C)))
    series = power_series(*dense_gbt(A, B, dt.double()), C_real, length)
    assert relative(dplr_kernel(*values, C, dt, length), series) < bound
    A_bar, B_bar = dense_gbt(A, B, dt.double())
    assert relative(krylov(A_bar.to(dtype), B_bar.to(dtype), C_real.to(dtype), length), series) < bound


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_diagonal_kernel_in_two_levels(dtype: torch.dtype, bound: float) -> None:
    torch.manual_seed(0)
    eigenvalues, dt = s4d_eigenvalues("lin", 8).repeat(3, 1), torch.tensor([[1e-4], [1e-3], [1e-2]])
    log_A, factor = zoh(eigenvalues.to(dtype.to_complex()), dt.to(dtype))
    C = torch.randn(3, 8, dtype=dtype.to_complex()) * factor
    l = torch.arange(1001, dtype=torch.float64)
    terms = C.to(torch.complex128)[..., None] * torch.exp(log_A.to(torch.complex128)[..., None] * l)
    assert relative(vandermonde(log_A, C, 1001), 2 * terms.sum(1).real) < bound


@pytest.mark.parametrize("rule", ["bilinear", "zoh"])
def test_golden_annotated_diagonal_kernel(shared: Path, equality: Equality, rule: str) -> None:
    """Without the factor 2, and with gradients."""
    data = np.load(shared / "golden" / "o05_s4d_kernel" / f"annotated_{rule}.npz")
    C, A, step = leaves = [torch.from_numpy(data[n]).requires_grad_() for n in ("C", "A", "step")]
    log_A, factor = {"zoh": zoh, "bilinear": bilinear}[rule](A[None], step[None, None])
    K = vandermonde(log_A, C * factor, int(data["L"]))[0] / 2
    errors = [relative(K, torch.from_numpy(data["K"]))]
    grads = torch.autograd.grad((K * torch.from_numpy(data["G_K"])).sum(), leaves)
    official = [data[f"grad_{n}_re"] + 1j * data[f"grad_{n}_im"] for n in ("C", "A")] + [data["grad_step"]]
    for grad, wanted in zip(grads, official, strict=True):
        errors.append(relative(grad, torch.from_numpy(np.asarray(wanted))))
    equality("S4D kernel", "annotated S4D", max(errors), 1e-11)


@pytest.mark.parametrize("measure", ["legs", "legt"])
def test_one_step_in_linear_time_is_the_dense_step(measure) -> None:
    torch.manual_seed(0)
    form = nplr(measure, 16)
    dt = torch.rand(3, dtype=torch.float64) + 0.01
    values = [v.expand(3, *v.shape).clone() for v in (form.eigenvalues, form.P, form.B)]
    z, u = torch.randn(2, 3, 8, dtype=torch.complex128), torch.randn(2, 3, dtype=torch.float64)
    A, B, _ = real_form(*values, values[2])
    A_bar, B_bar = dense_gbt(A, B, dt)
    x = torch.cat([z.real, z.imag], dim=-1)
    dense = torch.einsum("dij,bdj->bdi", A_bar, x) + B_bar * u[..., None]
    after = dplr_step(z, u, *values, dt)
    assert relative(torch.cat([after.real, after.imag], dim=-1), dense) < 1e-12


def test_zero_order_hold_knows_the_sample_rate() -> None:
    """Every input twice at half the step gives the same states: exact for zero-order hold."""
    A, B = transition("legs", 8)
    u = np.random.default_rng(0).standard_normal(50)
    coarse, fine = (dense_zoh(A, B, torch.tensor(dt, dtype=torch.float64)) for dt in (0.1, 0.05))
    x = y = torch.zeros(8, dtype=torch.float64)
    for value in u:
        x = coarse[0] @ x + coarse[1] * value
        for _ in range(2):
            y = fine[0] @ y + fine[1] * value
        assert math.isclose((x - y).abs().max().item(), 0, abs_tol=1e-12)
