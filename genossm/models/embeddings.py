"""Embeddings, by the conventions of those who publish these models.

* per token: the final hidden states, (batch, seqlen, width); an equivariant model keeps both strands, so its width is
  twice d_model;
* strand-averaged: (batch, seqlen, d_model), at every base the mean of what it looks like from either strand. For an
  equivariant model that is the mean of its two halves, as users of PlantCaduceus compute it; any other model reads the
  reverse complement as well;
* mean-pooled: (batch, width), the mean over the tokens of a sequence, padding left out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from genossm import vocab
from genossm.models.heads import Model, mean_pool

Run = Callable[[Tensor, Tensor | None], Tensor]
"""input_ids and mask to hidden states."""


def average_strands(hidden: Tensor) -> Tensor:
    """(batch, seqlen, 2 * d_model) of an equivariant model to (batch, seqlen, d_model)."""
    given, other = hidden.chunk(2, dim=-1)
    return (given + other) / 2


def embed(
    model: Model,
    input_ids: Tensor,
    mask: Tensor | None = None,
    *,
    strands: Literal["both", "given"] = "both",
    pool: bool = False,
) -> Tensor:
    """Embeddings of input_ids int64 (batch, seqlen), GenoSSM's ids.

    Args:
        model: native or published.
        mask: bool (batch, seqlen), False at padding.
        strands: ``both`` is strand-averaged; ``given`` leaves the hidden states as they are.
        pool: mean-pooled.
    """
    complement = torch.from_numpy(vocab.COMPLEMENT).long().to(input_ids.device)
    return embed_by(
        lambda ids, mask: model(ids, mask).hidden_states, complement, model.config.rc_equivariant, input_ids, mask,
        strands=strands, pool=pool,
    )  # fmt: skip


def embed_by(
    run: Run,
    complement: Tensor,
    equivariant: bool,
    input_ids: Tensor,
    mask: Tensor | None = None,
    *,
    strands: Literal["both", "given"] = "both",
    pool: bool = False,
) -> Tensor:
    """:func:`embed` for any function that gives hidden states, in ids whose complement is the table ``complement``."""
    hidden = run(input_ids, mask)
    if strands == "both" and equivariant:
        hidden = average_strands(hidden)
    elif strands == "both":
        other = run(complement[input_ids].flip(1), None if mask is None else mask.flip(1))
        hidden = (hidden + other.flip(1)) / 2
    return mean_pool(hidden, mask) if pool else hidden
