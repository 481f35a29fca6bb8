"""genossm derive: a labelled task is cut out of a genome."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from genossm import __version__, vocab
from genossm.data.derived import Example, coding_windows, interval_sequences
from genossm.data.leakage import identical
from genossm.errors import GenoSSMError
from genossm.files import atomic_write, sha256_of

COLUMNS = ("sequence", "label", "chrom", "start", "end", "strand")
HOLDOUT = 200
"""Records of holdout.fa, at most."""

command = typer.Typer(no_args_is_help=True, help="Cut a labelled task out of a genome.")


def derive_coding(
    genome: Path,
    annotation: Path,
    output: Path,
    *,
    length: int = 500,
    valid_contigs: Sequence[str],
    test_contigs: Sequence[str],
    exclude: Sequence[str] = (),
    max_per_class: int = 3_000,
    seed: int = 1,
) -> dict[str, Any]:
    """Coding against intergenic windows, as :func:`genossm.data.derived.coding_windows`; what task.json says.

    Raises:
        GenoSSMError: a fault of the genome or the annotation, or a contig that is given twice.
    """
    given = Counter([*valid_contigs, *test_contigs, *exclude])
    for name, times in given.items():
        if times > 1:
            raise GenoSSMError(f"contig {name!r} is given {times} times among valid, test and exclude")
    options: dict[str, Any] = {
        "length": length,
        "valid_contigs": list(valid_contigs),
        "test_contigs": list(test_contigs),
        "exclude": list(exclude),
        "max_per_class": max_per_class,
        "seed": seed,
    }
    task = coding_windows(genome, annotation, **options)
    return _write(task, output, {"kind": "coding", **options}, {"genome": genome, "annotation": annotation}, seed)


def derive_intervals(
    genome: Path,
    train: Mapping[str, Path],
    test: Mapping[str, Path],
    output: Path,
    *,
    valid_fraction: float = 0.1,
    max_per_class: int = 3_000,
    seed: int = 1,
) -> dict[str, Any]:
    """Labelled intervals, as :func:`genossm.data.derived.interval_sequences`; what task.json says.

    Raises:
        GenoSSMError: a fault of the genome or of a list, or labels that differ between train and test.
    """
    if train.keys() != test.keys() or len(train) < 2:
        raise GenoSSMError(
            f"train has the labels {', '.join(sorted(train))} and test {', '.join(sorted(test))}; "
            "both need the same two or more"
        )
    options: dict[str, Any] = {"valid_fraction": valid_fraction, "max_per_class": max_per_class, "seed": seed}
    task = interval_sequences(genome, train, test, **options)
    sources = {"genome": genome}
    sources |= {f"train {label}": path for label, path in train.items()}
    sources |= {f"test {label}": path for label, path in test.items()}
    return _write(task, output, {"kind": "intervals", **options}, sources, seed)


def _write(
    task: Mapping[str, Sequence[Example]],
    output: Path,
    options: Mapping[str, Any],
    sources: Mapping[str, Path],
    seed: int,
) -> dict[str, Any]:
    """The CSV files and holdout.fa, and task.json as the last."""
    for split, examples in task.items():
        text = io.StringIO()
        rows = csv.writer(text, lineterminator="\n")
        rows.writerow(COLUMNS)
        rows.writerows((e.sequence, e.label, e.chrom, e.start, e.end, e.strand) for e in examples)
        atomic_write(output / f"{split}.csv", text.getvalue())
    test = task["test"]
    rng = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, 3])))
    chosen = np.sort(rng.permutation(len(test))[:HOLDOUT]).tolist()
    # A list may name an interval twice; an id stands once.
    holdout = {test[i].place: test[i].sequence for i in chosen}
    atomic_write(output / "holdout.fa", "".join(f">{place}\n{sequence}\n" for place, sequence in holdout.items()))
    encoded = {split: [vocab.encode(e.sequence) for e in examples] for split, examples in task.items()}
    about = {
        "genossm_version": __version__,
        "options": dict(options),
        "sources": {what: {"file": path.name, "sha256": sha256_of(path)} for what, path in sources.items()},
        "counts": {split: dict(sorted(Counter(e.label for e in examples).items())) for split, examples in task.items()},
        "test_identical_to_train": int(identical(encoded["train"] + encoded["valid"], encoded["test"]).sum()),
    }
    atomic_write(output / "task.json", json.dumps(about, indent=2) + "\n")
    return about


def _report(about: Mapping[str, Any], output: Path) -> None:
    for split, counts in about["counts"].items():
        print(f"{output / split}.csv: " + ", ".join(f"{label} {n:,}" for label, n in counts.items()))
    if leaked := about["test_identical_to_train"]:
        total = sum(about["counts"]["test"].values())
        print(f"warning: W_LEAK {leaked:,} of {total:,} test sequences are also in train or valid", file=sys.stderr)


Output = Annotated[Path, typer.Option(help="Folder for train.csv, valid.csv, test.csv, holdout.fa and task.json.")]
Genome = Annotated[Path, typer.Option(help="FASTA of the genome: plain, gzip or BGZF.")]
MaxPerClass = Annotated[int, typer.Option(min=1, help="Sequences of a class and split, at most.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of every random choice.")]


@command.command("coding")
def coding(
    genome: Genome,
    annotation: Annotated[Path, typer.Option(help="GFF3 of the genome: plain or gzip.")],
    output: Output,
    valid_contigs: Annotated[list[str], typer.Option(help="A contig for validation; repeat for more.")],
    test_contigs: Annotated[list[str], typer.Option(help="A contig for testing; repeat for more.")],
    exclude: Annotated[
        list[str] | None, typer.Option(help="A contig to leave out, as an organelle; repeat for more.")
    ] = None,
    length: Annotated[int, typer.Option(min=1, help="Window length in bp.")] = 500,
    max_per_class: MaxPerClass = 3_000,
    seed: Seed = 1,
) -> None:
    """Windows of coding sequence against windows between genes, split by contig.

    Example: genossm derive coding --genome yeast.fa.gz --annotation yeast.gff3.gz --valid-contigs XIV
    --test-contigs XVI --exclude Mito --output tasks/coding
    """
    about = derive_coding(
        genome,
        annotation,
        output,
        length=length,
        valid_contigs=valid_contigs,
        test_contigs=test_contigs,
        exclude=exclude or [],
        max_per_class=max_per_class,
        seed=seed,
    )
    _report(about, output)


@command.command("intervals")
def intervals(
    genome: Genome,
    output: Output,
    train: Annotated[list[str], typer.Option(help="LABEL=CSV: the training intervals of a label; repeat.")],
    test: Annotated[list[str], typer.Option(help="LABEL=CSV: the test intervals of a label; repeat.")],
    valid_fraction: Annotated[float, typer.Option(min=0, max=1, help="Share of train that becomes valid.")] = 0.1,
    max_per_class: MaxPerClass = 3_000,
    seed: Seed = 1,
) -> None:
    """Sequences of labelled intervals (CSV with region, start, end, strand; 0-based, half-open).

    Example: genossm derive intervals --genome hg38.fa.gz --train positive=pos.csv --train negative=neg.csv
    --test positive=pos_test.csv --test negative=neg_test.csv --output tasks/promoters
    """
    about = derive_intervals(
        genome,
        _by_label(train, "--train"),
        _by_label(test, "--test"),
        output,
        valid_fraction=valid_fraction,
        max_per_class=max_per_class,
        seed=seed,
    )
    _report(about, output)


def _by_label(words: Sequence[str], option: str) -> dict[str, Path]:
    """{label: path} of LABEL=CSV words."""
    found: dict[str, Path] = {}
    for word in words:
        label, equals, path = word.partition("=")
        if not (label and equals and path):
            raise GenoSSMError(f"{option} {word}: write LABEL=CSV")
        if label in found:
            raise GenoSSMError(f"{option}: the label {label!r} is given twice")
        found[label] = Path(path)
    return found
