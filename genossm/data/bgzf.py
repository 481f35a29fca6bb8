"""BGZF files of FASTA with our own index: any region of any contig, whatever the line lengths.

The index is a JSON file that names the size and the sha256 of the FASTA it was made from and is refused for any other;
a .fai or .gzi beside the FASTA is never read. For every contig it holds checkpoints (bases before it, BGZF virtual
offset) about a MiB apart, so it needs no regular line length.
"""

from __future__ import annotations

import bisect
import json
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from Bio import bgzf

from genossm.data.fasta import FastaOptions, FastaReader, Header, Warnings
from genossm.data.fasta_parser import decode_text
from genossm.errors import GenoSSMError
from genossm.files import sha256_of

FORMAT = "genossm-fasta-index"
FORMAT_VERSION = 1
LEVEL = 4
"""zlib's level: DNA packs at a fifth of this speed, and 4 % smaller, with the usual 6."""
_PIECE = 1 << 16


def write_bgzf(blocks: Iterable[bytes], path: Path) -> None:
    """Pack text as BGZF, with its end-of-file block; the same text gives the same bytes (with the same zlib)."""
    with path.open("wb") as file, bgzf.BgzfWriter(fileobj=file, compresslevel=LEVEL) as writer:
        for block in blocks:
            # The writer keeps what it is given in one buffer, so it is given little.
            for start in range(0, len(block), _PIECE):
                writer.write(block[start : start + _PIECE])


def index_path(path: Path) -> Path:
    """Where the index of a FASTA lies."""
    return path.with_name(path.name + ".index.json")


def build_index(path: Path, options: FastaOptions, warnings: Warnings) -> dict[str, Any]:
    """Read a BGZF FASTA from end to end, check it by the input policy, and give its index.

    Raises:
        GenoSSMError: as :func:`genossm.data.fasta.stream_fasta`; E_COMPRESSION where it is not BGZF.
    """
    reader = FastaReader(path, options, warnings)
    contigs: list[dict[str, Any]] = []
    for event in reader:
        if isinstance(event, Header):
            contigs.append({"name": event.name, "length": 0, "checkpoints": []})
        else:
            contigs[-1]["checkpoints"].append([contigs[-1]["length"], event.offset])
            contigs[-1]["length"] += event.tokens.size
    if reader.source.kind != "bgzf":
        raise GenoSSMError("not BGZF; genossm fetch packs it so", code="E_COMPRESSION", path=path)
    text_offsets = [text for _, text in reader.source.blocks]
    for contig in contigs:
        for checkpoint in contig["checkpoints"]:
            start, text = reader.source.blocks[bisect.bisect_right(text_offsets, checkpoint[1]) - 1]
            checkpoint[1] = bgzf.make_virtual_offset(start, checkpoint[1] - text)
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "size": reader.source.size,
        "sha256": reader.source.sha256,
        "contigs": contigs,
    }


class IndexedFasta:
    """Random access to a BGZF FASTA through its own index.

    Raises:
        GenoSSMError: E_BAD_INDEX where the index is absent, is none of ours, or was made from other bytes.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        index = self._load(index_path(path))
        self.lengths: dict[str, int] = {contig["name"]: contig["length"] for contig in index["contigs"]}
        """Contig names and lengths in bp, in the order of the file."""
        self._checkpoints: dict[str, list[list[int]]] = {c["name"]: c["checkpoints"] for c in index["contigs"]}
        self._reader = bgzf.BgzfReader(path, "rb")

    def _load(self, path: Path) -> dict[str, Any]:
        try:
            index = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            index = None
        if not isinstance(index, dict) or (index.get("format"), index.get("format_version")) != (
            FORMAT,
            FORMAT_VERSION,
        ):
            raise GenoSSMError("no valid index; genossm fetch makes it anew", code="E_BAD_INDEX", path=path)
        if index["size"] != self.path.stat().st_size or index["sha256"] != sha256_of(self.path):
            raise GenoSSMError(
                f"the index was made from other bytes than {self.path.name} has now; genossm fetch makes it anew",
                code="E_BAD_INDEX",
                path=path,
            )
        return index

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._reader.close()

    def read(self, name: str, start: int, end: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
        """Bases [start, end) of a contig: token ids uint8 and soft-mask bool, both of shape (end - start,).

        Raises:
            GenoSSMError: E_UNKNOWN_CONTIG, E_POS_RANGE.
        """
        if name not in self.lengths:
            raise GenoSSMError(f"no contig {name!r}", code="E_UNKNOWN_CONTIG", path=self.path)
        if not 0 <= start <= end <= self.lengths[name]:
            what = f"[{start}, {end}) is not inside {name}, {self.lengths[name]} bp"
            raise GenoSSMError(what, code="E_POS_RANGE", path=self.path)
        if start == end:
            return np.empty(0, dtype=np.uint8), np.empty(0, dtype=bool)
        checkpoints = self._checkpoints[name]
        before, offset = checkpoints[bisect.bisect_right(checkpoints, start, key=lambda pair: pair[0]) - 1]
        self._reader.seek(offset)
        parts, have = [], 0
        while have < end - before:
            # What follows the wanted bases may be another record, so it is cut off before it is decoded.
            letters = self._reader.read(_PIECE).translate(None, b"\r\n \t")
            if not letters:
                raise GenoSSMError("the index leads beyond the file", code="E_BAD_INDEX", path=index_path(self.path))
            parts.append(letters)
            have += len(letters)
        return decode_text(b"".join(parts)[start - before : end - before])
