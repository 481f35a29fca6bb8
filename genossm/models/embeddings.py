"""Embeddings, by the conventions of those who publish these models.

* per token: the final hidden states, (batch, seqlen, width); an equivariant model keeps both strands, so its width is
  twice d_model;
* strand-averaged: (batch, seqlen, d_model), at every base the mean of what it looks like from either strand. For an
  equivariant model that is the mean of its two halves, as users of PlantCaduceus compute it; any other model reads the
  reverse complement as well;
* mean-pooled: (batch, width), the mean over the tokens of a sequence, padding left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from genossm import vocab
from genossm.models.heads import LanguageModel, Model, mean_pool
from genossm.models.streaming import stack_of, strand_backbone
from genossm.models.sweeps import MEMORY, Budget, Store, stream_hidden

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
    if strands not in ("both", "given"):
        raise ValueError(f"strands is {strands!r}; it is 'both' or 'given'")
    hidden = run(input_ids, mask)
    if strands == "both" and equivariant:
        hidden = average_strands(hidden)
    elif strands == "both":
        other = run(complement[input_ids].flip(1), None if mask is None else mask.flip(1))
        hidden = (hidden + other.flip(1)) / 2
    return mean_pool(hidden, mask) if pool else hidden


Floats = npt.NDArray[np.float32]


def embedding_width(model: LanguageModel, *, both_strands: bool) -> int:
    """Numbers in an embedding of :func:`record_hidden`."""
    return model.config.d_model * (2 if model.config.rc_equivariant and not both_strands else 1)


@torch.inference_mode()
def record_hidden(
    model: LanguageModel,
    tokens: npt.NDArray[np.uint8],
    *,
    layers: int | None = None,
    both_strands: bool = True,
    memory: int = MEMORY,
) -> Iterator[tuple[int, int, Floats]]:
    """The per-token embeddings of one record, piece by piece from its beginning: (start, end, (end - start, width)).

    Args:
        model: in eval mode.
        tokens: uint8, shape (length,), not empty.
        layers: the residual stream after so many blocks; None is the model's output.
        both_strands: strand-averaged.
        memory: bytes of activations of a long record that are kept in memory.
    """
    equivariant, length = bool(model.config.rc_equivariant), len(tokens)
    device = next(model.parameters()).device
    twice = both_strands and not equivariant
    views = [tokens, vocab.reverse_complement(tokens)] if twice else [tokens]

    def pieces(text: npt.NDArray[np.uint8]) -> Iterator[tuple[int, int, Tensor]]:
        def ids(start: int, end: int) -> Tensor:
            return model.translate(torch.from_numpy(text[start:end].astype(np.int64))[None].to(device))

        stack = stack_of(model)
        if stack is None:
            yield 0, length, _whole(model, ids(0, length), layers)
        else:
            yield from stream_hidden(model, stack, ids, length, budget, layers)

    budget = Budget(memory)
    with ExitStack() as stores:
        other: Store | None = None
        for start, _, hidden in pieces(views[1]) if twice else ():
            if other is None:
                other = Store(length, hidden.shape[2], hidden, budget)
                stores.callback(other.close)
            other.write(start, hidden)
        for start, end, hidden in pieces(views[0]):
            if other is not None:
                hidden = (hidden + other.read(length - end, length - start).flip(1)) / 2
            elif both_strands:
                hidden = average_strands(hidden)
            yield start, end, hidden[0].float().cpu().numpy()


def _whole(model: LanguageModel, input_ids: Tensor, layers: int | None) -> Tensor:
    """Hidden states of a model that reads whole sequences."""
    if layers is None:
        return model.backbone(input_ids)[0]
    backbone: Any = strand_backbone(model)
    if layers == 0:
        embedded = [backbone.embedding(input_ids)]
        if model.config.rc_equivariant:
            embedded.append(backbone.embedding(model.complement[input_ids]))
        return torch.cat(embedded, dim=-1)
    found: list[Tensor] = []
    block = backbone.blocks[layers - 1]
    hook = block.register_forward_hook(lambda _, __, out: found.append(out if isinstance(out, Tensor) else out[0]))
    try:
        model.backbone(input_ids)
    finally:
        hook.remove()
    return found[0] if len(found) == 1 else torch.cat([found[0], found[1].flip(1)], dim=-1)
