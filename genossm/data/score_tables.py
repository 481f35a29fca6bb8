"""Tables of scores: TSV, JSON lines or Parquet; rows as they come, memory for one block of them."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import IO, Any

from genossm.data.parquet import parquet_writer
from genossm.errors import GenoSSMError
from genossm.files import atomic_path

NA = "NA"
Value = str | int | float | None
Row = Mapping[str, Value]
"""By column; None is a field without a value."""
PARQUET_ROWS = 1 << 14
"""Rows of a row group."""
OTHER_FORMATS = (".gz", ".bgz", ".bz2", ".xz", ".zst", ".zip", ".csv", ".xlsx", ".h5", ".hdf5", ".vcf", ".bcf", ".bed")
"""Endings that promise what no table of scores is."""


class TableFormat(StrEnum):
    """Of a table of scores."""

    TSV = "tsv"
    PARQUET = "parquet"
    JSONL = "jsonl"


def table_format(output: Path | None, asked: TableFormat | None) -> TableFormat:
    """The format that was asked for, else the one that the name of the output says, else TSV.

    Raises:
        GenoSSMError: Parquet on standard output; a name that says another format.
    """
    if asked is None and output is not None and output.suffix.lower() in OTHER_FORMATS:
        text = f"{output.suffix!r} is not what is written: name it .tsv, .jsonl or .parquet, or give --format"
        raise GenoSSMError(text, path=output)
    suffix = "" if output is None else output.suffix.lstrip(".")
    chosen = asked or (TableFormat(suffix) if suffix in list(TableFormat) else TableFormat.TSV)
    if chosen == TableFormat.PARQUET and output is None:
        raise GenoSSMError("a Parquet table needs a file: give --output")
    return chosen


@contextlib.contextmanager
def score_table(
    output: Path | None, table: TableFormat, columns: Mapping[str, type], decimals: Mapping[str, int]
) -> Iterator[Callable[[Row], None]]:
    """Yields a function that adds a row to a file that appears whole, or to stdout.

    Args:
        columns: names and types (str, int, float), in order.
        decimals: of the floats in a TSV; JSON lines and Parquet keep every digit.
    """
    with contextlib.ExitStack() as stack:
        if table == TableFormat.PARQUET:
            assert output is not None
            temporary = stack.enter_context(atomic_path(output))
            yield stack.enter_context(_parquet(temporary, columns))
            return
        if output is None:
            handle: IO[str] = sys.stdout
            stack.callback(handle.flush)
        else:
            temporary = stack.enter_context(atomic_path(output))
            handle = stack.enter_context(temporary.open("w", encoding="utf-8", newline="\n"))
        if table == TableFormat.JSONL:
            yield lambda row: _write(handle, json.dumps(dict(row), ensure_ascii=False, allow_nan=False))
            return
        _write(handle, "\t".join(columns))
        yield lambda row: _write(handle, "\t".join(_text(row[name], decimals.get(name, 6)) for name in columns))


def _write(handle: IO[str], line: str) -> None:
    handle.write(line + "\n")


def _text(value: Value, decimals: int) -> str:
    if value is None:
        return NA
    return f"{value:.{decimals}f}" if isinstance(value, float) else str(value)


@contextlib.contextmanager
def _parquet(path: Path, columns: Mapping[str, type]) -> Iterator[Callable[[Row], None]]:
    import pyarrow as pa

    kinds = {str: pa.string(), int: pa.int64(), float: pa.float64()}
    schema = pa.schema([(name, kinds[kind]) for name, kind in columns.items()])
    rows: list[Row] = []
    with parquet_writer(path, schema, compression="zstd") as write:

        def flush() -> None:
            if rows:
                write(pa.Table.from_pylist([dict(row) for row in rows], schema=schema))
                rows.clear()

        def add(row: Row) -> None:
            rows.append(row)
            if len(rows) >= PARQUET_ROWS:
                flush()

        yield add
        flush()


def columns_of(names: Sequence[str], kinds: Mapping[str, Any]) -> dict[str, type]:
    """Columns with their types; those that ``kinds`` does not name are floats."""
    return {name: kinds.get(name, float) for name in names}
