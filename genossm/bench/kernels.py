"""``genossm bench kernels``: verify, then time; what fails is named and never timed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from genossm.bench.race import Settings, race
from genossm.bench.rows import Row, errors_to_csv, from_csv, merged, to_csv
from genossm.bench.verify import Error, errors
from genossm.files import atomic_write
from genossm.kernels.benchmark import Case
from genossm.kernels.peaks import Meter

GPU_NOTICE = "nobody has run this on a GPU yet: these are the first figures, and they are to be doubted"


@dataclass(frozen=True)
class Report:
    """What a run found.

    Attributes:
        rows: measured points and reasons why there is none, the earlier ones of the folder among them.
        errors: against the float64 definitions.
        refused: operators that were not timed, with their worst error.
    """

    rows: list[Row]
    errors: list[Error]
    refused: dict[str, Error]


def run(
    cases: Sequence[Case], settings: Settings, output: Path | None, say: Callable[[str], None], *, append: bool = False
) -> Report:
    """Verify and time every case; after each, what is known is written to ``output``.

    Args:
        cases: what to run.
        settings: how.
        output: folder for kernels.csv and errors.csv; None writes nothing.
        say: is told what happens.
        append: keep the rows of an earlier kernels.csv that are not measured again.

    Raises:
        GenoSSMError: ``append`` to a file of another version.
    """
    earlier = from_csv(output / "kernels.csv") if append and output and (output / "kernels.csv").exists() else []
    report = Report(list(earlier), [], {})
    meter = Meter(settings.device)
    meter()  # compiles
    for case in cases:
        say(f"{case.name}: verified against float64")
        found = errors(case, settings.device)
        report.errors.extend(found)
        failed = [error for error in found if error.failed]
        if failed:
            worst = max(failed, key=lambda error: error.error)
            report.refused[case.name] = worst
            say(f"{case.name}: refused, {describe(worst)}")
        else:
            for row in race(case, settings, meter):
                say(describe_row(row))
                report.rows[:] = merged(report.rows, [row])
        if output is not None:
            write(report, output)
    return report


def write(report: Report, output: Path) -> None:
    """kernels.csv and errors.csv, whole or not at all."""
    atomic_write(output / "kernels.csv", to_csv(report.rows))
    atomic_write(output / "errors.csv", errors_to_csv(report.errors))


def describe(error: Error) -> str:
    """An error in words."""
    return f"{error.quantity} ({error.variant}, {error.dtype}) is off by {error.error:.1e}, allowed {error.bound:g}"


def describe_row(row: Row) -> str:
    """One line of progress."""
    told = row.note or f"{row.ns_per_token:,.0f} ns a token"
    return f"{row.operator}, {row.pass_}, {row.length:,} tokens: {row.contestant} {told}"
