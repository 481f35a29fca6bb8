"""Labelled sequences from whatever people have: tables, Parquet, FASTA, folders of classes, intervals of a genome.

A source is one path, or several ``LABEL=PATH``:

* a table (CSV, TSV, plain or gzip; Parquet), see :mod:`genossm.data.tasks`; without a column of sequences but with
  ``chrom``, ``start`` and ``end`` its intervals are cut from the reference, on the strand it gives;
* BED, with the label in the name column (or given as LABEL=), cut from the reference;
* FASTA whose headers tell the label: ``>id|label`` (Nucleotide Transformer) or ``>id label=X``; or LABEL=FASTA;
* a folder with a folder or a file a class (Genomic Benchmarks' sequences, one file a sequence; its interval lists).
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from genossm import vocab
from genossm.data.derived import CHROM_NAMES, Example, fill_sequences, read_intervals
from genossm.data.fasta import read_fasta
from genossm.data.tables import Table, read_csv, read_text
from genossm.data.tasks import LABEL_NAMES, SEQUENCE_NAMES, Kind, LabelledSequences, check_sequence, from_table, label
from genossm.errors import GenoSSMError
from genossm.files import sha256_of

Source = Path | Mapping[str, Path]
Say = Callable[[str], None]

FASTA_SUFFIXES = (".fa", ".fasta", ".fna", ".fas")
_TOLD = re.compile(r"(?:^|\s)(?:label|class)[=:](\S+)", re.IGNORECASE)


def parse_source(words: list[str]) -> Source:
    """A path; or several LABEL=PATH as a mapping.

    Raises:
        GenoSSMError: some words have a label and some have none, or one is given twice.
    """
    pairs = [word.partition("=") for word in words]
    if len(words) == 1 and (not pairs[0][1] or Path(words[0]).exists()):
        return Path(words[0])
    found: dict[str, Path] = {}
    for word, (name, equals, path) in zip(words, pairs, strict=True):
        if not (name and equals and path):
            raise GenoSSMError(f"{word}: where several files are given, each is LABEL=FILE")
        if name in found:
            raise GenoSSMError(f"the label {name!r} is given twice")
        found[name] = Path(path)
    if len(found) < 2:
        raise GenoSSMError(f"one class, {next(iter(found))!r}; give LABEL=FILE for two at least")
    return found


def checksum(source: Source) -> str:
    """The sha256 of a file; of several, or of a folder, that of their names and sha256s in the order of the names."""
    if isinstance(source, Path) and not source.is_dir():
        return sha256_of(source)
    if isinstance(source, Path):
        files = {str(p.relative_to(source)): p for p in source.rglob("*") if p.is_file()}
    else:
        files = dict(source)
    lines = [f"{name} {checksum(files[name])}\n" for name in sorted(files)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def read_labelled(
    source: Source,
    *,
    sequence_column: str | None = None,
    label_columns: tuple[str, ...] = (),
    kind: Kind | None = None,
    reference: Path | None = None,
    training: bool = True,
    say: Say = lambda text: None,
) -> LabelledSequences:
    """Labelled sequences of a source.

    Args:
        sequence_column, label_columns, kind, training, say: see :func:`genossm.data.tasks.from_table`.
        reference: FASTA that intervals are cut from.

    Raises:
        GenoSSMError: a fault of a file, with its place.
    """
    if isinstance(source, Mapping):
        return _by_class(source, reference, training)
    if source.is_dir():
        return _by_class(_classes_of(source), reference, training)
    name = _plain(source)
    if name.endswith(FASTA_SUFFIXES):
        return _labelled_fasta(source, kind, training)
    if name.endswith((".xlsx", ".xls", ".ods")):
        raise GenoSSMError("is a workbook; save its sheet as CSV", path=source)
    if name.endswith((".parquet", ".pq")):
        table = read_parquet(source)
    elif name.endswith(".bed"):
        return _bed(source, reference, training)
    else:
        table = read_csv(source)
    if _is_interval_table(table, sequence_column):
        table = _cut_table(table, _needed(reference, source))
    return from_table(table, sequence_column, label_columns, kind=kind, training=training, say=say)


def read_places(source: Source) -> list[Example] | None:
    """The labelled intervals of a source that holds nothing else, their genome not needed; None: it holds sequences."""
    if isinstance(source, Path) and source.is_file():
        if _plain(source).endswith(".bed"):
            return [example for example, _, _ in _read_bed(source, None)]
        if not _plain(source).endswith((".csv", ".tsv")):
            return None
        table = read_csv(source)
        if not _is_interval_table(table, None):
            return None
        at = table.column(LABEL_NAMES, None, "labels")
        return [replace(e, label=row[at]) for (e, _, _), row in zip(read_intervals(table, ""), table.rows, strict=True)]
    classes = _classes_of(source) if isinstance(source, Path) else dict(source)
    if not all(path.is_file() and _plain(path).endswith((".csv", ".tsv", ".bed")) for path in classes.values()):
        return None
    found: list[Example] = []
    for name in sorted(classes):
        path = classes[name]
        rows = _read_bed(path, name) if _plain(path).endswith(".bed") else read_intervals(path, name)
        found += [example for example, _, _ in rows]
    return found


def _plain(path: Path) -> str:
    """The file's name in lower case, without the suffix of its packing."""
    return path.name.lower().removesuffix(".gz").removesuffix(".bgz")


