"""Whole numbers in text files and options."""

from __future__ import annotations

import re

_WHOLE = re.compile(r"[0-9]{1,18}")


def whole_number(text: str) -> int | None:
    """The number that ``text`` writes in at most 18 ASCII digits, which fits into 64 bits; None for anything else.

    ``str.isdecimal`` also takes the digits of other scripts, and ``int`` refuses more than 4,300 of them.
    """
    return int(text) if _WHOLE.fullmatch(text) else None
