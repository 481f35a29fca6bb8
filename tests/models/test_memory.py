"""Half-lives, time steps and kernels that a model is said to have."""

from __future__ import annotations

import math

import pytest
import torch

from genossm.config import ModelConfig
from genossm.models import build_model
from genossm.models.memory import Memory, cores, half_lives, memory_of
from genossm.models.mixers import build_mixer

WITHOUT = {"attention", "local_attention", "conv", "rwkv_channel_mix"}


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


def test_modes_without_a_kernel_keep_their_energy_as_long_as_their_decay_lets_them() -> None:
    reach = Memory(torch.tensor([1.0, 100.0], dtype=torch.float64)).effective()
    assert (0.25 ** (reach / torch.tensor([1.0, 100.0]))).tolist() == pytest.approx([0.1, 0.1])


@pytest.mark.parametrize("mixer", ["s5", "liquid_s4"])
def test_the_kernel_of_a_channel_is_its_response_to_itself(mixer: str) -> None:
    torch.manual_seed(0)
    core = build_mixer(config(mixer)).core.double()
    u = torch.zeros(1, 20, 16, dtype=torch.float64)
    u[0, 0, 3] = 1e-6
    memory = memory_of(core, 20)
    assert memory is not None
    assert memory.kernel is not None
    response = core(u)[0][0, :, 3] - core.D[3] * u[0, :, 3]
    assert torch.allclose(memory.kernel[3], 1e6 * response, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("mixer", "gate"), [("lstm", 1), ("gru", 1)])
def test_a_gate_with_a_large_bias_keeps_for_long(mixer: str, gate: int) -> None:
    core = build_mixer(config(mixer)).core
    with torch.no_grad():
        core.rnn.bias_ih_l0.zero_()
        core.rnn.bias_hh_l0.zero_()
        core.rnn.bias_ih_l0[16 * gate : 16 * (gate + 1)] = 5
    memory = memory_of(core, 10)
    assert memory is not None
    assert memory.half_life.tolist() == pytest.approx([math.log(2) / math.log1p(math.exp(-5))] * 16)


def test_linear_attention_never_forgets() -> None:
    memory = memory_of(build_mixer(config("linear_attention")).core, 10)
    assert memory is not None
    assert memory.half_life.tolist() == [math.inf] * 4


@pytest.mark.parametrize("mixer", sorted(WITHOUT))
def test_what_does_not_decay_has_no_half_life(mixer: str) -> None:
    assert memory_of(build_mixer(config(mixer, attention={"headdim": 4})).core, 10) is None


def test_every_core_of_a_model_is_named() -> None:
    model = build_model(config("mamba", pattern="MS", rc_equivariant=True).model_copy(update={"n_layer": 2}))
    assert list(cores(model)) == ["blocks.0", "blocks.0 backward", "blocks.1", "blocks.1 backward"]
