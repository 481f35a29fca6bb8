"""The parser behind :mod:`genossm.data.fasta`, which says the policy: blocks of text in, events out."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt

from genossm import vocab
from genossm.errors import GenoSSMError

MAX_ID = 1024
MAX_HEADER = 1 << 20
NOT_DNA_FRACTION = 0.05
NOT_DNA_LENGTH = 100

# A byte is translated to a code: the token in the low nibble, and flags.
_LOWER, _IUPAC, _GAP, _ODD, _TOKEN = 0x80, 0x40, 0x20, 0x10, 0x0F

_HINTS = {
    b"##fileformat=VCF": "; looks like VCF",
    b"\x1f\x8b": "; looks like gzip inside gzip",
    b"LOCUS": "; looks like GenBank",
    b"##gff": "; looks like GFF",
    b"<": "; looks like HTML or XML",
    b"#": "; comments are not FASTA",
}


@dataclass(frozen=True)
class FastaOptions:
    """What to admit: U as T (``rna``), gaps as N."""

    rna: bool = False
    gaps: Literal["error", "N"] = "error"


@dataclass(frozen=True, slots=True)
class Header:
    """The beginning of a record; ``line`` counts from 1."""

    name: str
    description: str
    line: int


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """A stretch of the current record: token ids uint8 and soft-mask bool, both of shape (n,).

    ``offset`` is where the stretch begins in the decompressed text, in bytes.
    """

    tokens: npt.NDArray[np.uint8]
    soft_mask: npt.NDArray[np.bool_]
    offset: int


class Warnings:
    """Counts what was accepted with a remark, one line a code."""

    TEXT: ClassVar = {
        "W_IUPAC": "{n} ambiguity codes read as N",
        "W_GAP": "{n} gaps read as N",
        "W_BLANK_LINE": "{n} blank lines skipped",
        "W_TRAILING_WS": "{n} lines with blanks at the end, dropped",
        "W_SHORT_RECORD": "{n} records shorter than a window",
    }

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._first: dict[str, str] = {}

    def add(self, code: str, n: int, record: str | None) -> None:
        """Count ``n`` more of ``code``; the first record is remembered."""
        self.counts[code] += n
        if record is not None:
            self._first.setdefault(code, record)

    def lines(self) -> list[str]:
        """One line a code: ``W_IUPAC 35 ambiguity codes read as N (first in record chr1)``."""
        where = {code: f" (first in record {name})" for code, name in self._first.items()}
        return [f"{c} {self.TEXT[c].format(n=n)}{where.get(c, '')}" for c, n in sorted(self.counts.items())]


@functools.cache
def _table(rna: bool, gaps: bool) -> bytes:
    """Byte to code, for bytes.translate."""
    codes = np.full(256, _ODD, dtype=np.uint8)
    for byte in range(256):
        letter = chr(byte)
        token = vocab.LETTER_TO_ID[byte]
        if rna and letter in "Uu":
            token = np.uint8(vocab.T)
        if token != vocab.INVALID:
            flags = _LOWER * letter.islower() | _IUPAC * (letter.upper() in vocab.IUPAC_AMBIGUOUS)
            codes[byte] = token | np.uint8(flags)
    if gaps:
        codes[[ord("-"), ord(".")]] = vocab.N | _GAP
    return codes.tobytes()


def decode_text(letters: bytes) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
    """Token ids uint8 and soft-mask bool of letters that were checked before; U is read as T, a gap as N."""
    codes = np.frombuffer(letters.translate(_table(True, True)), dtype=np.uint8)
    return codes & np.uint8(_TOKEN), codes >= _LOWER


class FastaParser:
    """The state between blocks of text: the open record, the place, and a line's unfinished end."""

    def __init__(self, path: str, options: FastaOptions, warnings: Warnings, defer: bool) -> None:
        self._path, self._options, self._warnings, self._defer = path, options, warnings, defer
        self._table = _table(options.rna, options.gaps == "N")
        self._carry = b""
        self._offset = 0  # of the next text to be parsed, in bytes
        self._line, self._col = 1, 0  # of the next byte: line from 1, bytes of it already passed
        self._header: bytes | None = None
        self._record: Header | None = None
        self._length = self._iupac = 0
        self._ids: dict[str, int] = {}
        self._deferred: GenoSSMError | None = None

    def feed(self, block: bytes) -> Iterator[Header | Block]:
        """Events of the next block of text."""
        data = self._carry + block
        cut = data.rfind(b"\n") + 1
        if len(data) - cut > 4096:
            # A long line is cut anywhere but inside what may turn out to be blanks at its end.
            cut = len(data.rstrip(b" \t\r")) or len(data)
        self._carry = data[cut:]
        yield from self._parse(data[:cut])
        self._offset += cut

    def close(self) -> Iterator[Header | Block]:
        """Events of what is left; raises the faults that only the end shows."""
        yield from self._parse(self._carry)
        if self._header is not None:
            yield self._begin_record(self._header)
        if self._record is None:
            raise self._error("E_EMPTY_FILE", "no record in it", line=None)
        self._end_record()
        if self._deferred is not None:
            raise self._deferred

    def _error(self, code: str, text: str, *, line: int | None = 0, col: int | None = None) -> GenoSSMError:
        return GenoSSMError(
            text,
            code=code,
            path=self._path,
            line=self._line if line == 0 else line,
            record=self._record.name if self._record else None,
            col=col,
        )

    def _parse(self, data: bytes) -> Iterator[Header | Block]:
        at = 0
        while at < len(data):
            if self._header is not None:
                end = data.find(b"\n", at)
                self._header += data[at : end if end >= 0 else len(data)]
                if len(self._header) > MAX_HEADER:
                    self._check_line_ends(self._header)
                    raise self._error("E_BAD_ID", f"a header of more than {MAX_HEADER} bytes")
                if end < 0:
                    return
                yield self._begin_record(self._header)
                self._header, self._line, at = None, self._line + 1, end + 1
            elif self._col == 0 and data[at] == ord(">"):
                self._end_record()
                self._header, at = b"", at + 1
            elif self._record is None:
                at = self._preamble(data, at)
            else:
                # One byte is found faster than two, and a '>' that begins no line is a fault in any case.
                end = len(data) if data.find(b">", at) < 0 else data.find(b"\n>", at) + 1 or len(data)
                yield from self._sequence(data[at:end], self._offset + at)
                at = end

    def _preamble(self, data: bytes, at: int) -> int:
        """Skip a blank line before the first record; anything else there is a fault."""
        end = data.find(b"\n", at) + 1 or len(data)
        line = data[at:end]
        if line.strip(b" \t\r\n"):
            raise self._no_header(line)
        self._warnings.add("W_BLANK_LINE", 1, None)
        self._line += line.endswith(b"\n")
        return end

    def _no_header(self, line: bytes) -> GenoSSMError:
        if line.startswith(b"\xef\xbb\xbf"):
            return self._error("E_BOM", "the file begins with a byte order mark; save it as UTF-8 without BOM")
        if line.startswith((b"\xff\xfe", b"\xfe\xff")):
            return self._error("E_ENCODING", "the file is UTF-16; save it as plain ASCII or UTF-8")
        if line.startswith(b"@"):
            return self._error("E_FASTQ", "this is FASTQ, not FASTA; convert it (seqtk seq -a)")
        hint = next((text for magic, text in _HINTS.items() if line.startswith(magic)), "")
        return self._error("E_NO_HEADER", f"text before the first '>'{hint}")

    def _check_line_ends(self, header: bytes) -> None:
        place = header.find(b"\r")
        if 0 <= place < len(header):
            raise self._error(
                "E_LINE_END", "a carriage return without a line feed; convert the line ends (mac2unix)", col=place + 2
            )

    def _begin_record(self, raw: bytes) -> Header:
        raw = raw.removesuffix(b"\r")
        self._record = None
        self._check_line_ends(raw)
        id_bytes, _, rest = raw.replace(b"\t", b" ").partition(b" ")
        if not id_bytes:
            raise self._error("E_EMPTY_ID", "no id after '>'")
        if len(id_bytes) > MAX_ID:
            raise self._error("E_BAD_ID", f"an id of {len(id_bytes)} bytes; {MAX_ID} at most")
        if id_bytes.startswith(b">"):
            raise self._error("E_BAD_ID", "two '>' at the beginning of a header")
        try:
            name = id_bytes.decode("utf-8")
        except UnicodeDecodeError:
            raise self._error("E_ENCODING", f"the id {id_bytes!r} is not UTF-8") from None
        if not name.isprintable():
            raise self._error("E_BAD_ID", f"the id {name!r} holds control characters")
        self._record = Header(name, rest.decode("utf-8", "backslashreplace").strip(), self._line)
        first = self._ids.setdefault(name, self._line)
        if first != self._line:
            raise self._error("E_DUP_ID", f"this id stands also on line {first}; give every record its own")
        self._length = self._iupac = 0
        return self._record

    def _end_record(self) -> None:
        if self._record is None:
            return
        if not self._length:
            raise self._error("E_EMPTY_RECORD", "no sequence after this header", line=self._record.line)
        if self._length >= NOT_DNA_LENGTH and self._iupac > NOT_DNA_FRACTION * self._length:
            share = f"{self._iupac} of {self._length} letters are ambiguity codes"
            raise self._error("E_NOT_DNA", f"{share}: no nucleotide sequence", line=self._record.line)

    def _sequence(self, text: bytes, offset: int) -> Iterator[Block]:
        """A stretch of sequence lines, at once where nothing is odd."""
        odd = b"\n\n" in text or (self._col == 0 and text[0] in b"\r\n")
        returns = 0
        if b"\r" in text:
            returns = text.count(b"\r")
            odd = odd or returns != text.count(b"\r\n") or b"\n\r\n" in text
        if not odd:
            codes = np.frombuffer(text.translate(self._table, b"\r\n"), dtype=np.uint8)
            flags = int(np.bitwise_or.reduce(codes))
            if not flags & _ODD:
                self._line += len(text) - codes.size - returns
                line_start = text.rfind(b"\n") + 1
                self._col = len(text) - line_start + (0 if line_start else self._col)
                yield self._block(codes, flags, offset)
                return
        *lines, last = text.split(b"\n")
        parts = []
        for line in lines:
            parts.append(self._line_codes(line.removesuffix(b"\r")))
            self._line, self._col = self._line + 1, 0
        if last:
            parts.append(self._line_codes(last))
            self._col += len(last)
        codes = np.concatenate(parts)
        if codes.size:
            yield self._block(codes, int(np.bitwise_or.reduce(codes)), offset)

    def _block(self, codes: npt.NDArray[np.uint8], flags: int, offset: int) -> Block:
        assert self._record is not None
        self._length += codes.size
        for flag, code in ((_IUPAC, "W_IUPAC"), (_GAP, "W_GAP")):
            if flags & flag:
                n = int(np.count_nonzero(codes & flag))
                self._warnings.add(code, n, self._record.name)
                self._iupac += n if flag == _IUPAC else 0
        return Block(codes & np.uint8(_TOKEN), codes >= _LOWER, offset)

    def _line_codes(self, line: bytes) -> npt.NDArray[np.uint8]:
        """The codes of one line (or of a part of it, at column ``_col``), with every oddity warned of or raised."""
        assert self._record is not None
        text = line.rstrip(b" \t")
        if len(text) < len(line):
            self._warnings.add("W_TRAILING_WS", 1, self._record.name)
        if not text and self._col == 0:
            self._warnings.add("W_BLANK_LINE", 1, self._record.name)
        codes = np.frombuffer(text.translate(self._table), dtype=np.uint8)
        odd = np.flatnonzero(codes & _ODD)
        for place in odd.tolist():
            error = self._odd_letter(text[place], self._col + place + 1)
            if error.code not in ("E_RNA", "E_GAP") or not self._defer:
                raise error
            self._deferred = self._deferred or error
        if odd.size:
            # Only deferred faults were found. '.' is none of them, so it must not be let in with '-'.
            lenient = bytearray(self._table)
            lenient[ord("-")] = vocab.N
            lenient[ord("U")], lenient[ord("u")] = vocab.T, vocab.T | _LOWER
            self._table = bytes(lenient)
            codes = np.frombuffer(text.translate(self._table), dtype=np.uint8)
        return codes

    def _odd_letter(self, byte: int, col: int) -> GenoSSMError:
        letter = chr(byte)
        shown = f"'{letter}'" if 32 <= byte < 127 else f"byte 0x{byte:02x}"
        if letter in "Uu":
            return self._error("E_RNA", f"{shown}: RNA; --rna reads it as T", col=col)
        if letter == "-":
            return self._error("E_GAP", f"{shown}: a gap; --gaps N reads it as N", col=col)
        if letter == "\r":
            return self._error("E_LINE_END", "a carriage return without a line feed; convert the line ends", col=col)
        if byte < 128 and letter.isalpha():
            return self._error("E_NOT_DNA", f"{shown} is no nucleotide letter; a protein?", col=col)
        hint = {".": "; --gaps N reads it as N", ">": "; a header in the middle of a line"}.get(letter, "")
        return self._error("E_BAD_CHAR", f"{shown} is no nucleotide letter{hint}", col=col)
