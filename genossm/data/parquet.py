"""Parquet files that are written table by table (pyarrow)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def parquet_writer(path: Path, schema: Any, **options: Any) -> Iterator[Callable[[Any], None]]:
    """Yields a function that adds a table (:class:`pyarrow.Table`) as a row group.

    Args:
        schema: of every table. options: of :class:`pyarrow.parquet.ParquetWriter`.

    Raises:
        OSError: a fault of the disk, that of the first write that failed.
    """
    import pyarrow.parquet as pq

    writer = pq.ParquetWriter(str(path), schema, **options)
    try:
        yield writer.write_table
    except BaseException:
        with contextlib.suppress(Exception):  # the file is given up, and its end may have no place either
            writer.close()
        raise
    writer.close()
