"""Labelled tasks that are cut out of a genome: coding against intergenic windows, and lists of labelled intervals.

Everything is a function of the input files and the seed. The genome is read contig by contig, so memory follows the
longest contig, not the genome.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from genossm import vocab
from genossm.data.fasta import Record, read_fasta
from genossm.data.gff import read_annotation
from genossm.data.numbers import whole_number
from genossm.data.tables import Table, read_csv
from genossm.data.windows import SPLITS
from genossm.errors import GenoSSMError, shortened

Spans = list[tuple[int, int]]
CODING, INTERGENIC = "coding", "intergenic"
CHROM_NAMES = ("region", "chrom", "chr", "seqid", "chromosome")


@dataclass(frozen=True, slots=True)
class Example:
    """One row of a task: [start, end) of ``chrom`` in bp, 0-based, read on ``strand`` as ``sequence``."""

    label: str
    chrom: str
    start: int
    end: int
    strand: str
    sequence: str = ""

    @property
    def place(self) -> str:
        """``chrom:start-end(strand)``."""
        return f"{self.chrom}:{self.start}-{self.end}({self.strand})"


def merged(spans: Iterable[tuple[int, int]]) -> Spans:
    """The union of spans [start, end): sorted, and joined where they overlap or touch."""
    union: Spans = []
    for start, end in sorted(spans):
        if union and start <= union[-1][1]:
            union[-1] = (union[-1][0], max(end, union[-1][1]))
        else:
            union.append((start, end))
    return union


def gaps_between(spans: Spans, length: int) -> Spans:
    """What merged spans leave of [0, length)."""
    edges = [0, *(edge for span in spans for edge in span), length]
    return [(start, end) for start, end in zip(edges[::2], edges[1::2], strict=True) if start < end]


def tile(spans: Spans, length: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Starts of windows that lie wholly in the spans and never overlap: as many as fit, at a random offset.

    Returns:
        int64, shape (n,), increasing.
    """
    starts = [np.empty(0, dtype=np.int64)]
    for start, end in spans:
        fit, room = divmod(end - start, length)
        if fit:
            starts.append(start + int(rng.integers(room, endpoint=True)) + length * np.arange(fit, dtype=np.int64))
    return np.concatenate(starts)


def _generator(seed: int, use: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, use])))


def _subset(examples: list[Example], n: int, rng: np.random.Generator) -> list[Example]:
    """``n`` of the examples at random, in their order; all where there are fewer."""
    if len(examples) <= n:
        return examples
    return [examples[i] for i in np.sort(rng.permutation(len(examples))[:n]).tolist()]


def _cut(record: Record, example: Example) -> Example:
    """The example with its sequence."""
    tokens = record.tokens[example.start : example.end]
    if example.strand == "-":
        tokens = vocab.reverse_complement(tokens)
    return replace(example, sequence=vocab.decode(tokens))


