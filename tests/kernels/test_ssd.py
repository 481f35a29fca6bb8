"""Every backend of Mamba-2's scan against its definition and the official outputs."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from genossm.kernels.flat import lanes
from genossm.kernels.ssd import BACKENDS, ssd, ssd_chunked, ssd_cpu, ssd_ref
from tests.conftest import Equality

from .conftest import LAYOUTS, Layout, outputs_and_gradients, relative_errors

SIZES = [(2, 1, 2, 1, 3, 2), (2, 63, 4, 2, 3, 5), (3, 131, 4, 1, 2, 4)]  # batch, seqlen, heads, groups, headdim, dstate


def make_inputs(batch: int, seqlen: int, heads: int, groups: int, headdim: int, dstate: int) -> dict[str, Tensor]:
    return {
        "x": torch.randn(batch, seqlen, heads, headdim),
        "dt": torch.randn(batch, seqlen, heads),
        "A": -16 * torch.rand(heads),
        "B": torch.randn(batch, seqlen, groups, dstate),
        "C": torch.randn(batch, seqlen, groups, dstate),
        "D": torch.randn(heads),
        "z": torch.randn(batch, seqlen, heads, headdim),
        "dt_bias": torch.randn(heads) - 4,
        "initial_state": torch.randn(batch, heads, headdim, dstate),
    }


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda v: v.name)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_backends_equal_the_definition(size: tuple[int, ...], layout: Layout, reverse: bool) -> None:
    torch.manual_seed(0)
    mask, segments = layout.make(*size[:2])
    inputs = make_inputs(*size)
    options = {"mask": mask, "segments": segments, "reverse": reverse}
    truth = outputs_and_gradients(partial(ssd_ref, **options), inputs, torch.float64, mask)
    for dtype, bound in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
        got = outputs_and_gradients(partial(ssd_chunked, **options), inputs, dtype, mask)
        assert max(relative_errors(truth, got).values()) < bound
    fast = outputs_and_gradients(partial(ssd_cpu, **options), inputs, torch.float32, mask)
    assert max(relative_errors(truth, fast).values()) < 5e-6


@pytest.mark.parametrize("seqlen", [65, 128, 129, 1000])
def test_the_cpu_kernel_at_the_borders_of_its_tiles(seqlen: int) -> None:
    """Seven heads in two tasks a group, packed, read backwards; the definition of D a channel."""
    torch.manual_seed(1)
    inputs = make_inputs(1, seqlen, 7, 1, 50, 20) | {"D": torch.randn(7, 50)}
    segments = torch.sort(torch.randint(0, 9, (1, seqlen)), dim=1).values
    options = {"segments": segments, "reverse": True, "dt_limit": (1e-3, 1.0)}
    truth = outputs_and_gradients(partial(ssd_chunked, **options), inputs, torch.float64, None)
    fast = outputs_and_gradients(partial(ssd_cpu, **options), inputs, torch.float32, None)
    assert max(relative_errors(truth, fast).values()) < 5e-6


def test_slices_of_one_projection_are_read_in_place() -> None:
    torch.manual_seed(2)
    xBC = torch.randn(2, 70, 4 * 32 + 2 * 16)
    x, B, C = xBC.split([128, 16, 16], dim=-1)
    x, B, C = x.unflatten(-1, (4, 32)), B.unflatten(-1, (1, 16)), C.unflatten(-1, (1, 16))
    dt, A = torch.randn(2, 70, 4), -torch.rand(4)
    sliced, copied = ssd_cpu(x, dt, A, B, C), ssd_cpu(x.contiguous(), dt, A, B.contiguous(), C.contiguous())
    assert all(torch.equal(a, b) for a, b in zip(sliced, copied, strict=True))


def test_results_do_not_depend_on_the_number_of_threads_or_the_batch() -> None:
    torch.manual_seed(3)
    inputs = make_inputs(3, 150, 6, 2, 16, 8)
    many = outputs_and_gradients(ssd_cpu, inputs, torch.float32, None)
    own = {"x", "dt", "B", "C", "z", "initial_state"}
    alone = ssd_cpu(**{name: value[1:2] if name in own else value for name, value in inputs.items()})
    assert torch.equal(many["y"][1:2], alone[0])
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1 if threads > 1 else 2)
        other = outputs_and_gradients(ssd_cpu, inputs, torch.float32, None)
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(many[name], other[name]) for name in many)


def test_what_the_cpu_kernel_is_chosen_for(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = make_inputs(2, 20, 2, 1, 3, 2)
    assert torch.equal(ssd(**inputs)[0], ssd_cpu(**inputs)[0])
    monkeypatch.setenv("GENOSSM_KERNELS", "cpu")
    with pytest.raises(ValueError, match="takes float32 on a CPU"):
        ssd(**{name: value.double() for name, value in inputs.items()})


def test_operator_contract() -> None:
    """torch's own checks of a custom operator: schema, autograd registration, fake tensors."""
    torch.manual_seed(4)
    size, n = 2 * lanes(), lanes()
    shapes = [(1, 9, 2, size), (1, 9, 2), (1, 9, 2), (1, 9, 1, n), (1, 9, 1, n), (2, size), (1, 2, n, size)]
    leaves = [torch.randn(shape) for shape in shapes]
    leaves[2] = -leaves[2].abs()
    arguments = (*(v.requires_grad_() for v in leaves), None, True, True)
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    outcome = torch.library.opcheck(torch.ops.genossm.ssd_cpu.default, arguments, test_utils=checks)
    assert set(outcome.values()) == {"SUCCESS"}


