"""Whole numbers: what Python's own tests of a string let through, and what they stop on."""

from __future__ import annotations

import pytest

from genossm.data.numbers import whole_number


@pytest.mark.parametrize(("text", "want"), [("0", 0), ("007", 7), ("9" * 18, 10**18 - 1)])
def test_whole_numbers(text: str, want: int) -> None:
    assert whole_number(text) == want


@pytest.mark.parametrize("text", ["", "-1", "+1", "1.0", "1_0", " 1", "1\n", "٣", "²", "1" * 19, "9" * 5000])
def test_what_is_none(text: str) -> None:
    assert whole_number(text) is None
