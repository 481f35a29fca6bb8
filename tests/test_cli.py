"""The command line as a user meets it: help, exit codes, one line for a fault."""

from __future__ import annotations

import errno
import inspect
import os
import subprocess
import sys
import typing
from pathlib import Path

import pytest
import typer

from genossm import __version__, cli
from genossm.errors import ExitCode, GenoSSMError


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of one command line, in this process."""
    code = cli.run(arguments)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def commands(stage: str) -> list[typing.Any]:
    """The functions behind a stage: one, or one for each of its subcommands."""
    command = cli.import_stage(stage).command
    if isinstance(command, typer.Typer):
        return [info.callback for info in command.registered_commands]
    return [command]


@pytest.mark.parametrize("flags", [[], ["-h"], ["--help"]])
def test_help_lists_the_stages_in_the_order_of_the_pipeline(capsys, flags):
    code, out, err = call(capsys, *flags)
    assert (code, err) == (0, "")
    places = [out.index(f" {stage} ") for stage in cli.STAGES]
    assert places == sorted(places)


def test_version(capsys):
    assert call(capsys, "--version") == (0, f"genossm {__version__}\n", "")


@pytest.mark.parametrize("stage", cli.STAGES)
def test_help_of_a_stage_has_an_example(capsys, stage):
    code, out, err = call(capsys, stage, "--help")
    assert (code, err) == (0, "")
    assert f"genossm {stage}" in out
    examples = [inspect.getdoc(command) or "" for command in commands(stage)]
    assert all(f"genossm {stage} " in example for example in examples), "the docstring has an example line"


@pytest.mark.parametrize("stage", cli.STAGES)
def test_every_option_and_argument_says_what_it_is(stage):
    for command in commands(stage):
        for name, hint in typing.get_type_hints(command, include_extras=True).items():
            if name == "return":
                continue
            declared = [part for part in getattr(hint, "__metadata__", ()) if hasattr(part, "help")]
            assert declared, f"{stage}: {name} is not declared by typer.Option or typer.Argument"
            assert declared[0].help, f"{stage}: {name} has no help"
            assert "\n" not in declared[0].help, f"{stage}: the help of {name} is more than a line"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["nope"], "genossm: No such command 'nope'."),
        (["fetc"], "Did you mean 'fetch'?"),
        (["--nope"], "genossm: No such option: --nope"),
        (["report", "--nope"], "'genossm report --help' explains"),
        (["fetch"], "Missing argument"),
        (["tokenize", "x.fa", "--output", "y.h5", "--window", "big"], "--window"),
    ],
)
def test_a_usage_error_is_one_line_and_exit_code_2(capsys, arguments, expected):
    code, out, err = call(capsys, *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("genossm: ")
    assert expected in err


@pytest.mark.parametrize(
    ("error", "line", "code"),
    [
        (GenoSSMError("mend it", path="a.fa", line=3), "a.fa:3: mend it", 2),
        (GenoSSMError("gone", exit_code=ExitCode.NETWORK), "gone", 69),
        (FileNotFoundError(errno.ENOENT, "x", "a.fa"), "a.fa: No such file or directory", 2),
        (PermissionError(errno.EACCES, "x", "out"), "out: Permission denied", 73),
        (OSError(errno.ENOSPC, "x", "out"), "out: No space left on device", 74),
        (OSError(errno.ENOSPC, "x"), "No space left on device", 74),
        (KeyboardInterrupt(), "interrupted", 130),
        (MemoryError(), "out of memory", 74),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory"), "out of memory", 74),
        (ValueError("what\nis this"), "internal error, please report it: ValueError: what", 70),
    ],
)
def test_a_fault_in_a_stage_is_one_line_and_its_exit_code(capsys, monkeypatch, error, line, code):
    def build(chosen: str | None) -> typing.Any:
        def fail(**_: object) -> None:
            raise error

        return fail

    monkeypatch.setattr(cli, "build_app", build)
    monkeypatch.delenv("GENOSSM_TRACEBACK", raising=False)
    got, out, err = call(capsys, "score")
    assert (got, out) == (code, "")
    assert err.startswith(f"genossm: {line}")
    assert err.count("\n") == 1


def test_a_traceback_is_shown_on_request_only(monkeypatch):
    def build(chosen: str | None) -> typing.Any:
        raise ValueError("inner")

    monkeypatch.setattr(cli, "build_app", build)
    monkeypatch.setenv("GENOSSM_TRACEBACK", "1")
    with pytest.raises(ValueError, match="inner"):
        cli.run(["score"])


def test_the_console_script_returns_the_exit_code():
    command = [Path(sys.executable).parent / "genossm"]
    assert subprocess.run([*command, "nope"], capture_output=True, check=False).returncode == 2
    shown = subprocess.run([*command, "--version"], capture_output=True, text=True, check=False)
    assert (shown.returncode, shown.stdout) == (0, f"genossm {__version__}\n")


def test_a_reader_that_leaves_is_no_fault():
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as closed:
        done = subprocess.run([sys.executable, "-m", "genossm.cli", "--help"], stdout=closed, stderr=-1, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
