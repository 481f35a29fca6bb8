"""Embeddings of many records in one file, HDF5 or Parquet, written as they come: memory does not grow with them.

HDF5 (version 1): ``embeddings`` float32 (rows, width), chunked and checksummed; of every row ``start`` and ``end``, the
bases that it stands for; of every record ``records/name``, ``records/length``, ``records/first_row`` and
``records/rows``; what was embedded, by which model and how, in the attributes of the file. Parquet: a row an embedding,
with ``record``, ``start``, ``end`` and ``embedding``, a list of fixed size.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

import h5py
import numpy as np
import numpy.typing as npt

from genossm.errors import GenoSSMError
from genossm.files import atomic_path

Floats = npt.NDArray[np.float32]
Places = npt.NDArray[np.int64]

FORMAT, FORMAT_VERSION = "genossm-embeddings", 1
_CHUNK_BYTES = 1 << 18
_ROW_GROUP = 1 << 14


class EmbeddingFormat(StrEnum):
    """Of a file of embeddings."""

    HDF5 = "hdf5"
    PARQUET = "parquet"


class EmbeddingWriter(Protocol):
    """Takes records in order, each in blocks of rows from its beginning on."""

    def begin(self, name: str, length: int) -> None:
        """A record of ``length`` bp."""

    def add(self, rows: Floats, starts: Places, ends: Places) -> None:
        """Rows (n, width) of the record, and the bases [start, end) that each stands for."""


def embedding_format(output: Path, asked: EmbeddingFormat | None) -> EmbeddingFormat:
    """The format that was asked for, else the one that the name of the output says.

    Raises:
        GenoSSMError: the name says none.
    """
    by_name = {".h5": EmbeddingFormat.HDF5, ".hdf5": EmbeddingFormat.HDF5, ".parquet": EmbeddingFormat.PARQUET}
    chosen = asked or by_name.get(output.suffix)
    if chosen is None:
        raise GenoSSMError(f"{output.suffix!r} says no format; name it .h5 or .parquet", path=output)
    return chosen


@contextlib.contextmanager
def embedding_file(
    output: Path, kind: EmbeddingFormat, width: int, attributes: dict[str, Any]
) -> Iterator[EmbeddingWriter]:
    """Yields a writer for a file that appears whole or not at all.

    Args:
        width: numbers in an embedding. attributes: what the file says of itself.
    """
    with atomic_path(output) as temporary:
        if kind == EmbeddingFormat.HDF5:
            with h5py.File(temporary, "w", libver="v110") as file:
                yield _Hdf5(file, width, attributes)
        else:
            with contextlib.ExitStack() as stack:
                yield _Parquet(temporary, width, attributes, stack)


class _Hdf5:
    def __init__(self, file: h5py.File, width: int, attributes: dict[str, Any]) -> None:
        file.attrs.update({"format": FORMAT, "format_version": FORMAT_VERSION, **attributes})
        rows = max(1, _CHUNK_BYTES // (4 * width))
        self._embeddings = _growing(file, "embeddings", np.float32, rows, width)
        self._starts, self._ends = (_growing(file, name, np.int64, 1 << 13) for name in ("start", "end"))
        group = file.create_group("records")
        self._names = _growing(group, "name", h5py.string_dtype(), 1 << 10)
        self._numbers = [_growing(group, name, np.int64, 1 << 10) for name in ("length", "first_row", "rows")]

    def begin(self, name: str, length: int) -> None:
        """See :class:`EmbeddingWriter`."""
        _append(self._names, [name])
        for dataset, value in zip(self._numbers, (length, len(self._embeddings), 0), strict=True):
            _append(dataset, np.array([value], dtype=np.int64))

    def add(self, rows: Floats, starts: Places, ends: Places) -> None:
        """See :class:`EmbeddingWriter`."""
        _append(self._embeddings, rows)
        _append(self._starts, starts)
        _append(self._ends, ends)
        self._numbers[2][-1] += len(rows)


def _growing(group: h5py.Group, name: str, dtype: Any, rows: int, width: int | None = None) -> h5py.Dataset:
    shape = (0,) if width is None else (0, width)
    fixed = h5py.check_string_dtype(np.dtype(dtype)) is None
    return group.create_dataset(
        name, shape, dtype, maxshape=(None, *shape[1:]), chunks=(rows, *shape[1:]), fletcher32=fixed
    )


def _append(dataset: h5py.Dataset, values: Any) -> None:
    before = len(dataset)
    dataset.resize(before + len(values), axis=0)
    dataset[before:] = values


class _Parquet:
    def __init__(self, path: Path, width: int, attributes: dict[str, Any], stack: contextlib.ExitStack) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self._pa, self._width, self._name = pa, width, ""
        self._schema = pa.schema(
            [
                ("record", pa.string()),
                ("start", pa.int64()),
                ("end", pa.int64()),
                ("embedding", pa.list_(pa.float32(), width)),
            ],
            metadata={"format": FORMAT, **{key: str(value) for key, value in attributes.items()}},
        )
        self._writer = stack.enter_context(pq.ParquetWriter(str(path), self._schema))
        self._held: list[Any] = []
        self._rows = 0
        stack.callback(self._flush)

    def begin(self, name: str, length: int) -> None:
        """See :class:`EmbeddingWriter`."""
        self._name = name

    def add(self, rows: Floats, starts: Places, ends: Places) -> None:
        """See :class:`EmbeddingWriter`."""
        pa = self._pa
        flat = pa.array(np.ascontiguousarray(rows).reshape(-1))
        columns = [
            pa.array([self._name] * len(rows)),
            pa.array(starts),
            pa.array(ends),
            pa.FixedSizeListArray.from_arrays(flat, self._width),
        ]
        self._held.append(pa.record_batch(columns, schema=self._schema))
        self._rows += len(rows)
        if self._rows >= _ROW_GROUP:
            self._flush()

    def _flush(self) -> None:
        if self._held:
            self._writer.write_table(self._pa.Table.from_batches(self._held, schema=self._schema))
            self._held, self._rows = [], 0


def write_mutagenesis(
    output: Path, contig: str, start: int, tokens: npt.NDArray[np.uint8], arrays: dict[str, npt.NDArray[np.float64]]
) -> None:
    """The substitutions of a region: every array (n, 4), for A, C, G, T, and the tokens of the reference (n,)."""
    with atomic_path(output) as temporary, h5py.File(temporary, "w", libver="v110") as file:
        file.attrs.update(
            {"format": "genossm-mutagenesis", "format_version": 1, "contig": contig, "start": start, "bases": "ACGT"}
        )
        file.create_dataset("tokens", data=tokens, chunks=True, fletcher32=True)
        for name, values in arrays.items():
            file.create_dataset(name, data=values, chunks=True, fletcher32=True)