def read_parquet(path: Path) -> Table:
    """A Parquet file as a table of texts; ``lines`` are row numbers from 1.

    Raises:
        GenoSSMError: it is no Parquet, or holds no row.
    """
    import pyarrow as pa  # 40 MB and 0.2 s, so only where it is asked for
    import pyarrow.parquet as pq

    try:
        content = pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise GenoSSMError("is no Parquet file, or not a whole one; write it again", path=path) from None
    if not content.num_rows:
        raise GenoSSMError("no row", code="E_EMPTY_FILE", path=path)
    columns = [[_text(value) for value in column.to_pylist()] for column in content.columns]
    rows = [list(row) for row in zip(*columns, strict=True)]
    return Table(os.fspath(path), list(content.column_names), rows, list(range(1, len(rows) + 1)))


def _text(value: Any) -> str:
    """A cell as a table of texts would hold it: nothing for null, several labels separated by ';'."""
    if value is None:
        return ""
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, list):
        return ";".join(map(_text, value))
    return str(value)


def _classes_of(folder: Path) -> dict[str, Path]:
    """{class: its folder or file}: every folder in ``folder``, or where there is none, every file."""
    inside = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    folders = {path.name: path for path in inside if path.is_dir()}
    if folders.keys() & {"train", "test"}:
        raise GenoSSMError("holds train and test: give it as --data", path=folder)
    found = folders or {path.name.split(".")[0]: path for path in inside if path.is_file()}
    if len(found) < 2:
        raise GenoSSMError("holds no two classes: a folder or a file a class is expected", path=folder)
    return found


def _by_class(sources: Mapping[str, Path], reference: Path | None, training: bool) -> LabelledSequences:
    """Sequences of every class, the classes in the order of their names."""
    sequences: list[str] = []
    labels: list[list[str]] = []
    lines: list[int] = []
    for name in sorted(sources):
        found = _sequences(name, sources[name], reference)
        if not found:
            raise GenoSSMError(f"no sequence of class {name!r}", path=sources[name])
        sequences += [sequence for _, sequence in found]
        lines += [line for line, _ in found]
        labels += [[name]] * len(found)
    where = os.path.commonpath([os.fspath(path) for path in sources.values()]) or "."
    return label(sequences, labels, ["label"], "classes", where, lines, training=training)


