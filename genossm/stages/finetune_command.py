"""The command line of ``genossm finetune``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from genossm.config import FinetuneSection
from genossm.data.layouts import find_splits
from genossm.data.readers import Source, parse_source
from genossm.data.tasks import Kind
from genossm.errors import GenoSSMError
from genossm.stages.labelled import Tables

_DEFAULT = FinetuneSection()


class Strands(StrEnum):
    """Which strands a task is about."""

    AUTO = "auto"
    BOTH = "both"
    GIVEN = "given"


class TaskName(StrEnum):
    """What the labels are."""

    AUTO = "auto"
    CLASSES = "classes"
    MULTILABEL = "multilabel"
    REGRESSION = "regression"
    TOKENS = "tokens"


class Adapt(StrEnum):
    """What of the backbone learns."""

    FULL = "full"
    FROZEN = "frozen"
    LORA = "lora"


class Weights(StrEnum):
    """Weights of the classes in the loss."""

    NONE = "none"
    BALANCED = "balanced"


class PoolName(StrEnum):
    """How hidden states become one vector."""

    MEAN = "mean"
    MAX = "max"
    ATTENTION = "attention"


class BaselineName(StrEnum):
    """What a result is held against."""

    GC = "gc"
    ONEHOT_LR = "onehot_lr"
    KMER_LR = "kmer_lr"
    GAPPED_KMER_SVM = "gapped_kmer_svm"
    CNN = "cnn"
    NONE = "none"


_KINDS: dict[TaskName, Kind | None] = {
    TaskName.AUTO: None, TaskName.CLASSES: "classes", TaskName.MULTILABEL: "multilabel",
    TaskName.REGRESSION: "regression", TaskName.TOKENS: "tokens",
}  # fmt: skip
_STRANDS, _ADAPT = Strands(_DEFAULT.strands), Adapt(_DEFAULT.adapt)
_WEIGHTS = Weights(_DEFAULT.class_weights)
_POOLS = [PoolName(pool) for pool in _DEFAULT.pools]
_BASELINES = [BaselineName(name) for name in _DEFAULT.baselines]


def kind_of(task: TaskName) -> Kind | None:
    """The kind of labels; None: to be guessed."""
    return _KINDS[task]


def sources(
    data: Path | None, train: list[str] | None, valid: list[str] | None, test: list[str] | None
) -> tuple[Source, Source | None, Source | None]:
    """Train, valid and test as they are named on the command line.

    Raises:
        GenoSSMError: both --data and --train, or neither.
    """
    if (data is None) == (not train):
        raise GenoSSMError("give --train (and --valid, --test), or --data with a folder of a benchmark")
    if data is not None:
        found = find_splits(data)
        return found.train, found.valid, found.test
    return (
        parse_source(train or []),
        parse_source(valid) if valid else None,
        parse_source(test) if test else None,
    )


Train = Annotated[
    list[str] | None,
    typer.Option(
        help="Labelled sequences to learn from: CSV, TSV, Parquet, FASTA with labelled headers, BED, a folder a class; "
        "or LABEL=FILE for every class, repeated."
    ),
]
Valid = Annotated[list[str] | None, typer.Option(help="The same, to choose by; default: a share of --train.")]
Test = Annotated[list[str] | None, typer.Option(help="The same, to report on, read once; default: what is chosen by.")]
Data = Annotated[
    Path | None,
    typer.Option(
        help="In place of these: a folder with train, dev and test, as GUE or Genomic Benchmarks lay them out."
    ),
]
SequenceColumn = Annotated[str | None, typer.Option(help="Column of the sequences; default: by its name or content.")]
LabelColumn = Annotated[
    list[str] | None, typer.Option(help="Column of the labels; repeated: one a label or number. Default: by its name.")
]
Reference = Annotated[Path | None, typer.Option(help="FASTA that intervals (BED, chrom/start/end) are cut from.")]
Task = Annotated[TaskName, typer.Option(help="What the labels are; auto: guessed from the training table, and said.")]
ValidFraction = Annotated[
    float, typer.Option(min=0, max=1, help="Share of every class held out where there is no --valid.")
]


def command(
    output: Annotated[Path, typer.Option(help="Folder for the model, metrics.json, predictions.csv.")],
    checkpoint: Annotated[
        Path | None, typer.Option(help="Folder of a pretrained model; without: a small network on the bases.")
    ] = None,
    train: Train = None,
    valid: Valid = None,
    test: Test = None,
    data: Data = None,
    sequence_column: SequenceColumn = None,
    label_column: LabelColumn = None,
    reference: Reference = None,
    task: Task = TaskName.AUTO,
    valid_fraction: ValidFraction = 0.1,
    strands: Annotated[
        Strands, typer.Option(help="both: the strand says nothing; given: it does; auto: by the validation split.")
    ] = _STRANDS,
    positions: Annotated[
        bool | None,
        typer.Option("--positions/--no-positions", help="Whether places mean something; default: by the valid split."),
    ] = None,
    adapt: Annotated[
        Adapt, typer.Option(help="The backbone: all of it learns, none, or low-rank adapters of its projections.")
    ] = _ADAPT,
    lora_rank: Annotated[int, typer.Option(min=1, help="Rank of the adapters.")] = _DEFAULT.lora_rank,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Passes over the training set; default: by its size.")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Sequences a step; default: 64 or 128.")] = None,
    lr: Annotated[float, typer.Option(min=0, help="Peak learning rate.")] = _DEFAULT.lr,
    backbone_lr_scale: Annotated[
        float, typer.Option(min=0, help="Rate of the pretrained backbone, as a share of --lr; 0 freezes it.")
    ] = _DEFAULT.backbone_lr_scale,
    weight_decay: Annotated[float, typer.Option(min=0, help="AdamW decay of matrices.")] = _DEFAULT.weight_decay,
    smoothing: Annotated[float, typer.Option(min=0, max=1, help="Label smoothing.")] = _DEFAULT.smoothing,
    dropout: Annotated[
        float | None, typer.Option(min=0, max=1, help="Before either layer of the head; default: 0.2 or 0.3.")
    ] = None,
    ema: Annotated[
        float | None, typer.Option(min=0, max=1, help="Decay of the average of the weights that is kept, 0 for none.")
    ] = None,
    patience: Annotated[
        int | None, typer.Option(min=1, help="Epochs without a better score before stopping; default: to the end.")
    ] = None,
    stem: Annotated[
        bool, typer.Option("--stem/--no-stem", help="A small convolutional network on the bases beside the backbone.")
    ] = _DEFAULT.stem,
    pools: Annotated[
        list[PoolName], typer.Option(help="How hidden states become one vector; repeat for several.")
    ] = _POOLS,
    machine: Annotated[
        bool, typer.Option("--machine/--no-machine", help="Add a gapped k-mer machine, weighed by the valid split.")
    ] = _DEFAULT.machine,
    members: Annotated[
        int | None, typer.Option(min=1, help="Networks that are averaged; default: 2 below 8,000 rows, else 1.")
    ] = None,
    class_weights: Annotated[Weights, typer.Option(help="balanced: rare classes weigh more in the loss.")] = _WEIGHTS,
    baselines: Annotated[
        list[BaselineName], typer.Option(help="What the result is held against; repeat for several, or none.")
    ] = _BASELINES,
    from_scratch: Annotated[
        bool, typer.Option("--from-scratch/--no-from-scratch", help="Train the same model from random weights, too.")
    ] = _DEFAULT.from_scratch,
    search_minutes: Annotated[
        float, typer.Option(min=0, help="Look for better settings for so long, by the validation split; 0: do not.")
    ] = _DEFAULT.search_minutes,
    bootstrap: Annotated[int, typer.Option(min=1, help="Resamples for the intervals.")] = _DEFAULT.bootstrap,
    seed: Annotated[int, typer.Option(min=0, help="Seed of every random choice.")] = 1,
    seeds: Annotated[int, typer.Option(min=1, help="Models of so many seeds, averaged; each has its figures.")] = 1,
    folds: Annotated[int, typer.Option(min=0, help="Judge every training row by a model of the other folds.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:0 ...")] = _DEFAULT.device,
) -> None:
    """Train a model on labelled sequences, beside its baselines and the same model from scratch.

    Example: genossm finetune --checkpoint results/pretrain/tiny --train train.csv --test test.csv --output my-task
    """
    from genossm.stages.finetune import finetune
    from genossm.stages.task_report import describe

    settings = FinetuneSection(
        epochs=epochs, batch_size=batch_size, lr=lr, backbone_lr_scale=backbone_lr_scale, adapt=adapt.value,
        lora_rank=lora_rank, weight_decay=weight_decay, smoothing=smoothing, dropout=dropout, ema=ema,
        search_minutes=search_minutes, patience=patience,
        strands=strands.value, positions=positions, stem=stem, pools=[pool.value for pool in pools], machine=machine,
        members=members, class_weights=class_weights.value,
        baselines=[name.value for name in baselines if name is not BaselineName.NONE],
        bootstrap=bootstrap, from_scratch=from_scratch, device=device,
    )  # fmt: skip
    first, second, third = sources(data, train, valid, test)
    tables = Tables(
        first, second, third, valid_fraction, sequence_column, tuple(label_column or ()),
        kind_of(task), reference,
    )  # fmt: skip
    print(describe(finetune(checkpoint, tables, output, settings=settings, seed=seed, seeds=seeds, folds=folds)))
