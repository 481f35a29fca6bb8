"""Errors that a user can act on, and the exit codes of every command.

A message is one line that names the place and the mend. For a place in a file the form is
``FILE:LINE: record ID col C: CODE text``. Anything else that escapes a command is a bug of ours.
"""

from __future__ import annotations

import os
from enum import IntEnum


class ExitCode(IntEnum):
    """What a command returns to the shell (sysexits.h where it has a word, 128 + signal for signals)."""

    OK = 0
    BAD_INPUT = 2
    NETWORK = 69
    INTERNAL = 70
    CANNOT_CREATE = 73
    IO = 74
    TEMPORARY = 75
    INTERRUPTED = 130
    TERMINATED = 143


def printable(text: object) -> str:
    """``text`` with every control and non-printing character escaped, safe to show on a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in str(text))


def shortened(text: str, most: int = 40) -> str:
    """``text`` of at most ``most`` characters, with ``...`` where it was cut."""
    return text if len(text) <= most else text[: most - 3] + "..."


class GenoSSMError(Exception):
    """A fault that the user can mend; shown as one line, without a traceback.

    Args:
        text: what is wrong and how to mend it.
        code: a policy word such as ``E_BAD_CHAR``, where one exists.
        path, line, record, col: the place, as far as it is known; line and col count from 1.
        exit_code: what the command returns.
    """

    def __init__(
        self,
        text: str,
        *,
        code: str | None = None,
        path: str | os.PathLike[str] | None = None,
        line: int | None = None,
        record: str | None = None,
        col: int | None = None,
        exit_code: ExitCode = ExitCode.BAD_INPUT,
    ) -> None:
        self.text, self.code, self.path, self.line, self.record, self.col = text, code, path, line, record, col
        self.exit_code = exit_code
        super().__init__(str(self))

    def __str__(self) -> str:
        place = ""
        if self.path is not None:
            place = os.fspath(self.path) + (f":{self.line}" if self.line is not None else "") + ": "
        if self.record is not None:
            name = shortened(self.record, 80)
            place += f"record {name}" + (f" col {self.col}" if self.col is not None else "") + ": "
        elif self.col is not None:
            place += f"col {self.col}: "
        return printable(place + (f"{self.code} " if self.code else "") + self.text)
