"""The rows of a benchmark: one a contestant, pass and length; as CSV, and as a table to read."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from genossm.bench.verify import Error
from genossm.errors import GenoSSMError

OURS = "genossm"


@dataclass(frozen=True)
class Row:
    """One measured point, or the reason why there is none (``note``).

    Attributes:
        operator, contestant, pass_: what ran; ``backward`` is the second half of ``training``.
        length: tokens. threads: of torch, and of our kernels. device: as torch names it.
        repeats: samples. seconds: their median; low and high: the quartiles.
        ns_per_token: from the median. memory_per_token: bytes at the peak beyond what was there before.
        multiply_adds, exponentials, bytes: that any implementation needs, per token.
        peak_multiply_adds, peak_exponentials, peak_bytes: a second, in the same rounds.
        roofline: share of the best possible time. ratio: this contestant's time over ours in the same rounds.
    """

    operator: str
    contestant: str
    pass_: str
    length: int
    threads: int
    device: str
    repeats: int = 0
    seconds: float = math.nan
    low: float = math.nan
    high: float = math.nan
    ns_per_token: float = math.nan
    memory_per_token: float = math.nan
    multiply_adds: float = math.nan
    exponentials: float = math.nan
    bytes: float = math.nan
    peak_multiply_adds: float = math.nan
    peak_exponentials: float = math.nan
    peak_bytes: float = math.nan
    roofline: float = math.nan
    ratio: float = math.nan
    note: str = ""

    @property
    def key(self) -> tuple[str, str, str, int, int, str]:
        """What a later measurement of the same thing replaces."""
        return (self.operator, self.contestant, self.pass_, self.length, self.threads, self.device)


COLUMNS = [field.name.rstrip("_") for field in fields(Row)]
ERROR_COLUMNS = [field.name for field in fields(Error)]


def to_csv(rows: Iterable[Row]) -> str:
    """CSV with a header; an empty cell where nothing was measured."""
    return _csv(COLUMNS, ([_cell(value) for value in asdict(row).values()] for row in rows))


def errors_to_csv(errors: Iterable[Error]) -> str:
    """CSV with a header; an empty bound where the error is only shown."""
    return _csv(ERROR_COLUMNS, ([_cell(value) for value in asdict(error).values()] for error in errors))


def _csv(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(lines)
    return text.getvalue()


def _cell(value: object) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def from_csv(path: Path) -> list[Row]:
    """The rows of an earlier run; none without a file.

    Raises:
        GenoSSMError: not a file that :func:`to_csv` wrote.
    """
    return [Row(**values) for values in _read(path, COLUMNS, Row)]


def errors_from_csv(path: Path) -> list[Error]:
    """The errors of an earlier run; none without a file.

    Raises:
        GenoSSMError: not a file that :func:`errors_to_csv` wrote.
    """
    return [Error(**values) for values in _read(path, ERROR_COLUMNS, Error)]


def _read(path: Path, columns: list[str], kind: type[Row | Error]) -> Iterator[dict[str, Any]]:
    """The values of every line, by the names of the fields of ``kind``."""
    if not path.exists():
        return
    with open(path, encoding="utf-8", newline="") as handle:
        reader = csv.DictReader(handle)
        if reader.fieldnames != columns:
            text = "has other columns than this version writes; remove it, or name another folder"
            raise GenoSSMError(text, path=path)
        for line, texts in enumerate(reader, start=2):
            try:
                pairs = zip(columns, fields(kind), strict=True)
                yield {field.name: _parsed(str(field.type), texts[column]) for column, field in pairs}
            except (TypeError, ValueError) as error:
                raise GenoSSMError(f"has a value that is no number: {error}", path=path, line=line) from error


def _parsed(kind: str, text: str) -> float | int | str | None:
    if kind == "float | None":
        return float(text) if text else None
    if kind == "float":
        return float(text) if text else math.nan
    return int(text) if kind == "int" else text


def merged(earlier: Iterable[Row], later: Sequence[Row]) -> list[Row]:
    """``earlier`` without what ``later`` measured again, and ``later``; the rows of an operator stand together."""
    again = {row.key for row in later}
    rows = [row for row in earlier if row.key not in again] + list(later)
    places = {(row.operator, row.pass_): place for place, row in reversed(list(enumerate(rows)))}
    operators = {row.operator: place for place, row in reversed(list(enumerate(rows)))}
    return sorted(rows, key=lambda row: (operators[row.operator], places[row.operator, row.pass_], row.length))


def table(rows: Iterable[Row]) -> list[str]:
    """Lines to read: time with its quartiles, memory, the share of the roofline, and the ratio to ours."""
    head = ("operator", "pass", "tokens", "contestant", "thr", "ns/token", "quartiles", "B/token", "roofline", "ratio")
    lines = [head, *(_line(row) for row in rows)]
    widths = [max(len(line[i]) for line in lines if len(line) > i + (len(line) == 6)) for i in range(len(head))]
    return [_aligned(line, widths) for line in lines]


def _line(row: Row) -> tuple[str, ...]:
    place = (row.operator, row.pass_, f"{row.length:,}", row.contestant, str(row.threads))
    if row.note:
        return (*place, row.note)
    spread = f"{row.low / row.length * 1e9:,.0f}-{row.high / row.length * 1e9:,.0f}"
    return (
        *place, _number(row.ns_per_token, ",.0f"), spread, _number(row.memory_per_token, ",.0f"),
        _number(row.roofline, ".0%"), _number(row.ratio, ".2f"),
    )  # fmt: skip


def _number(value: float, form: str) -> str:
    return "-" if math.isnan(value) else format(value, form)


def _aligned(line: Sequence[str], widths: Sequence[int]) -> str:
    left = {0, 1, 3}
    cells = [f"{v:<{w}}" if i in left else f"{v:>{w}}" for i, (v, w) in enumerate(zip(line[:5], widths, strict=False))]
    if len(line) == 6:
        return "  ".join([*cells, line[5]])
    cells += [f"{v:>{w}}" for v, w in zip(line[5:], widths[5:], strict=True)]
    return "  ".join(cells).rstrip()


def slopes(rows: Iterable[Row], shortest: int = 16_384) -> dict[tuple[str, str], tuple[float, int, int]]:
    """(operator, pass) to the slope of log time against log length of ours, and the lengths that it spans."""
    points: dict[tuple[str, str], list[tuple[float, float]]] = {}
    rows = list(rows)
    most = max((row.threads for row in rows), default=1)
    for row in rows:
        if (
            row.contestant == OURS
            and row.threads == most
            and row.length >= shortest
            and not row.note
            and not math.isnan(row.seconds)
        ):
            points.setdefault((row.operator, row.pass_), []).append((math.log(row.length), math.log(row.seconds)))
    found = {}
    for key, pairs in points.items():
        if len(pairs) < 2:
            continue
        x, y = (sum(values) / len(pairs) for values in zip(*pairs, strict=True))
        slope = sum((a - x) * (b - y) for a, b in pairs) / sum((a - x) ** 2 for a, _ in pairs)
        lengths = [round(math.exp(a)) for a, _ in pairs]
        found[key] = (slope, min(lengths), max(lengths))
    return found