def coding_windows(
    genome: str | os.PathLike[str],
    annotation: str | os.PathLike[str],
    *,
    length: int = 500,
    valid_contigs: Sequence[str],
    test_contigs: Sequence[str],
    exclude: Sequence[str] = (),
    max_per_class: int = 3_000,
    seed: int = 1,
) -> dict[str, list[Example]]:
    """Windows of coding sequence against windows between genes, split by contig.

    Coding windows lie wholly inside coding sequence of protein-coding genes (its union over transcripts and
    strands); intergenic ones touch no annotated feature of any kind. All have ``length`` bp and no N, no two
    overlap, both classes are equally many in every split, and every window is read on a random strand, so neither
    length, nor base content of N, nor strand gives the class away.

    Args:
        max_per_class: examples of a class in a split, at most.

    Returns:
        {train, valid, test: examples in the order of the genome}.

    Raises:
        GenoSSMError: a contig that is not there, or a split without a window of either class.
    """
    spans = read_annotation(annotation)
    split_of = dict.fromkeys(valid_contigs, "valid") | dict.fromkeys(test_contigs, "test")
    rng = _generator(seed, 0)
    found: dict[str, dict[str, list[Example]]] = {split: {CODING: [], INTERGENIC: []} for split in SPLITS}
    contigs = []
    for record in read_fasta(genome):
        contigs.append(record.name)
        if record.name in exclude:
            continue
        features = merged(spans.features.get(record.name, []))
        if features and features[-1][1] > record.tokens.size:
            raise GenoSSMError(
                f"a feature of {record.name} ends at {features[-1][1]}, but {os.fspath(genome)} has only "
                f"{record.tokens.size} bp of it; another assembly?",
                code="E_POS_RANGE",
                path=annotation,
            )
        coding = merged(spans.coding.get(record.name, []))
        # Where nothing is annotated, nothing is known to be intergenic.
        intergenic = gaps_between(features, record.tokens.size) if features else []
        for label, source in ((CODING, coding), (INTERGENIC, intergenic)):
            found[split_of.get(record.name, "train")][label] += _windows(record, label, source, length, rng)
    for name in (*valid_contigs, *test_contigs, *exclude):
        if name not in contigs:
            raise GenoSSMError(f"there is no contig {name!r}; there are {', '.join(contigs[:20])}", path=genome)
    return _balanced(found, max_per_class, seed, genome, length)


def _windows(record: Record, label: str, spans: Spans, length: int, rng: np.random.Generator) -> list[Example]:
    """As many windows without N as fit in the spans, each on a random strand."""
    starts = tile(spans, length, rng).tolist()
    strands = np.where(rng.random(len(starts)) < 0.5, "+", "-").tolist()
    return [
        _cut(record, Example(label, record.name, start, start + length, strand))
        for start, strand in zip(starts, strands, strict=True)
        if not (record.tokens[start : start + length] == vocab.N).any()
    ]


def _balanced(
    found: dict[str, dict[str, list[Example]]],
    max_per_class: int,
    seed: int,
    genome: str | os.PathLike[str],
    length: int,
) -> dict[str, list[Example]]:
    """Equally many of both classes in each split."""
    rng = _generator(seed, 1)
    task = {}
    for split, by_label in found.items():
        n = min(max_per_class, *map(len, by_label.values()))
        if not n:
            empty = next(label for label, examples in by_label.items() if not examples)
            raise GenoSSMError(f"no {empty} window of {length} bp for the {split} split", path=os.fspath(genome))
        # The contigs come one after the other, and a class within a contig: sorting mixes the classes by place.
        order = {
            name: i for i, name in enumerate(dict.fromkeys(e.chrom for e in by_label[CODING] + by_label[INTERGENIC]))
        }
        chosen = [example for examples in by_label.values() for example in _subset(examples, n, rng)]
        task[split] = sorted(chosen, key=lambda e, order=order: (order[e.chrom], e.start))  # type: ignore[misc]
    return task


def interval_sequences(
    genome: str | os.PathLike[str],
    train: Mapping[str, str | os.PathLike[str]],
    test: Mapping[str, str | os.PathLike[str]],
    *,
    valid_fraction: float = 0.1,
    max_per_class: int = 3_000,
    seed: int = 1,
) -> dict[str, list[Example]]:
    """Sequences of labelled intervals, as Genomic Benchmarks lists them: one CSV a label and split.

    The CSV has columns ``region`` (or chrom, chr, seqid), ``start``, ``end`` (0-based, half-open, as BED) and
    ``strand`` (+ where absent). A share of the train intervals becomes the valid split, label by label.

    Args:
        train, test: label -> path of its list.
        max_per_class: examples of a class in train (valid included) and in test, at most.

    Returns:
        {train, valid, test: examples in the order of the lists}.

    Raises:
        GenoSSMError: E_UNKNOWN_CONTIG, E_POS_RANGE and other faults of a list, with FILE:LINE.
    """
    rng = _generator(seed, 2)
    task: dict[str, list[tuple[Example, str, int]]] = {"train": [], "valid": [], "test": []}
    for split, lists in (("train", train), ("test", test)):
        for label, path in lists.items():
            rows = read_intervals(path, label)
            chosen = np.sort(rng.permutation(len(rows))[:max_per_class])
            held_out = set(rng.permutation(chosen)[: round(valid_fraction * chosen.size)].tolist())
            for i in chosen.tolist():
                task["valid" if split == "train" and i in held_out else split].append(rows[i])
    _fill(genome, task)
    return {split: [row[0] for row in rows] for split, rows in task.items()}


