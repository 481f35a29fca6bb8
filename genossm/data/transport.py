"""Ways to a remote file: HTTP(S), FTP, NCBI E-utilities. Each opens a stream of bytes from an offset; none retries."""

from __future__ import annotations

import contextlib
import ftplib
import http.client
import io
import os
import re
import socket
import urllib.error
import urllib.parse
import urllib.request
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import IO

import requests
import urllib3
from Bio import Entrez

from genossm import __version__
from genossm.errors import ExitCode, GenoSSMError

BLOCK = 1 << 14
"""Bytes handed on at a time; a time-out or a kill loses less than that of what came."""
ENTREZ_URL = "https://eutils.ncbi.nlm.nih.gov/entrez/eutils/"


class Transient(Exception):
    """A fault of the network that another try may mend; ``retry_after``: seconds that the server asked for."""

    def __init__(self, text: str, retry_after: float | None = None) -> None:
        super().__init__(text)
        self.retry_after = retry_after


@dataclass
class Stream:
    """An open download.

    Attributes:
        offset: where the bytes begin: as asked, or 0 where the server sends all anew.
        total: size of the whole file in bytes, None where it is not told.
        ends_itself: the transfer says where it ends (chunked), so a cut shows even without a total.
        validators: what names this version of the file (etag, last_modified).
        url: after redirects.
    """

    blocks: Iterator[bytes]
    offset: int
    total: int | None
    ends_itself: bool = False
    validators: dict[str, str] = field(default_factory=dict)
    url: str = ""


Opener = Callable[[int, dict[str, str], float], contextlib.AbstractContextManager[Stream]]
"""(offset, validators of the version begun, timeout in s) -> the open stream."""


def unavailable(text: str, source: str) -> GenoSSMError:
    """The error for a source that cannot be had."""
    return GenoSSMError(text, path=source, exit_code=ExitCode.NETWORK)


@contextlib.contextmanager
def open_http(url: str, offset: int, validators: dict[str, str], timeout: float) -> Iterator[Stream]:
    """An HTTP(S) file from ``offset`` on, if the server can and still has the version that was begun.

    Raises:
        Transient: no connection, a time-out, a cut, or status 408, 425, 429, 5xx.
        GenoSSMError: any other status that is no success, or an HTML page; exit code 69.
    """
    # As the server stores it: a packing for the transfer would change what the sha256 is of.
    headers = {"Accept-Encoding": "identity", "User-Agent": f"genossm/{__version__}"}
    if offset:
        headers["Range"] = f"bytes={offset}-"
        condition = validators.get("etag") or validators.get("last_modified")
        if condition:
            headers["If-Range"] = condition
    with _transient_faults(), contextlib.ExitStack() as stack:
        response = stack.enter_context(requests.get(url, headers=headers, stream=True, timeout=(timeout, timeout)))
        stream = _http_stream(url, response, offset)
        changed = any(stream.validators.get(key, value) != value for key, value in validators.items())
        if offset and (stream.offset not in (0, offset) or (stream.offset and changed)):
            # Another version, or another place than asked: begin anew.
            stack.close()
            with open_http(url, 0, {}, timeout) as anew:
                yield anew
            return
        yield stream


@contextlib.contextmanager
def _transient_faults() -> Iterator[None]:
    try:
        yield
    except requests.exceptions.InvalidURL as error:
        raise unavailable(f"not a URL: {error}", str(error.request.url if error.request else "")) from None
    except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
        raise Transient(f"{type(error).__name__}: {_root(error)}") from None


def _root(error: BaseException) -> str:
    """The innermost message: requests and urllib3 wrap each other several times."""
    reason = getattr(error, "reason", None)
    inner = (
        reason if isinstance(reason, BaseException) else next((a for a in error.args if isinstance(a, Exception)), None)
    )
    return _root(inner) if inner is not None else str(error)


def _http_stream(url: str, response: requests.Response, asked: int) -> Stream:
    status, headers = response.status_code, response.headers
    if status in (408, 425, 429) or status >= 500:
        wait = headers.get("Retry-After", "")
        raise Transient(f"HTTP {status} {response.reason}", float(wait) if wait.isdigit() else None)
    validators = {"etag": headers.get("ETag", ""), "last_modified": headers.get("Last-Modified", "")}
    if validators["etag"].startswith("W/"):
        del validators["etag"]  # names no exact bytes, and If-Range refuses it
    validators = {key: value for key, value in validators.items() if value}
    stream = Stream(response.raw.stream(BLOCK, decode_content=False), 0, None, False, validators, response.url)
    if status == 416 and asked:
        whole = re.fullmatch(r"bytes \*/(\d+)", headers.get("Content-Range", ""))
        if whole and int(whole[1]) == asked:
            return Stream(iter(()), asked, asked, validators=validators, url=response.url)
        stream.offset = -1  # what we have is no beginning of what the server has
        return stream
    if status not in (200, 206):
        hint = "; check the address" if status in (404, 410) else ""
        raise unavailable(f"HTTP {status} {response.reason}{hint}", url)
    if "html" in headers.get("Content-Type", "").lower():
        raise unavailable("the server sent an HTML page, not the file (a login or error page?)", url)
    if status == 206:
        span = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", headers.get("Content-Range", ""))
        stream.offset = int(span[1]) if span else -1
        stream.total = int(span[2]) if span and span[2] != "*" else None
    elif headers.get("Content-Length", "").isdigit():
        stream.total = int(headers["Content-Length"])
    stream.ends_itself = "chunked" in headers.get("Transfer-Encoding", "").lower()
    return stream


