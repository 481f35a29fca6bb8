"""Models of labelled tasks: a head on a backbone, or on the bases alone, and what is added to it.

:class:`TaskNetwork` is what is trained; :class:`TaskModel` is what is used: one network or several, averaged, and a
gapped k-mer machine whose margins are added.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genossm import vocab
from genossm.config import HeadConfig, ModelConfig, TaskConfig
from genossm.errors import GenoSSMError
from genossm.models.formats.published import PublishedModel
from genossm.models.formats.registry import read_shape
from genossm.models.formats.shapes import PublishedShape
from genossm.models.gapped_kmers import GappedKmers, WideWeights
from genossm.models.heads import Model, ModelOutput, SequenceClassifier, mean_pool
from genossm.models.motif import MotifNetwork, one_hot

Shape = ModelConfig | PublishedShape


def build_base(shape: Shape) -> Model:
    """A backbone with random weights and no head; it reads GenoSSM's ids through :meth:`Model.translate`."""
    return PublishedModel(shape) if isinstance(shape, PublishedShape) else Model(shape)


class Pooling(nn.Module):
    """(batch, seqlen, width) to (batch, len(pools) * width); padding does not count."""

    def __init__(self, pools: tuple[str, ...], width: int) -> None:
        super().__init__()
        self.pools = pools
        self.query = nn.Linear(width, 1) if "attention" in pools else None

    def forward(self, hidden: Tensor, mask: Tensor | None) -> Tensor:
        """``mask``: bool (batch, seqlen), or None where all counts."""
        features = []
        for pool in self.pools:
            if pool == "mean":
                features.append(mean_pool(hidden, mask))
                continue
            if pool == "max":
                counted = hidden if mask is None else hidden.masked_fill(~mask[..., None], -torch.inf)
                features.append(counted.amax(1))
                continue
            assert self.query is not None
            score = self.query(hidden)[..., 0]
            score = score if mask is None else score.masked_fill(~mask, -torch.inf)
            features.append(torch.einsum("bl,bld->bd", torch.softmax(score, dim=1), hidden))
        return torch.cat(features, dim=1)


