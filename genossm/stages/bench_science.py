"""genossm bench science: what is said of state-space models, checked on this machine."""

from __future__ import annotations

import csv
import io
import platform
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import typer

from genossm import __version__
from genossm.errors import GenoSSMError
from genossm.files import atomic_write
from genossm.science import CLAIMS, check_of
from genossm.science.result import Claim, Setting

COLUMNS = ("claim", "figure", "measured", "expected", "verdict", "seconds")


@dataclass(frozen=True)
class Outcome:
    """A claim that was checked, and the seconds that it took."""

    name: str
    claim: Claim
    seconds: float


def check_names(names: Sequence[str]) -> None:
    """Refuse what is no claim.

    Raises:
        GenoSSMError: a name that is no claim.
    """
    for name in names:
        if name not in CLAIMS:
            raise GenoSSMError(f"--only: there is no claim {name!r}; there is {', '.join(CLAIMS)}")


def check(names: Sequence[str], *, seed: int = 0, quick: bool = False) -> list[Outcome]:
    """Check claims by name, one after another; progress goes to stderr.

    Raises:
        GenoSSMError: a name that is no claim.
    """
    check_names(names)
    found = []
    for name in names:
        begin = time.perf_counter()

        def advance(part: str, name: str = name, begin: float = begin) -> None:
            print(f"{name}: {part} ({time.perf_counter() - begin:.0f} s)", file=sys.stderr, flush=True)

        claim = check_of(name)(Setting(seed, quick, advance))
        found.append(Outcome(name, claim, time.perf_counter() - begin))
    return found


def rows(outcomes: Sequence[Outcome]) -> list[tuple[str, ...]]:
    """One row a figure, in the order of ``COLUMNS``; the seconds are those of the whole claim."""
    return [
        (one.name, figure.what, f"{figure.value:.4g}", figure.expected, figure.verdict, f"{one.seconds:.1f}")
        for one in outcomes
        for figure in one.claim.figures
    ]


def to_csv(outcomes: Sequence[Outcome]) -> str:
    """The rows as CSV with a header."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([COLUMNS, *rows(outcomes)])
    return out.getvalue()


def to_text(outcomes: Sequence[Outcome]) -> str:
    """The rows as a table to read: a line a claim, then its figures."""
    lines = []
    for one in outcomes:
        lines.append(f"{one.name}: {one.claim.statement} ({one.seconds:.0f} s)")
        table = [row[1:5] for row in rows([one])]
        width = [max(len(row[i]) for row in table) for i in range(4)]
        for row in table:
            lines.append("  " + "  ".join(cell.ljust(w) for cell, w in zip(row, width, strict=True)).rstrip())
    return "\n".join(lines)


def summary(outcomes: Sequence[Outcome]) -> str:
    """How many of the claims hold here, and which do not."""
    not_here = [one.name for one in outcomes if one.claim.holds is False]
    good = sum(one.claim.holds is True for one in outcomes)
    unsure = len(outcomes) - good - len(not_here)
    text = f"{good} of {len(outcomes)} claims hold here"
    text += f"; not in every figure: {', '.join(not_here)}" if not_here else ""
    return text + (f"; {unsure} too short to tell" if unsure else "") + f"; {sum(o.seconds for o in outcomes):.0f} s"


def page(outcomes: Sequence[Outcome], pictures: dict[str, list[str]]) -> str:
    """All of it as one HTML document that needs no network."""
    from genossm.report.page import Section, Tile, figures, paragraph, render, table

    sections = []
    for one in outcomes:
        head = ("figure", "measured", "expected", "verdict")
        parts = [
            paragraph(one.claim.statement),
            paragraph("How: ", one.claim.how, "."),
            table(head, [row[1:5] for row in rows([one])], numeric=(1,)),
            figures(*((svg, plot.title) for svg, plot in zip(pictures[one.name], one.claim.plots, strict=True))),
        ]
        sections.append(Section(one.name, one.name.replace("_", " "), parts))
    words = {True: "holds", False: "not in every figure", None: "too short to tell"}
    tiles = [
        Tile(one.name.replace("_", " "), words[one.claim.holds], f"{one.seconds:.0f} s", one.claim.holds)
        for one in outcomes
    ]
    machine = f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    return render(
        "What state-space models can do", summary(outcomes), tiles, sections, f"GenoSSM {__version__}; {machine}"
    )


def write(outcomes: Sequence[Outcome], output: Path) -> None:
    """science.csv, one SVG a plot, and index.html, in the folder ``output``."""
    from genossm.report.figures import plain

    pictures = {one.name: [plain(plot) for plot in one.claim.plots] for one in outcomes}
    for name, drawn in pictures.items():
        for index, svg in enumerate(drawn):
            atomic_write(output / f"{name}{f'_{index + 1}' if index else ''}.svg", svg)
    atomic_write(output / "science.csv", to_csv(outcomes))
    atomic_write(output / "index.html", page(outcomes, pictures))


def science(
    output: Annotated[Path, typer.Option(help="Folder for science.csv, the pictures and index.html.")] = Path(
        "science"
    ),
    only: Annotated[list[str] | None, typer.Option(help=f"A claim; repeat. One of {', '.join(CLAIMS)}.")] = None,
    quick: Annotated[
        bool, typer.Option(help="Seconds: shorter sequences, fewer steps; training proves nothing.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Seed of every random choice.", min=0)] = 0,
) -> None:
    """Check the claims about state-space models: figures, the ranges they are expected in, and whether they hold here.

    Under 15 minutes on two CPU cores; no network. With the same seed the same figures come out, times aside.

    Example: genossm bench science --output science
    """
    if output.exists() and not output.is_dir():
        raise GenoSSMError("is a file; --output names a folder", path=output)
    check_names(only or ())
    output.mkdir(parents=True, exist_ok=True)  # before minutes of work, not after
    outcomes = check(only or CLAIMS, seed=seed, quick=quick)
    write(outcomes, output)
    print(to_text(outcomes))
    print(f"{summary(outcomes)}; {output / 'index.html'} shows it")
