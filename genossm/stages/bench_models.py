"""genossm bench models: every system side by side, its laws, its precision, its time and memory."""

from __future__ import annotations

import csv
import io
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import torch
import typer

from genossm.errors import GenoSSMError
from genossm.files import atomic_write, check_output
from genossm.science.cost import Cost, costs
from genossm.science.systems import HYBRID as PATTERN
from genossm.science.systems import LAWS, SYSTEMS, chosen, float32_error, hybrid_laws, laws, timed_config


def header(lengths: Sequence[int]) -> list[str]:
    """The columns of the table."""
    names = ["system", "mixer", "laws", "law_error", "float32_error"]
    for length in lengths:
        names += [f"forward_ns_{length}", f"backward_ns_{length}"]
    return [*names, f"bytes_per_token_{max(lengths)}"]


def _cells(found: Sequence[Cost]) -> list[str]:
    """Nanoseconds a token of every length, and bytes a token of the longest; the reason where it was not run."""
    cells = []
    for cost in found:
        if cost.refused:
            cells += [cost.refused, cost.refused]
        else:
            cells += [f"{1e9 * seconds / cost.length:.0f}" for seconds in (cost.forward, cost.backward)]
    last = found[-1]
    return [*cells, last.refused or f"{last.bytes / last.length:.0f}"]


def measure(names: Sequence[str], lengths: Sequence[int], d_model: int, limit: float, repeats: int) -> list[list[str]]:
    """One row a system, in the order of ``SYSTEMS``; progress goes to stderr.

    Raises:
        GenoSSMError: a name that is no preset.
    """
    for name in names:
        if name not in SYSTEMS and name != PATTERN:
            raise GenoSSMError(f"--only: there is no preset {name!r}; there is {', '.join([*SYSTEMS, PATTERN])}")
    rows = []
    for preset, system in chosen(names):
        print(f"{preset} ...", file=sys.stderr, flush=True)
        kept = laws(preset)
        config = timed_config(preset, d_model, lengths)
        warm_up = [length for length in (1024, 4096) if length < min(lengths)]
        found = costs(config, [*warm_up, *lengths], limit=limit, repeats=repeats, clock=time.perf_counter)
        errors = [f"{max(kept.errors.values()):.0e}", f"{float32_error(preset):.0e}"]
        rows.append([system, preset, kept.words, *errors, *_cells(found[len(warm_up) :])])
    if not names or PATTERN in names:
        kept = hybrid_laws()
        blank = ["as its letters"] * (2 * len(lengths) + 1)
        rows.append(["hybrid", PATTERN, kept.words, f"{max(kept.errors.values()):.0e}", "", *blank])
    return rows


def to_csv(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """CSV with a header."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([head, *rows])
    return out.getvalue()


def to_markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table as README files have it."""
    lines = ["| " + " | ".join(name.replace("_", " ") for name in head) + " |", "|---" * len(head) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def models(
    output: Annotated[Path | None, typer.Option(help="CSV file for the table.")] = None,
    only: Annotated[list[str] | None, typer.Option(help="A preset; repeat. All unless given.")] = None,
    lengths: Annotated[list[int] | None, typer.Option(min=16, help="Tokens; repeat [default: 16384, 131072].")] = None,
    d_model: Annotated[int, typer.Option(min=32, help="Width; a multiple of 32.")] = 64,
    limit: Annotated[float, typer.Option(help="Seconds that a training pass may take; else it is said.")] = 20.0,
    repeats: Annotated[int, typer.Option(min=1, help="Passes, of which the fastest counts.")] = 3,
) -> None:
    """Every system in one layer, side by side: laws kept, float32 against float64, time a token forward and backward.

    Laws: 1 steps, 2 chunks, 3 padding and packing, 4 causality, 5 reverse complement; one that a mixer refuses is
    left out, one that it breaks has an exclamation mark.

    Example: genossm bench models --output models.csv
    """
    if output is not None:
        check_output(output)
        output.parent.mkdir(parents=True, exist_ok=True)  # before minutes of work, not after
    if d_model % 32:
        raise GenoSSMError(f"--d-model {d_model}: give a multiple of 32, the width of a head of attention")
    at = sorted(set(lengths or (16_384, 131_072)))
    rows = measure(only or (), at, d_model, limit, repeats)
    print(to_markdown(header(at), rows))
    print("\nLaws: " + "; ".join(f"{number} {text}" for number, text in LAWS.items()) + ".")
    threads = torch.get_num_threads()
    print(f"One causal layer, d_model {d_model}, batch 1, float32, {threads} threads, the fastest of {repeats}.")
    if output is not None:
        atomic_write(output, to_csv(header(at), rows))
