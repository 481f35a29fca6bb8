"""The bytes inside a file, whatever it is packed in: plain, gzip (all members) or BGZF; told by content, not by name.

A gzip stream is used only if it is whole: every member's CRC and length are checked, nothing may follow the last
member, and a BGZF file must close with its empty end-of-file block (SAM specification, section 4.1.2).
Partial data are handed out as they are read, so a consumer must not publish anything before the iteration has ended.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import struct
import sys
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Literal

from genossm.errors import GenoSSMError

BLOCK = 1 << 20
"""About how many bytes of text are handed out at a time."""
_RAW = 1 << 17
_GZIP = b"\x1f\x8b"
_FOREIGN = {
    b"BZh": "bzip2 (bunzip2)",
    b"\xfd7zXZ\x00": "xz (unxz)",
    b"\x28\xb5\x2f\xfd": "zstd (unzstd)",
    b"PK\x03\x04": "zip (unzip)",
    b"7z\xbc\xaf\x27\x1c": "7z (7z x)",
}


def is_bgzf(head: bytes) -> bool:
    """Whether the first 18 bytes of a file are a BGZF block's header."""
    return head[:4] == b"\x1f\x8b\x08\x04" and _block_size(head) is not None


def _block_size(head: bytes) -> int | None:
    """The size in bytes of the BGZF block that begins here; None where the extra field does not say it."""
    if len(head) < 12 or head[:4] != b"\x1f\x8b\x08\x04":
        return None
    end = 12 + int(struct.unpack_from("<H", head, 10)[0])
    at = 12
    while at + 4 <= min(end, len(head)):
        length = int(struct.unpack_from("<H", head, at + 2)[0])
        if head[at : at + 2] == b"BC" and length == 2 and at + 6 <= len(head):
            return int(struct.unpack_from("<H", head, at + 4)[0]) + 1
        at += 4 + length
    return None


def shown_path(path: str | os.PathLike[str]) -> str:
    """A path in messages: ``<stdin>`` for ``-``."""
    return "<stdin>" if os.fspath(path) == "-" else os.fspath(path)


@contextlib.contextmanager
def rereadable(path: str | os.PathLike[str]) -> Iterator[str]:
    """A path that can be read more than once: of the file, or of a copy of what comes through a pipe."""
    pipe = Path(path)
    if os.fspath(path) != "-" and not pipe.is_fifo() and not pipe.is_char_device():
        yield os.fspath(path)
        return
    with tempfile.TemporaryDirectory(prefix="genossm-") as folder:
        copy = Path(folder) / "copy"
        with contextlib.ExitStack() as stack:
            source = sys.stdin.buffer if os.fspath(path) == "-" else stack.enter_context(pipe.open("rb"))
            shutil.copyfileobj(source, stack.enter_context(copy.open("wb")))
        yield os.fspath(copy)


