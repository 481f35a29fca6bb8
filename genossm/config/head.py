"""What stands on a backbone, or in its place: the shape of a model for a labelled task."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from genossm.config.section import NonNegative, Positive, Section

Pool = Literal["mean", "max", "attention"]
TaskKind = Literal["classes", "multilabel", "regression", "tokens"]
Baseline = Literal["gc", "onehot_lr", "kmer_lr", "gapped_kmer_svm", "cnn"]


class MotifConfig(Section):
    """A small network on one-hot bases: a wide first convolution (the motifs), then residual blocks."""

    filters: Positive = Field(128, description="width of the network, and motifs of its first layer")
    width: Annotated[int, Field(ge=1)] = Field(15, description="bp of a motif (odd)")
    pool: Positive = Field(4, description="neighbouring bases of which the best match is kept")
    blocks: Annotated[str, Field(pattern="^[CS]*$")] = Field(
        "CS", description="one letter a block: C convolution, its dilation growing by one, S bidirectional state space"
    )
    kernel: Annotated[int, Field(ge=1)] = Field(5, description="taps of a convolution block (odd)")
    d_state: Positive = Field(8, description="complex states a channel of a state space block")
    dropout: Annotated[float, Field(ge=0, lt=1)] = Field(0.1, description="after the first layer and in the blocks")

    @model_validator(mode="after")
    def _odd(self) -> Self:
        for name in ("width", "kernel"):
            if getattr(self, name) % 2 == 0:
                raise ValueError(f"{name}: {getattr(self, name)} is even; a centred convolution is odd")
        return self


class HeadConfig(Section):
    """From a sequence, and the hidden states of a backbone where there is one, to the outputs of a task."""

    motif: MotifConfig | None = Field(MotifConfig(), description="a network on the bases beside the backbone, or none")
    level: Literal["sequence", "token"] = Field("sequence", description="outputs for a sequence, or for every base")
    pools: tuple[Pool, ...] = Field(("max", "mean"), description="how hidden states become features of the sequence")
    length: NonNegative = Field(0, description="bp of every sequence where positions mean something; 0: they do not")
    position_channels: Positive = Field(16, description="channels that are kept position by position (length > 0)")
    hidden: Positive = Field(64, description="width of the hidden layer")
    dropout: Annotated[float, Field(ge=0, lt=1)] = Field(0.2, description="before either layer of the head")
    wide: tuple[Positive, ...] = Field((4, 6), description="k of the k-mers with a weight of their own on the outputs")
    both_strands: bool = Field(True, description="outputs are the mean over both strands")

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.level == "token" and (self.length or self.wide or (self.motif is not None and self.motif.pool != 1)):
            raise ValueError("level: token needs length: 0, wide: [] and motif.pool: 1 (an output for every base)")
        if self.level == "sequence" and not self.pools:
            raise ValueError("pools: at least one is needed")
        return self


class GappedKmerConfig(Section):
    """The features of a gapped k-mer support vector machine, see :mod:`genossm.models.gapped_kmers`."""

    groups: tuple[tuple[tuple[NonNegative, ...], ...], ...] = Field(
        description="groups of patterns, each the offsets of its bases; a group is scaled to length 1"
    )
    both_strands: bool = Field(True, description="count the reverse complement, too")
    position_ks: tuple[Positive, ...] = Field((), description="k of the k-mers that are told apart by their position")
    length: NonNegative = Field(0, description="bp of every sequence (position_ks)")


class TaskConfig(Section):
    """A model for a labelled task: ``model`` in the config.json of what ``genossm finetune`` writes."""

    architecture: Literal["task"] = "task"
    backbone: dict[str, Any] | None = Field(None, description="shape of the language model underneath, or none")
    head: HeadConfig
    gapped_kmers: GappedKmerConfig | None = Field(None, description="the linear model that is added, or none")
    members: Positive = Field(1, description="networks whose outputs are averaged")
    kind: TaskKind = Field("classes", description="what the outputs mean")
    outputs: Positive = Field(description="classes, or labels, or numbers")

    @property
    def rc_equivariant(self) -> bool:
        """Whether a sequence and its reverse complement give the same outputs: it reads both by itself."""
        return self.head.both_strands
