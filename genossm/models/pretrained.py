"""A loaded model for Python users: the checkpoint's own token ids, outputs as the users of transformers expect them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from genossm.errors import GenoSSMError
from genossm.models.backbone import ReverseComplement
from genossm.models.embeddings import embed_by
from genossm.models.formats.layers import Strands
from genossm.models.formats.published import PublishedClassifier, PublishedLanguageModel
from genossm.models.formats.shapes import PublishedShape
from genossm.models.formats.vocabularies import HOUSE, Tokenizer, why_unreadable
from genossm.models.heads import Model, ModelOutput


@dataclass
class PretrainedOutput:
    """What :class:`Pretrained` returns.

    Attributes:
        logits: (batch, seqlen, vocab_size) of a language model, (batch, num_labels) of a classifier.
        last_hidden_state: (batch, seqlen, width), after the final norm.
        hidden_states: on request, what the official code lists (below), then ``last_hidden_state``.
    """

    logits: Tensor
    last_hidden_state: Tensor
    hidden_states: tuple[Tensor, ...] | None = None


class Pretrained(nn.Module):
    """A model with its checkpoint's ids and conventions; ``model`` is the one that the commands use.

    Without a mask it computes what the official code computes, in which [PAD] is a token like any other.

    ``hidden_states`` follows the official code of each architecture: Caduceus lists the input of every block without
    the residual (embedding first), Mamba the residual stream after every block, HyenaDNA and GenoSSM's own models the
    embedding and the stream after every block. The final state always comes last; Caduceus without fused_add_norm
    leaves it out. In Caduceus-PS the second half of the channels is in reverse order, and with fused_add_norm the
    halves change places from block to block, as in the official code.
    """

    def __init__(self, model: Model, config: dict[str, Any]) -> None:
        super().__init__()
        self.model = model
        self.config = config
        """The content of the checkpoint's config.json."""

    @property
    def tokenizer(self) -> Tokenizer:
        """Text to input_ids.

        Raises:
            GenoSSMError: the checkpoint does not say what its tokens are.
        """
        shape = self.model.config
        vocabulary = shape.vocabulary if isinstance(shape, PublishedShape) else HOUSE
        if reason := why_unreadable(vocabulary):
            raise GenoSSMError(f"{reason}: import it again with --vocabulary")
        return Tokenizer(vocabulary or {})

    def _run(self, input_ids: Tensor, mask: Tensor | None) -> ModelOutput:
        if isinstance(self.model, PublishedLanguageModel | PublishedClassifier):
            return self.model.own(input_ids, mask)
        output: ModelOutput = self.model(input_ids, mask)
        return output

    def forward(
        self, input_ids: Tensor, mask: Tensor | None = None, *, output_hidden_states: bool = False
    ) -> PretrainedOutput:
        """Logits and hidden states.

        Args:
            input_ids: int64 (batch, seqlen), the checkpoint's ids.
            mask: bool or 0/1 (batch, seqlen); tokens where it is False change nothing elsewhere. None: all count.
            output_hidden_states: list the hidden states of every layer as well.
        """
        mask = None if mask is None else mask.bool()
        if not output_hidden_states:
            output = self._run(input_ids, mask)
            return PretrainedOutput(output.logits, self._official(output.hidden_states))
        output, layers = self._traced(input_ids, mask)
        last = self._official(output.hidden_states)
        return PretrainedOutput(output.logits, last, (*map(self._official, layers), last))

    def embed(
        self,
        input_ids: Tensor,
        mask: Tensor | None = None,
        *,
        strands: Literal["both", "given"] = "both",
        pool: bool = False,
    ) -> Tensor:
        """Embeddings, see :mod:`genossm.models.embeddings`; input_ids in the checkpoint's ids.

        With ``strands="given"`` they are :attr:`PretrainedOutput.last_hidden_state`, in the official order of channels.
        """
        complement = self.model.complement.to(input_ids.device)
        equivariant = bool(self.model.config.rc_equivariant)
        mask = None if mask is None else mask.bool()

        def run(ids: Tensor, mask: Tensor | None) -> Tensor:
            hidden = self._run(ids, mask).hidden_states
            return hidden if strands == "both" else self._official(hidden)  # the mean pairs the channels of the house

        return embed_by(run, complement, equivariant, input_ids, mask, strands=strands, pool=pool)

    def _official(self, hidden: Tensor) -> Tensor:
        """The order of channels of the official code."""
        if not isinstance(self.model.backbone, Strands):
            return hidden
        first, second = hidden.chunk(2, dim=-1)
        return torch.cat([first, second.flip(-1)], dim=-1)

    def _traced(self, input_ids: Tensor, mask: Tensor | None) -> tuple[ModelOutput, list[Tensor]]:
        """The output, and the hidden states of all layers in the house's order of channels."""
        strands = self.model.backbone if isinstance(self.model.backbone, ReverseComplement) else None
        backbone: Any = self.model.backbone if strands is None else strands.backbone
        architecture = getattr(self.model.config, "architecture", None)
        found: list[Tensor] = []

        def keep(_: nn.Module, __: Any, result: Any) -> None:
            stream_or_mixer = result if isinstance(result, Tensor) else result[architecture == "caduceus"]
            found.append(stream_or_mixer)

        hooks = [module.register_forward_hook(keep) for module in (backbone.embedding, *backbone.blocks)]
        try:
            output = self._run(input_ids, mask)
        finally:
            for hook in hooks:
                hook.remove()
        depth = len(backbone.blocks) + 1
        if strands is not None:
            join = strands.join if isinstance(strands, Strands) else lambda a, b, _: torch.cat([a, b], dim=-1)
            found = [join(found[i], found[depth + i].flip(1), i) for i in range(depth)]
        if architecture == "caduceus":
            return output, found[:-1]
        return output, found[1:] if architecture in ("mamba", "mamba2") else found
