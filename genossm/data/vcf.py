"""VCF and BCF in, the five columns that a score needs out: streamed, strict, every record exactly once.

The packing (plain, gzip, BGZF) and the format (VCF 4.x text, BCF 2) are told by content. CHROM, POS, ID, REF and ALT
are parsed here, for public readers crash on malformed ones or read ``123abc`` as 123; the other columns are passed on
unread. Lines are those of the decompressed text, from 1; for BCF they count the records.

Faults of a file end the reading: E_EMPTY_FILE, E_BOM, E_ENCODING, E_VCF_VERSION (not 4.x), E_VCF_HEADER (no
``##fileformat``, a ``#CHROM`` line that is not one, FORMAT without samples, a sample without a name), E_VCF_ROW (fewer
than eight columns: the file was cut short), and those of the packing (:mod:`genossm.data.compression`). The last line
may lack its line end.
Faults of a record stand in its ``fault``, and the reading goes on: E_BAD_CHROM, E_BAD_POS, E_BAD_REF, E_BAD_ALT.

The specification: VCF 4.3, sections 1.3, 1.6 and 5.4.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from genossm.data.bcf import BCF_MAGIC, read_bcf
from genossm.data.compression import TextSource
from genossm.data.numbers import whole_number
from genossm.errors import GenoSSMError, printable, shortened

COLUMNS = ("CHROM", "POS", "ID", "REF", "ALT", "QUAL", "FILTER", "INFO")
AltKind = Literal["bases", "no_alt", "spanning", "symbolic", "breakend", "bad"]

_BASES = re.compile(r"[ACGTNacgtn]+")
_SYMBOLIC = re.compile(r"<[^<>\s,][^<>\s,]*>")
_BREAKEND = re.compile(
    r"[ACGTNacgtn]+\[[^\[\]\s]+\[|[ACGTNacgtn]+\][^\[\]\s]+\]|\[[^\[\]\s]+\[[ACGTNacgtn]+|\][^\[\]\s]+\][ACGTNacgtn]+"
    r"|\.[ACGTNacgtn]+|[ACGTNacgtn]+\."
)
_QUAL = re.compile(r"\.|[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?(?i:inf|infinity|nan)", re.ASCII)
_CHROM = re.compile(r"[^\s<>,\"'`(){}\[\]]+|<[^<>\s,]+>")
_HINTS = {
    b">": "this is FASTA, not VCF",
    b"track": "this is a track file, not VCF",
    b"<": "this is HTML or XML, not VCF",
}


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with a record: a policy word and a sentence."""

    code: str
    text: str


@dataclass(frozen=True, slots=True)
class VariantRecord:
    """One record.

    Attributes:
        line: of the decompressed text, or the number of the record of a BCF.
        chrom, id, ref: as they stand in the file. pos: from 1; 0 and length + 1 are the telomeres; -1 with a fault.
        alts: at least one; ``.`` alone where there is no alternative.
        rest: the columns from QUAL on, tab-separated, as they stand in the file; empty for BCF.
        fault: why the record cannot be used, or None.
        pos_text: POS as it stands in the file, where that is no number; else empty.
    """

    line: int
    chrom: str
    pos: int
    id: str
    ref: str
    alts: tuple[str, ...]
    rest: str
    fault: Fault | None
    pos_text: str = ""

    @property
    def place(self) -> str:
        """POS for a message or a table of text: what stands in the file, printable and cut, where it is no number."""
        return str(self.pos) if self.pos >= 0 else shortened(printable(self.pos_text))


def alt_kind(alt: str) -> AltKind:
    """What an ALT field is, by VCF 4.3, sections 1.6.1 and 5.4; ``<*>`` and ``<NON_REF>`` are symbolic."""
    if _BASES.fullmatch(alt):
        return "bases"
    if alt == ".":
        return "no_alt"
    if alt == "*":
        return "spanning"
    if _BREAKEND.fullmatch(alt):
        return "breakend"
    # a symbolic name may hold brackets of its own, but it begins and ends with one pair, and holds no other
    return "symbolic" if _SYMBOLIC.fullmatch(alt) else "bad"


