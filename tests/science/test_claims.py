"""The claims, small: mathematics holds at any size; what is trained runs, and says that it is too short to tell."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from genossm.science import CLAIMS, check_of, induction_heads
from genossm.science.cost import Cost
from genossm.science.linear_probe import last_states
from genossm.science.listops import examples, tokens, value
from genossm.science.marker_recall import MARKER, QUERY, sequences
from genossm.science.memory_capacity import capacity, impulse_states, random_dense
from genossm.science.reconstruction import legendre_series, legs_online
from genossm.science.result import Claim, Figure, Setting
from genossm.science.scaling import fitted

EXACT = ("memory_capacity", "reconstruction", "s4_kernel", "resolution", "gradients", "linear_probe", "streaming")
TRAINED = ("ablation", "marker_recall", "induction_heads", "listops", "scaling")


def test_every_claim_is_of_one_kind() -> None:
    assert sorted((*EXACT, *TRAINED)) == sorted(CLAIMS)


def sound(claim: Claim) -> None:
    assert claim.statement.endswith(".")
    assert claim.figures
    assert claim.plots
    assert all(math.isfinite(figure.value) for figure in claim.figures)
    for plot in claim.plots:
        assert bool(plot.lines) != bool(plot.bars)
        assert all(len(line.x) == len(line.y) for line in plot.lines)


@pytest.mark.slow
@pytest.mark.parametrize("name", EXACT)
def test_mathematics_holds_at_any_size(name: str) -> None:
    claim = check_of(name)(Setting(quick=True))
    sound(claim)
    assert claim.holds is True, [(figure.what, figure.value, figure.expected) for figure in claim.figures]


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAINED)
def test_what_is_trained_runs_and_claims_nothing_when_quick(name: str) -> None:
    parts: list[str] = []
    claim = check_of(name)(Setting(quick=True, advance=parts.append))
    sound(claim)
    assert parts
    assert claim.holds is None


def test_a_seed_gives_the_same_figures() -> None:
    first, again, other = (check_of("gradients")(Setting(seed, quick=True)) for seed in (3, 3, 4))
    assert first.figures == again.figures
    assert first.figures != other.figures


def test_a_verdict_follows_from_value_and_range() -> None:
    inside, outside = Figure("a", 0.5, 0.0, 1.0), Figure("b", 2.0, high=1.0)
    untold, free = Figure("c", 2.0, high=1.0, judged=False), Figure("d", 2.0)
    assert [f.verdict for f in (inside, outside, untold, free)] == [
        "holds", "does not hold here", "too short to tell", ""
    ]  # fmt: skip
    assert Figure("n", math.nan, low=0.0).verdict == "does not hold here"
    assert [f.expected for f in (inside, outside, free)] == ["0 to 1", "<= 1", ""]
    assert Claim("", "", [inside, free], []).holds is True
    assert Claim("", "", [inside, outside], []).holds is False
    assert Claim("", "", [untold, free], []).holds is None


def test_capacity_is_the_number_of_delays_that_a_delay_line_keeps() -> None:
    """A shift register of 8 cells knows 8 inputs exactly; two equal cells know one."""
    assert capacity(torch.eye(8, dtype=torch.float64)) == pytest.approx(8 / 1.01)
    assert capacity(torch.ones(1, 2, dtype=torch.float64)) == pytest.approx(2 / 2.01)


def test_impulse_states_give_the_last_state() -> None:
    A, B = random_dense(6, torch.Generator().manual_seed(0))
    sequence = np.random.default_rng(0).standard_normal((2, 37))
    states = impulse_states(A, B, 0.1, 37)
    x = torch.zeros(2, 6, dtype=torch.float64)
    A_bar = torch.linalg.lstsq(states[:-1], states[1:]).solution.T
    for t in range(37):
        x = x @ A_bar.T + torch.from_numpy(sequence[:, t : t + 1]) * states[0]
    assert np.allclose(last_states(A, B, 0.1, sequence), x, atol=1e-10)


def test_legs_coefficients_of_a_polynomial_are_its_own() -> None:
    x = (np.arange(2000) + 0.5) / 2000
    signal = 1 + x - 2 * x**2
    assert np.abs(legendre_series(legs_online(signal, 4), x) - signal).max() < 5e-3


def test_marker_recall_asks_for_the_base_behind_the_marker() -> None:
    ids, answers = sequences(50, 12, torch.Generator().manual_seed(0))
    for row, answer in zip(ids.tolist(), answers.tolist(), strict=True):
        assert row.count(MARKER) == 1
        assert row[-1] == QUERY
        assert row[row.index(MARKER) + 1] - 7 == answer


def test_induction_asks_for_what_followed_the_special_token() -> None:
    ids, answers = induction_heads.sequences(50, 12, torch.Generator().manual_seed(0))
    for row, answer in zip(ids.tolist(), answers.tolist(), strict=True):
        assert row[-1] == induction_heads.SPECIAL
        assert row.index(induction_heads.SPECIAL) < 10
        assert row[row.index(induction_heads.SPECIAL) + 1] == answer


def test_listops_values() -> None:
    tree = ("MAX", [2, ("MIN", [7, 4]), ("SM", [9, 9, ("MED", [1, 5, 8])])])
    assert value(tree) == 4
    assert value(("MED", [1, 4, 6, 9])) == 5
    assert value(("SM", [5, 6, 7])) == 8
    assert len(tokens(tree)) == 16
    ids, mask, values = examples(20, 8, 20, seed=1)
    assert ids.shape == mask.shape == (20, 20)
    assert len({tuple(row.tolist()) for row in ids}) == 20
    assert (mask.sum(1) >= 8).all()
    assert set(values.tolist()) <= set(range(10))


def test_slopes_of_known_costs() -> None:
    costs = [Cost(n, 1e-6 * n, 2e-6 * n, 100.0 * n**2) for n in (10, 1000, 4000)] + [Cost(16_000, refused="over 1 s")]
    time, memory = fitted(costs, skip=1)
    assert time == pytest.approx(1)
    assert memory == pytest.approx(2)
