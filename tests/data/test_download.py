"""The retry loop and the choice of a transport; the transports themselves are tested through genossm fetch."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from genossm.data.download import LONGEST_WAIT, Retry, discard, download, opener_for, state_path
from genossm.data.transport import Stream, Transient
from genossm.errors import ExitCode, GenoSSMError

WHOLE = bytes(range(256)) * 40
FAST = Retry(attempts=3, backoff=0.001, timeout=1)


class Script:
    """A transport that gives each try its own fate: how many bytes come, and how the stream is announced."""

    def __init__(self, *tries: tuple[int, bool, int | None, bool]) -> None:
        self.tries = list(tries)
        self.asked: list[int] = []

    @contextlib.contextmanager
    def __call__(self, offset: int, validators: dict[str, str], timeout: float) -> Iterator[Stream]:
        self.asked.append(offset)
        n, resumes, total, ends = self.tries.pop(0)
        begin = offset if resumes else 0
        if n < 0:
            raise Transient("nothing")
        yield Stream(iter([WHOLE[begin : begin + n]]), begin, total, ends)


N = len(WHOLE)


@pytest.mark.parametrize(
    ("tries", "asked", "resumed", "checked"),
    [
        ([(N, True, N, False)], [0], False, True),
        ([(10, True, N, False), (N, True, N, False)], [0, 10], True, True),
        ([(10, True, N, False), (N, False, N, False)], [0, 10], False, True),
        ([(-1, True, N, False), (-1, True, N, False), (N, True, N, False)], [0, 0, 0], False, True),
        (
            [(10, True, N, False), (-1, True, N, False), (9, True, N, False), (N, True, N, False)],
            [0, 10, 10, 19],
            True,
            True,
        ),
        ([(N, True, None, True)], [0], False, True),
        # No length: what follows is asked for, and either there is nothing (a total is told then) or all comes anew.
        ([(N, True, None, False), (0, True, N, False)], [0, N], True, True),
        ([(100, True, None, False), (N, True, N, False)], [0, 100], True, True),
        ([(N, False, None, False), (N, False, None, False)], [0, N], False, False),
        ([(50, False, None, False), (N, False, None, False), (N, False, None, False)], [0, 50, N], False, False),
    ],
)
def test_the_loop(
    tmp_path: Path, tries: list[tuple[int, bool, int | None, bool]], asked: list[int], resumed: bool, checked: bool
) -> None:
    script = Script(*tries)
    seen: list[int] = []
    served = download("http://x", tmp_path / "part", script, FAST, seen.append)
    assert (tmp_path / "part").read_bytes() == WHOLE
    assert script.asked == asked
    assert (served.resumed, served.checked_length, served.tries) == (resumed, checked, len(asked))
    assert sum(seen) >= N


def test_giving_up_keeps_what_came(tmp_path: Path) -> None:
    """Tries that bring something new do not count; a cut at the same place for ever does."""
    grows = [(7, True, N, False)] * 10
    script = Script(*grows, *[(-1, True, N, False)] * 3)
    with pytest.raises(GenoSSMError, match=r"nothing \(tried 12 times\); 70 bytes are kept") as caught:
        download("http://x", tmp_path / "part", script, FAST)
    assert caught.value.exit_code == ExitCode.NETWORK
    script = Script((N, True, N, False))
    download("http://x", tmp_path / "part", script, FAST)
    assert script.asked == [70]
    stuck = Script(*[(5, False, N, False)] * 4)
    with pytest.raises(GenoSSMError, match=r"tried 3 times"):
        download("http://x", tmp_path / "other", stuck, FAST)


def test_a_part_of_another_source_is_not_gone_on_with(tmp_path: Path) -> None:
    part = tmp_path / "part"
    for notes in (None, "{", json.dumps({"source": "http://y"}), json.dumps({"source": "http://x", "more": 1})):
        part.write_bytes(b"other")
        state_path(part).unlink(missing_ok=True)
        if notes is not None:
            state_path(part).write_text(notes)
        script = Script((N, True, N, False))
        download("http://x", part, script, FAST)
        assert script.asked == [0]
        assert part.read_bytes() == WHOLE
        discard(part)
        assert list(tmp_path.iterdir()) == []


def test_a_file_that_changes_its_length_is_begun_anew(tmp_path: Path) -> None:
    script = Script((10, True, N + 5, False), (N, True, N, False), (N, True, N, False))
    assert download("http://x", tmp_path / "part", script, FAST).resumed is False
    assert script.asked == [0, 10, 0]


def test_waiting() -> None:
    retry = Retry(backoff=2.0)
    for failures, base in ((1, 2.0), (2, 4.0), (3, 8.0)):
        waits = [retry.wait(failures, None) for _ in range(200)]
        assert base * 0.5 <= min(waits) < base * 0.7
        assert base * 1.3 < max(waits) <= base * 1.5
    assert retry.wait(50, None) == LONGEST_WAIT
    assert retry.wait(1, 30.0) == 30.0
    assert retry.wait(1, 1e9) == LONGEST_WAIT


@pytest.mark.parametrize(
    ("source", "word"),
    [("s3://x/y", "no http"), ("ncbi:GCF_000146045.2", "_genomic.fna.gz"), ("ncbi:../x", "write ncbi:ACCESSION")],
)
def test_sources_that_are_none(source: str, word: str) -> None:
    with pytest.raises(GenoSSMError, match=word):
        opener_for(source)
