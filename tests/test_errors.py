"""What a user sees of an error: one line that names the place."""

from __future__ import annotations

from pathlib import Path

import pytest

from genossm.errors import ExitCode, GenoSSMError, printable


@pytest.mark.parametrize(
    ("place", "line"),
    [
        ({}, "no letters"),
        ({"path": Path("a.fa")}, "a.fa: no letters"),
        ({"path": "a.fa", "line": 3}, "a.fa:3: no letters"),
        ({"path": "a.fa", "line": 3, "record": "chr1", "col": 7}, "a.fa:3: record chr1 col 7: no letters"),
        ({"path": "a.fa", "line": 3, "record": "chr1", "code": "E_X"}, "a.fa:3: record chr1: E_X no letters"),
        ({"path": "a.csv", "line": 2, "col": 4}, "a.csv:2: col 4: no letters"),
    ],
)
def test_the_line_names_the_place_as_far_as_it_is_known(place, line):
    assert str(GenoSSMError("no letters", **place)) == line


def test_control_characters_of_a_file_never_reach_the_terminal():
    error = GenoSSMError("bad\nletter", path="a\x1b[2J.fa", record="r\r\x07")
    assert str(error) == "a\\x1b[2J.fa: record r\\r\\x07: bad\\nletter"
    assert printable("naïve 日本") == "naïve 日本"


def test_a_long_record_id_is_cut():
    line = str(GenoSSMError("x", record="r" * 5000))
    assert len(line) < 120
    assert "rrr...: x" in line


def test_bad_input_is_the_default_exit_code_and_codes_follow_sysexits():
    assert GenoSSMError("x").exit_code == ExitCode.BAD_INPUT == 2
    codes = (ExitCode.NETWORK, ExitCode.INTERNAL, ExitCode.CANNOT_CREATE, ExitCode.IO, ExitCode.TEMPORARY)
    assert codes == (69, 70, 73, 74, 75)
    assert (ExitCode.INTERRUPTED, ExitCode.TERMINATED) == (128 + 2, 128 + 15)
