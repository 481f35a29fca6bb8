"""Every backend of the selective scan against the float64 definition: outputs and all gradients."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from genossm.kernels.selective_scan import selective_scan, selective_scan_blocked, selective_scan_cpu
from genossm.kernels.selective_scan.reference import selective_scan_ref
from tests.conftest import Equality

from .conftest import LAYOUTS, Layout, outputs_and_gradients, relative_errors

SIZES = [(2, 1, 5, 3), (2, 63, 16, 16), (2, 131, 136, 2)]  # batch, seqlen, dim, dstate


def make_inputs(batch: int, seqlen: int, dim: int, dstate: int) -> dict[str, Tensor]:
    return {
        "u": torch.randn(batch, seqlen, dim),
        "dt": torch.randn(batch, seqlen, dim),
        "A": -torch.rand(dim, dstate) - 0.1,
        "B": torch.randn(batch, seqlen, dstate),
        "C": torch.randn(batch, seqlen, dstate),
        "D": torch.randn(dim),
        "z": torch.randn(batch, seqlen, dim),
        "dt_bias": torch.randn(dim),
        "initial_state": torch.randn(batch, dim, dstate),
    }


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda v: v.name)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_backends_equal_the_definition(size: tuple[int, ...], layout: Layout, reverse: bool) -> None:
    torch.manual_seed(0)
    mask, segments = layout.make(*size[:2])
    inputs = make_inputs(*size)
    options = {"mask": mask, "segments": segments, "reverse": reverse}
    truth = outputs_and_gradients(partial(selective_scan_ref, **options), inputs, torch.float64, mask)
    exact = outputs_and_gradients(partial(selective_scan_blocked, **options), inputs, torch.float64, mask)
    assert max(relative_errors(truth, exact).values()) < 1e-12
    fast = outputs_and_gradients(partial(selective_scan_cpu, **options), inputs, torch.float32, mask)
    errors = relative_errors(truth, fast)
    assert max(errors["y"], errors["last"]) < 2e-6
    assert max(errors.values()) < 1e-5


@pytest.mark.parametrize("run", [selective_scan_blocked, selective_scan_cpu])
def test_without_options(run) -> None:
    torch.manual_seed(1)
    inputs = {k: v for k, v in make_inputs(1, 70, 8, 4).items() if k in ("u", "dt", "A", "B", "C")}
    truth = outputs_and_gradients(partial(selective_scan_ref, dt_softplus=True), inputs, torch.float64, None)
    assert max(relative_errors(truth, outputs_and_gradients(run, inputs, torch.float32, None)).values()) < 1e-5
    inputs["dt"] = inputs["dt"].abs()
    truth = outputs_and_gradients(partial(selective_scan_ref, dt_softplus=False), inputs, torch.float64, None)
    plain = outputs_and_gradients(partial(run, dt_softplus=False), inputs, torch.float32, None)
    assert max(relative_errors(truth, plain).values()) < 1e-5


def test_strided_slices_are_read_in_place() -> None:
    """B and C are slices of one projection in the model, u and z halves of another."""
    torch.manual_seed(2)
    xz, parameters = torch.randn(2, 40, 32), torch.randn(2, 40, 12)
    u, z = xz.chunk(2, dim=-1)
    _, B, C = parameters.split([4, 4, 4], dim=-1)
    dt, A = torch.randn(2, 40, 16), -torch.rand(16, 4)
    sliced, _ = selective_scan_cpu(u, dt, A, B, C, z=z)
    copied, _ = selective_scan_cpu(u.contiguous(), dt, A, B.contiguous(), C.contiguous(), z=z.contiguous())
    assert torch.equal(sliced, copied)


def test_results_do_not_depend_on_the_number_of_threads() -> None:
    torch.manual_seed(3)
    inputs = make_inputs(2, 150, 264, 4)
    many = outputs_and_gradients(selective_scan_cpu, inputs, torch.float32, None)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1 if threads > 1 else 2)
        other = outputs_and_gradients(selective_scan_cpu, inputs, torch.float32, None)
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(many[name], other[name]) for name in many)


def test_long_memory_keeps_its_digits() -> None:
    """Decays close to 1 over thousands of tokens: float32 stays within 1e-5 of float64.

    The time steps vary, as in a model: a constant one would repeat the same rounding of its decay at every token.
    """
    torch.manual_seed(4)
    inputs = make_inputs(1, 4000, 8, 2)
    inputs["dt"] = math.log(1e-4) + torch.randn_like(inputs["dt"]) / 2
    inputs.pop("dt_bias")
    truth = selective_scan_blocked(**{k: v.double() for k, v in inputs.items()})
    fast = selective_scan_cpu(**inputs)
    assert all((a - b).abs().max() / a.abs().max() < 1e-5 for a, b in zip(truth, fast, strict=True))


def test_operator_contract() -> None:
    """torch's own checks of a custom operator: schema, autograd registration, fake tensors."""
    torch.manual_seed(5)
    u, dt, B, C = torch.randn(1, 9, 8), torch.randn(1, 9, 8), torch.randn(1, 9, 2), torch.randn(1, 9, 2)
    arguments = (u, dt, -torch.rand(8, 2), B, C, torch.ones(8), None, torch.zeros(8), torch.zeros(1, 8, 2))
    leaves = [v.requires_grad_() if v is not None else None for v in arguments]
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    outcome = torch.library.opcheck(
        torch.ops.genossm.selective_scan_cpu.default, (*leaves, None, None, True, False, True), test_utils=checks
    )
    assert set(outcome.values()) == {"SUCCESS"}