def test_strong_decay_over_several_blocks_stays_finite() -> None:
    """The product of all decays of a chunk is exp(-6000); float32 must give neither NaN nor a wrong figure."""
    torch.manual_seed(0)
    inputs = make_inputs(1, 2 * 2048 + 5, 2, 1, 2, 2)
    inputs["A"] = torch.tensor([-16.0, -1e-4])
    inputs["dt_bias"] = torch.tensor([6.0, -4.0])
    with torch.no_grad():
        y, last = ssd(**inputs)
        truth = ssd_ref(**{name: value.double() for name, value in inputs.items()})
    assert (y - truth[0]).abs().max() < 1e-4 * truth[0].abs().max()
    assert (last - truth[1]).abs().max() < 1e-4 * truth[1].abs().max()


def test_nothing_decays_without_A() -> None:
    """With A = 0 and a time step of 1 the scan is causal linear attention."""
    torch.manual_seed(0)
    q, k = torch.randn(2, 1, 100, 2, 4, dtype=torch.float64)
    v = torch.randn(1, 100, 2, 3, dtype=torch.float64)
    y, _ = ssd(v, v.new_ones(1, 100, 2), v.new_zeros(2), k, q, dt_softplus=False)
    scores = torch.einsum("bthn,bshn->bhts", q, k).tril()
    assert torch.allclose(y, torch.einsum("bhts,bshp->bthp", scores, v), atol=1e-11)


@pytest.mark.parametrize("backend", ["reference", "torch"])
@pytest.mark.parametrize("case", ["combined", "combined_tail_hdimD", "dt_limit"])
def test_golden_official_scan(shared: Path, equality: Equality, backend: str, case: str) -> None:
    data = np.load(shared / "golden" / "o02_ssd" / f"{case}.npz")
    names = [n for n in ("x", "dt", "A", "B", "C", "D", "z", "dt_bias") if n in data]
    leaves = {name: torch.from_numpy(data[name]).requires_grad_() for name in names}
    limit = tuple(data["dt_limit"].tolist()) if "dt_limit" in data else None
    y, _ = BACKENDS[backend](**leaves, dt_limit=limit)
    gradients = torch.autograd.grad((y * torch.from_numpy(data["G_out"])).sum(), list(leaves.values()))
    got = {"out": y, **{f"grad_{n}": g for n, g in zip(names, gradients, strict=True)}}
    errors = relative_errors({n: torch.from_numpy(data[n]) for n in got}, got)
    equality("Mamba-2 scan", "state-spaces/mamba", max(errors.values()), 1e-12)


@pytest.mark.parametrize("backend", ["reference", "torch"])
@pytest.mark.parametrize("case", ["minimal", "minimal_init"])
def test_golden_official_minimal_scan(shared: Path, equality: Equality, backend: str, case: str) -> None:
    """There x comes multiplied by dt already, and A is dt * A: A varies, so dt carries it and x is divided by it."""
    data = np.load(shared / "golden" / "o02_ssd" / f"{case}.npz")
    names = [n for n in ("X", "A", "B", "C", "initial_states") if n in data]
    X, A, B, C, *init = leaves = [torch.from_numpy(data[n]).requires_grad_() for n in names]
    state = init[0][:, 0] if init else None
    run = BACKENDS[backend]
    y, last = run(X / -A[..., None], -A, -A.new_ones(A.shape[2]), B, C, dt_softplus=False, initial_state=state)
    loss = (y * torch.from_numpy(data["G_Y"])).sum() + (last * torch.from_numpy(data["G_final_state"])).sum()
    gradients = torch.autograd.grad(loss, leaves)
    got = {"Y": y, "final_state": last, **{f"grad_{n}": g for n, g in zip(names, gradients, strict=True)}}
    errors = relative_errors({n: torch.from_numpy(data[n]) for n in got}, got)
    equality("Mamba-2 scan", "state-spaces/mamba", max(errors.values()), 1e-12)


def test_wrong_shapes_are_named() -> None:
    inputs = make_inputs(1, 5, 4, 2, 3, 2)
    with pytest.raises(ValueError, match=r"dt_bias must be \(4,\), is \(3,\)"):
        ssd(**{**inputs, "dt_bias": inputs["dt_bias"][:3]})
    with pytest.raises(ValueError, match="3 groups do not divide 4 heads"):
        ssd(**{**inputs, "B": torch.randn(1, 5, 3, 2)})
