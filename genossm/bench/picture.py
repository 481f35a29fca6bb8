"""The rows as curves: what the figure of a benchmark shows, as data."""

from __future__ import annotations

import math
from collections.abc import Sequence

from genossm.bench.rows import Row

Curves = dict[str, list[tuple[int, float]]]


def panels(rows: Sequence[Row]) -> dict[str, tuple[str, Curves]]:
    """Title: (label of the y axis, points by contestant): time, and then memory, of every operator and pass."""
    found: dict[str, tuple[str, Curves]] = {}
    measured = [row for row in rows if not row.note and row.pass_ != "backward"]
    most = max((row.threads for row in measured), default=1)
    for row in measured:
        name = row.contestant if row.threads == most else f"{row.contestant}, {row.threads} thread"
        _add(found, f"{row.operator}, {row.pass_}", "ns per token", name, row.length, row.ns_per_token)
    for row in measured:
        if row.threads == most:
            title = f"{row.operator}, {row.pass_}: memory"
            _add(found, title, "bytes per token", row.contestant, row.length, row.memory_per_token)
    return found


def _add(found: dict[str, tuple[str, Curves]], title: str, label: str, name: str, length: int, value: float) -> None:
    if not math.isnan(value) and value > 0:
        found.setdefault(title, (label, {}))[1].setdefault(name, []).append((length, value))
