"""The S4 family: layers against official outputs, kernels against responses, what each preset promises."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch import Tensor

from genossm.config import ModelConfig
from genossm.kernels.long_conv import long_conv
from genossm.models.mixers.lti import DenseCore, DiagonalCore, DPLRCore, LiquidCore, mimo
from genossm.models.ssm.discretize import bilinear, zoh
from tests.conftest import Equality


def config(mixer: str, **lti) -> ModelConfig:
    return ModelConfig(d_model=4, n_layer=1, mixer=mixer, d_state=8, expand=1, bidirectional=False, lti=lti)


def relative(got: Tensor, truth: Tensor | np.ndarray) -> float:
    truth = torch.as_tensor(truth)
    return ((got - truth).abs().max() / truth.abs().max()).item()


def test_golden_official_s4d_layer(shared: Path, equality: Equality) -> None:
    """S4D, exact GELU, 1x1 convolution, GLU: with every gradient."""
    data = np.load(shared / "golden" / "o05_s4d_kernel" / "layer.npz")
    core = DiagonalCore(config("s4d")).double()
    ours = {
        "D": core.D,
        "kernel__C": core.C,
        "kernel__log_dt": core.log_dt,
        "kernel__log_A_real": core.A_log_real,
        "kernel__A_imag": core.A_imag,
    }
    with torch.no_grad():
        for name, parameter in ours.items():
            parameter.copy_(torch.from_numpy(data[name]))
    after = {f"output_linear__0__{n}": torch.from_numpy(data[f"output_linear__0__{n}"]) for n in ("weight", "bias")}
    leaves = {"u": torch.from_numpy(data["u"]), **after}
    for value in leaves.values():
        value.requires_grad_()
    mixed, _ = core(leaves["u"].mT)
    y = F.glu(F.conv1d(F.gelu(mixed.mT), *list(leaves.values())[1:]), dim=1)
    assert relative(y, data["y"]) < 1e-12
    leaves |= ours
    grads = torch.autograd.grad((y * torch.from_numpy(data["G_y"])).sum(), list(leaves.values()))
    errors = [relative(grad, data[f"grad_{name}"]) for name, grad in zip(leaves, grads, strict=True)]
    equality("S4D", "state-spaces/s4", max(relative(y, data["y"]), *errors), 1e-11)


@pytest.mark.parametrize("case", ["zoh_conj", "zoh_conj_bidir", "bilinear_noconj"])
def test_golden_official_s5_layer(shared: Path, equality: Equality, case: str) -> None:
    data = np.load(shared / "golden" / "o06_s5_apply_ssm" / f"{case}.npz")
    names = ("Lambda", "B_tilde", "C_tilde", "Delta", "u")
    leaves = {name: torch.from_numpy(data[name]).requires_grad_() for name in names}
    eigenvalues, B, C, dt, u = leaves.values()
    rule = {"zoh": zoh, "bilinear": bilinear}[str(data["discretization"])]
    log_decay, factor = rule(eigenvalues[:, None], dt[:, None])
    B_bar = factor * B
    assert relative(torch.exp(log_decay[:, 0]), data["Lambda_bar"]) < 1e-12
    assert relative(B_bar, data["B_bar"]) < 1e-12
    C_forward, *C_backward = C.split(4, dim=1)
    y, _ = mimo(u[None], log_decay[:, 0], B_bar, C_forward)
    for part in C_backward:
        y = y + mimo(u[None], log_decay[:, 0], B_bar, part, reverse=True)[0]
    y = y[0] if data["conj_sym"] else y[0] / 2
    assert relative(y, data["y"]) < 1e-12
    grads = torch.autograd.grad((y * torch.from_numpy(data["G_y"])).sum(), list(leaves.values()))
    errors = [relative(y, data["y"])]
    for name, grad in zip(names, grads, strict=True):
        real = name in ("Delta", "u")
        official = data[f"grad_{name}"] if real else data[f"grad_{name}_re"] + 1j * data[f"grad_{name}_im"]
        errors.append(relative(grad, official))
    equality("S5", "lindermanlab/S5", max(errors), 1e-11)


@pytest.mark.parametrize("init", ["legs", "legt", "lagt", "fout"])
@pytest.mark.parametrize("mixer", ["s4", "lssl"])
def test_a_hippo_layer_is_the_convolution_with_its_kernel(mixer: str, init: str) -> None:
    """Cauchy sums or doubling make the kernel; blocks of tokens make the response."""
    torch.manual_seed(0)
    core = {"s4": DPLRCore, "lssl": DenseCore}[mixer](config(mixer, init=init)).double()
    u = torch.randn(2, 150, 4, dtype=torch.float64)
    assert relative(core(u)[0], long_conv(u, core.kernel(150), core.D)) < 1e-10


@pytest.mark.parametrize("init", ["lin", "inv", "legs", "real"])
@pytest.mark.parametrize("mixer", ["s4d", "dss"])
def test_a_diagonal_layer_is_the_convolution_with_its_kernel(mixer: str, init: str) -> None:
    torch.manual_seed(0)
    core = DiagonalCore(config(mixer, init=init)).double()
    u = torch.randn(2, 150, 4, dtype=torch.float64)
    assert relative(core(u)[0], long_conv(u, core.kernel(150), core.D)) < 1e-10


def test_dss_is_its_softmax() -> None:
    """K_l = Re sum_n w_n (e^(lambda dt) - 1) / (lambda (e^(lambda dt L) - 1)) e^(lambda dt l), DSS, proposition 1."""
    torch.manual_seed(0)
    core = DiagonalCore(config("dss", length=200)).double()
    lam, dt = core.eigenvalues(), torch.exp(core.log_dt)[:, None]
    w = torch.view_as_complex(core.C)
    l = torch.arange(200, dtype=torch.float64)
    weights = torch.softmax((lam * dt)[..., None].real * l, dim=-1)
    assert torch.allclose(weights.sum(-1), torch.ones(4, 4, dtype=torch.float64))
    scale = w * torch.expm1(lam * dt) / (lam * torch.expm1(lam * dt * 200))
    wanted = (scale[..., None] * torch.exp((lam * dt)[..., None] * l)).sum(1).real
    assert relative(core.kernel(200), wanted) < 1e-12


def test_liquid_without_its_liquid_part_is_s4d() -> None:
    """For small inputs the state's product with the input is of second order."""
    torch.manual_seed(0)
    core = LiquidCore(config("liquid_s4")).double()
    plain = DiagonalCore(config("s4d", discretization="bilinear")).double()
    plain.load_state_dict(core.state_dict())
    u = torch.randn(1, 60, 4, dtype=torch.float64)
    small, large = ((core(s * u)[0] - plain(s * u)[0]).abs().max().item() / s for s in (1e-5, 1e-4))
    assert small < 1e-3
    assert large / small == pytest.approx(10, rel=1e-2)


