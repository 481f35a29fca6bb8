"""Mixers and operators against peers from the package index, weights copied; skipped where a peer is not installed.

Peers: transformers (Mamba, Mamba-2, RWKV-4), mambapy (Mamba), fla-core (RWKV-7's recurrence). They compute in float32.
"""

from __future__ import annotations

from collections.abc import Iterable

import pytest
import torch
from torch import Tensor, nn

from genossm.config import ModelConfig
from genossm.kernels.delta_rule import delta_rule
from genossm.kernels.wkv import wkv
from genossm.models.mixers.mamba import Mamba
from genossm.models.mixers.ssd import SSD
from tests.conftest import Equality

pytestmark = pytest.mark.filterwarnings("ignore")  # of the peers; ours are errors in every other test

CORE = {"conv1d.weight": "conv_weight", "conv1d.bias": "conv_bias", "dt_proj.bias": "dt_bias"}


def copy_official(block: nn.Module, official: nn.Module) -> None:
    """The official names of a Mamba block, sorted into core and projections."""
    own = dict(block.named_parameters())
    with torch.no_grad():
        for name, value in official.named_parameters():
            parameter = own.pop(name) if name in own else own.pop(f"core.{CORE.get(name, name)}")
            parameter.copy_(value.detach().view_as(parameter))
    assert not own


def largest(got: Iterable[Tensor], wanted: Iterable[Tensor]) -> float:
    """The largest error of several tensors, each relative to its largest entry."""
    return max(((g - w).abs().max() / w.abs().max()).item() for g, w in zip(got, wanted, strict=True))


def error_with_gradients(ours: nn.Module, theirs: nn.Module, x: Tensor) -> float:
    results = []
    for run in (lambda x: ours(x)[0], theirs):
        leaf = x.clone().requires_grad_()
        y = run(leaf)
        results.append((y, *torch.autograd.grad(torch.sin(y).sum(), leaf)))
    return largest(*results)


def mamba_block() -> Mamba:
    return Mamba(ModelConfig(d_model=12, n_layer=1, d_state=6, bidirectional=False))


def test_mamba_is_that_of_transformers(equality: Equality) -> None:
    peer = pytest.importorskip("transformers.models.mamba.modeling_mamba")
    torch.manual_seed(0)
    theirs = peer.MambaMixer(peer.MambaConfig(hidden_size=12, state_size=6, num_hidden_layers=1), 0)
    ours = mamba_block()
    copy_official(ours, theirs)
    error = error_with_gradients(ours, theirs, torch.randn(2, 70, 12))
    equality("Mamba", "transformers (installed)", error, 1e-5, "float32")


def test_mamba_is_that_of_mambapy(equality: Equality) -> None:
    peer = pytest.importorskip("mambapy.mamba")
    torch.manual_seed(0)
    theirs = peer.MambaBlock(peer.MambaConfig(d_model=12, n_layers=1, d_state=6, use_cuda=False))
    ours = mamba_block()
    copy_official(ours, theirs)
    error = error_with_gradients(ours, theirs, torch.randn(2, 70, 12))
    equality("Mamba", "mambapy (installed)", error, 1e-5, "float32")


@pytest.mark.parametrize("groups", [1, 2])
def test_mamba2_is_that_of_transformers(equality: Equality, groups: int) -> None:
    peer = pytest.importorskip("transformers.models.mamba2.modeling_mamba2")
    torch.manual_seed(0)
    shape = {"hidden_size": 12, "state_size": 6, "num_heads": 4, "head_dim": 6, "n_groups": groups, "chunk_size": 16}
    theirs = peer.Mamba2Mixer(peer.Mamba2Config(num_hidden_layers=1, **shape), 0)
    options = {"headdim": 6, "n_groups": groups}
    ours = SSD(ModelConfig(d_model=12, n_layer=1, mixer="ssd", d_state=6, bidirectional=False, ssd=options))
    with torch.no_grad():  # the peer leaves some of them as they were allocated
        for parameter in theirs.parameters():
            parameter.uniform_(-0.5, 0.5)
    copy_official(ours, theirs)
    error = error_with_gradients(ours, theirs, torch.randn(2, 70, 12))
    equality("Mamba-2", "transformers (installed)", error, 1e-5, "float32")


def test_wkv_is_that_of_transformers(equality: Equality) -> None:
    peer = pytest.importorskip("transformers.models.rwkv.modeling_rwkv")
    torch.manual_seed(0)
    k, v = torch.randn(2, 2, 150, 8)
    decay, u = torch.randn(2, 8)
    wanted, _ = peer.rwkv_linear_attention_cpu(decay, u, k, v)
    got, _ = wkv(k, v, -torch.exp(decay), u)
    equality("RWKV-4", "transformers (installed)", largest([got], [wanted]), 1e-5, "float32")


@pytest.mark.parametrize("form", ["dplr_recurrence", "dplr_chunkwise"])
def test_delta_rule_is_that_of_fla(equality: Equality, form: str) -> None:
    """There the query is scaled by headdim^-1/2, and what is taken out comes as alpha beta^T."""
    peer = pytest.importorskip("fla.ops.generalized_delta_rule.dplr.naive")
    torch.manual_seed(0)
    r, k, v, kappa = torch.randn(4, 2, 64, 3, 8)
    kappa = nn.functional.normalize(kappa, dim=-1)
    a, w = torch.rand(2, 64, 3, 8), -0.6 * torch.rand(2, 64, 3, 8)
    ours, S = delta_rule(r, w, k, v, kappa, a)
    parts = [part.transpose(1, 2) for part in (r * 8**0.5, k, v, kappa, -kappa * a, w)]
    theirs, last = getattr(peer, form)(*parts)
    error = largest((ours, S), (theirs.transpose(1, 2), last))
    equality("RWKV-7", "fla-core (installed)", error, 1e-5, "float32")
