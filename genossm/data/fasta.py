"""FASTA in, tokens out: streamed, exact, and strict about everything that is not plainly DNA.

Every base that comes out is the byte in the file; anything else is an error that names file, line, record and
column (lines of the decompressed text, both from 1). The packing is told by content, see
:mod:`genossm.data.compression`; an index beside the file is never read.

Policy, where a reader has a choice:

* case: folded; lower case is the soft-mask. IUPAC codes are read as N (``W_IUPAC``).
* ``U``: E_RNA, or T with ``rna``. ``-``: E_GAP, or N (``W_GAP``) with ``gaps="N"``, which also admits ``.``, else
  E_BAD_CHAR. E_RNA and E_GAP are mended by an option, so :func:`stream_fasta` reports them only after the whole
  file has been read and no worse fault was found; :func:`read_fasta`, whose records are used at once, stops there.
* other letters: E_NOT_DNA, at the letter. A record of 100 bp and more with over 5 % of IUPAC codes other than N is
  E_NOT_DNA too, at its header; shorter ones may be degenerate primers.
* blanks at the end of a line: dropped (``W_TRAILING_WS``); anywhere else E_BAD_CHAR. Blank lines, also inside a
  record, and uneven line lengths are accepted (``W_BLANK_LINE``). LF, CRLF or both; a CR alone is E_LINE_END.
* the id is the header up to the first blank: UTF-8 (else E_ENCODING), printable, at most 1,024 bytes and not
  beginning with ``>`` (else E_BAD_ID), not empty (E_EMPTY_ID; also where a blank follows ``>``), unique (E_DUP_ID;
  ids that differ by case are two). It is data only: never a path, never parsed as a region.
* a record without sequence: E_EMPTY_RECORD.
* damage of a gzip stream, wherever it is, is reported before any fault of the text in it.
* BOM: E_BOM. UTF-16: E_ENCODING. ``@`` first: E_FASTQ. Other text before the first ``>``: E_NO_HEADER. Nothing but
  blank lines: E_EMPTY_FILE.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from genossm.data.compression import TextSource
from genossm.data.fasta_parser import Block, FastaOptions, FastaParser, Header, Warnings
from genossm.errors import GenoSSMError

__all__ = ["Block", "FastaOptions", "FastaReader", "Header", "Record", "Warnings", "read_fasta", "stream_fasta"]

DEFAULT = FastaOptions()
"""Strict: no U, no gaps."""


@dataclass(frozen=True, slots=True, eq=False)
class Record:
    """A whole record: token ids uint8 and soft-mask bool, both of shape (length,)."""

    name: str
    description: str
    line: int
    tokens: npt.NDArray[np.uint8]
    soft_mask: npt.NDArray[np.bool_]


class FastaReader:
    """Iterates once over the events of a FASTA file; then ``source`` knows its sha256 and size.

    Memory does not grow with the file, but for the ids. See :func:`stream_fasta`.
    """

    def __init__(
        self, path: str | os.PathLike[str], options: FastaOptions, warnings: Warnings | None = None, defer: bool = True
    ) -> None:
        self.source = TextSource(path)
        self.warnings = warnings if warnings is not None else Warnings()
        self._parser = FastaParser(self.source.path, options, self.warnings, defer)

    def __iter__(self) -> Iterator[Header | Block]:
        texts = iter(self.source)
        try:
            for text in texts:
                yield from self._parser.feed(text)
            yield from self._parser.close()
        except GenoSSMError:
            # A packing that is damaged further on explains a fault in the text, so that is what should be told.
            if self.source.kind != "plain":
                for _ in texts:
                    pass
            raise


def stream_fasta(
    path: str | os.PathLike[str], options: FastaOptions = DEFAULT, warnings: Warnings | None = None
) -> FastaReader:
    """The records of a FASTA file as a stream of a :class:`Header` and any number of :class:`Block` each.

    Nothing that came out may be published before the iteration has ended: the last fault may be at the end.

    Args:
        path: plain, gzip or BGZF; ``-`` is standard input.
        warnings: where to count what was accepted with a remark.

    Raises (while iterating):
        GenoSSMError: the first fault by the policy above.
    """
    return FastaReader(path, options, warnings)


def read_fasta(
    path: str | os.PathLike[str], options: FastaOptions = DEFAULT, warnings: Warnings | None = None
) -> Iterator[Record]:
    """The records of a FASTA file, each whole in memory; otherwise as :func:`stream_fasta`."""
    header: Header | None = None
    blocks: list[Block] = []
    for event in FastaReader(path, options, warnings, defer=False):
        if isinstance(event, Block):
            blocks.append(event)
            continue
        if header is not None:
            yield _record(header, blocks)
        header, blocks = event, []
    if header is not None:
        yield _record(header, blocks)


def _record(header: Header, blocks: list[Block]) -> Record:
    tokens = np.concatenate([np.empty(0, dtype=np.uint8), *(block.tokens for block in blocks)])
    soft_mask = np.concatenate([np.empty(0, dtype=bool), *(block.soft_mask for block in blocks)])
    return Record(header.name, header.description, header.line, tokens, soft_mask)
