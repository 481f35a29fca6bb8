"""The learning rate as a function of the step, and an optimizer state that comes back bit for bit."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import nn

from genossm.train.optim import (
    build_optimizer,
    learning_rate,
    one_cycle,
    optimizer_tensors,
    restore_optimizer,
    set_learning_rate,
)


def _rate(step: int, warmup_steps: int = 10, steps: int = 110) -> float:
    return learning_rate(step, peak=1.0, warmup_steps=warmup_steps, steps=steps)


def test_warm_up_then_cosine_to_a_tenth() -> None:
    assert [_rate(s) for s in (0, 4, 9)] == pytest.approx([0.1, 0.5, 1.0])
    assert _rate(10) == pytest.approx(1.0)
    assert _rate(109) == pytest.approx(0.1)
    assert learning_rate(60, peak=1.0, warmup_steps=10, steps=111) == pytest.approx(0.55)
    after = [_rate(s) for s in range(10, 110)]
    assert after == sorted(after, reverse=True)


@pytest.mark.parametrize(("warmup_steps", "steps"), [(0, 1), (0, 2), (1, 1), (5, 5), (50, 10)])
def test_short_runs_have_a_rate_at_every_step(warmup_steps: int, steps: int) -> None:
    assert all(0 < _rate(s, warmup_steps, steps) <= 1 for s in range(steps))


def _no_decay(name: str, parameter: nn.Parameter) -> bool:
    return parameter.ndim < 2


def _model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))


def _train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
    for step in range(steps):
        torch.manual_seed(step)
        optimizer.zero_grad()
        model(torch.randn(5, 3)).square().mean().backward()
        optimizer.step()


def test_decay_reaches_matrices_only() -> None:
    model = _model()
    optimizer = build_optimizer(model, weight_decay=0.5, no_decay=_no_decay)
    set_learning_rate(optimizer, 0.1)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    for name, p in model.named_parameters():
        torch.testing.assert_close(p.detach(), before[name] * (0.95 if p.ndim == 2 else 1.0))


def test_frozen_parameters_are_left_out() -> None:
    model = _model()
    for p in model.parameters():
        p.requires_grad_(p.ndim == 2)
    assert len(build_optimizer(model, weight_decay=0.5, no_decay=_no_decay).param_groups) == 1


def test_a_restored_optimizer_goes_on_with_the_same_bits() -> None:
    model = _model()
    optimizer = build_optimizer(model, weight_decay=0.1, no_decay=_no_decay)
    assert optimizer_tensors(model, optimizer) == {}
    set_learning_rate(optimizer, 0.01)
    _train(model, optimizer, 3)
    twin = _model()
    twin.load_state_dict(model.state_dict())
    other = build_optimizer(twin, weight_decay=0.1, no_decay=_no_decay)
    restore_optimizer(twin, other, optimizer_tensors(model, optimizer))
    set_learning_rate(other, 0.01)
    _train(model, optimizer, 3)
    _train(twin, other, 3)
    for mine, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_the_state_of_another_model_is_refused() -> None:
    model = _model()
    optimizer = build_optimizer(model, weight_decay=0.1, no_decay=_no_decay)
    _train(model, optimizer, 1)
    tensors = optimizer_tensors(model, optimizer)
    with pytest.raises(ValueError, match="another model"):
        restore_optimizer(model, optimizer, {**tensors, "7.weight/step": torch.tensor(1.0)})
    with pytest.raises(ValueError, match="another shape"):
        restore_optimizer(model, optimizer, {**tensors, "0.bias/exp_avg": torch.zeros(9)})


def test_one_cycle_rises_to_the_peak_and_falls_to_nothing() -> None:
    rates = [one_cycle(step, peak=2.0, warmup_steps=25, steps=100) for step in range(100)]
    assert rates[0] == pytest.approx(0.08)
    assert max(rates) == rates[25] == 2.0
    assert all(a < b for a, b in pairwise(rates[:26]))
    assert all(a > b for a, b in pairwise(rates[25:]))
    assert rates[-1] == pytest.approx(0.0, abs=1e-9)
