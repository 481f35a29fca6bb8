"""Hybrids by a pattern, mixers of the baselines, and whole models of every preset."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch import nn

from genossm.config import ModelConfig
from genossm.config.model import LETTERS
from genossm.models import build_model, no_decay
from genossm.models.bidirectional import Bidirectional
from genossm.models.mixers import MIXERS, build_mixer
from genossm.models.mixers.attention import Attention
from genossm.models.mixers.conv import ConvCore
from genossm.models.mixers.mamba import Mamba

SMALL = {
    "d_model": 16,
    "ssd": {"headdim": 8},
    "rwkv": {"headdim": 8, "rank": 4},
    "attention": {"headdim": 8, "window": 8},
    "hyena": {"max_length": 64, "filter_order": 8},
}


def test_a_pattern_repeats_over_the_depth() -> None:
    config = ModelConfig(**SMALL, n_layer=6, pattern="MMMA", mlp_expand=2)
    blocks = build_model(config).backbone.blocks
    assert [type(b.mixer.mixer if isinstance(b.mixer, Bidirectional) else b.mixer) for b in blocks] == [
        Mamba, Mamba, Mamba, Attention, Mamba, Mamba
    ]  # fmt: skip
    assert all(isinstance(block.mlp, nn.Sequential) for block in blocks)


def test_a_causal_hybrid_goes_on_from_its_state() -> None:
    torch.manual_seed(0)
    config = ModelConfig(**SMALL, n_layer=5, pattern="SAWRK", bidirectional=False, objective="causal")
    model = build_model(config).double()
    ids = torch.randint(7, 11, (2, 50))
    whole = model(ids).logits
    state, parts = None, []
    for piece in ids.split([20, 1, 29], dim=1):
        output = model(piece, state=state)
        state = output.state
        parts.append(output.logits)
    assert torch.allclose(whole, torch.cat(parts, dim=1), atol=1e-12)


def test_a_padded_equivariant_hybrid_gives_both_strands_the_same() -> None:
    torch.manual_seed(0)
    config = ModelConfig(**SMALL, n_layer=4, pattern="HA5K", rc_equivariant=True)
    model = build_model(config, num_labels=2).double().eval()
    ids = torch.randint(7, 11, (1, 30))
    padded = torch.cat([ids, torch.full((1, 9), 4)], dim=1)
    mask = torch.arange(39)[None] < 30
    alone = model(ids).logits
    assert torch.allclose(alone, model(padded, mask).logits, atol=1e-12)
    assert torch.allclose(alone, model(model.complement[ids].flip(1)).logits, atol=1e-12)


@pytest.mark.parametrize("name", sorted(MIXERS))
def test_every_preset_learns(name: str) -> None:
    """A repeat of ten bases, read both ways, a few steps: the loss falls, and every parameter has a gradient."""
    torch.manual_seed(0)
    model = build_model(ModelConfig(**SMALL, n_layer=2, mixer=name))
    ids = torch.randint(7, 11, (1, 10)).repeat(4, 6)
    hidden = torch.rand(4, 60) < 0.3
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(12):
        loss = F.cross_entropy(model(torch.where(hidden, 3, ids)).logits[hidden], ids[hidden])
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad is not None for p in model.parameters())
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.75 * losses[0]


@pytest.mark.parametrize("name", sorted(MIXERS))
def test_what_makes_a_state_space_is_not_decayed(name: str) -> None:
    """Weight decay is for matrices that project."""
    mixer = build_mixer(ModelConfig(**SMALL, mixer=name, n_layer=1))
    decayed = {n.removesuffix(".weight").rsplit(".", 1)[-1] for n, p in mixer.named_parameters() if not no_decay(n, p)}
    projections = {"in_proj", "out_proj", "x_proj", "dt_proj", "key", "value", "receptance", "Wr", "Wk", "Wv", "last"}
    low_rank = {"Ww1", "Ww2", "Wa1", "Wa2", "Wg1", "Wg2"}
    filters = {"conv_weight", "short_weight", "weight_ih_l0", "weight_hh_l0", *map(str, range(4))}
    assert decayed <= projections | low_rank | filters


def test_letters_stand_for_presets() -> None:
    assert set(LETTERS.values()) <= set(MIXERS)
    with pytest.raises(ValidationError, match="pattern: 'MX' must be made of the letters of mixers: M mamba"):
        ModelConfig(pattern="MX")


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"mixer": "ssd", "ssd": {"headdim": 48}}, "ssd.headdim: heads of 48 in 1 groups do not divide the 256"),
        ({"mixer": "rwkv7", "rwkv": {"headdim": 48}}, "rwkv.headdim: 48 does not divide d_model 128"),
        ({"pattern": "MA", "attention": {"headdim": 5}}, "attention.headdim: 5 must be even and divide d_model 128"),
    ],
)
def test_heads_that_do_not_fit_are_refused(options: dict, fault: str) -> None:
    with pytest.raises(ValidationError, match=fault):
        ModelConfig(**options)


def test_dilated_convolutions_are_the_sum_over_their_taps() -> None:
    torch.manual_seed(0)
    config = ModelConfig(d_model=4, expand=1, mixer="conv", conv={"kernel": 3, "layers": 2})
    core = ConvCore(config).double()
    x = torch.randn(1, 20, 4, dtype=torch.float64)
    y = x
    for i in range(2):
        weight, bias = core.depthwise[i].weight[:, 0], core.depthwise[i].bias
        taps = [F.pad(y, (0, 0, (2 - k) * 2**i, 0))[0, :20] for k in range(3)]
        seen = bias + sum(weight[:, k] * tap for k, tap in enumerate(taps))
        y = y + core.pointwise[i](F.gelu(seen))[None]
    assert torch.allclose(core(x)[0], y, atol=1e-13)
