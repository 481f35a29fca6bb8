"""genossm bench kernels: operators and blocks, verified and then timed beside the peers."""

from __future__ import annotations

import importlib.util
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from genossm.errors import GenoSSMError

if TYPE_CHECKING:
    import torch

    from genossm.bench.kernels import Report
    from genossm.bench.race import Settings
    from genossm.kernels.benchmark import Case

LENGTHS = "1024,16384,131072,1048576"
QUICK_LENGTHS = "256,1024"
QUICK_BUDGET = 2.0
STARTUP, STEP = "startup", "pretraining_step"


def _numbers(text: str) -> tuple[int, ...]:
    """Positive integers, separated by commas, each once."""
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words or not all(word.isdecimal() and int(word) > 0 for word in words):
        raise GenoSSMError(f"--lengths {text!r}: give positive numbers separated by commas, as {LENGTHS}")
    return tuple(sorted({int(word) for word in words}))


def _passes(text: str) -> tuple[str, ...]:
    chosen = tuple(word.strip() for word in text.split(",") if word.strip())
    for word in chosen:
        if word not in ("forward", "training", "step"):
            raise GenoSSMError(f"--passes: {word!r} is none of forward, training and step")
    return chosen


def names(everything: bool = False) -> list[str]:
    """What can be measured, in the order of a run; with ``everything`` the mixers too that are timed when named."""
    from genossm.bench.blocks import BLOCKS, MORE
    from genossm.kernels.benchmark import OPERATORS

    return [*OPERATORS, *BLOCKS, STEP, STARTUP, *(MORE if everything else ())]


def _chosen(text: str) -> list[str]:
    wanted = [name.strip() for name in text.split(",") if name.strip()] or names()
    known = names(everything=True)
    for name in wanted:
        if name not in known:
            raise GenoSSMError(f"--operators: there is no {name!r}; there is {', '.join(known)}")
    return wanted


def _cases(wanted: Sequence[str]) -> list[Case]:
    from genossm.bench.blocks import BLOCKS, MORE
    from genossm.kernels.benchmark import OPERATORS, operator_case
    from genossm.stages.bench_step import CASE

    cases = {**BLOCKS, **MORE, STEP: CASE}
    return [operator_case(n) if n in OPERATORS else cases[n] for n in wanted if n != STARTUP]


def _device(name: str) -> torch.device:
    import torch

    if name not in ("cpu", "cuda"):
        raise GenoSSMError(f"--device {name!r}: give cpu or cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise GenoSSMError("--device cuda: torch finds no GPU here")
    return torch.device(name)


def _absent() -> list[str]:
    """Optional packages of the comparisons that are not here."""
    wanted = ("transformers", "mambapy", "mamba_ssm", "fla")
    return [name for name in wanted if importlib.util.find_spec(name) is None]


def kernels(
    output: Annotated[Path, typer.Option(help="Folder for kernels.csv, errors.csv and kernels.svg.")] = Path("bench"),
    quick: Annotated[bool, typer.Option("--quick", help="Short sequences, few rounds: a first look.")] = False,
    lengths: Annotated[str, typer.Option(help=f"Tokens, separated by commas; {LENGTHS} unless --quick.")] = "",
    operators: Annotated[str, typer.Option(help="Names separated by commas (see --list); all but the mixers.")] = "",
    passes: Annotated[str, typer.Option(help="forward, training or step, separated by commas; all unless given.")] = "",
    peers: Annotated[bool, typer.Option(help="Time what else is installed beside it.")] = True,
    threads: Annotated[int, typer.Option(help="Threads; 0: every core, and ours on one beside it.", min=0)] = 0,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    repeats: Annotated[int, typer.Option(help="Rounds; slow contestants run fewer.", min=1)] = 7,
    budget: Annotated[float, typer.Option(help="Seconds a call may take; longer ones are estimated.", min=0)] = 60.0,
    memory: Annotated[float, typer.Option(help="GB a call may take; 0: most of what is free.", min=0)] = 0.0,
    append: Annotated[bool, typer.Option("--append", help="Keep rows of kernels.csv not measured again.")] = False,
    static: Annotated[bool, typer.Option("--static", help="The Triton kernels' machine code instead; no GPU.")] = False,
    names_only: Annotated[bool, typer.Option("--list", help="Show what can be measured, and stop.")] = False,
) -> None:
    """Verify every operator and block against its float64 definition, then time it beside the peers.

    Outputs and gradients first: what is off is refused and not timed. Then all in turns, the machine's own peaks
    measured in the same rounds. A contestant's time and memory are foretold from short sequences; what would take too
    long or too much memory is not run, and the table says so.

    Example: genossm bench kernels --operators selective_scan,mamba_block --lengths 16384 --output bench
    """
    if names_only:
        print("\n".join(names(everything=True)))
        return
    wanted = _chosen(operators)
    if static:
        _static(wanted, output)
        return
    import torch

    from genossm.bench.race import Settings
    from genossm.kernels.memory import keep_freed_memory

    keep_freed_memory()
    torch.set_num_threads(threads or torch.get_num_threads())
    settings = Settings(
        lengths=_numbers(lengths or (QUICK_LENGTHS if quick else LENGTHS)),
        device=_device(device),
        repeats=min(repeats, 2) if quick else repeats,
        limit=min(budget, QUICK_BUDGET) if quick else budget,
        peers=peers,
        threads=torch.get_num_threads(),
        memory=1e9 * memory or math.inf,
        passes=_passes(passes),
    )
    report = bench_kernels(_cases(wanted), settings, output, append=append, startup=STARTUP in wanted)
    if report.refused:
        raise GenoSSMError("refused, for they differ from their definition: " + ", ".join(report.refused))


def bench_kernels(
    cases: Sequence[Case], settings: Settings, output: Path, *, append: bool = False, startup: bool = False
) -> Report:
    """Run the cases, write kernels.csv, errors.csv and kernels.svg, and print the tables.

    Args:
        cases: what to verify and time.
        settings: how.
        output: a folder.
        append: keep the rows of an earlier kernels.csv that are not measured again.
        startup: also time the first calls of new processes.
    """
    from genossm.bench import kernels, picture
    from genossm.bench.startup import startup as startup_rows
    from genossm.files import atomic_write
    from genossm.report.kernel_figures import kernel_curves

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    if settings.device.type == "cuda":
        say(f"genossm: {kernels.GPU_NOTICE}")
    report = kernels.run(cases, settings, output, say, append=append)
    if startup:
        kernels.add(report, startup_rows(settings.threads), say)
        kernels.write(report, output)
    curves = picture.panels(report.rows)
    if curves:
        atomic_write(output / "kernels.svg", kernel_curves(curves))
    print("\n".join(kernels.tables(report)))
    if settings.peers and _absent():
        print(f"not installed: {', '.join(_absent())} (pip install 'genossm[bench]' brings transformers and mambapy)")
    return report


def _static(wanted: Sequence[str], output: Path) -> None:
    from genossm.bench.static import static_csv, static_rows, static_table
    from genossm.files import atomic_write

    rows = static_rows(wanted)
    atomic_write(output / "static.csv", static_csv(rows))
    print("\n".join(static_table(rows)))
    print("compiled ahead of time: nobody has run these kernels on a GPU yet")