@contextlib.contextmanager
def open_ftp(url: str, offset: int, validators: dict[str, str], timeout: float) -> Iterator[Stream]:
    """A file on an FTP server from ``offset`` on; anonymous unless the URL has a name and a password.

    Raises:
        Transient: no connection, a time-out, a temporary reply (4xx). GenoSSMError: a permanent reply; exit code 69.
    """
    parts = urllib.parse.urlsplit(url)
    path = urllib.parse.unquote(parts.path)
    ftp = ftplib.FTP(timeout=timeout)
    try:
        ftp.connect(parts.hostname or "", parts.port or ftplib.FTP_PORT)
        ftp.login(urllib.parse.unquote(parts.username or ""), urllib.parse.unquote(parts.password or ""))
        ftp.voidcmd("TYPE I")
        total, modified = _ftp_version(ftp, path)
        same = bool(modified) and modified == validators and total is not None and offset <= total
        begin = offset if same else 0
        with contextlib.closing(ftp.transfercmd(f"RETR {path}", rest=begin or None)) as data:
            # The server's last reply says whether it sent all, so the end is certain without a size.
            yield Stream(_ftp_blocks(ftp, data), begin, total, True, modified, url)
    except ftplib.error_perm as error:
        raise unavailable(f"FTP {error}", url) from None
    except (OSError, EOFError, ftplib.Error) as error:
        raise Transient(f"{type(error).__name__}: {error}") from None
    finally:
        ftp.close()


def _ftp_version(ftp: ftplib.FTP, path: str) -> tuple[int | None, dict[str, str]]:
    """Size and time of change, as far as the server tells them (both are extensions of the protocol)."""
    try:
        total = ftp.size(path)
        return total, {"last_modified": ftp.sendcmd(f"MDTM {path}").partition(" ")[2]}
    except ftplib.error_perm:
        return None, {}


def _ftp_blocks(ftp: ftplib.FTP, data: socket.socket) -> Iterator[bytes]:
    while block := data.recv(BLOCK):
        yield block
    data.close()
    ftp.voidresp()


@contextlib.contextmanager
def open_entrez(
    accession: str, offset: int, validators: dict[str, str], timeout: float, *, base: str = ENTREZ_URL
) -> Iterator[Stream]:
    """One nucleotide record as FASTA from NCBI, by Biopython's efetch; never from an offset.

    NCBI asks for an e-mail address and gives more to holders of a key: $NCBI_EMAIL, $NCBI_API_KEY.

    Raises:
        Transient: no connection, a time-out, a cut, HTTP 429 or 5xx. GenoSSMError: another status; exit code 69.
    """
    Entrez.tool, Entrez.max_tries = "genossm", 1
    Entrez.email = os.environ.get("NCBI_EMAIL")  # type: ignore[assignment]
    Entrez.api_key = os.environ.get("NCBI_API_KEY")  # type: ignore[assignment]
    try:
        with _entrez_at(base, timeout), warnings.catch_warnings():
            warnings.filterwarnings("ignore", r"\s*Email address is not specified", UserWarning)
            handle = Entrez.efetch(db="nuccore", id=accession, rettype="fasta", retmode="text")
        with contextlib.closing(handle):
            raw = handle.buffer if isinstance(handle, io.TextIOWrapper) else handle
            length = raw.headers.get("Content-Length", "")
            chunked = "chunked" in raw.headers.get("Transfer-Encoding", "").lower()
            blocks = iter(lambda: raw.read(BLOCK), b"")
            yield Stream(blocks, 0, int(length) if length.isdigit() else None, chunked, {}, raw.url)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 429 or error.code >= 500:
            raise Transient(f"HTTP {error.code} {error.reason}") from None
        raise unavailable(f"HTTP {error.code} {error.reason}; check the accession", f"ncbi:{accession}") from None
    except (OSError, http.client.HTTPException) as error:
        raise Transient(f"{type(error).__name__}: {error}") from None


@contextlib.contextmanager
def _entrez_at(base: str, timeout: float) -> Iterator[None]:
    """Let Biopython ask ``base``, and give up after ``timeout``: it has no option for either."""

    def opened(request: urllib.request.Request) -> IO[bytes]:
        request.full_url = request.full_url.replace(ENTREZ_URL, base, 1)
        answer: IO[bytes] = urllib.request.urlopen(request, timeout=timeout)
        return answer

    original = Entrez.urlopen
    Entrez.urlopen = opened  # type: ignore[assignment]
    try:
        yield
    finally:
        Entrez.urlopen = original
