"""A whole pretraining step as a benchmark case: a bidirectional Mamba of 4 layers, d_model 128, masked objective."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genossm import vocab
from genossm.bench.blocks import PROBE, ModuleCase, unknown
from genossm.bench.peers import mambapy_block
from genossm.config import ModelConfig
from genossm.data.masking import mask_tokens
from genossm.kernels.benchmark import Case, Entrant, Problem
from genossm.models import build_model, no_decay
from genossm.stages.language_modelling import Batch, target_losses
from genossm.train.optim import build_optimizer, set_learning_rate

CONFIG = ModelConfig(d_model=128, n_layer=4, mixer="mamba", bidirectional=True)


def _batch(seqlen: int) -> Batch:
    """Random bases, 15 % of them to be told."""
    tokens = np.random.default_rng(0).integers(vocab.A, vocab.T + 1, (1, seqlen)).astype(np.uint8)
    input_ids, targets = mask_tokens(tokens, seed=0, step=0, mask_fraction=0.15)
    return Batch(input_ids, tokens, targets, np.zeros_like(targets))


class _Loss(nn.Module):
    """The mean loss of the targets, as pretraining takes it."""

    def __init__(self) -> None:
        super().__init__()
        self.model = build_model(CONFIG)

    def forward(self, input_ids: Tensor) -> tuple[Tensor]:
        """A scalar of input_ids int64 (1, seqlen), those of :func:`_batch`."""
        return (target_losses(self.model, _batch(input_ids.shape[1]), input_ids.device).mean(),)


class _PeerBackbone(nn.Module):
    """The same model from mambapy's blocks: a block a direction, the second on the flipped sequence."""

    def __init__(self) -> None:
        super().__init__()
        d_model = CONFIG.d_model
        self.embedding = nn.Embedding(CONFIG.vocab_size, d_model)
        self.norms = nn.ModuleList(nn.RMSNorm(d_model) for _ in range(CONFIG.n_layer + 1))
        self.forwards = nn.ModuleList(mambapy_block(d_model) for _ in range(CONFIG.n_layer))
        self.backwards = nn.ModuleList(mambapy_block(d_model) for _ in range(CONFIG.n_layer))
        self.lm_head = nn.Linear(d_model, CONFIG.vocab_size, bias=False)

    def forward(self, input_ids: Tensor) -> SimpleNamespace:
        """Logits of input_ids int64 (batch, seqlen)."""
        x = self.embedding(input_ids)
        for norm, there, back in zip(self.norms, self.forwards, self.backwards, strict=False):
            y = norm(x)
            x = x + there(y) + back(y.flip(1)).flip(1)
        return SimpleNamespace(logits=self.lm_head(self.norms[-1](x)))


def _step(build: type[nn.Module] | partial[nn.Module], seqlen: int, device: torch.device) -> Problem:
    """Loss, gradient, clipping and AdamW of one batch."""
    torch.manual_seed(0)
    model = build().to(device)
    batch = _batch(seqlen)
    optimizer = build_optimizer(model, weight_decay=0.1, no_decay=no_decay)
    set_learning_rate(optimizer, 1e-3)

    def run() -> Tensor:
        optimizer.zero_grad()
        loss = target_losses(model, batch, device).mean()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss.detach()

    return Problem(run)


def _products(seqlen: int, device: torch.device) -> Problem:
    """Every linear layer of the model by itself: its product, and the two of its gradients."""
    layers = [m for m in build_model(CONFIG).to(device).modules() if isinstance(m, nn.Linear)]
    widths = {width for layer in layers for width in layer.weight.shape}
    rows = {width: torch.randn(seqlen, width, device=device) for width in widths}

    def run() -> Tensor:
        with torch.no_grad():
            for layer in layers:
                out, into = layer.weight.shape
                F.linear(rows[into], layer.weight)
                torch.mm(rows[out], layer.weight)
                last = torch.mm(rows[out].mT, rows[into])
        return last

    return Problem(run)


_LOSS = ModuleCase(_Loss, lambda seqlen: torch.from_numpy(_batch(seqlen).input_ids))

CASE = Case(
    "pretraining_step",
    _LOSS.inputs,
    _LOSS.run,
    _LOSS.run,
    unknown,
    unknown,
    entrants=(
        Entrant("its matrix products alone", _products, passes=("step",)),
        Entrant("mambapy, a block a direction", partial(_step, _PeerBackbone), passes=("step",)),
    ),
    passes=("step",),
    probe=PROBE,
    prepare=partial(_step, partial(build_model, CONFIG)),
)
