"""Attention against explicit softmax, its window against a band, rotary positions against what they promise."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from genossm.config import ModelConfig
from genossm.models.mixers.attention import Attention, rotate


def explicit(block: Attention, x: Tensor, allowed: Tensor) -> Tensor:
    """Softmax over all pairs, one matrix a head."""
    q, k, v = block.in_proj(x).unflatten(-1, (3, -1, 4)).unbind(2)
    q, k = (rotate(part, torch.arange(x.shape[1])[None], 10_000.0) for part in (q, k))
    scores = torch.einsum("bihn,bjhn->bhij", q, k) / math.sqrt(4)
    weights = torch.softmax(scores.masked_fill(~allowed, -torch.inf), dim=-1)
    return block.out_proj(torch.einsum("bhij,bjhn->bihn", weights, v).flatten(2))


@pytest.mark.parametrize("both", [False, True], ids=["causal", "both ways"])
@pytest.mark.parametrize("length", [1, 7, 8, 50])
@pytest.mark.parametrize("mixer", ["attention", "local_attention"])
def test_attention_is_its_softmax(mixer: str, length: int, both: bool) -> None:
    torch.manual_seed(0)
    options = {"headdim": 4, "window": 8}
    block = Attention(ModelConfig(d_model=12, n_layer=1, mixer=mixer, attention=options)).double()
    if both:
        assert block.two_way() is block
    x = torch.randn(2, length, 12, dtype=torch.float64)
    lag = torch.arange(length)[:, None] - torch.arange(length)
    allowed = torch.ones_like(lag, dtype=torch.bool) if both else lag >= 0
    if mixer == "local_attention":
        allowed &= lag.abs() < 8
    assert torch.allclose(block(x)[0], explicit(block, x, allowed), atol=1e-13)


def test_rotary_scores_depend_on_the_distance_alone() -> None:
    """At a million tokens as at none: the angles keep their digits."""
    torch.manual_seed(0)
    q, k = torch.randn(2, 1, 1, 1, 8)
    scores = [
        (rotate(q, torch.tensor([[at + 5]]), 10_000.0) * rotate(k, torch.tensor([[at]]), 10_000.0)).sum()
        for at in (0, 1_000_000)
    ]
    assert torch.allclose(*scores, atol=1e-5)


def test_the_state_of_a_window_does_not_grow() -> None:
    config = ModelConfig(d_model=12, n_layer=1, mixer="local_attention", attention={"headdim": 4, "window": 8})
    block = Attention(config)
    _, (keys, _, count) = block(torch.randn(1, 100, 12))
    assert keys.shape == (1, 7, 3, 4)
    assert count.tolist() == [100]
