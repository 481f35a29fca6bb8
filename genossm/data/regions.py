"""BED: stretches of contigs, in the order of the file (UCSC's format; the first six columns).

E_BED: a row with fewer than three columns, positions that are no whole numbers or that do not rise, a strand that is
none; E_UNKNOWN_CONTIG and E_POS_RANGE against the reference. ``#``, ``track`` and ``browser`` lines are passed over.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

from genossm import vocab
from genossm.data.compression import TextSource
from genossm.data.fasta import Record
from genossm.data.numbers import whole_number
from genossm.data.reference import Reference
from genossm.errors import GenoSSMError, shortened


@dataclass(frozen=True, slots=True)
class Region:
    """Bases [start, end) of a contig of the FASTA, read as ``strand`` says; ``line`` counts from 1."""

    contig: str
    start: int
    end: int
    name: str
    strand: str
    line: int


def read_bed(path: str | os.PathLike[str], reference: Reference) -> list[Region]:
    """The regions of a BED file, plain, gzip or BGZF.

    Raises:
        GenoSSMError: E_BED, E_UNKNOWN_CONTIG, E_POS_RANGE, E_EMPTY_FILE, with the line.
    """
    text = b"".join(TextSource(path)).decode("utf-8", "backslashreplace")
    regions = []
    if text.startswith("\ufeff"):
        text_of_it = "the file begins with a byte order mark; save it as UTF-8 without BOM"
        raise GenoSSMError(text_of_it, code="E_BOM", path=path, line=1)
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip() and not line.startswith("#") and line.split()[0] not in ("track", "browser"):
            regions.append(_region(path, number, line.rstrip().split("\t"), reference))
    if not regions:
        raise GenoSSMError("no region in it", code="E_EMPTY_FILE", path=path)
    return regions


def _region(path: str | os.PathLike[str], line: int, fields: list[str], reference: Reference) -> Region:
    def error(code: str, text: str) -> GenoSSMError:
        return GenoSSMError(text, code=code, path=path, line=line)

    if len(fields) < 3:
        raise error("E_BED", f"{len(fields)} columns; contig, start and end are needed, with tabs between them")
    start, end = whole_number(fields[1]), whole_number(fields[2])
    if start is None or end is None or start >= end:
        shown = f"{shortened(fields[1])!r} to {shortened(fields[2])!r}"
        raise error("E_BED", f"{shown} is no stretch; 0-based start below end")
    strand = fields[5] if len(fields) > 5 else "."
    if strand not in ("+", "-", "."):
        raise error("E_BED", f"strand {strand!r}; +, - or .")
    contig = reference.names.resolve(fields[0])
    if contig is None:
        text = f"contig {fields[0]!r} is not in the FASTA, which has {reference.names.shown()}"
        raise error("E_UNKNOWN_CONTIG", text)
    if end > reference.lengths[contig]:
        raise error("E_POS_RANGE", f"ends at {end:,}, contig {contig} has {reference.lengths[contig]:,} bp")
    given = fields[3] if len(fields) > 3 and fields[3] not in ("", ".") else None
    name = given or f"{contig}:{start}-{end}" + (f"({strand})" if strand != "." else "")
    return Region(contig, start, end, name, strand, line)


def region_records(regions: list[Region], reference: Reference) -> Iterator[Record]:
    """Each region as a record of its own; the other strand where the region says so."""
    for region in regions:
        tokens = reference.read(region.contig, region.start, region.end)
        if region.strand == "-":
            tokens = vocab.reverse_complement(tokens)
        yield Record(region.name, "", region.line, tokens, tokens != tokens)
