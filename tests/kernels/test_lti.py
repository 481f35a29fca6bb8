"""Every backend of the diagonal state space against its definition, in float64 and float32."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from genossm.kernels.flat import lanes
from genossm.kernels.lti import lti, lti_blocked, lti_cpu, op
from genossm.kernels.lti.reference import lti_ref

from .conftest import LAYOUTS, Layout, outputs_and_gradients, relative_errors

SIZES = [(2, 1, 3, 2), (2, 63, 5, 3), (3, 131, 4, 8)]  # batch, seqlen, dim, dstate


def make_inputs(batch: int, seqlen: int, dim: int, dstate: int) -> dict[str, Tensor]:
    return {
        "u": torch.randn(batch, seqlen, dim),
        "lam": torch.complex(-torch.rand(dim, dstate) * 0.3 - 0.01, torch.randn(dim, dstate)),
        "C": torch.randn(dim, dstate, dtype=torch.cfloat),
        "initial_state": torch.randn(batch, dim, dstate, dtype=torch.cfloat),
    }


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda v: v.name)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_backends_equal_the_definition(size: tuple[int, ...], layout: Layout, reverse: bool) -> None:
    torch.manual_seed(0)
    mask, segments = layout.make(*size[:2])
    inputs = make_inputs(*size)
    options = {"mask": mask, "segments": segments, "reverse": reverse}
    truth = outputs_and_gradients(partial(lti_ref, **options), inputs, torch.float64, mask)
    for dtype, bound in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
        got = outputs_and_gradients(partial(lti_blocked, **options), inputs, dtype, mask)
        assert max(relative_errors(truth, got).values()) < bound
    fast = outputs_and_gradients(partial(lti_cpu, **options), inputs, torch.float32, mask)
    assert max(relative_errors(truth, fast).values()) < 2e-6


@pytest.mark.parametrize("seqlen", [64, 65, 129, 1000])
def test_the_cpu_kernel_at_the_borders_of_its_tiles(seqlen: int) -> None:
    torch.manual_seed(1)
    inputs = make_inputs(1, seqlen, 70, 3)
    options = {"segments": torch.sort(torch.randint(0, 40, (1, seqlen)), dim=1).values, "reverse": True}
    truth = outputs_and_gradients(partial(lti_ref, **options), inputs, torch.float64, None)
    fast = outputs_and_gradients(partial(lti_cpu, **options), inputs, torch.float32, None)
    assert max(relative_errors(truth, fast).values()) < 2e-6


def test_long_memory_keeps_its_digits() -> None:
    """Decays over a whole window of 131,072: exp(lam) as a float32 has three digits of 1 - exp(lam)."""
    torch.manual_seed(2)
    lam = torch.complex(torch.full((8, 4), -1e-5), torch.linspace(0, 0.01, 32).view(8, 4))
    inputs = {"u": torch.rand(1, 131072, 8), "lam": lam, "C": torch.rand(8, 4, dtype=torch.cfloat)}
    truth, last = lti_blocked(**{k: v.to(torch.cdouble if v.is_complex() else torch.double) for k, v in inputs.items()})
    y, state = lti_cpu(**inputs)
    assert (y - truth).abs().max() < 3e-6 * truth.abs().max()
    assert (state - last).abs().max() < 3e-6 * last.abs().max()


def test_what_the_cpu_kernel_is_chosen_for(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = make_inputs(2, 20, 3, 2)
    assert torch.equal(lti(**inputs)[0], lti_cpu(**inputs)[0])
    monkeypatch.setenv("GENOSSM_KERNELS", "cpu")
    with pytest.raises(ValueError, match="takes float32 and complex64 on a CPU"):
        lti(**{k: v.to(torch.cdouble if v.is_complex() else torch.double) for k, v in inputs.items()})


def test_results_do_not_depend_on_the_number_of_threads_or_the_batch() -> None:
    torch.manual_seed(3)
    inputs = make_inputs(3, 150, 72, 4)
    many = outputs_and_gradients(lti_cpu, inputs, torch.float32, None)
    alone = lti_cpu(**{**inputs, "u": inputs["u"][1:2], "initial_state": inputs["initial_state"][1:2]})
    assert torch.equal(many["y"][1:2], alone[0])
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1 if threads > 1 else 2)
        other = outputs_and_gradients(lti_cpu, inputs, torch.float32, None)
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(many[name], other[name]) for name in many)


def test_operator_contract() -> None:
    """torch's own checks of a custom operator: schema, autograd registration, fake tensors."""
    inputs = make_inputs(1, 9, lanes(), 2)
    made = [v.detach().requires_grad_() for v in op.tables(inputs["lam"], inputs["C"], 8)]
    state = torch.randn(1, 1, 2, 2, lanes(), requires_grad=True)
    arguments = (inputs["u"].requires_grad_(), *made, state, *op.block_plan(None, None, 1, 9, False), True)
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    outcome = torch.library.opcheck(torch.ops.genossm.lti_cpu.default, arguments, test_utils=checks)
    assert set(outcome.values()) == {"SUCCESS"}


def test_a_row_without_a_token_hands_its_state_on() -> None:
    inputs = make_inputs(2, 10, 3, 2)
    mask = torch.tensor([[False] * 10, [True] * 10])
    _, last = lti(**inputs, mask=mask)
    assert torch.allclose(last[0], inputs["initial_state"][0])


def test_golden_official_kernel(shared: Path) -> None:
    """The official S4D kernel is the response to an impulse."""
    data = np.load(shared / "golden" / "o05_s4d_kernel" / "kernel.npz")
    eigenvalues = torch.from_numpy(-np.exp(data["log_A_real"]) + 1j * data["A_imag"])
    from genossm.models.ssm.discretize import zoh

    lam, factor = zoh(eigenvalues, torch.from_numpy(np.exp(data["log_dt"]))[:, None])
    C = torch.view_as_complex(torch.from_numpy(data["C"]).contiguous()) * factor
    kernel = torch.from_numpy(data["K"])
    impulse = torch.zeros(1, kernel.shape[-1], kernel.shape[0], dtype=torch.float64)
    impulse[:, 0] = 1
    y, _ = lti_blocked(impulse, lam, C)
    assert (y[0].T - kernel).abs().max() / kernel.abs().max() < 1e-12


def test_wrong_shapes_are_named() -> None:
    inputs = make_inputs(1, 5, 3, 2)
    with pytest.raises(ValueError, match=r"C must be \(3, 2\), is \(3, 1\)"):
        lti(**{**inputs, "C": inputs["C"][:, :1]})
