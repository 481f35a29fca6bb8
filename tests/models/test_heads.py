"""Whole models: shapes, initial values, parameters without decay."""

from __future__ import annotations

import torch

from genossm.config import ModelConfig
from genossm.models import base_log_probs, build_model, no_decay


def test_a_fresh_model_knows_nothing() -> None:
    """Near-uniform over the bases, so training starts at log 4 nats."""
    torch.manual_seed(0)
    model = build_model(ModelConfig(d_model=16, n_layer=2))
    log_probs = base_log_probs(model(torch.randint(7, 11, (2, 50))).logits)
    assert log_probs.shape == (2, 50, 4)
    assert torch.allclose(log_probs.exp().sum(-1), torch.ones(2, 50), atol=1e-6)
    assert (log_probs + 1.3863).abs().max() < 0.5


def test_causal_model_hands_its_state_on() -> None:
    torch.manual_seed(0)
    model = build_model(ModelConfig(d_model=16, n_layer=2, bidirectional=False, objective="causal"))
    ids = torch.randint(7, 11, (1, 60))
    whole = model(ids).logits
    first = model(ids[:, :25])
    second = model(ids[:, 25:], state=first.state)
    assert torch.allclose(whole, torch.cat([first.logits, second.logits], dim=1), atol=1e-5)


def test_hidden_states_and_parameter_count() -> None:
    model = build_model(ModelConfig(d_model=16, n_layer=1, rc_equivariant=True))
    output = model(torch.randint(7, 11, (2, 9)))
    assert output.hidden_states.shape == (2, 9, 32)
    assert model.num_parameters() == sum(p.numel() for p in model.parameters())


def test_state_space_parameters_are_not_decayed() -> None:
    decayed = set()
    for mixer in ("mamba", "s4d"):
        model = build_model(ModelConfig(d_model=16, n_layer=1, mixer=mixer))
        decayed |= {name.rsplit(".", 2)[-2] for name, p in model.named_parameters() if not no_decay(name, p)}
    assert decayed == {"core", "backward_core", "in_proj", "out_proj", "x_proj", "dt_proj", "lm_head"}
