"""The ``genossm`` command: one subcommand a stage, imported only when it is chosen."""

from __future__ import annotations

import errno
import importlib
import os
import sys
from collections.abc import Sequence
from types import ModuleType

import typer

from genossm import __version__
from genossm.errors import ExitCode, GenoSSMError, printable

STAGES = {
    "fetch": "Bring a genome, an annotation or a list of intervals here: resumed, checked, indexed.",
    "tokenize": "Turn a FASTA into tokens.h5: windows, splits, soft-mask.",
    "pretrain": "Train a DNA language model on tokens.h5.",
    "compare": "Put pretrained models side by side: parameters, losses, times.",
    "derive": "Cut a labelled task out of a genome.",
    "inspect-data": "Show what labelled sequences are like: classes, lengths, repeats, leaks.",
    "finetune": "Train a model on labelled sequences.",
    "benchmark": "Run published benchmarks under their protocols.",
    "score": "Score the records of a FASTA file.",
    "variants": "Score the variants of a VCF file against a reference.",
    "embed": "Embed the bases, windows or records of a FASTA file.",
    "mutagenesis": "Mutate every base of a region in silico, and draw what each contributes.",
    "generate": "Generate sequence with a causal language model.",
    "import": "Make a published checkpoint (Caduceus, HyenaDNA, Mamba ...) usable here.",
    "export": "Write a model in the format of the published code.",
    "inspect": "Show how far back each layer of a model can remember.",
    "report": "Gather a run's results into one page.",
    "bench": "Measure this installation: its kernels, and what it reaches.",
}

_MODULES = {"import": "import_checkpoint", "inspect-data": "inspect_data"}
"""Stages whose module has another name, for theirs is no name in Python."""


def import_stage(stage: str) -> ModuleType:
    """The module of a stage; its ``command`` is a function, or an app of several."""
    return importlib.import_module(f"genossm.stages.{_MODULES.get(stage, stage)}")


def _version(show: bool) -> None:
    if show:
        typer.echo(f"genossm {__version__}")
        raise typer.Exit


def root(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Show the version."),
) -> None:
    """DNA language models with state-space layers: from a reference genome to scores.

    `genossm STAGE --help` explains a stage; the stages are listed in the order of the pipeline.
    """


def _not_chosen() -> None:
    """Stands for every stage but the chosen one, so that the group can list and spell-check their names."""


def build_app(chosen: str | None) -> typer.Typer:
    """The command line with the stage ``chosen`` imported, and only that one (None: no stage at all)."""
    app = typer.Typer(
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(root)
    for stage, summary in STAGES.items():
        if stage == chosen:
            module = import_stage(stage)
            if isinstance(module.command, typer.Typer):
                app.add_typer(module.command, name=stage)
            else:
                app.command(stage)(module.command)
        else:
            app.command(stage, help=summary)(_not_chosen)
    return app


def _fault(error: BaseException) -> tuple[str, int]:
    """The line to show for an exception, and the exit code."""
    if isinstance(error, GenoSSMError):
        return str(error), error.exit_code
    # Usage errors by what they offer, not by class: typer carries its own copy of click since 0.2x.
    if hasattr(error, "format_message") and hasattr(error, "exit_code"):
        context = getattr(error, "ctx", None)
        where = context.command_path if context else "genossm"
        return f"{' '.join(error.format_message().split())} ('{where} --help' explains)", int(error.exit_code)
    if isinstance(error, (KeyboardInterrupt, typer.Abort)):
        return "interrupted", ExitCode.INTERRUPTED
    if isinstance(error, OSError) and error.errno is not None:
        where = f"{error.filename}: " if error.filename else ""
        code = ExitCode.IO
        if error.errno in (errno.ENOENT, errno.EISDIR, errno.ENOTDIR):
            code = ExitCode.BAD_INPUT
        elif error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
            code = ExitCode.CANNOT_CREATE
        return f"{where}{os.strerror(error.errno)}", code
    if isinstance(error, MemoryError) or "DefaultCPUAllocator" in str(error) or "out of memory" in str(error):
        return "out of memory: use a smaller --batch-size or shorter sequences", ExitCode.IO
    detail = str(error).strip().split("\n")[0]
    name = type(error).__name__
    return f"internal error, please report it: {name}: {detail} (GENOSSM_TRACEBACK=1 shows where)", ExitCode.INTERNAL


def run(arguments: Sequence[str]) -> int:
    """Run one command line and give its exit code; a fault is one line on stderr, never a traceback."""
    chosen = next((word for word in arguments if not word.startswith("-")), None)
    try:
        code = build_app(chosen)(args=list(arguments) or ["--help"], prog_name="genossm", standalone_mode=False)
        sys.stdout.flush()
        return int(code or ExitCode.OK)
    except BaseException as error:
        if isinstance(error, BrokenPipeError) or isinstance(error.__context__, BrokenPipeError):
            # The reader of a pipe has left (as `head` does): no fault, and nothing more may be flushed to it.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return ExitCode.OK
        if isinstance(error, SystemExit):
            raise
        if os.environ.get("GENOSSM_TRACEBACK"):
            raise
        line, code = _fault(error)
        print(f"genossm: {printable(line)}", file=sys.stderr)
        return int(code)


def main() -> None:
    """The console script."""
    # Before torch is imported: a thread that waits must sleep, not spin on the core that our kernels' threads need.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # closed, as a daemon may have it: nothing to read, and nobody to read it
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 - for the whole process
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