def is_bcf(path: str | os.PathLike[str], name: str | None = None) -> bool:
    """Whether a file is BCF, from its first bytes; ``name`` is the path in messages."""
    return next(iter(TextSource(path, name)), b"").startswith(BCF_MAGIC)


class VcfReader:
    """Iterates once over the records of a VCF or BCF; ``-`` is standard input, ``name`` the path in messages.

    Attributes:
        header: the lines before the records, without line ends, ``#CHROM`` last; of BCF too.
        is_bcf: whether it was BCF.
        unsorted: whether a position fell, or a contig came again (known after the iteration).
        odd_qual: records whose QUAL is no number, and the line of the first (so, too).
    """

    def __init__(self, path: str | os.PathLike[str], name: str | None = None) -> None:
        self._source = TextSource(path, name)
        self.path = self._source.path
        self.header: list[str] = []
        self.is_bcf = False
        self.unsorted = False
        self.odd_qual = (0, 0)
        self._seen: set[str] = set()
        self._last: tuple[str, int] | None = None

    def __iter__(self) -> Iterator[VariantRecord]:
        blocks = iter(self._source)
        try:
            first = next(blocks, b"")
            rows = self._bcf(first, blocks) if first.startswith(BCF_MAGIC) else self._text(first, blocks)
            for record in rows:
                self._note_order(record)
                yield record
        except GenoSSMError:
            # damage of the packing further on explains a fault in the text, so that is what should be told
            if self._source.kind != "plain":
                for _ in blocks:
                    pass
            raise

    def _note_order(self, record: VariantRecord) -> None:
        if self._last is not None and self._last[0] == record.chrom:
            self.unsorted |= record.pos < self._last[1]
        else:
            self.unsorted |= record.chrom in self._seen
            self._seen.add(record.chrom)
        self._last = (record.chrom, record.pos)

    def _error(self, code: str, text: str, line: int | None = None) -> GenoSSMError:
        return GenoSSMError(text, code=code, path=self.path, line=line)

    def _bcf(self, first: bytes, blocks: Iterator[bytes]) -> Iterator[VariantRecord]:
        self.is_bcf = True
        header, rows = read_bcf(self.path, first, blocks)
        self.header = header
        for number, row in enumerate(rows, start=1):
            alt = ",".join(row.alleles[1:]) or "."
            yield _record(number, (row.chrom, str(row.pos), row.id, row.alleles[0], alt), "")

    def _text(self, first: bytes, blocks: Iterator[bytes]) -> Iterator[VariantRecord]:
        in_header = True
        for number, line in enumerate(self._lines(first, blocks), start=1):
            if in_header:
                in_header = self._header_line(number, line)
            elif line:
                yield self._row(number, line)
        if in_header:
            if not any(self.header):
                raise self._error("E_EMPTY_FILE", "nothing in it; a VCF begins with ##fileformat=VCFv4.2")
            raise self._error("E_VCF_HEADER", "the header has no #CHROM line; is the file cut short?", len(self.header))

    def _lines(self, first: bytes, blocks: Iterator[bytes]) -> Iterator[str]:
        carry, number = first, 0
        while True:
            *lines, carry = carry.split(b"\n")
            for line in lines:
                number += 1
                yield self._decoded(line.removesuffix(b"\r"), number)
            more = next(blocks, b"")
            if not more:
                break
            carry += more
        if carry:
            yield self._decoded(carry.removesuffix(b"\r"), number + 1)

    def _decoded(self, line: bytes, number: int) -> str:
        if number == 1:
            if line.startswith(b"\xef\xbb\xbf"):
                raise self._error("E_BOM", "the file begins with a byte order mark; save it as UTF-8 without BOM", 1)
            if line.startswith((b"\xff\xfe", b"\xfe\xff")):
                raise self._error("E_ENCODING", "the file is UTF-16; save it as UTF-8", 1)
        return line.decode("utf-8", "backslashreplace")

    def _header_line(self, number: int, line: str) -> bool:
        """Take a line of the header; False once it was the last one."""
        if number == 1:
            self._check_version(line)
        if line.startswith("##"):
            self.header.append(line)
            return True
        if not line.startswith("#"):
            raise self._error("E_VCF_HEADER", "a record before the #CHROM line", number)
        names = line[1:].split("\t")
        if names[:8] != list(COLUMNS):
            hint = "; spaces in place of tabs?" if line[1:].split()[:8] == list(COLUMNS) else ""
            raise self._error("E_VCF_HEADER", f"the column line must be #{' '.join(COLUMNS)}, with tabs{hint}", number)
        if len(names) == 9:
            raise self._error("E_VCF_HEADER", "a FORMAT column and no sample; is the header cut short?", number)
        if "" in names[9:]:
            text = f"column {names.index('', 9) + 1} is a sample without a name; is there a tab too many?"
            raise self._error("E_VCF_HEADER", text, number)
        self.header.append(line)
        return False

    def _check_version(self, line: str) -> None:
        if not line.strip():
            self.header.append("")
            return
        if line.startswith("##format=VC"):
            raise self._error("E_VCF_VERSION", f"{line.removeprefix('##format=')}; convert it to VCF 4", 1)
        if not line.startswith("##fileformat="):
            raw = line.encode()
            hint = next((f"; {text}" for magic, text in _HINTS.items() if raw.startswith(magic)), "")
            raise self._error("E_VCF_HEADER", f"the first line must be ##fileformat=VCFv4.2 or the like{hint}", 1)
        version = line.removeprefix("##fileformat=")
        if not version.startswith("VCFv"):
            raise self._error("E_VCF_HEADER", f"##fileformat={version!r} names no version; write VCFv4.2", 1)
        if not version.startswith("VCFv4."):
            raise self._error("E_VCF_VERSION", f"{version}; convert it to VCF 4", 1)

    def _row(self, number: int, line: str) -> VariantRecord:
        fields = line.split("\t", 8)
        if len(fields) < 8:
            hint = "; spaces in place of tabs?" if len(line.split()) >= 8 else "; is the file cut short?"
            raise self._error("E_VCF_ROW", f"{len(fields)} columns, at least 8 are needed{hint}", number)
        if not _QUAL.fullmatch(fields[5]):
            count, first = self.odd_qual
            self.odd_qual = (count + 1, first or number)
        return _record(number, fields[:5], "\t".join(fields[5:]))


def _record(line: int, fields: Sequence[str], rest: str) -> VariantRecord:
    chrom, pos, name, ref, alt = fields
    alts = tuple(alt.split(","))
    given = whole_number(pos)
    number = -1 if given is None else given
    fault = _fault(chrom, number, pos, ref, alts)
    return VariantRecord(line, chrom, number, name, ref, alts, rest, fault, pos if number < 0 else "")


def _fault(chrom: str, number: int, pos: str, ref: str, alts: tuple[str, ...]) -> Fault | None:
    if not _CHROM.fullmatch(chrom):
        return Fault("E_BAD_CHROM", f"{printable(chrom)!r} is no name of a contig")
    if number < 0:
        return Fault("E_BAD_POS", f"POS {shortened(printable(pos))!r} is no position; a whole number from 1")
    if not _BASES.fullmatch(ref):
        return Fault("E_BAD_REF", f"REF {printable(ref[:40])!r} is not made of A, C, G, T and N")
    for alt in alts:
        kind = alt_kind(alt)
        if kind == "bad" or (kind == "no_alt" and len(alts) > 1):
            return Fault("E_BAD_ALT", f"ALT {printable(alt[:40])!r} is no allele of VCF 4")
    return None
