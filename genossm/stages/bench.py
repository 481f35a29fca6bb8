"""genossm bench: what is fast, and what is right, measured on the user's own machine."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from genossm.errors import GenoSSMError

command = typer.Typer(no_args_is_help=True, help="Measure this installation: its kernels, and what it reaches.")

LENGTHS = "1024,16384,131072,1048576"
QUICK_LENGTHS = "256,1024"


def _numbers(text: str, option: str) -> tuple[int, ...]:
    """Positive integers, separated by commas."""
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words or not all(word.isdecimal() and int(word) > 0 for word in words):
        raise GenoSSMError(f"{option} {text!r}: give positive numbers separated by commas, as {LENGTHS}")
    return tuple(sorted({int(word) for word in words}))


@command.command("kernels")
def kernels(
    output: Annotated[Path, typer.Option(help="Folder for kernels.csv, errors.csv and kernels.svg.")] = Path("bench"),
    quick: Annotated[bool, typer.Option(help="Short sequences and few rounds: seconds, for a first look.")] = False,
    lengths: Annotated[str, typer.Option(help=f"Tokens, separated by commas; {LENGTHS} unless --quick.")] = "",
    operators: Annotated[
        str, typer.Option(help="Names separated by commas; --list shows them. All unless given.")
    ] = "",
    peers: Annotated[bool, typer.Option(help="Time what else is installed beside it.")] = True,
    threads: Annotated[int, typer.Option(help="Threads; 0 takes every core, and one for comparison.", min=0)] = 0,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    repeats: Annotated[int, typer.Option(help="Rounds; slow contestants run fewer.", min=1)] = 7,
    budget: Annotated[
        float, typer.Option(help="Seconds that one call may take; longer ones are only estimated.")
    ] = 60.0,
    append: Annotated[bool, typer.Option(help="Keep the rows of kernels.csv that are not measured again.")] = False,
    names: Annotated[bool, typer.Option("--list", help="Show what can be measured, and stop.")] = False,
) -> None:
    """Verify every operator and block against its float64 definition, then time it beside the peers.

    Outputs and gradients first: what is off is refused and not timed. Then everyone in turns, with the machine's own
    peaks measured in the same rounds.

    Example: genossm bench kernels --operators selective_scan --lengths 16384 --output bench
    """
    import torch

    from genossm.bench.kernels import GPU_NOTICE, run
    from genossm.bench.race import Settings
    from genossm.bench.rows import slopes, table
    from genossm.kernels.benchmark import OPERATORS, operator_case
    from genossm.kernels.memory import keep_freed_memory

    if names:
        print("\n".join(OPERATORS))
        return
    keep_freed_memory()
    torch.set_num_threads(threads or torch.get_num_threads())
    wanted = [name.strip() for name in operators.split(",") if name.strip()] or list(OPERATORS)
    for name in wanted:
        if name not in OPERATORS:
            raise GenoSSMError(f"--operators: there is no {name!r}; there is {', '.join(OPERATORS)}")
    settings = Settings(
        lengths=_numbers(lengths or (QUICK_LENGTHS if quick else LENGTHS), "--lengths"),
        device=torch.device(device),
        repeats=min(repeats, 2) if quick else repeats,
        limit=min(budget, 2.0) if quick else budget,
        peers=peers,
        threads=torch.get_num_threads(),
    )
    if settings.device.type == "cuda":
        print(f"genossm: {GPU_NOTICE}", file=sys.stderr)
    report = run(
        [operator_case(n) for n in wanted], settings, output, lambda t: print(t, file=sys.stderr), append=append
    )
    print("\n".join(table(report.rows)))
    for (name, pass_), (slope, shortest, longest) in slopes(report.rows).items():
        print(f"{name}, {pass_}: time grows with length to the power {slope:.3f} ({shortest:,} to {longest:,} tokens)")
    if report.refused:
        raise GenoSSMError("refused, for they differ from their definition: " + ", ".join(report.refused))
