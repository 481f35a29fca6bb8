"""The backbone: embedding, pre-norm residual blocks, a final norm."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from genossm.config import ModelConfig
from genossm.models.bidirectional import Bidirectional, both_directions
from genossm.models.mixers import build_mixer
from genossm.models.mixers.base import Mixer, scale_residual


class Block(nn.Module):
    """x + dropout(mixer(RMSNorm(x))), then the same with an MLP where the configuration has one."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(config.d_model, eps=config.norm_eps)
        mixer = build_mixer(config)
        self.mixer: Mixer | Bidirectional = both_directions(mixer) if config.bidirectional else mixer
        self.dropout = nn.Dropout(config.dropout)
        self.mlp = build_mlp(config) if config.mlp_expand else None

    def forward(
        self, x: Tensor, *, state: Any = None, mask: Tensor | None = None, segments: Tensor | None = None
    ) -> tuple[Tensor, Any]:
        """(batch, seqlen, d_model) to the same, and the mixer's state."""
        normed = self.norm(x)
        plain = state is not None and mask is None and segments is None
        if plain and x.shape[1] == 1 and isinstance(self.mixer, Mixer):  # generation: a step is less work than a scan
            step, state = self.mixer.step(normed[:, 0], state)
            y = step[:, None]
        else:
            y, state = self.mixer(normed, state=state, mask=mask, segments=segments)
        x = x + self.dropout(y)
        return x if self.mlp is None else x + self.dropout(self.mlp(x)), state


def build_mlp(config: ModelConfig) -> nn.Sequential:
    """RMSNorm, then two linear layers around a GELU, (..., d_model) to the same."""
    width = config.mlp_expand * config.d_model
    out = nn.Linear(width, config.d_model, bias=False)
    scale_residual(out, config)
    return nn.Sequential(
        nn.RMSNorm(config.d_model, eps=config.norm_eps),
        nn.Linear(config.d_model, width, bias=False),
        nn.GELU(),
        out,
    )


class Backbone(nn.Module):
    """Token ids to hidden states."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.embedding = nn.Embedding(config.vocab_size, config.d_model)
        nn.init.normal_(self.embedding.weight, std=0.02)
        self.blocks = nn.ModuleList(Block(config.for_layer(i)) for i in range(config.n_layer))
        self.norm = nn.RMSNorm(config.d_model, eps=config.norm_eps)

    def forward(
        self,
        input_ids: Tensor,
        *,
        state: list[Any] | None = None,
        mask: Tensor | None = None,
        segments: Tensor | None = None,
    ) -> tuple[Tensor, list[Any]]:
        """Hidden states (batch, seqlen, d_model) of input_ids int64 (batch, seqlen), and one state a block.

        Args:
            input_ids: int64 (batch, seqlen).
            state: one entry a block: what an earlier chunk handed on; of a bidirectional block, what stands left and
                what stands right of this chunk.
            mask: bool (batch, seqlen), False at padding: it changes nothing at the other tokens.
            segments: int (batch, seqlen), packed sequences.
        """
        x = self.embed(input_ids)
        states = []
        for index, block in enumerate(self.blocks):
            x, carried = block(x, state=None if state is None else state[index], mask=mask, segments=segments)
            states.append(carried)
        return self.finish(x), states

    def embed(self, input_ids: Tensor) -> Tensor:
        """The residual stream before the first block, (batch, seqlen, d_model)."""
        return self.embedding(input_ids)

    def finish(self, x: Tensor) -> Tensor:
        """Hidden states from the residual stream after the last block."""
        return self.norm(x)

    def init_state(self, batch: int) -> list[Any]:
        """The state before any token, one entry a block."""
        return [block.mixer.init_state(batch) for block in self.blocks]  # type: ignore[union-attr, operator]

    def step(self, ids: Tensor, state: list[Any]) -> tuple[Tensor, list[Any]]:
        """One token of a causal backbone: ids int64 (batch,) to hidden states (batch, d_model)."""
        hidden, state = self(ids[:, None], state=state)
        return hidden[:, 0], state


class ReverseComplement(nn.Module):
    """A backbone on both strands at once, with one set of weights.

    Strands never mix before the head, so each runs by itself, in its own reading order and in the same shape: for
    the reverse complement of the input the two runs are exchanged, bit for bit. The result (batch, seqlen,
    2 * d_model) holds, at each base, the given strand's features and then the other strand's: equivariance by
    construction (Caduceus-PS, arXiv:2403.03234, section 4).
    """

    complement: Tensor

    def __init__(self, backbone: Backbone, complement: Tensor) -> None:
        super().__init__()
        self.backbone = backbone
        self.register_buffer("complement", complement, persistent=False)

    def forward(
        self, input_ids: Tensor, *, state: None = None, mask: Tensor | None = None, segments: Tensor | None = None
    ) -> tuple[Tensor, list[Any]]:
        """Arguments as :meth:`Backbone.forward`; it carries no state.

        Raises:
            ValueError: a state is given.
        """
        if state is not None:
            raise ValueError("a reverse-complement equivariant backbone reads whole sequences: it takes no state")
        given, _ = self.backbone(input_ids, mask=mask, segments=segments)
        reversed_ = [None if v is None else v.flip(1) for v in (mask, segments)]
        other, _ = self.backbone(self.complement[input_ids].flip(1), mask=reversed_[0], segments=reversed_[1])
        return torch.cat([given, other.flip(1)], dim=-1), []
