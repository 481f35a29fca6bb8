"""tokens.h5: a tokenized genome in one HDF5 file (the only place for h5py).

Layout, format version 1::

    /tokens                 uint8 (bases,)      token ids of all contigs, one after another
    /soft_mask              uint8 (bases/8,)    one bit a base, the highest bit first; 1 = lower case in the FASTA
    /contigs/name           UTF-8 strings       names are data, never HDF5 paths
    /contigs/{length,offset,n,lower}  int64     length and offset in bp; counts of N and of lower-case bases
    /windows/{train,valid,test}       int64 (n, 2)   (contig index, start in the contig)
    attributes              format, format_version, complete, source, source_sha256, window, stride, options (JSON),
                            vocabulary (JSON), sha256 (JSON: dataset -> sha256 of its values)

Every dataset is chunked and carries HDF5's fletcher32 checksum, so a read of damaged bytes fails; nothing is
compressed, so a window is a plain slice and needs no plug-in. The same input gives the same bytes.
:func:`check_tokens_file` says what a valid file is.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h5py
import numpy as np
import numpy.typing as npt

from genossm import vocab
from genossm.data.disk_space import create_hdf5, release_hdf5
from genossm.data.tokens_check import (
    CHUNK,
    COLUMNS,
    DATASETS,
    FORMAT,
    FORMAT_VERSION,
    canonical_json,
    check_tokens_file,
    checked_file,
    content_identity,
    damaged,
    open_hdf5,
)
from genossm.data.windows import SPLITS

__all__ = ["Contig", "TokensFile", "TokensWriter", "check_tokens_file", "open_tokens"]


@dataclass(frozen=True)
class Contig:
    """One contig: its place in the flat arrays (offset, length in bp) and its counts of N and lower-case bases."""

    name: str
    length: int
    offset: int
    n: int
    lower: int


class TokensWriter:
    """Writes one tokens file, contig after contig, with the memory of one chunk.

    Use as a context manager on the path that :func:`genossm.files.atomic_path` gives; :meth:`finish` verifies what
    was written and marks the file complete as the last act. A file without that mark is never accepted.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file, self._space = create_hdf5(path)
        self._tokens = self._dataset("tokens", np.uint8)
        self._soft_mask = self._dataset("soft_mask", np.uint8, CHUNK // 8)
        self._windows = {split: self._dataset(f"windows/{split}", np.int64, 4096, 2) for split in SPLITS}
        self._pending = np.empty(CHUNK, dtype=np.uint8)
        self._pending_soft = np.empty(CHUNK, dtype=bool)
        self._fill = self._bases = 0
        self._names: list[str] = []
        self._rows: list[list[int]] = []
        self._digest = {name: hashlib.sha256() for name in DATASETS}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def _dataset(self, name: str, dtype: Any, chunk: int = CHUNK, columns: int = 0) -> h5py.Dataset:
        tail = (columns,) if columns else ()
        return self._file.create_dataset(
            name, shape=(0, *tail), maxshape=(None, *tail), chunks=(chunk, *tail), dtype=dtype, fletcher32=True
        )

    @property
    def contigs(self) -> tuple[Contig, ...]:
        """What has been written so far."""
        return tuple(Contig(name, *row) for name, row in zip(self._names, self._rows, strict=True))

    def add_contig(self, name: str) -> None:
        """Begin a contig; what is appended next belongs to it."""
        self._names.append(name)
        self._rows.append([0, self._bases, 0, 0])

    def append(self, tokens: npt.NDArray[np.uint8], soft_mask: npt.NDArray[np.bool_]) -> None:
        """Add bases to the current contig: token ids uint8 and soft-mask bool, both of shape (n,)."""
        row = self._rows[-1]
        row[0] += tokens.size
        row[2] += int(np.count_nonzero(tokens == vocab.N))
        row[3] += int(np.count_nonzero(soft_mask))
        self._bases += tokens.size
        taken = 0
        while taken < tokens.size:
            n = min(CHUNK - self._fill, tokens.size - taken)
            self._pending[self._fill : self._fill + n] = tokens[taken : taken + n]
            self._pending_soft[self._fill : self._fill + n] = soft_mask[taken : taken + n]
            self._fill, taken = self._fill + n, taken + n
            if self._fill == CHUNK:
                self._flush()

    def _flush(self) -> None:
        """Write the pending bases; only the last flush may be of less than a chunk, so bits stay aligned."""
        n, self._fill = self._fill, 0
        if n:
            self._extend("tokens", self._tokens, self._pending[:n])
            self._extend("soft_mask", self._soft_mask, np.packbits(self._pending_soft[:n]))

    def _extend(self, name: str, dataset: h5py.Dataset, values: npt.NDArray[Any]) -> None:
        self._space.take(values.nbytes)
        size = dataset.shape[0]
        dataset.resize(size + len(values), axis=0)
        dataset[size:] = values
        self._digest[name].update(values.tobytes())

    def read_tokens(self, contig: int, start: int, end: int) -> npt.NDArray[np.uint8]:
        """Token ids [start, end) of a contig that has been written, uint8."""
        if self._fill:
            raise ValueError("call end_contigs() first")
        offset = self._rows[contig][1]
        values: npt.NDArray[np.uint8] = self._tokens[offset + start : offset + end]
        return values

    def end_contigs(self) -> None:
        """No base follows: write what is pending."""
        self._flush()

    def add_windows(self, split: str, contig: int, starts: npt.NDArray[np.int64]) -> None:
        """Add windows of a contig, by their starts, to a split's table."""
        rows = np.stack([np.full_like(starts, contig), starts], axis=1)
        self._extend(f"windows/{split}", self._windows[split], rows)

    def finish(self, *, window: int, stride: int, source: str, source_sha256: str, options: Mapping[str, Any]) -> str:
        """Write the contig table and the attributes, verify everything by reading it back, mark the file complete.

        Args:
            window, stride: in bp. source: name of the FASTA, without its folder. options: JSON-able, how it was made.

        Returns:
            The content identity, as :attr:`TokensFile.sha256`.
        """
        self._flush()
        names = [name.encode() for name in self._names]
        width = max((len(name) for name in names), default=1)
        self._table("contigs/name", np.array(names, dtype=h5py.string_dtype("utf-8", width)))
        for column, values in zip(COLUMNS, np.array(self._rows, dtype=np.int64).reshape(-1, 4).T, strict=True):
            self._table(f"contigs/{column}", np.ascontiguousarray(values))
        self._file.attrs.update(
            {
                "format": FORMAT,
                "format_version": FORMAT_VERSION,
                "complete": 0,
                "source": source,
                "source_sha256": source_sha256,
                "window": window,
                "stride": stride,
                "options": canonical_json(options),
                "vocabulary": canonical_json(vocab.TOKENS),
                "sha256": canonical_json({name: self._digest[name].hexdigest() for name in DATASETS}),
            }
        )
        self._file.close()
        release_hdf5(self._path)
        with checked_file(self._path, complete=False):
            pass
        with h5py.File(self._path, "r+", libver=("v110", "v110"), locking=False) as written:
            # In place, so that it takes no space.
            written.attrs.modify("complete", 1)
            return content_identity(written)

    def _table(self, name: str, values: npt.NDArray[Any]) -> None:
        chunk = max(min(len(values), 65536), 1)
        self._extend(name, self._dataset(name, values.dtype, chunk), values)


class TokensFile:
    """A checked tokens file, open for reading.

    The HDF5 handle is opened on first use in every process (never carried through a fork or a pickle), so an object
    may be given to worker processes.
    """

    def __init__(self, path: Path, verify: bool = True) -> None:
        self.path = Path(path)
        with checked_file(self.path, content=verify) as file:
            self.window = int(file.attrs["window"])
            self.stride = int(file.attrs["stride"])
            self.source = str(file.attrs["source"])
            self.source_sha256 = str(file.attrs["source_sha256"])
            self.options: dict[str, Any] = json.loads(file.attrs["options"])
            self.sha256 = content_identity(file)
            """Content identity: of all values, the window, the stride and the vocabulary, not of the file's bytes."""
            names = [raw.decode("utf-8") for raw in file["contigs/name"][:]]
            columns = [file[f"contigs/{column}"][:].tolist() for column in COLUMNS]
            self.contigs = tuple(Contig(*row) for row in zip(names, *columns, strict=True))
            self._windows = {split: file[f"windows/{split}"][:] for split in SPLITS}
        self._handle: h5py.File | None = None
        self._pid = -1

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_handle": None, "_pid": -1}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close this process's handle; a later read opens it again."""
        if self._handle is not None and self._pid == os.getpid():
            self._handle.close()
        self._handle = None

    def windows(self, split: str) -> npt.NDArray[np.int64]:
        """The windows of ``train``, ``valid`` or ``test``: int64, shape (n, 2), (contig index, start in bp)."""
        return self._windows[split]

    def read(self, contig: int, start: int, end: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
        """Bases [start, end) of a contig: token ids uint8 and soft-mask bool, both of shape (end - start,).

        Raises:
            ValueError: the span is not inside the contig.
            GenoSSMError: the bytes on the disk are damaged.
        """
        row = self.contigs[contig]
        if not 0 <= start <= end <= row.length:
            raise ValueError(f"[{start}, {end}) is not inside {row.name}, {row.length} bp")
        if self._handle is None or self._pid != os.getpid():
            self._handle, self._pid = open_hdf5(self.path), os.getpid()
        first, last = row.offset + start, row.offset + end
        try:
            tokens = self._handle["tokens"][first:last]
            packed = self._handle["soft_mask"][first // 8 : -(-last // 8)]
        except OSError as error:
            raise damaged(self.path, str(error)) from None
        return tokens, np.unpackbits(packed)[first % 8 : first % 8 + end - start].view(bool)


def open_tokens(path: Path, verify: bool = True) -> TokensFile:
    """A tokens file for reading, after :func:`check_tokens_file`; ``verify=False`` leaves out the checksums."""
    return TokensFile(path, verify)
