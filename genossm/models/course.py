"""How far a long record is: told as it goes, and marked now and then, so that a killed run goes on from there."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from genossm.models.mixers.base import State

SECONDS_BETWEEN_MARKS = 60.0
SHARE_OF_MARKING = 0.05
"""Of the time, that marking may take where it is slow: a track of a chromosome is a gigabyte."""


@dataclass(frozen=True)
class Bookmark:
    """A place in the reading of one record; all before it is in ``total``.

    Attributes:
        part: index of the part of the reading that comes next, in the order of :func:`genossm.models.likelihood.parts`.
        place: tokens of that part that are done.
        state: one entry a layer, what those tokens left; None at the beginning of a part.
        total: nats so far.
    """

    part: int
    place: int
    state: list[State] | None
    total: float


class Course:
    """The way through one record.

    Args:
        length: of the record in bp.
        advance: is told how many bp more are done, ``length`` of them in the end.
        begun: where an earlier run was.
        mark: keeps a bookmark; called now and then. None keeps none.
    """

    def __init__(
        self,
        length: int,
        advance: Callable[[int], None],
        *,
        begun: Bookmark | None = None,
        mark: Callable[[Bookmark], None] | None = None,
    ) -> None:
        self.begun = begun
        self._length, self._advance, self._mark = length, advance, mark
        self._done, self._told = 0.0, 0
        self._due = time.monotonic() + SECONDS_BETWEEN_MARKS

    def move(self, share: float) -> None:
        """A share of the whole reading is done, beside what was."""
        self._done += share
        self._tell(min(self._length, int(self._done * self._length)))

    def at(self, bookmark: Callable[[], Bookmark]) -> None:
        """A place that may be gone on from; ``bookmark`` is asked for it only where one is due."""
        begun = time.monotonic()
        if self._mark is None or begun < self._due:
            return
        self._mark(bookmark())
        now = time.monotonic()
        self._due = now + max(SECONDS_BETWEEN_MARKS, (now - begun) / SHARE_OF_MARKING)

    def end(self) -> None:
        """The record is done."""
        self._tell(self._length)

    def _tell(self, done: int) -> None:
        if done > self._told:
            self._advance(done - self._told)
            self._told = done