def read_intervals(source: str | os.PathLike[str] | Table, label: str) -> list[tuple[Example, str, int]]:
    """(example without sequence, file, line) of every row of a list, or of one that was read.

    Raises:
        GenoSSMError: a column is missing, a span or a strand is none; with FILE:LINE.
    """
    table = source if isinstance(source, Table) else read_csv(source)
    chrom_at = table.column(CHROM_NAMES, None, "contigs")
    start_at, end_at = table.column(("start",), None, "starts"), table.column(("end",), None, "ends")
    strand_at = table.column(("strand",), None, "strands") if "strand" in map(str.lower, table.header) else None
    rows = []
    for line, row in zip(table.lines, table.rows, strict=True):
        start, end = row[start_at].strip(), row[end_at].strip()
        first, last = whole_number(start), whole_number(end)
        if first is None or last is None or first >= last:
            what = f"start {shortened(start)!r} and end {shortened(end)!r} are no span"
            raise GenoSSMError(what, code="E_BAD_POS", path=table.path, line=line)
        strand = row[strand_at].strip() if strand_at is not None else "+"
        if strand not in ("+", "-", "."):
            raise GenoSSMError(f"strand {strand!r} is none of + - .", path=table.path, line=line)
        example = Example(label, row[chrom_at].strip(), first, last, "-" if strand == "-" else "+")
        rows.append((example, table.path, line))
    return rows


def fill_sequences(genome: str | os.PathLike[str], rows: Sequence[tuple[Example, str, int]]) -> list[Example]:
    """The examples of :func:`read_intervals` with their sequences, in one pass over the genome.

    Raises:
        GenoSSMError: E_UNKNOWN_CONTIG or E_POS_RANGE, with the place in the list.
    """
    task = {"rows": list(rows)}
    _fill(genome, task)
    return [example for example, _, _ in task["rows"]]


def _fill(genome: str | os.PathLike[str], task: dict[str, list[tuple[Example, str, int]]]) -> None:
    """Put the sequences in, in one pass over the genome."""
    wanted: dict[str, list[tuple[str, int]]] = {}
    for split, rows in task.items():
        for i, (example, _, _) in enumerate(rows):
            wanted.setdefault(example.chrom, []).append((split, i))
    contigs = []
    for record in read_fasta(genome):
        contigs.append(record.name)
        # Assemblies name the same contig chr1 or 1; the list's name stays in the example.
        other = record.name.removeprefix("chr") if record.name.startswith("chr") else f"chr{record.name}"
        places = wanted.pop(record.name, None)
        for split, i in places if places is not None else wanted.pop(other, []):
            example, path, line = task[split][i]
            if example.end > record.tokens.size:
                raise GenoSSMError(
                    f"{example.place} is beyond the {record.tokens.size} bp of {record.name}; another assembly?",
                    code="E_POS_RANGE",
                    path=path,
                    line=line,
                )
            task[split][i] = (_cut(record, example), path, line)
    for name, places in wanted.items():
        split, i = places[0]
        raise GenoSSMError(
            f"{os.fspath(genome)} has no contig {name!r}; it has {', '.join(contigs[:20])}",
            code="E_UNKNOWN_CONTIG",
            path=task[split][i][1],
            line=task[split][i][2],
        )
