"""Dense state space, diagonal scan and liquid scan: every block form against its definition."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from genossm.kernels import dense_lti, diagonal_scan, liquid_scan

from .conftest import LAYOUTS, Layout, outputs_and_gradients, relative_errors

SIZES = [(2, 1, 3, 2), (2, 64, 5, 3), (3, 131, 4, 6)]  # batch, seqlen, dim, states
OPERATORS = {
    "dense_lti": (dense_lti.BACKENDS, dense_lti.dense_lti),
    "diagonal_scan": (diagonal_scan.BACKENDS, diagonal_scan.diagonal_scan),
    "liquid_scan": (liquid_scan.BACKENDS, liquid_scan.liquid_scan),
}


def make_inputs(operator: str, batch: int, seqlen: int, dim: int, n: int) -> dict[str, Tensor]:
    u = torch.randn(batch, seqlen, dim)
    if operator == "dense_lti":
        orthogonal = torch.linalg.qr(torch.randn(dim, n, n)).Q
        state = torch.randn(batch, dim, n)
        return {"u": u, "A_bar": 0.95 * orthogonal, "B_bar": torch.randn(dim, n), "C": torch.randn(dim, n)} | {
            "initial_state": state
        }
    if operator == "diagonal_scan":
        log_a = torch.complex(-torch.rand(dim) * 0.3 - 0.01, torch.randn(dim))
        return {"x": torch.randn(batch, seqlen, dim, dtype=torch.cfloat), "log_a": log_a} | {
            "initial_state": torch.randn(batch, dim, dtype=torch.cfloat)
        }
    A_bar = torch.polar(0.5 + 0.3 * torch.rand(dim, n), torch.randn(dim, n))
    B_bar, C = 0.1 * torch.randn(2, dim, n, dtype=torch.cfloat)
    return {"u": u, "A_bar": A_bar, "B_bar": B_bar, "C": C} | {
        "initial_state": torch.randn(batch, dim, n, dtype=torch.cfloat)
    }


def with_real_output(run: Callable[..., tuple[Tensor, Tensor]], **leaves: Tensor) -> tuple[Tensor, Tensor]:
    y, last = run(**leaves)
    return (torch.view_as_real(y).flatten(2) if y.is_complex() else y), last


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda v: v.name)
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("operator", OPERATORS)
def test_blocks_equal_the_definition(operator: str, size: tuple[int, ...], layout: Layout, reverse: bool) -> None:
    torch.manual_seed(0)
    mask, segments = layout.make(*size[:2])
    inputs = make_inputs(operator, *size)
    reference, blocked = (
        partial(with_real_output, partial(run, mask=mask, segments=segments, reverse=reverse))
        for run in OPERATORS[operator][0].values()
    )
    truth = outputs_and_gradients(reference, inputs, torch.float64, mask)
    for dtype, bound in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
        got = outputs_and_gradients(blocked, inputs, dtype, mask)
        assert max(relative_errors(truth, got).values()) < bound


@pytest.mark.parametrize("operator", OPERATORS)
def test_a_row_without_a_token_hands_its_state_on(operator: str) -> None:
    inputs = make_inputs(operator, 2, 10, 3, 2)
    mask = torch.tensor([[False] * 10, [True] * 10])
    _, last = OPERATORS[operator][1](**inputs, mask=mask)
    assert torch.allclose(last[0], inputs["initial_state"][0])
    assert not torch.allclose(last[1], inputs["initial_state"][1])


@pytest.mark.parametrize("operator", OPERATORS)
def test_wrong_shapes_are_named(operator: str) -> None:
    inputs = make_inputs(operator, 1, 5, 3, 2)
    with pytest.raises(ValueError, match=r"mask must be \(1, 5\), is \(1, 4\)"):
        OPERATORS[operator][1](**inputs, mask=torch.ones(1, 4, dtype=torch.bool))
