"""Half-lives, time steps and kernels that a model is said to have."""

from __future__ import annotations

import math

import pytest
import torch

from genossm.config import ModelConfig
from genossm.models import build_model
from genossm.models.memory import Memory, cores, half_lives, memory_of
from genossm.models.mixers import build_mixer

WITHOUT = {"linear_attention", "attention", "lstm", "conv"}


def config(mixer: str, **changes) -> ModelConfig:
    return ModelConfig(**{"d_model": 8, "n_layer": 1, "d_state": 4, "mixer": mixer, "ssd": {"headdim": 4}, **changes})


def test_half_lives_are_those_of_the_decay() -> None:
    log_decay = torch.tensor([-math.log(2), -math.log(2) / 1000, 0.0])
    assert half_lives(log_decay).tolist() == pytest.approx([1, 1000, math.inf])


def test_an_s4d_channel_halves_when_it_is_said_to() -> None:
    """Re lambda = -1/2, so the half-life is 2 ln 2 / dt."""
    core = build_mixer(config("s4d")).core
    memory = memory_of(core, 100)
    assert memory is not None
    assert memory.dt is not None
    assert torch.allclose(memory.half_life.view(-1, 2), (2 * math.log(2) / memory.dt)[:, None], rtol=1e-5)


def test_dt_window_stretches_the_memory() -> None:
    torch.manual_seed(0)
    for mixer in ("mamba", "ssd", "s4", "s4d", "s5", "liquid_s4", "rwkv4"):
        options = {"d_model": 64}
        near = memory_of(build_mixer(config(mixer, **options)).core, 10)
        far = memory_of(build_mixer(config(mixer, dt_window=1_000_000, **options)).core, 10)
        assert near is not None
        assert far is not None
        assert far.half_life.max() > 20 * near.half_life.max(), mixer


def test_the_energy_of_a_kernel_says_how_far_it_reaches() -> None:
    kernel = torch.zeros(2, 50, dtype=torch.float64)
    kernel[0, 0], kernel[1, :10] = 1, 1
    reach = Memory(torch.ones(1), kernel=kernel).effective()
    assert reach is not None
    assert reach.tolist() == [1, 9]


@pytest.mark.parametrize("mixer", sorted(WITHOUT))
def test_what_does_not_decay_has_no_half_life(mixer: str) -> None:
    assert memory_of(build_mixer(config(mixer, attention={"headdim": 4})).core, 10) is None


def test_every_core_of_a_model_is_named() -> None:
    model = build_model(config("mamba", pattern="MS", rc_equivariant=True).model_copy(update={"n_layer": 2}))
    assert list(cores(model)) == ["blocks.0", "blocks.0 backward", "blocks.1", "blocks.1 backward"]
