"""Published models as GenoSSM's own: the same interface, in GenoSSM's token ids, for every command.

:meth:`forward` takes and gives GenoSSM's ids. ``own`` runs the same model in the ids of the checkpoint, as the
official code would; for Caduceus and HyenaDNA there is no difference.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from genossm import vocab
from genossm.models.formats.hyenadna import HyenaDNABackbone
from genossm.models.formats.layers import MambaBackbone, Strands
from genossm.models.formats.shapes import HyenaDNAShape, Mamba2Shape, MambaShape, PublishedShape
from genossm.models.formats.vocabularies import own_ids, why_unreadable
from genossm.models.heads import LanguageModel, Model, ModelOutput, SequenceClassifier


class PublishedModel(Model):
    """A published backbone; ``complement`` is in the ids of the checkpoint."""

    config: PublishedShape

    @property
    def bos(self) -> bool:  # type: ignore[override]
        """No published causal model was trained with [BOS], but those that came from here were."""
        return self.config.objective != "causal" or self.config.bos

    def build_backbone(self) -> nn.Module:
        """See :meth:`Model.build_backbone`."""
        shape = self.config
        self.complement = torch.tensor(_complement(shape))
        if isinstance(shape, HyenaDNAShape):
            return HyenaDNABackbone(shape)
        assert isinstance(shape, MambaShape | Mamba2Shape)
        backbone = MambaBackbone(shape)
        if not isinstance(shape, MambaShape) or not shape.rc_equivariant:
            return backbone
        return Strands(backbone, self.complement, swaps=shape.strand_swap)

    def translate(self, input_ids: Tensor) -> Tensor:
        """The checkpoint's ids for GenoSSM's.

        Raises:
            GenoSSMError: the checkpoint does not say which of its tokens are bases.
        """
        table = own_ids(self.config.vocabulary)
        return input_ids if table is None else torch.tensor(table, device=input_ids.device)[input_ids]

    @property
    def embedding(self) -> nn.Embedding:
        """The input embedding."""
        inner = self.backbone.backbone if isinstance(self.backbone, Strands) else self.backbone
        assert isinstance(inner.embedding, nn.Embedding)
        return inner.embedding


def _complement(shape: PublishedShape) -> list[int]:
    """The complement of every id of the checkpoint: as it says, else by the letters; itself where nobody knows."""
    if isinstance(shape, MambaShape) and shape.complement is not None:
        return shape.complement
    complement = list(range(shape.vocab_size))
    if why_unreadable(shape.vocabulary) is None:
        table = own_ids(shape.vocabulary) or list(range(vocab.VOCAB_SIZE))
        for base in vocab.BASES:
            complement[table[base]] = table[vocab.COMPLEMENT[base]]
    return complement


class PublishedLanguageModel(PublishedModel, LanguageModel):
    """A published language model."""

    def __init__(self, config: PublishedShape) -> None:
        LanguageModel.__init__(self, config)
        if config.tie_embeddings:
            self.lm_head.weight = self.embedding.weight

    def forward(
        self,
        input_ids: Tensor,
        mask: Tensor | None = None,
        segments: Tensor | None = None,
        state: list[Any] | None = None,
    ) -> ModelOutput:
        """Logits (batch, seqlen, 16); arguments as :meth:`LanguageModel.forward`."""
        output = self.own(self.translate(input_ids), mask, segments, state)
        output.logits = self._own_columns(output.logits)
        return output

    def read_out(self, hidden: Tensor) -> Tensor:
        """See :meth:`LanguageModel.read_out`."""
        return self._own_columns(self.vote(hidden))

    def _own_columns(self, logits: Tensor) -> Tensor:
        table, width = own_ids(self.config.vocabulary), self.config.vocab_size
        if table is None and width == vocab.VOCAB_SIZE:
            return logits
        # ids that the checkpoint does not have are no bases, so whatever stands there is not read
        columns = [i if i < width else vocab.PAD for i in table or range(vocab.VOCAB_SIZE)]
        return logits[..., torch.tensor(columns, device=logits.device)]

    def own(
        self,
        input_ids: Tensor,
        mask: Tensor | None = None,
        segments: Tensor | None = None,
        state: list[Any] | None = None,
    ) -> ModelOutput:
        """The same in the checkpoint's ids: logits (batch, seqlen, vocab_size)."""
        return LanguageModel.forward(self, input_ids, mask, segments, state)


class PublishedClassifier(PublishedModel, SequenceClassifier):
    """A published classifier, or a head on a published backbone."""

    def __init__(self, config: PublishedShape, num_labels: int) -> None:
        SequenceClassifier.__init__(self, config, num_labels)
        self.classifier = nn.Linear(config.d_model, num_labels, bias=False)

    def forward(self, input_ids: Tensor, mask: Tensor | None = None, segments: None = None) -> ModelOutput:
        """Logits (batch, num_labels); arguments as :meth:`SequenceClassifier.forward`."""
        return self.own(self.translate(input_ids), mask, segments)

    def own(self, input_ids: Tensor, mask: Tensor | None = None, segments: None = None) -> ModelOutput:
        """The same in the checkpoint's ids."""
        return SequenceClassifier.forward(self, input_ids, mask, segments)

    def pool(self, hidden: Tensor, mask: Tensor | None) -> Tensor:
        """See :meth:`SequenceClassifier.pool`; the largest value of each channel where the shape says so."""
        if self.config.pooling == "mean":
            return SequenceClassifier.pool(self, hidden, mask)
        counted = hidden if mask is None else hidden.masked_fill(~mask[..., None], -torch.inf)
        return counted.amax(1)