class TextSource:
    """Iterates over the decompressed bytes of a file (``-`` is standard input), in blocks of about a MiB.

    ``name`` stands for the path in messages, where it is a copy of what the user named.

    After the iteration ``sha256`` (hex) and ``size`` tell of the file's own bytes; ``kind`` of its packing;
    ``blocks`` of the BGZF blocks: (offset in the file, offset in the text), in order.

    Raises (while iterating):
        GenoSSMError: E_COMPRESSION (bzip2, xz, zstd, zip, 7z), E_TRUNCATED_GZ, E_CORRUPT_GZ.
    """

    def __init__(self, path: str | os.PathLike[str], name: str | None = None) -> None:
        self._file = os.fspath(path)
        self.path = name or shown_path(path)
        self._stdin = os.fspath(path) == "-"
        self._digest = hashlib.sha256()
        self.size = 0
        self.kind: Literal["plain", "gzip", "bgzf"] = "plain"
        self.blocks: list[tuple[int, int]] = []

    @property
    def sha256(self) -> str:
        """sha256 of the bytes read so far."""
        return self._digest.hexdigest()

    def _read(self, file: BinaryIO, n: int) -> bytes:
        raw = file.read(n)
        self._digest.update(raw)
        self.size += len(raw)
        return raw

    def __iter__(self) -> Iterator[bytes]:
        if self._stdin:
            yield from self._blocks(sys.stdin.buffer)
        else:
            with open(self._file, "rb") as file:
                yield from self._blocks(file)

    def _blocks(self, file: BinaryIO) -> Iterator[bytes]:
        head = self._read(file, _RAW)
        for magic, name in _FOREIGN.items():
            if head.startswith(magic):
                raise GenoSSMError(
                    f"compressed by {name}; unpack it, or use gzip", code="E_COMPRESSION", path=self.path
                )
        if not head.startswith(_GZIP):
            while head:
                yield head
                head = self._read(file, BLOCK)
        elif is_bgzf(head):
            self.kind = "bgzf"
            yield from self._bgzf(file, head)
        else:
            self.kind = "gzip"
            yield from self._gzip(file, head)

    def _gzip(self, file: BinaryIO, raw: bytes) -> Iterator[bytes]:
        member = zlib.decompressobj(wbits=31)
        while True:
            try:
                text = member.decompress(raw, BLOCK)
            except zlib.error as error:
                raise self._corrupt(str(error).rpartition(": ")[2]) from None
            if text:
                yield text
            if member.eof:
                raw = member.unused_data
                if len(raw) < len(_GZIP):
                    raw += self._read(file, _RAW)
                if not raw:
                    return
                if not raw.startswith(_GZIP):
                    raise self._corrupt("something that is no gzip member follows the last member")
                member = zlib.decompressobj(wbits=31)
            else:
                raw = member.unconsumed_tail or self._read(file, _RAW)
                if not raw:
                    # What zlib still holds back comes out before the end can be judged.
                    rest = member.flush()
                    if rest:
                        yield rest
                    if not member.eof:
                        raise self._truncated("the gzip stream ends too early")

    def _bgzf(self, file: BinaryIO, raw: bytes) -> Iterator[bytes]:
        texts: list[bytes] = []
        length, last, start, total = 0, -1, 0, 0
        while raw:
            if len(raw) < 1 << 16:
                raw += self._read(file, _RAW)
            at = 0
            # A block is at most 64 KiB, so none but the file's last is cut by the end of the buffer.
            while at < len(raw):
                size = _block_size(raw[at : at + 512])
                if size is None:
                    if raw[at : at + 4] != b"\x1f\x8b\x08\x04"[: len(raw) - at]:
                        raise self._corrupt("something that is no BGZF block stands between or after the blocks")
                    size = len(raw)
                if at + size > len(raw):
                    break
                text = self._inflate(memoryview(raw)[at : at + size])
                self.blocks.append((start + at, total))
                last, at = len(text), at + size
                texts.append(text)
                length, total = length + last, total + last
                if length >= BLOCK:
                    yield b"".join(texts)
                    texts, length = [], 0
            more = self._read(file, _RAW)
            if not more and at < len(raw):
                raise self._truncated("the last BGZF block is cut")
            raw, start = raw[at:] + more, start + at
        if length:
            yield b"".join(texts)
        if last != 0:
            raise self._truncated("the BGZF end-of-file block is missing")

    def _inflate(self, block: memoryview) -> bytes:
        start = 12 + int(struct.unpack_from("<H", block, 10)[0])
        crc, size = struct.unpack_from("<II", block, len(block) - 8)
        try:
            text = zlib.decompress(block[start:-8], wbits=-15, bufsize=max(int(size), 1))
        except zlib.error as error:
            raise self._corrupt(str(error).rpartition(": ")[2]) from None
        if len(text) != size or zlib.crc32(text) != crc:
            raise self._corrupt("a BGZF block fails its checksum")
        return text

    def _truncated(self, what: str) -> GenoSSMError:
        return GenoSSMError(f"cut short: {what}; fetch or copy it again", code="E_TRUNCATED_GZ", path=self.path)

    def _corrupt(self, what: str) -> GenoSSMError:
        return GenoSSMError(f"damaged: {what}; fetch or copy it again", code="E_CORRUPT_GZ", path=self.path)
