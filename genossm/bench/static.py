"""The Triton kernels without a GPU: figures of their machine code, compiled now, as a table and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

COLUMNS = (
    "operator", "case", "kernel", "target", "warps", "registers", "spilled", "shared",
    "bytes_per_token", "bound_bytes_per_token", "over_bound",
)  # fmt: skip


def static_rows(operators: Sequence[str], targets: Sequence[str] = ()) -> list[dict[str, Any]]:
    """What the compiler makes of every launch of the operators, for ``targets`` or all; ``COLUMNS`` are the keys.

    ``bytes_per_token`` counts every tensor that the kernel is given once, ``bound_bytes_per_token`` the operator's own
    inputs and outputs: no implementation can move less.

    Raises:
        ImportError: Triton is not installed.
    """
    from genossm.kernels import static

    rows = []
    chosen = [name for name in operators if name in static.CASES]
    for row in static.table(chosen, list(targets or static.TARGETS)).values():
        figures = row["figures"]
        moved, bound = row["bytes_per_token"], row["bound_bytes_per_token"]
        values = (
            row["operator"], row["case"], row["kernel"], row["target"], row["warps"], figures["registers"],
            figures["spilled"], figures["shared"], moved, bound, round(moved / bound, 2),
        )  # fmt: skip
        rows.append(dict(zip(COLUMNS, values, strict=True)))
    return rows


def static_csv(rows: Sequence[dict[str, Any]]) -> str:
    """CSV with a header."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def static_table(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Aligned lines to read."""
    lines = [COLUMNS, *(tuple(str(row[column]) for column in COLUMNS) for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(COLUMNS))]
    return ["  ".join(v.ljust(w) for v, w in zip(line, widths, strict=True)).rstrip() for line in lines]
