"""Whole models: a backbone and a head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from genossm import vocab
from genossm.config import ModelConfig
from genossm.models.backbone import Backbone, ReverseComplement
from genossm.models.formats.shapes import PublishedShape


@dataclass
class ModelOutput:
    """What a model returns.

    Attributes:
        logits: (batch, seqlen, 16) of a language model, (batch, num_labels) of a classifier.
        hidden_states: (batch, seqlen, d_model), twice as wide where both strands are kept.
        state: what to hand on to the next chunk (causal models).
    """

    logits: Tensor
    hidden_states: Tensor
    state: list[Any]


class Model(nn.Module):
    """A backbone, reverse-complement equivariant where the configuration says so."""

    complement: Tensor
    bos = True
    """Whether a causal model is given [BOS] before the sequence."""

    def __init__(self, config: ModelConfig | PublishedShape) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("complement", torch.from_numpy(vocab.COMPLEMENT).long(), persistent=False)
        self.backbone = self.build_backbone()

    def build_backbone(self) -> nn.Module:
        """Token ids to hidden states, as :meth:`Backbone.forward` does it."""
        assert isinstance(self.config, ModelConfig)
        backbone = Backbone(self.config)
        return ReverseComplement(backbone, self.complement) if self.config.rc_equivariant else backbone

    def translate(self, input_ids: Tensor) -> Tensor:
        """The ids that the backbone reads, for GenoSSM's."""
        return input_ids

    @property
    def stateful(self) -> bool:
        """Whether it can go on from the state of an earlier chunk; a model that cannot reads whole sequences."""
        if self.config.objective != "causal":
            return False
        return all(block.mixer.stateful for block in self.backbone.blocks)  # type: ignore[union-attr]

    @property
    def max_seqlen(self) -> int | None:
        """The longest sequence in tokens, None where there is no bound."""
        if isinstance(self.config, PublishedShape):
            return self.config.max_seqlen
        return self.config.hyena.max_length if "hyena" in self.config.layers else None

    def num_parameters(self) -> int:
        """Trainable numbers in the model."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad)


class LanguageModel(Model):
    """Logits for every token: of itself (masked objective) or of the next one (causal).

    With both strands kept, the two halves vote: W h_given + P W h_other, where P exchanges the rows of complementary
    tokens, so the logits of the reverse complement are the complement's logits, reversed.
    """

    def __init__(self, config: ModelConfig | PublishedShape) -> None:
        super().__init__(config)
        self.lm_head = nn.Linear(config.d_model, config.vocab_size, bias=False)
        nn.init.normal_(self.lm_head.weight, std=0.02)

    def forward(
        self,
        input_ids: Tensor,
        mask: Tensor | None = None,
        segments: Tensor | None = None,
        state: list[Any] | None = None,
    ) -> ModelOutput:
        """Logits (batch, seqlen, 16); arguments as :meth:`Backbone.forward`."""
        hidden, state = self.backbone(input_ids, state=state, mask=mask, segments=segments)
        return ModelOutput(self.vote(hidden), hidden, state)

    def vote(self, hidden: Tensor) -> Tensor:
        """Logits of hidden states (batch, seqlen, width), in the ids of the checkpoint."""
        if not self.config.rc_equivariant:
            return self.lm_head(hidden)
        given, other = hidden.chunk(2, dim=-1)
        # in its own reading order: the same rows of the same product as when this strand is the given one
        return self.lm_head(given) + self.lm_head(other.flip(1)).flip(1)[..., self.complement]

    def read_out(self, hidden: Tensor) -> Tensor:
        """Logits (batch, seqlen, 16) of hidden states (batch, seqlen, width), in GenoSSM's ids."""
        return self.vote(hidden)


class SequenceClassifier(Model):
    """Logits for every sequence, from the mean of its hidden states; padding does not count.

    With both strands kept, the logits are the mean of the two strands': equal for a sequence and its complement.
    """

    def __init__(self, config: ModelConfig | PublishedShape, num_labels: int) -> None:
        super().__init__(config)
        self.num_labels = num_labels
        self.classifier = nn.Linear(config.d_model, num_labels)

    def forward(self, input_ids: Tensor, mask: Tensor | None = None, segments: None = None) -> ModelOutput:
        """Logits (batch, num_labels) of input_ids int64 (batch, seqlen).

        Raises:
            ValueError: segments are given; one row is one sequence here.
        """
        if segments is not None:
            raise ValueError("a classifier takes one sequence a row, not packed segments")
        hidden, state = self.backbone(input_ids, mask=mask)
        pooled = self.pool(hidden, mask)
        if self.config.rc_equivariant:
            given, other = pooled.chunk(2, dim=-1)
            pooled = (given + other) / 2
        return ModelOutput(self.classifier(pooled), hidden, state)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Probabilities of the classes (..., num_labels) of their logits."""
        return torch.softmax(logits, dim=-1)

    def pool(self, hidden: Tensor, mask: Tensor | None) -> Tensor:
        """(batch, seqlen, width) to (batch, width): the mean over the tokens that count."""
        return mean_pool(hidden, mask)


def mean_pool(hidden: Tensor, mask: Tensor | None = None) -> Tensor:
    """(batch, seqlen, width) to (batch, width): the mean over the tokens where ``mask``, bool, is True."""
    if mask is None:
        return hidden.mean(1)
    weight = mask[..., None].to(hidden.dtype)
    return (hidden * weight).sum(1) / weight.sum(1).clamp(min=1)


def base_log_probs(logits: Tensor) -> Tensor:
    """Natural-log probabilities of A, C, G, T, (..., 4), from logits (..., 16): the other tokens are no bases."""
    return torch.log_softmax(logits[..., vocab.FIRST_BASE : vocab.FIRST_BASE + 4].float(), dim=-1)
