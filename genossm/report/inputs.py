"""What the stages wrote, read back for the report: JSON, TSV and CSV with errors that name the file."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from genossm.errors import GenoSSMError


@dataclass(frozen=True)
class Predictions:
    """Classes and probabilities of the judged rows: labels int64 (rows,), probabilities float64 (rows, classes); and
    the line of each in its table."""

    labels: npt.NDArray[np.int64]
    probabilities: npt.NDArray[np.float64]
    lines: list[int] | None = None


@dataclass(frozen=True)
class ScoreTable:
    """A table of `genossm score`, by column."""

    path: Path
    columns: Mapping[str, list[str]]

    def numbers(self, column: str) -> list[float]:
        """The values of a column that are there, as numbers."""
        values = [float(text) for text in self.columns[column] if text not in ("", "NA", "nan")]
        return [value for value in values if math.isfinite(value)]


@dataclass(frozen=True)
class Job:
    """What Snakemake's benchmark file says of a job: seconds, and the peak of its memory in MB (None: too short)."""

    seconds: float
    max_rss_mb: float | None


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        GenoSSMError: not there, not JSON, or no object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise GenoSSMError(f"not JSON: {error}", path=path) from None
    if not isinstance(content, dict):
        raise GenoSSMError("not a JSON object", path=path)
    return content


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a file with one JSON object a line."""
    rows = []
    for place, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise GenoSSMError(f"not JSON: {error}", path=path, line=place) from None
    return rows


def read_columns(path: Path, delimiter: str, required: tuple[str, ...] = ()) -> dict[str, list[str]]:
    """A table with a header, by column.

    Raises:
        GenoSSMError: no header, a required column is missing, or a row of another length than the header.
    """
    with open(path, encoding="utf-8", newline="") as handle:
        reader = csv.reader(handle, delimiter=delimiter)
        head = next(reader, [])
        missing = [name for name in required if name not in head]
        if not head or missing:
            raise GenoSSMError(f"has no column {', '.join(missing) or 'at all'}", path=path, line=1)
        columns: dict[str, list[str]] = {name: [] for name in head}
        for row in reader:
            if len(row) != len(head):
                text = f"{len(row)} columns, and the header has {len(head)}"
                raise GenoSSMError(text, path=path, line=reader.line_num)
            for name, value in zip(head, row, strict=True):
                columns[name].append(value)
    return columns


def read_scores(path: Path) -> ScoreTable:
    """A table that `genossm score` wrote."""
    return ScoreTable(path, read_columns(path, "\t", ("record", "status")))


def read_job(path: Path) -> Job:
    """A benchmark file of Snakemake (the mean over its repeats)."""
    columns = read_columns(path, "\t", ("s", "max_rss"))
    seconds = [float(value) for value in columns["s"]]
    if not seconds:
        raise GenoSSMError("has no row", path=path)
    memory = [float(value) for value in columns["max_rss"] if value not in ("-", "NA", "")]
    return Job(sum(seconds) / len(seconds), max(memory, default=None))
