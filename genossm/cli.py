"""The ``genossm`` command: one subcommand a stage, imported only when it is chosen."""

from __future__ import annotations

import errno
import importlib
import os
import sys
from typing import Any

import click
import typer
from typer.core import TyperGroup

from genossm import __version__
from genossm.errors import ExitCode, GenoSSMError, printable

STAGES = {
    "fetch": "Bring a genome or annotation here: resumed, checked, indexed.",
    "tokenize": "Turn a FASTA into tokens.h5: windows, splits, soft-mask.",
    "pretrain": "Train a DNA language model on tokens.h5.",
    "derive": "Cut a labelled task out of a genome.",
    "finetune": "Train a classifier on labelled sequences.",
    "score": "Score the records of a FASTA file.",
    "report": "Gather a run's results into one page.",
}


class StageGroup(TyperGroup):
    """Subcommands by name; ``--help`` of the group imports none of them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The stages, in the order of the pipeline."""
        return list(STAGES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The click command of a stage; a light stand-in while the group's own help is printed."""
        if cmd_name not in STAGES:
            return None
        if ctx.resilient_parsing or not ctx.protected_args and not ctx.args and _help_asked():
            return click.Command(cmd_name, help=STAGES[cmd_name])
        app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        app.command(cmd_name, help=None)(importlib.import_module(f"genossm.stages.{cmd_name}").command)
        return typer.main.get_command(app)


def _help_asked() -> bool:
    return len(sys.argv) < 2 or sys.argv[1] in ("--help", "-h")


app = typer.Typer(
    cls=StageGroup,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(show: bool) -> None:
    if show:
        typer.echo(f"genossm {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Show the version."),
) -> None:
    """DNA language models with state-space layers: from a reference genome to scores."""


def _fault(error: BaseException) -> tuple[str, int]:
    """The line to show for an exception, and the exit code."""
    if isinstance(error, GenoSSMError):
        return str(error), error.exit_code
    if isinstance(error, KeyboardInterrupt):
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
    name = type(error).__name__
    return (
        f"internal error, please report it: {name}: {error} (GENOSSM_TRACEBACK=1 shows where)".split("\n")[0],
        ExitCode.INTERNAL,
    )


def main(argv: list[str] | None = None) -> Any:
    """Run the command line; faults are one line on stderr and an exit code, never a traceback."""
    try:
        code = app(args=argv, standalone_mode=False)
    except click.exceptions.Abort:
        code = ExitCode.INTERRUPTED
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except BaseException as error:
        if isinstance(error, SystemExit):
            raise
        if os.environ.get("GENOSSM_TRACEBACK"):
            raise
        line, code = _fault(error)
        print(f"genossm: {printable(line)}", file=sys.stderr)
    sys.exit(int(code or 0))


if __name__ == "__main__":
    main()
