"""``genossm bench kernels``: verify, then time; what fails is named and never timed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from genossm.bench.race import Settings, race
from genossm.bench.rows import Row, errors_from_csv, errors_to_csv, from_csv, merged, slopes, table, to_csv
from genossm.bench.verify import Error, errors
from genossm.files import atomic_write
from genossm.kernels.benchmark import Case
from genossm.kernels.peaks import Meter

GPU_NOTICE = "nobody has run this on a GPU yet: these are the first figures, and they are to be doubted"


@dataclass(frozen=True)
class Report:
    """What a run found.

    Attributes:
        rows: measured points and reasons why there is none; errors: against the float64 definitions. Both hold what was
            kept of an earlier run.
        refused: operators that were not timed, with their worst error.
    """

    rows: list[Row]
    errors: list[Error]
    refused: dict[str, Error]


def run(
    cases: Sequence[Case], settings: Settings, output: Path, say: Callable[[str], None], *, append: bool = False
) -> Report:
    """Verify and time every case; after each, what is known is written to ``output``.

    Args:
        cases: what to run.
        settings: how.
        output: folder for kernels.csv and errors.csv.
        say: is told what happens.
        append: keep what the earlier files of the folder say of things that are not measured again.

    Raises:
        GenoSSMError: ``append`` to a file of another version.
    """
    names = {case.name for case in cases}
    report = Report([], [], {})
    if append:
        report.rows.extend(from_csv(output / "kernels.csv"))
        report.errors.extend(e for e in errors_from_csv(output / "errors.csv") if e.operator not in names)
    meter = Meter(settings.device)
    meter()  # compiles
    for case in cases:
        say(f"{case.name}: held against float64 before it is timed")
        found = errors(case, settings.device)
        report.errors.extend(found)
        failed = [error for error in found if error.failed]
        if failed:
            worst = max(failed, key=lambda error: error.error / (error.bound or math.inf))
            report.refused[case.name] = worst
            report.rows[:] = [row for row in report.rows if row.operator != case.name]
            say(f"{case.name}: refused, {describe(worst)}")
        else:
            add(report, race(case, settings, meter), say)
        write(report, output)
    return report


def add(report: Report, rows: Iterable[Row], say: Callable[[str], None]) -> None:
    """Take rows into a report as they come, in place of earlier ones of the same thing."""
    for row in rows:
        told = row.note or f"{row.ns_per_token:,.0f} ns a token"
        say(f"{row.operator}, {row.pass_}, {row.length:,} tokens: {row.contestant} {told}")
        report.rows[:] = merged(report.rows, [row])


def tables(report: Report) -> list[str]:
    """Lines to read: times, how they grow with length, and the worst errors."""
    lines = table(report.rows)
    for (name, pass_), (slope, shortest, longest) in slopes(report.rows).items():
        lines.append(f"{name}, {pass_}: time ~ length^{slope:.3f} from {shortest:,} to {longest:,} tokens")
    lines += _steps(report.rows)
    for name in dict.fromkeys(error.operator for error in report.errors):
        lines += [f"{name}: {line}" for line in _worst([e for e in report.errors if e.operator == name])]
    return lines


def _steps(rows: Iterable[Row]) -> list[str]:
    """Training steps in the words of a user: seconds, tokens a second, memory."""
    return [
        f"{row.operator} of {row.length:,} tokens, {row.contestant}, {row.threads} threads: {row.seconds:.2f} s,"
        f" {row.length / row.seconds:,.0f} tokens/s, {row.memory_per_token * row.length / 1e9:.2f} GB"
        for row in rows
        if row.pass_ == "step" and not row.note
    ]


def _worst(errors: Sequence[Error]) -> list[str]:
    """The largest error of outputs and of gradients against float64, by dtype."""
    lines = []
    for dtype in dict.fromkeys(error.dtype for error in errors):
        own = [error for error in errors if error.dtype == dtype]
        unsupported = [error.quantity for error in own if math.isnan(error.error)]
        lines += [f"{dtype} {text}" for text in unsupported]
        for kind, gradients in (("outputs", False), ("gradients", True)):
            group = [e for e in own if e.quantity.startswith("d") is gradients and not math.isnan(e.error)]
            if group:
                worst = max(group, key=lambda error: error.error)
                lines.append(f"{dtype} {kind} within {worst.error:.1e} of float64 ({worst.quantity}, {worst.variant})")
    return lines


def write(report: Report, output: Path) -> None:
    """kernels.csv and errors.csv, whole or not at all."""
    atomic_write(output / "kernels.csv", to_csv(report.rows))
    atomic_write(output / "errors.csv", errors_to_csv(report.errors))


def describe(error: Error) -> str:
    """An error in words."""
    return f"{error.quantity} ({error.variant}, {error.dtype}) is off by {error.error:.1e}, allowed {error.bound:g}"