def _sequences(name: str, path: Path, reference: Path | None) -> list[tuple[int, str]]:
    """(line, sequence) of all in a file, or of every file in a folder."""
    if path.is_dir():
        return [
            one
            for file in sorted(p for p in path.iterdir() if p.is_file())
            for one in _sequences(name, file, reference)
        ]
    plain = _plain(path)
    if plain.endswith(FASTA_SUFFIXES):
        return [(record.line, vocab.decode(record.tokens)) for record in read_fasta(path)]
    if plain.endswith((".csv", ".tsv", ".bed")):
        rows = _read_bed(path, name) if plain.endswith(".bed") else read_intervals(path, name)
        cut = fill_sequences(_needed(reference, path), rows)
        return [(line, example.sequence) for example, (_, _, line) in zip(cut, rows, strict=True)]
    text = "".join(read_text(path).split())
    check_sequence(text, os.fspath(path), 1)
    return [(1, text.upper())]


def _needed(reference: Path | None, path: Path) -> Path:
    if reference is None:
        raise GenoSSMError("holds intervals: give the genome that they are of with --reference", path=path)
    return reference


def _labelled_fasta(path: Path, kind: Kind | None, training: bool) -> LabelledSequences:
    """Sequences of a FASTA, the label of each from its header."""
    sequences, labels, lines = [], [], []
    for record in read_fasta(path):
        header = f"{record.name} {record.description}".strip()
        told = _TOLD.search(header)
        found = told[1] if told else header.rpartition("|")[2].strip() if "|" in header else ""
        if not found:
            raise GenoSSMError(
                "the header tells no label: write '>id|label' or '>id label=X', or give LABEL=FILE for every class",
                path=path, line=record.line, record=record.name,
            )  # fmt: skip
        sequences.append(vocab.decode(record.tokens))
        labels.append([found])
        lines.append(record.line)
    return label(sequences, labels, ["label"], kind or "classes", os.fspath(path), lines, training=training)


def _read_bed(path: Path, name: str | None) -> list[tuple[Example, str, int]]:
    """The intervals of a BED; the label is ``name``, or the fourth column."""
    rows = []
    for number, text in enumerate(read_text(path).splitlines(), 1):
        words = text.split("\t") if "\t" in text else text.split()
        if not words or words[0].startswith("#") or words[0] in ("track", "browser"):
            continue
        if len(words) < 3 or not (words[1].isdigit() and words[2].isdigit() and int(words[1]) < int(words[2])):
            raise GenoSSMError(
                "is no interval: chrom, start, end (0-based, half-open)", code="E_BAD_POS", path=path, line=number
            )
        told = name if name is not None else words[3].strip() if len(words) > 3 else ""
        if not told:
            raise GenoSSMError("no label in column 4: name it, or give LABEL=FILE", path=path, line=number)
        strand = words[5].strip() if len(words) > 5 else "+"
        if strand not in ("+", "-", "."):
            raise GenoSSMError(f"strand {strand!r} is none of + - .", path=path, line=number)
        example = Example(told, words[0], int(words[1]), int(words[2]), "-" if strand == "-" else "+")
        rows.append((example, os.fspath(path), number))
    if not rows:
        raise GenoSSMError("no interval", code="E_EMPTY_FILE", path=path)
    return rows


def _bed(path: Path, reference: Path | None, training: bool) -> LabelledSequences:
    rows = _read_bed(path, None)
    cut = fill_sequences(_needed(reference, path), rows)
    labels = [[example.label] for example in cut]
    lines = [line for _, _, line in rows]
    return label([e.sequence for e in cut], labels, ["name"], "classes", os.fspath(path), lines, training=training)


def _is_interval_table(table: Table, sequence_column: str | None) -> bool:
    known = {name.lower() for name in table.header}
    has_place = bool(known & set(CHROM_NAMES)) and {"start", "end"} <= known
    return sequence_column is None and has_place and not known & set(SEQUENCE_NAMES)


def _cut_table(table: Table, reference: Path) -> Table:
    """A table of intervals with a column of their sequences."""
    rows = read_intervals(table, "")
    cut = fill_sequences(reference, rows)
    return Table(
        table.path,
        ["sequence", *table.header],
        [[example.sequence, *row] for example, row in zip(cut, table.rows, strict=True)],
        table.lines,
    )
