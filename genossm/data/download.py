"""Downloads that survive cuts, time-outs and kills: resumed, retried with back-off, never taken for whole when not.

What has come so far lies in PART, what it is of in PART.json; a later run goes on from there if the source and the
server's version of the file are the same.
"""

from __future__ import annotations

import functools
import json
import random
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from genossm.data.transport import (
    ENTREZ_URL,
    Opener,
    Stream,
    Transient,
    open_entrez,
    open_ftp,
    open_http,
    unavailable,
)
from genossm.errors import GenoSSMError
from genossm.files import atomic_write

LONGEST_WAIT = 120.0


@dataclass(frozen=True)
class Retry:
    """How hard to try.

    ``attempts``: tries in a row that bring nothing new before giving up. ``backoff``: seconds before the second try,
    doubled each time, times a random 0.5 .. 1.5. ``timeout``: seconds without a byte.
    """

    attempts: int = 5
    backoff: float = 1.0
    timeout: float = 60.0

    def wait(self, failures: int, asked: float | None) -> float:
        """Seconds to wait after this many failures in a row; at least what the server asked for, within reason."""
        own = self.backoff * 2.0 ** min(failures - 1, 10) * random.uniform(0.5, 1.5)
        return min(max(own, asked or 0.0), LONGEST_WAIT)


@dataclass
class Served:
    """How a download went: the URL after redirects, the version's validators, and whether the end is certain.

    ``checked_length``: the server told the length, or closed the transfer properly. ``resumed``: the file was put
    together from several answers.
    """

    url: str = ""
    validators: dict[str, str] = field(default_factory=dict)
    checked_length: bool = False
    resumed: bool = False
    tries: int = 0


def opener_for(source: str, entrez_url: str = ENTREZ_URL) -> Opener:
    """The transport of a source: http(s)://, ftp:// or ncbi:ACCESSION.

    Raises:
        GenoSSMError: none of these.
    """
    scheme = source.partition(":")[0].lower()
    if scheme in ("http", "https"):
        return functools.partial(open_http, source)
    if scheme == "ftp":
        return functools.partial(open_ftp, source)
    if scheme == "ncbi":
        accession = source.partition(":")[2]
        if accession.startswith(("GCF_", "GCA_")):
            raise GenoSSMError(f"{accession} is a whole assembly; give the URL of its _genomic.fna.gz", path=source)
        if not accession.replace("_", "").replace(".", "").isalnum():
            raise GenoSSMError("write ncbi:ACCESSION, as ncbi:NC_001133.9", path=source)
        return functools.partial(open_entrez, accession, base=entrez_url)
    raise GenoSSMError("the source is no file, and no http(s), ftp or ncbi: address", path=source)


@dataclass
class _State:
    """What PART is of."""

    source: str
    validators: dict[str, str] = field(default_factory=dict)
    total: int | None = None


def state_path(part: Path) -> Path:
    """Where the notes about ``part`` lie."""
    return part.with_name(part.name + ".json")


def discard(part: Path) -> None:
    """Remove a part and its notes."""
    part.unlink(missing_ok=True)
    state_path(part).unlink(missing_ok=True)


def _load_state(part: Path, source: str) -> _State:
    """The notes about an earlier run's part; without valid ones for this source the part is discarded."""
    try:
        state = _State(**json.loads(state_path(part).read_text(encoding="utf-8")))
        if state.source == source and part.exists():
            return state
    except (OSError, ValueError, TypeError):
        pass
    discard(part)
    return _State(source)


def download(
    source: str, part: Path, opener: Opener, retry: Retry, advance: Callable[[int], None] = lambda n: None
) -> Served:
    """Bring all of ``source`` to ``part``.

    Args:
        opener: the transport, see :func:`opener_for`. advance: is told of bytes as they come.

    Raises:
        GenoSSMError: it cannot be had (exit code 69); what came so far stays for a later run.
    """
    part.parent.mkdir(parents=True, exist_ok=True)
    state, served, failures = _load_state(part, source), Served(), 0
    best = part.stat().st_size if part.exists() else 0
    while True:
        served.tries += 1
        asked = None
        try:
            if _go_on(part, state, opener, retry, served, advance):
                return served
            reason = "the transfer was cut"
        except Transient as error:
            reason, asked = str(error), error.retry_after
        size = part.stat().st_size if part.exists() else 0
        # Only a file that grows beyond what any try had is progress: some servers cut at the same place for ever.
        failures = 1 if size > best else failures + 1
        best = max(best, size)
        if failures >= retry.attempts:
            kept = f"; {size:,} bytes are kept, run it again to go on" if size else ""
            raise unavailable(f"{reason} (tried {served.tries} times){kept}", source)
        time.sleep(retry.wait(failures, asked))


def _go_on(
    part: Path, state: _State, opener: Opener, retry: Retry, served: Served, advance: Callable[[int], None]
) -> bool:
    """One try; True when the file is whole, False when there may be more."""
    have = part.stat().st_size if part.exists() else 0
    with opener(have, state.validators, retry.timeout) as stream:
        if stream.offset and stream.total is not None and state.total not in (None, stream.total):
            discard(part)
            return False
        state.validators, state.total = stream.validators, stream.total
        served.url, served.validators = stream.url, stream.validators
        atomic_write(state_path(part), json.dumps(asdict(state)))
        served.resumed = stream.offset > 0
        with part.open("r+b" if part.exists() else "wb") as file:
            file.truncate(stream.offset)
            file.seek(stream.offset)
            for block in stream.blocks:
                file.write(block)
                advance(len(block))
            size = file.tell()
        return _is_whole(stream, size, have, served)


def _is_whole(stream: Stream, size: int, had: int, served: Served) -> bool:
    """Whether ``size`` bytes are all, now that the stream has ended."""
    if stream.total is not None:
        served.checked_length = size == stream.total
        return size == stream.total
    if stream.ends_itself:
        served.checked_length = True
        return True
    # Neither a length nor an end: what the server closes may be whole or cut. Asking for what follows tells, if the
    # server can (206: there was more; 416: that was all); if it sends all anew and it is no more, that is as good
    # as it gets, and the caller must tell by the content.
    return stream.offset == 0 and had == size
