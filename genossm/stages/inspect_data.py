"""genossm inspect-data: what a labelled data set is like, and what is wrong with it, before training."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from genossm import vocab
from genossm.data.inspection import Rows, inspect_rows
from genossm.data.readers import Source, read_labelled, read_places
from genossm.files import atomic_write, check_output
from genossm.stages.finetune_command import (
    Data,
    LabelColumn,
    Reference,
    SequenceColumn,
    Task,
    TaskName,
    Test,
    Train,
    Valid,
    kind_of,
    sources,
)  # fmt: skip


def inspect_data(
    splits: Mapping[str, Source],
    *,
    sequence_column: str | None = None,
    label_columns: tuple[str, ...] = (),
    task: TaskName = TaskName.AUTO,
    reference: Path | None = None,
) -> tuple[dict[str, Any], list[str]]:
    """The figures of every split, what they share, and warnings; see :func:`genossm.data.inspection.inspect_rows`.

    Intervals without ``reference`` are compared by their places.

    Raises:
        GenoSSMError: a fault of a file.
    """
    rows = {}
    for name, source in splits.items():
        places = read_places(source) if reference is None else None
        if places is not None:
            rows[name] = Rows([e.label for e in places], places=[(e.chrom, e.start, e.end) for e in places])
            continue
        table = read_labelled(
            source, sequence_column=sequence_column, label_columns=label_columns, kind=kind_of(task),
            reference=reference, training=name == "train", say=lambda text: print(f"note: {text}", file=sys.stderr),
        )  # fmt: skip
        labels = table.labels if table.kind == "classes" else ["all"] * len(table)
        rows[name] = Rows(labels, [vocab.encode(sequence) for sequence in table.sequences])
    return inspect_rows(rows)


def command(
    train: Train = None,
    valid: Valid = None,
    test: Test = None,
    data: Data = None,
    sequence_column: SequenceColumn = None,
    label_column: LabelColumn = None,
    reference: Reference = None,
    task: Task = TaskName.AUTO,
    output: Annotated[Path | None, typer.Option(help="Where to write all figures, as JSON.")] = None,
) -> None:
    """Show classes, lengths, G and C, repeats, and what train and test share, with a warning for what is wrong.

    Example: genossm inspect-data --train train.csv --test test.csv
    """
    if output is not None:
        check_output(output)
    first, second, third = sources(data, train, valid, test)
    named = {"train": first, "valid": second, "test": third}
    splits = {name: source for name, source in named.items() if source is not None}
    report, warnings = inspect_data(
        splits, sequence_column=sequence_column, label_columns=tuple(label_column or ()), task=task, reference=reference
    )
    print(show(report))
    for line in warnings:
        print(f"warning: {line}", file=sys.stderr)
    if not warnings:
        print("nothing was found to warn of", file=sys.stderr)
    if output is not None:
        atomic_write(output, json.dumps(report | {"warnings": warnings}, indent=2) + "\n")


def show(report: Mapping[str, Any]) -> str:
    """The figures as a table of text, one line a class and split."""
    lines = ["split\tclass\trows\tshortest\tmedian\tlongest\tGC"]
    for name, about in report["splits"].items():
        for label, count in about["classes"].items():
            span, gc = about["length_by_class"][label], about.get("gc_by_class", {}).get(label)
            shown = "NA" if gc is None else f"{gc:.3f}"
            lines.append(f"{name}\t{label}\t{count}\t{span['shortest']}\t{span['median']}\t{span['longest']}\t{shown}")
    for name, about in report["shared_with_train"].items():
        lines.append(f"# {name}: {about['identical']:,} identical to a row of train, {about['near']:,} near one")
    return "\n".join(lines)
