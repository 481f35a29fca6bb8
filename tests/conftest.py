"""What all tests share."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

# Two workers of two threads each on two cores wait for one another: small products take 20 ms instead of 20 us.
# Before torch is imported, and for the commands that tests start, too.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest

Equality = Callable[..., None]
"""``equality(system, official, error, bound, precision="float64")``: see the fixture of that name."""
ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def repository() -> Path:
    """The checkout that is under test."""
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of data and references beside the checkout; tests that need it skip where it is absent."""
    folder = Path(os.environ.get("GENOSSM_SHARED", ROOT.parent / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip(f"no shared data at {folder} (set GENOSSM_SHARED)")
    return folder


@pytest.fixture
def equality(record_property: Callable[[str, object], None]) -> Equality:
    """Assert that ``error``, relative to the largest entry, is below ``bound``, and keep it for ``--equality``."""

    def check(system: str, official: str, error: float, bound: float, precision: str = "float64") -> None:
        record_property("equality", (system, official, precision, float(error)))
        assert error < bound, f"{system} against {official}: {error:.2e}"

    return check


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--equality``: a table of how far outputs and gradients are from those of other implementations."""
    parser.addoption(
        "--equality", action="store_true", help="show the errors against official implementations and peers"
    )


def equality_rows(reports: list[pytest.TestReport]) -> Iterator[str]:
    """One row a system, implementation and precision: the largest error of its tests."""
    largest: dict[tuple[str, str, str], float] = {}
    for report in reports:
        for name, value in report.user_properties:
            if name == "equality":
                system, official, precision, error = value  # type: ignore[misc]  # typed as object by pytest
                key = (system, official, precision)
                largest[key] = max(error, largest.get(key, 0.0))
    for key, error in sorted(largest.items()):
        yield f"| {' | '.join(key)} | {error:.1e} |"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """The table that ``--equality`` asks for."""
    if config.getoption("equality"):
        reports = terminalreporter.getreports("passed")
        terminalreporter.section("largest error relative to the largest entry, outputs and gradients")
        terminalreporter.write_line("| system | official implementation | precision | error |")
        terminalreporter.write_line("|---|---|---|---|")
        for row in equality_rows(reports):
            terminalreporter.write_line(row)