def test_liquid_state_stays_bounded_under_the_worst_input() -> None:
    torch.manual_seed(0)
    core = LiquidCore(config("liquid_s4"))
    _, (state,) = core(torch.full((1, 20_000, 4), 1e3))
    assert state.abs().max() < 1e5
    _, (later,) = core(torch.full((1, 20_000, 4), 1e3), state=(state,))
    assert later.abs().max() < 2.1 * state.abs().max()


def test_a_fixed_lssl_trains_neither_A_nor_dt() -> None:
    names = {name for name, _ in DenseCore(config("lssl_fixed")).named_parameters()}
    assert names == {"B", "C", "D"}
    assert {"A", "log_dt"} <= DenseCore(config("lssl_fixed")).state_dict().keys()


@pytest.mark.parametrize(
    ("mixer", "lti", "fault"),
    [
        ("s4", {"init": "lin"}, "s4 starts from fout, lagt, legs, legt, not from lin"),
        ("s4d", {"init": "legt"}, "s4d starts from inv, legs, lin, real, not from legt"),
        ("s4", {"discretization": "zoh"}, "s4 is made for bilinear, not for zoh"),
    ],
)
def test_what_does_not_exist_is_refused(mixer: str, lti: dict[str, str], fault: str) -> None:
    with pytest.raises(ValidationError, match=fault):
        config(mixer, **lti)