class TaskNetwork(nn.Module):
    """Logits of a task, (batch, outputs), or of every base, (batch, seqlen, outputs), for the strand that is given.

    Args:
        shape: of the language model underneath; None: the head reads the bases alone.
        head: see :class:`genossm.config.HeadConfig`.
        outputs: classes, labels or numbers.
    """

    def __init__(self, shape: Shape | None, head: HeadConfig, outputs: int) -> None:
        super().__init__()
        self.head, self.outputs = head, outputs
        self.base = None if shape is None else build_base(shape)
        self.motif = None if head.motif is None else MotifNetwork(head.motif)
        self._cache: dict[bytes, Tensor] | None = None
        if self.base is None and self.motif is None:
            raise ValueError("a head without a backbone needs head.motif")
        widths = ([] if shape is None else [shape.d_model]) + ([] if head.motif is None else [head.motif.filters])
        features = sum(widths)
        if head.level == "sequence":
            self.poolings = nn.ModuleList(Pooling(head.pools, width) for width in widths)
            features *= len(head.pools)
            if head.length:
                self.by_position = nn.Conv1d(widths[-1], head.position_channels, 1)
                steps = head.length if head.motif is None else -(-head.length // head.motif.pool)
                features += head.position_channels * steps
        self.layers = nn.Sequential(
            nn.Dropout(head.dropout), nn.Linear(features, head.hidden), nn.ReLU(),
            nn.Dropout(head.dropout), nn.Linear(head.hidden, outputs),
        )  # fmt: skip
        self.wide = WideWeights(head.wide, head.length, outputs) if head.wide or head.length else None

    def forward(self, input_ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """Logits of input_ids int64 (batch, seqlen), GenoSSM's ids; ``mask``: bool, False at padding."""
        return self.read(input_ids, one_hot(input_ids), mask)

    def read(self, input_ids: Tensor, bases: Tensor, mask: Tensor | None = None) -> Tensor:
        """The same, with the bases (batch, 4, seqlen) that the motifs see given apart, to take a gradient there."""
        if self.head.length:
            input_ids, bases, mask = self._fixed(input_ids, bases, mask)
        if self._cache is not None:
            return self._from_cache(input_ids, bases, mask)
        found = []
        if self.base is not None:
            found.append((self.backbone_states(input_ids, mask), mask))
        if self.motif is not None:
            hidden, counted = self.motif.read(bases, mask)
            found.append((hidden.mT, counted))
        if self.head.level == "token":
            return self.layers(torch.cat([hidden for hidden, _ in found], dim=-1))
        features = [pool(*states) for pool, states in zip(self.poolings, found, strict=True)]
        if self.head.length:
            features.append(self.by_position(found[-1][0].mT).flatten(1))
        logits = self.layers(torch.cat(features, dim=1))
        return logits if self.wide is None else logits + self.wide(input_ids, bases)

    def freeze_base(self) -> None:
        """No weight of the backbone learns from here on, and what it says of a sequence is computed once.

        The pooled hidden states of every sequence are kept by its tokens, for training and validation alike, until
        :meth:`forget`. Where a head reads more than them (its own attention, positions, every base) nothing is kept.
        """
        assert self.base is not None
        self.base.requires_grad_(False)
        head = self.head
        if head.level == "sequence" and "attention" not in head.pools and not head.length:
            self._cache = {}

    def forget(self) -> None:
        """Give the kept hidden states' memory back."""
        self._cache = None

    def _from_cache(self, input_ids: Tensor, bases: Tensor, mask: Tensor | None) -> Tensor:
        """:meth:`read`, with the backbone's pooled states looked up, row by row; what is not known is computed."""
        assert self._cache is not None
        assert self.base is not None
        rows = input_ids.cpu().numpy()
        lengths = [rows.shape[1]] * len(rows) if mask is None else mask.sum(1).tolist()
        keys = [row[:length].tobytes() for row, length in zip(rows, lengths, strict=True)]
        missing = [i for i, key in enumerate(keys) if key not in self._cache]
        if missing:
            self.base.eval()
            with torch.no_grad():
                some = None if mask is None else mask[missing]
                pooled = self.poolings[0](self.backbone_states(input_ids[missing], some), some)
            self._cache.update(zip((keys[i] for i in missing), pooled.unbind(), strict=True))
        features = [torch.stack([self._cache[key] for key in keys])]
        if self.motif is not None:
            hidden, counted = self.motif.read(bases, mask)
            features.append(self.poolings[1](hidden.mT, counted))
        logits = self.layers(torch.cat(features, dim=1))
        return logits if self.wide is None else logits + self.wide(input_ids, bases)

    def backbone_states(self, input_ids: Tensor, mask: Tensor | None) -> Tensor:
        """Hidden states (batch, seqlen, d_model) of the language model; the mean of the strands where it keeps both."""
        assert self.base is not None
        hidden, _ = self.base.backbone(self.base.translate(input_ids), mask=mask)
        return sum(hidden.chunk(2, dim=-1)) / 2 if self.base.config.rc_equivariant else hidden

    def _fixed(self, input_ids: Tensor, bases: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
        """Everything cut or padded on the right to ``head.length``."""
        missing = self.head.length - input_ids.shape[1]
        if missing == 0:
            return input_ids, bases, mask
        if mask is None:
            mask = torch.ones_like(input_ids, dtype=torch.bool)
        return (
            F.pad(input_ids, (0, missing), value=vocab.PAD), F.pad(bases, (0, missing)), F.pad(mask, (0, missing)),
        )  # fmt: skip


class TaskModel(SequenceClassifier):
    """What a fine-tuning gives: networks and a gapped k-mer machine, their centred outputs scaled and added.

    Outputs of classes are centred (their mean over the classes taken off), so scale times output can be added; the
    scales come from the validation split. Numbers are in their own units.
    """

    scales: Tensor
    machine_scale: Tensor
    unit: Tensor
    offset: Tensor
    config: TaskConfig  # type: ignore[assignment]  # the shape of the whole; that of a backbone is config.backbone
    bos = False

    def __init__(self, config: TaskConfig) -> None:
        nn.Module.__init__(self)  # a classifier has one backbone, and a linear head: this one has neither
        self.config, self.num_labels = config, config.outputs
        shape = None if config.backbone is None else read_shape(config.backbone, Path("config.json"))
        self.members = nn.ModuleList(TaskNetwork(shape, config.head, config.outputs) for _ in range(config.members))
        self.gapped_kmers = None if config.gapped_kmers is None else GappedKmers(config.gapped_kmers, config.outputs)
        self.register_buffer("scales", torch.full((config.members,), 1 / config.members))
        self.register_buffer("machine_scale", torch.zeros(()))
        self.register_buffer("unit", torch.ones(config.outputs))
        self.register_buffer("offset", torch.zeros(config.outputs))

    def forward(self, input_ids: Tensor, mask: Tensor | None = None, segments: None = None) -> ModelOutput:
        """Logits (batch, outputs), or (batch, seqlen, outputs), of input_ids int64 (batch, seqlen).

        Raises:
            ValueError: segments are given; one row is one sequence here.
        """
        if segments is not None:
            raise ValueError("a task model takes one sequence a row, not packed segments")
        total: Any = 0.0
        for scale, member in zip(self.scales, self.members, strict=True):
            total = total + scale * self.centred(self.both(member, input_ids, mask))
        if self.gapped_kmers is not None:
            total = total + self.machine_scale * self.centred(self.gapped_kmers(input_ids))
        if self.config.kind == "regression":
            total = total * self.unit + self.offset
        return ModelOutput(total, total.new_empty(0), [])

    def both(self, network: nn.Module, input_ids: Tensor, mask: Tensor | None) -> Tensor:
        """The network's outputs, the mean of both strands where the configuration says so."""
        given = network(input_ids, mask)
        if not self.config.head.both_strands:
            return given
        other = network(*other_strand(input_ids, mask))
        if self.config.head.level == "token":
            other = unflip(other, mask)
        return (given + other) / 2

    def centred(self, outputs: Tensor) -> Tensor:
        """Outputs with their mean over the classes taken off; as they are where they are no classes."""
        return centre(outputs) if self.config.kind in ("classes", "tokens") else outputs

    def probabilities(self, logits: Tensor) -> Tensor:
        """Probabilities of classes or labels of their logits; numbers stay numbers.

        Raises:
            GenoSSMError: the outputs are of every base, which no row of a table can hold.
        """
        if self.config.kind == "tokens":
            raise GenoSSMError("labels every base, which a table of records cannot show")
        if self.config.kind == "regression":
            return logits
        return torch.sigmoid(logits) if self.config.kind == "multilabel" else super().probabilities(logits)

    @property
    def networks(self) -> list[TaskNetwork]:
        """The members."""
        return [member for member in self.members if isinstance(member, TaskNetwork)]

    @property
    def stateful(self) -> bool:
        """It reads whole sequences."""
        return False

    @property
    def max_seqlen(self) -> int | None:
        """The longest sequence in tokens, None where there is no bound."""
        bounds = [self.config.head.length] if self.config.head.length else []
        member = self.networks[0]
        if member.base is not None and member.base.max_seqlen is not None:
            bounds.append(member.base.max_seqlen)
        return min(bounds, default=None)

    def num_parameters(self) -> int:
        """Trainable numbers in the networks."""
        return sum(p.numel() for p in self.parameters())


def centre(outputs: Tensor) -> Tensor:
    """The outputs of classes (..., classes) less their mean."""
    return outputs - outputs.mean(-1, keepdim=True)


def other_strand(input_ids: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """The reverse complement of every row, from its first token on; padding stays on the right."""
    complement = torch.from_numpy(vocab.COMPLEMENT).long().to(input_ids.device)
    if mask is None:
        return complement[input_ids].flip(1), None
    return unflip(complement[input_ids], mask), mask


def unflip(values: Tensor, mask: Tensor | None) -> Tensor:
    """Every row (batch, seqlen, ...) read backwards within its own tokens; padding stays on the right."""
    if mask is None:
        return values.flip(1)
    steps = torch.arange(values.shape[1], device=values.device)
    lengths = mask.sum(1, keepdim=True)
    source = torch.where(steps < lengths, lengths - 1 - steps, steps)
    return values.gather(1, source.reshape(*source.shape, *[1] * (values.dim() - 2)).expand_as(values))
