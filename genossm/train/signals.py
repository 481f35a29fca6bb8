"""SIGTERM and SIGINT: the first asks to stop at the next good moment, the second ends the process at once."""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import FrameType, TracebackType
from typing import Any, Self

from genossm.errors import ExitCode, GenoSSMError

_EXIT = {signal.SIGTERM: ExitCode.TERMINATED, signal.SIGINT: ExitCode.INTERRUPTED}


class StopRequest:
    """Listens for SIGTERM and SIGINT while its block runs.

    Until :meth:`hold` is called there is nothing to save, and the first signal raises. After it the first signal is
    only noted in ``received``; who holds it looks there often, saves, and raises :meth:`error`. A second signal
    ends the process without another word: every file under its final name is whole at any time.

    Outside the main thread, where Python delivers no signals, it hears nothing.

    Args:
        unheld: in words, what the state is before :meth:`hold`, for the message.
    """

    def __init__(self, unheld: str = "training had not begun; the same command starts it again") -> None:
        self._unheld = unheld
        self.received: signal.Signals | None = None
        self._held = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._handle) for number in _EXIT}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def hold(self) -> None:
        """From here on a first signal waits until it is asked for.

        Raises:
            GenoSSMError: one came before.
        """
        self._held = True
        if self.received is not None:
            raise self.error("nothing was begun")

    def error(self, what: str) -> GenoSSMError:
        """The error to end with: it says which signal came and ``what`` the state is; exit code 143 or 130."""
        number = self.received or signal.SIGTERM
        return GenoSSMError(f"stopped by {number.name}; {what}", exit_code=_EXIT[number])

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            if sys.stderr.isatty():
                os.write(2, b"\x1b[?25h\n")  # a progress bar may have hidden the cursor
            os._exit(128 + number)
        self.received = signal.Signals(number)
        if not self._held:
            raise self.error(self._unheld)
