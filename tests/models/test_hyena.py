"""The Hyena operator against the official implementation, parameters copied."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from genossm.config import ModelConfig
from genossm.models.mixers.hyena import Hyena, HyenaCore, ImplicitFilter
from tests.conftest import Equality

OFFICIAL = {"order": 2, "max_length": 40, "emb_dim": 5, "filter_order": 8, "filter_layers": 2, "sine_freq": 10.0}


def config(**options) -> ModelConfig:
    return ModelConfig(d_model=6, n_layer=1, mixer="hyena", expand=1, bidirectional=False, hyena=OFFICIAL | options)


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-12), (torch.float32, 2e-5)])
def test_golden_official_operator(shared: Path, equality: Equality, dtype: torch.dtype, bound: float) -> None:
    data = np.load(shared / "golden" / "o07_hyena_operator" / "operator.npz")
    block = Hyena(config()).to(dtype)
    core = block.core
    assert isinstance(core, HyenaCore)
    made = core.filter
    network = "filter_fn__implicit_filter__"
    ours = {
        "in_proj__weight": block.in_proj.weight,
        "in_proj__bias": block.in_proj.bias,
        "out_proj__weight": block.out_proj.weight,
        "out_proj__bias": block.out_proj.bias,
        "short_filter__weight": core.short_weight,
        "short_filter__bias": core.short_bias,
        "filter_fn__bias": made.bias,
        "filter_fn__pos_emb__z": made.z,
        f"{network}1__freq": made.freq,
        f"{network}6__weight": made.last.weight,
    }
    for i, layer in enumerate(made.layers):
        ours |= {f"{network}{2 * i}__weight": layer.weight, f"{network}{2 * i}__bias": layer.bias}
    buffers = {"buf_filter_fn__pos_emb__t": made.t, "buf_filter_fn__modulation__deltas": made.deltas}
    with torch.no_grad():
        for name, tensor in (ours | buffers).items():
            tensor.data = torch.from_numpy(data[name]).to(dtype).view_as(tensor)
    made.z.requires_grad_()
    x = torch.from_numpy(data["x"]).to(dtype).requires_grad_()
    y, _ = block(x)
    grads = torch.autograd.grad((y * torch.from_numpy(data["G_y"])).sum(), [x, *ours.values()])
    got = {"y": y, "filter_k": made(30).permute(2, 1, 0).flatten(1)[None]}
    got |= {f"grad_{name}": grad for name, grad in zip(("x", *ours), grads, strict=True)}
    errors = {}
    for name, value in got.items():
        truth = torch.from_numpy(data[name])
        errors[name] = ((value.double().reshape(truth.shape) - truth).abs().max() / truth.abs().max()).item()
    equality("Hyena", "HazyResearch/hyena-dna", max(errors.values()), bound, str(dtype).removeprefix("torch."))


def test_fresh_positions_and_windows(shared: Path) -> None:
    data = np.load(shared / "golden" / "o07_hyena_operator" / "operator.npz")
    fresh = ImplicitFilter(config())
    assert np.allclose(fresh.t, data["buf_filter_fn__pos_emb__t"], atol=1e-6)
    slowest, fastest = (torch.exp(-t * d.abs()) for t, d in zip((1.5, 0.3), fresh.deltas[0, 0, [0, -1]], strict=True))
    assert slowest.item() == pytest.approx(fastest.item()) == pytest.approx(0.01)
    angle = 2 * np.pi * np.arange(40) / 40
    bands = np.stack([np.exp(-1j * f * angle) for f in (1e-4, 1.0)], axis=-1)
    assert np.allclose(fresh.z[0], np.c_[fresh.t[0], bands.real, bands.imag], atol=1e-5)


def test_a_filter_does_not_depend_on_the_length_asked_for() -> None:
    torch.manual_seed(0)
    made = ImplicitFilter(config(order=3))
    assert torch.equal(made(40)[..., :7], made(7))
    assert made(7).shape == (2, 6, 7)


def test_longer_than_its_filters_is_refused() -> None:
    with pytest.raises(ValueError, match=r"hyena reads at most 40 tokens \(hyena.max_length\), not 41"):
        Hyena(config())(torch.randn(1, 41, 6))
