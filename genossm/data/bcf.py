"""The fixed fields of BCF 2 records: CHROM, POS, ID, REF and ALT (the BCF2 part of the VCF specification, section 6).

INFO and samples are passed over: a record says how long it is.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from genossm.errors import GenoSSMError

BCF_MAGIC = b"BCF\x02"
_LARGEST = 1 << 30
"""No record is larger, in bytes."""
_INTEGERS = {1: "<b", 2: "<h", 3: "<i"}
_CHAR = 7


@dataclass(frozen=True, slots=True)
class BcfRow:
    """The fields of one record; ``pos`` from 1, ``alleles`` with REF first."""

    chrom: str
    pos: int
    id: str
    alleles: list[str]


class _Stream:
    """Bytes on demand from an iterator of blocks."""

    def __init__(self, path: str, first: bytes, blocks: Iterator[bytes]) -> None:
        self._path, self._buffer, self._blocks, self._at = path, first, blocks, 0

    def take(self, n: int, *, or_end: bool = False) -> bytes:
        """The next ``n`` bytes; b"" at the end of the file where ``or_end`` allows it."""
        while len(self._buffer) - self._at < n:
            more = next(self._blocks, b"")
            if not more:
                if or_end and self._at == len(self._buffer):
                    return b""
                raise self.error("the file ends inside a record: cut short; fetch or copy it again")
            self._buffer, self._at = self._buffer[self._at :] + more, 0
        self._at += n
        return self._buffer[self._at - n : self._at]

    def error(self, text: str, number: int | None = None) -> GenoSSMError:
        """A fault of the file."""
        return GenoSSMError(text, code="E_BCF", path=self._path, line=number)


def read_bcf(path: str, first: bytes, blocks: Iterator[bytes]) -> tuple[list[str], Iterator[BcfRow]]:
    """The header lines of a BCF and its records.

    Args:
        path: for messages. first, blocks: the decompressed bytes, ``first`` begins with the magic.

    Raises (also while iterating):
        GenoSSMError: E_BCF, a structure that is not BCF 2.
    """
    stream = _Stream(path, first, blocks)
    magic = stream.take(5)
    if magic[4] not in (1, 2):
        raise stream.error(f"BCF 2.{magic[4]}; convert it to VCF (bcftools view)")
    (length,) = struct.unpack("<I", stream.take(4))
    if length > _LARGEST:
        raise stream.error("a header of more than 1 GiB")
    lines = stream.take(length).rstrip(b"\0\n").decode("utf-8", "backslashreplace").split("\n")
    if not lines[0].startswith("##fileformat=VCFv4.") or not lines[-1].startswith("#CHROM\t"):
        raise stream.error("its header is no VCF 4 header")
    return lines, _rows(stream, _contigs(lines))


def _contigs(header: list[str]) -> dict[int, str]:
    """The contig dictionary: by order in the header, or by the IDX that a line states."""
    found: dict[int, str] = {}
    for line in header:
        name = re.match(r"##contig=<(?:[^\"]*?,)?ID=([^,>]+)", line)
        if name:
            index = re.search(r"[<,]IDX=(\d+)[,>]", line)
            found[int(index[1]) if index else len(found)] = name[1]
    return found


def _rows(stream: _Stream, contigs: dict[int, str]) -> Iterator[BcfRow]:
    number = 0
    while sizes := stream.take(8, or_end=True):
        number += 1
        shared, individual = struct.unpack("<II", sizes)
        if not 24 <= shared <= _LARGEST or individual > _LARGEST:
            raise stream.error("a record of impossible size", number)
        data = stream.take(shared)
        stream.take(individual)
        chrom, pos, _, _, counts = struct.unpack_from("<iiifI", data)
        if chrom not in contigs:
            raise stream.error(f"contig number {chrom} is not in the header", number)
        try:
            name, at = _typed_string(data, 24)
            alleles = []
            for _ in range(counts >> 16):
                allele, at = _typed_string(data, at)
                alleles.append(allele)
        except (struct.error, IndexError, KeyError, ValueError):
            raise stream.error("a field that is no BCF 2 string", number) from None
        if not alleles:
            raise stream.error("a record without alleles", number)
        yield BcfRow(contigs[chrom], pos + 1, name or ".", alleles)


def _typed_string(data: bytes, at: int) -> tuple[str, int]:
    """A typed string at ``at``, and where what follows begins; a length of 15 is stated apart (section 6.3.3)."""
    kind, count = data[at] & 15, data[at] >> 4
    at += 1
    if count == 15:
        layout = _INTEGERS[data[at] & 15]
        (count,) = struct.unpack_from(layout, data, at + 1)
        at += 1 + struct.calcsize(layout)
    if (count and kind != _CHAR) or at + count > len(data) or count < 0:
        raise ValueError("not a string")
    return data[at : at + count].rstrip(b"\0").decode("utf-8", "backslashreplace"), at + count
