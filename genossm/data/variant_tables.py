"""Scored variants as TSV, an allele a row, or as VCF, the records with declared INFO fields."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from Bio import bgzf

from genossm.data.vcf import VariantRecord, VcfReader
from genossm.errors import GenoSSMError
from genossm.files import atomic_path

COLUMNS = ("chrom", "pos", "id", "ref", "alt", "score", "llr_site", "llr_window", "embedding_distance", "status")
NA = "NA"
_PREFIX = "GENOSSM_"
_FIELDS = {
    "SCORE": ("Float", "The score that was asked for"),
    "LLR_SITE": ("Float", "ln P(ALT) - ln P(REF) of the changed bases, by a DNA language model"),
    "LLR_WINDOW": ("Float", "The same over the whole window"),
    "DISTANCE": ("Float", "Euclidean distance of the two windows' hidden states at the bases of both, mean of strands"),
    "STATUS": ("String", "ok, or why the allele has no score"),
}


class Format(StrEnum):
    """Of a table of variants."""

    TSV = "tsv"
    VCF = "vcf"


@dataclass(frozen=True, slots=True)
class AlleleScore:
    """What is said of an allele; the numbers are None where the status is not ``ok``."""

    alt: str
    status: str
    score: float | None = None
    llr_site: float | None = None
    llr_window: float | None = None
    embedding_distance: float | None = None

    def numbers(self, missing: str) -> list[str]:
        """The four numbers as text with five decimals."""
        values = (self.score, self.llr_site, self.llr_window, self.embedding_distance)
        return [missing if value is None else f"{value:.5f}" for value in values]


def output_format(output: Path | None, asked: Format | None) -> Format:
    """The format that was asked for, else the one that the name of the output says.

    Raises:
        GenoSSMError: a compressed TSV; only VCF is packed, as BGZF.
    """
    name = "" if output is None else output.name
    chosen = asked or (Format.VCF if name.endswith((".vcf", ".vcf.gz")) else Format.TSV)
    if chosen == Format.TSV and name.endswith(".gz"):
        raise GenoSSMError("a TSV is written plain; leave .gz away, or write .vcf.gz", path=output)
    return chosen


class TableWriter:
    """Writes scored records to a file that appears whole, BGZF where its name ends in .gz, or to stdout."""

    def __init__(self, output: Path | None, table: Format) -> None:
        self._table, self._stack = table, contextlib.ExitStack()
        self._handle: IO[str]
        if output is None:
            self._handle = sys.stdout
        else:
            temporary = self._stack.enter_context(atomic_path(output))
            if output.name.endswith(".gz"):
                self._handle = self._stack.enter_context(contextlib.closing(bgzf.BgzfWriter(str(temporary))))  # type: ignore[arg-type]
            else:
                self._handle = self._stack.enter_context(temporary.open("w", encoding="utf-8", newline="\n"))
        self._began = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._handle is sys.stdout:
            self._handle.flush()
        self._stack.__exit__(kind, error, trace)

    def _begin(self, reader: VcfReader) -> None:
        """The head of the table, once the reader has read its own."""
        self._began = True
        if self._table == Format.TSV:
            self._handle.write("\t".join(COLUMNS) + "\n")
            return
        declared = [
            f'##INFO=<ID={_PREFIX}{name},Number=A,Type={kind},Description="{text}">'
            for name, (kind, text) in _FIELDS.items()
        ]
        kept = [line for line in reader.header[:-1] if not line.startswith(f"##INFO=<ID={_PREFIX}")]
        self._handle.write("".join(f"{line}\n" for line in (*kept, *declared, reader.header[-1])))

    def write(self, reader: VcfReader, record: VariantRecord, scores: Sequence[AlleleScore]) -> None:
        """Add a record."""
        if not self._began:
            self._begin(reader)
        if self._table == Format.VCF:
            self._handle.write(_vcf_line(record, scores))
            return
        for score in scores:
            fields = (
                record.chrom,
                record.place or NA,
                record.id,
                record.ref,
                score.alt,
                *score.numbers(NA),
                score.status,
            )
            self._handle.write("\t".join(fields) + "\n")

    def finish(self, reader: VcfReader) -> None:
        """End the table; one without records has its head, too."""
        if not self._began:
            self._begin(reader)


def _vcf_line(record: VariantRecord, scores: Sequence[AlleleScore]) -> str:
    quality, filters, info, *samples = record.rest.split("\t")
    kept = [entry for entry in info.split(";") if entry not in ("", ".") and not entry.startswith(_PREFIX)]
    columns = zip(*(score.numbers(".") for score in scores), strict=True)
    texts = [",".join(column) for column in columns] + [",".join(score.status for score in scores)]
    added = [f"{_PREFIX}{name}={text}" for name, text in zip(_FIELDS, texts, strict=True)]
    pos = str(record.pos) if record.pos >= 0 else "."
    fields = [record.chrom, pos, record.id, record.ref, ",".join(record.alts)]
    return "\t".join([*fields, quality, filters, ";".join([*kept, *added]), *samples]) + "\n"
