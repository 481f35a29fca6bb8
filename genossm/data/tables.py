"""Small tables as people keep them: CSV or TSV, plain or gzip, with a header line; faults name FILE:LINE."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from genossm.data.compression import TextSource
from genossm.errors import GenoSSMError

DELIMITERS = "\t,;"
_OTHERS = {
    b"PAR1": "is Parquet; name it .parquet",
    b"\xd0\xcf\x11\xe0": "is an Excel workbook; save its sheet as CSV",
    b"\x89PNG": "is a picture; give a table",
    b"\xff\xd8\xff": "is a picture; give a table",
    b"%PDF": "is a PDF; give a table",
    b"\x89HDF": "is HDF5; give a table",
}
"""How files begin that are no text, and what to say of them."""


def read_text(path: str | os.PathLike[str]) -> str:
    """The whole text of a file, plain, gzip or BGZF, UTF-8 with or without a byte order mark.

    Raises:
        GenoSSMError: E_ENCODING with the line, E_COMPRESSION, E_TRUNCATED_GZ, E_CORRUPT_GZ.
    """
    source = TextSource(path)
    raw = b"".join(source)
    other = next((text for start, text in _OTHERS.items() if raw.startswith(start)), None)
    if other is not None:
        raise GenoSSMError(other, code="E_ENCODING", path=source.path, line=1)
    try:
        text, bad = raw.decode("utf-8-sig"), raw.find(b"\0")
    except UnicodeDecodeError as error:
        text, bad = "", error.start
    if bad >= 0:
        what = "not UTF-8 text" if not text else "a NUL byte: damaged, or no UTF-8 text"
        line = raw.count(b"\n", 0, bad) + 1
        raise GenoSSMError(f"{what}; save it as UTF-8", code="E_ENCODING", path=source.path, line=line)
    return text


@dataclass(frozen=True)
class Table:
    """The rows of a table: ``lines`` has the line, from 1, on which each begins."""

    path: str
    header: list[str]
    rows: list[list[str]]
    lines: list[int]

    def __len__(self) -> int:
        return len(self.rows)

    def column(self, names: Sequence[str], wanted: str | None, what: str) -> int:
        """The index of the column ``wanted``, or else of the first of ``names`` that is there (in any case).

        Raises:
            GenoSSMError: there is none, or the name stands twice; the message lists what there is.
        """
        have = [name.lower() for name in self.header]
        name = next((name for name in ([wanted] if wanted is not None else names) if name.lower() in have), None)
        shown = ", ".join(self.header[:12]) + (" ..." if len(self.header) > 12 else "")
        if name is None:
            asked = repr(wanted) if wanted is not None else " or ".join(map(repr, names))
            raise GenoSSMError(
                f"no column {asked} for the {what}; the first line must name the columns, and it names: {shown}"
                + (f" (--{what[:-1]}-column says which one)" if what in ("sequences", "labels") else ""),
                path=self.path,
                line=1,
            )
        if have.count(name.lower()) > 1:
            raise GenoSSMError(f"column {name!r} stands twice in: {shown}; rename one", path=self.path, line=1)
        return have.index(name.lower())


def read_csv(path: str | os.PathLike[str]) -> Table:
    """A table with a header line; tab, comma or semicolon, whichever the header has most of; blank lines skipped.

    Raises:
        GenoSSMError: E_EMPTY_FILE (also: no row below the header), a row of another length, bad quotes; or as
            :func:`read_text`.
    """
    text = read_text(path)
    # Sequences are longer than the 131,072 characters that the csv module admits by default.
    csv.field_size_limit(1 << 30)
    first = next((line for line in text.splitlines() if line.strip()), "")
    delimiter = max(DELIMITERS, key=first.count)
    name = "<stdin>" if os.fspath(path) == "-" else os.fspath(path)
    header: list[str] | None = None
    rows, lines = [], []
    for line, row in _rows(text, delimiter, name):
        if header is None:
            header = [field.strip() for field in row]
        elif len(row) != len(header):
            raise GenoSSMError(
                f"{len(row)} fields, but the header has {len(header)}; they are parted by {delimiter!r}, and one that "
                "holds it needs quotes",
                path=name,
                line=line,
            )
        else:
            rows.append(row)
            lines.append(line)
    if header is None or not rows:
        what = "the file is empty" if header is None else "no row below the header"
        raise GenoSSMError(what, code="E_EMPTY_FILE", path=name)
    return Table(name, header, rows, lines)


def _rows(text: str, delimiter: str, path: str) -> Iterator[tuple[int, list[str]]]:
    """(line of its beginning, fields) of every row that is not blank."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    while True:
        line = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise GenoSSMError(f"not a valid table: {error}; see to its quotes", path=path, line=line) from None
        if any(field.strip() for field in row):
            yield line, row
