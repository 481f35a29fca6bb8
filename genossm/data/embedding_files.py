"""Embeddings of many records in one file, HDF5 or Parquet, written as they come: memory does not grow with them.

HDF5 (version 1): ``embeddings`` float32 (rows, width), chunked and checksummed; of every row ``start`` and ``end``, the
bases that it stands for; of every record ``records/name``, ``records/length``, ``records/first_row`` and
``records/rows``; what was embedded, by which model and how, in the attributes of the file. Parquet: a row an embedding,
with ``record``, ``start``, ``end`` and ``embedding``, a list of fixed size.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

import h5py
import numpy as np
import numpy.typing as npt

from genossm.data.disk_space import DiskSpace, new_hdf5
from genossm.data.parquet import parquet_writer
from genossm.errors import GenoSSMError
from genossm.files import atomic_path

Floats = npt.NDArray[np.float32]
Places = npt.NDArray[np.int64]

FORMAT, FORMAT_VERSION = "genossm-embeddings", 1
_CHUNK_BYTES = 1 << 18
_ROW_GROUP = 1 << 14
_RECORD_BYTES = 128
"""Of HDF5, more than what a record's numbers take, and the heap around its name."""


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
            with new_hdf5(temporary) as (file, space):
                yield _Hdf5(file, space, width, attributes)
        else:
            schema = _schema(width, attributes)
            with parquet_writer(temporary, schema) as add:
                rows = _Parquet(add, schema, width)
                yield rows
                rows.flush()


class _Hdf5:
    def __init__(self, file: h5py.File, space: DiskSpace, width: int, attributes: dict[str, Any]) -> None:
        self._space = space
        file.attrs.update({"format": FORMAT, "format_version": FORMAT_VERSION, **attributes})
        rows = max(1, _CHUNK_BYTES // (4 * width))
        self._embeddings = _growing(file, "embeddings", np.float32, rows, width)
        self._starts, self._ends = (_growing(file, name, np.int64, 1 << 13) for name in ("start", "end"))
        group = file.create_group("records")
        self._names = _growing(group, "name", h5py.string_dtype(), 1 << 10)
        self._numbers = [_growing(group, name, np.int64, 1 << 10) for name in ("length", "first_row", "rows")]

    def begin(self, name: str, length: int) -> None:
        """See :class:`EmbeddingWriter`."""
        self._space.take(len(name.encode()) + _RECORD_BYTES)
        _append(self._names, [name])
        for dataset, value in zip(self._numbers, (length, len(self._embeddings), 0), strict=True):
            _append(dataset, np.array([value], dtype=np.int64))

    def add(self, rows: Floats, starts: Places, ends: Places) -> None:
        """See :class:`EmbeddingWriter`."""
        self._space.take(rows.nbytes + starts.nbytes + ends.nbytes)
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


def _schema(width: int, attributes: dict[str, Any]) -> Any:
    """The columns of a Parquet file of embeddings."""
    import pyarrow as pa

    return pa.schema(
        [
            ("record", pa.string()),
            ("start", pa.int64()),
            ("end", pa.int64()),
            ("embedding", pa.list_(pa.float32(), width)),
        ],
        metadata={"format": FORMAT, **{key: str(value) for key, value in attributes.items()}},
    )


class _Parquet:
    def __init__(self, write: Callable[[Any], None], schema: Any, width: int) -> None:
        self._write, self._schema, self._width, self._name = write, schema, width, ""
        self._held: list[Any] = []
        self._rows = 0

    def begin(self, name: str, length: int) -> None:
        """See :class:`EmbeddingWriter`."""
        self._name = name

    def add(self, rows: Floats, starts: Places, ends: Places) -> None:
        """See :class:`EmbeddingWriter`."""
        import pyarrow as pa

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
            self.flush()

    def flush(self) -> None:
        """Write the rows that are held back for a row group."""
        if self._held:
            import pyarrow as pa

            self._write(pa.Table.from_batches(self._held, schema=self._schema))
            self._held, self._rows = [], 0


def write_mutagenesis(
    output: Path, contig: str, start: int, tokens: npt.NDArray[np.uint8], arrays: dict[str, npt.NDArray[np.float64]]
) -> None:
    """The substitutions of a region: every array (n, 4), for A, C, G, T, and the tokens of the reference (n,)."""
    with atomic_path(output) as temporary, new_hdf5(temporary) as (file, space):
        space.take(tokens.nbytes + sum(values.nbytes for values in arrays.values()))
        file.attrs.update(
            {"format": "genossm-mutagenesis", "format_version": 1, "contig": contig, "start": start, "bases": "ACGT"}
        )
        file.create_dataset("tokens", data=tokens, chunks=True, fletcher32=True)
        for name, values in arrays.items():
            file.create_dataset(name, data=values, chunks=True, fletcher32=True)