def test_wrong_shapes_and_backends_are_named(monkeypatch) -> None:
    inputs = make_inputs(1, 5, 8, 2)
    with pytest.raises(ValueError, match=r"B must be \(1, 5, 2\), is \(1, 4, 2\)"):
        selective_scan(**{**inputs, "B": inputs["B"][:, :4]})
    with pytest.raises(ValueError, match="mask must be bool"):
        selective_scan(**inputs, mask=torch.ones(1, 5))
    monkeypatch.setenv("GENOSSM_KERNELS", "nonsense")
    with pytest.raises(ValueError, match="no such backend; there is reference, torch, cpu"):
        selective_scan(**inputs)
    monkeypatch.setenv("GENOSSM_KERNELS", "cpu")
    with pytest.raises(ValueError, match="takes float32 on a CPU"):
        selective_scan(**{k: v.double() for k, v in inputs.items()})


@pytest.mark.parametrize("case", ["plain", "softplus_D_noz", "full"])
def test_golden_official_implementation(shared: Path, equality: Equality, case: str) -> None:
    """Outputs, last states and every gradient of the official selective_scan_ref."""
    data = np.load(shared / "golden" / "o01_selective_scan" / f"{case}.npz")
    names = {"u": "u", "dt": "delta", "A": "A", "B": "B", "C": "C", "D": "D", "z": "z", "dt_bias": "delta_bias"}
    names = {ours: theirs for ours, theirs in names.items() if theirs in data}

    def ours(value: np.ndarray) -> Tensor:
        tensor = torch.from_numpy(value)
        return tensor.transpose(1, 2) if value.ndim == 3 else tensor

    weights = ours(data["G_out"]), torch.from_numpy(data["G_last_state"])
    truth = {"y": ours(data["out"]), "last": torch.from_numpy(data["last_state"])}
    truth |= {name: ours(data[f"grad_{theirs}"]) for name, theirs in names.items()}
    for run, dtype, bound in (
        (selective_scan_blocked, torch.float64, 1e-12),
        (selective_scan_cpu, torch.float32, 1e-5),
    ):
        leaves = {name: ours(data[theirs]).to(dtype).requires_grad_() for name, theirs in names.items()}
        y, last = run(**leaves, dt_softplus=bool(data["delta_softplus"]))
        gradients = torch.autograd.grad((y * weights[0]).sum() + (last * weights[1]).sum(), list(leaves.values()))
        got = {"y": y, "last": last, **dict(zip(leaves, gradients, strict=True))}
        error = max(relative_errors(truth, got).values())
        equality("Mamba scan", "state-spaces/mamba", error, bound, str(dtype).removeprefix("torch."))
