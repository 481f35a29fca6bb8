"""Folders as benchmarks lay them out: which files in them are train, valid and test."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from genossm.data.readers import Source
from genossm.errors import GenoSSMError

SUFFIXES = (".csv", ".tsv", ".parquet", ".fna", ".fa", ".fasta", ".bed")
NAMES = {"train": ("train",), "valid": ("dev", "valid", "validation", "val"), "test": ("test",)}


@dataclass(frozen=True)
class Layout:
    """The sources of a task; valid and test may be absent."""

    train: Source
    valid: Source | None
    test: Source | None


def find_splits(folder: Path) -> Layout:
    """The splits of a folder.

    ``train.csv``, ``dev.csv`` and ``test.csv`` (GUE); ``train.fna`` and ``test.fna``, or Parquet (Nucleotide
    Transformer, also ``train-00000-of-00001.parquet``); or folders ``train`` and ``test`` with a
    folder or a list a class (Genomic Benchmarks).

    Raises:
        GenoSSMError: there is no train, or two files could be it.
    """
    if not folder.is_dir():
        raise GenoSSMError("is no folder; give files with --train and --test", path=folder)
    found = {split: _find(folder, names) for split, names in NAMES.items()}
    train = found["train"]
    if train is None:
        held = ", ".join(sorted(path.name for path in folder.iterdir())[:8]) or "nothing"
        raise GenoSSMError(f"holds no train.csv, train.fna, train.parquet or train/; it holds {held}", path=folder)
    return Layout(train, found["valid"], found["test"])


def _find(folder: Path, names: tuple[str, ...]) -> Path | None:
    for name in names:
        files = [
            path
            for path in sorted(folder.iterdir())
            if (path.is_dir() and path.name == name) or (path.is_file() and _is_split(path.name, name))
        ]
        if len(files) > 1:
            raise GenoSSMError(
                f"{', '.join(path.name for path in files)} could all be {name}: give the one with --{names[0]}",
                path=folder,
            )
        if files:
            return files[0]
    return None


def _is_split(file: str, name: str) -> bool:
    plain = file.lower().removesuffix(".gz")
    stem, dot, suffix = plain.rpartition(".")
    return f"{dot}{suffix}" in SUFFIXES and (stem == name or stem.startswith(f"{name}-"))
