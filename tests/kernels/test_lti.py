"""The blocked diagonal state space against its definition, in float64 and float32."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from genossm.kernels.lti import lti, lti_blocked
from genossm.kernels.lti.reference import lti_ref

from .conftest import LAYOUTS, Layout, outputs_and_gradients, relative_errors

SIZES = [(2, 1, 3, 2), (2, 64, 5, 3), (3, 131, 4, 8)]  # batch, seqlen, dim, dstate


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
def test_blocks_equal_the_definition(size: tuple[int, ...], layout: Layout, reverse: bool) -> None:
    torch.manual_seed(0)
    mask, segments = layout.make(*size[:2])
    inputs = make_inputs(*size)
    options = {"mask": mask, "segments": segments, "reverse": reverse}
    truth = outputs_and_gradients(partial(lti_ref, **options), inputs, torch.float64, mask)
    for dtype, bound in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
        got = outputs_and_gradients(partial(lti_blocked, **options), inputs, dtype, mask)
        assert max(relative_errors(truth, got).values()) < bound


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
