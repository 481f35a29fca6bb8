"""genossm fetch against servers on the loopback that misbehave in every way that real ones do."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from Bio import bgzf

from genossm import cli
from genossm.data.bgzf import IndexedFasta, index_path
from genossm.data.compression import TextSource
from genossm.data.download import Retry
from genossm.errors import ExitCode, GenoSSMError
from genossm.files import locked
from genossm.stages.fetch import Kind, Provenance, fetch, provenance_path
from tests.stages.servers import NEW_TEXT, TEXT, Entrez, FtpServer, Server, fasta

FAST = Retry(attempts=3, backoff=0.001, timeout=0.5)


def _bgzf(text: bytes) -> bytes:
    """As Biopython packs it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x.gz")
        with bgzf.BgzfWriter(path) as writer:
            writer.write(text)
        return path.read_bytes()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def _check(output: Path, text: bytes, served: bytes | None) -> Provenance:
    """The output is BGZF of the text, the index fits, the provenance tells the truth, nothing else lies about."""
    source = TextSource(output)
    assert b"".join(source) == text
    assert source.kind == "bgzf"
    letters = text.partition(b"\n")[2].replace(b"\n", b"")
    with IndexedFasta(output) as indexed:
        ((name, length),) = indexed.lengths.items()
        assert length == len(letters)
        assert indexed.read(name, length - 9, length)[0].size == 9
    provenance = Provenance(**json.loads(provenance_path(output).read_text()))
    if served is not None:
        assert (provenance.sha256, provenance.size) == (hashlib.sha256(served).hexdigest(), len(served))
    assert provenance.written["sha256"] == source.sha256
    wanted = {output.name, index_path(output).name, provenance_path(output).name}
    assert {name for name in os.listdir(output.parent) if not name.endswith(".lock")} == wanted
    return provenance


def _nothing_left(output: Path) -> None:
    """No output; of a download that may go on, only hidden parts."""
    assert all(name.startswith(".") for name in os.listdir(output.parent)) if output.parent.exists() else True


PACKED = {"plain": TEXT, "gzip": gzip.compress(TEXT, mtime=0), "bgzf": _bgzf(TEXT)}
CASES = {
    "all well": (["ok"], 1),
    "500 twice": (["500", "503"], 3),
    "429": (["429"], 2),
    "connection reset": (["reset"], 2),
    "cut, resumed": (["cut"], 2),
    "cut many times, resumed": (["cut"] * 6, 7),
    "cut, no range": (["cut", "no range"], 2),
    "cut, no etag": (["cut no etag", "no etag"], 2),
    "chunked": (["chunked"], 1),
    "chunked, cut": (["chunked cut", "chunked"], 2),
    "no length": (["no length"], 2),
    "no length, cut, resumed": (["no length cut"], 2),
    "slower than the time-out": (["slow"], 2),
    "redirect": (["redirect"], 2),
}


@pytest.mark.parametrize("packing", PACKED)
@pytest.mark.parametrize("case", CASES)
def test_what_a_server_may_do_and_the_file_comes(case: str, packing: str, server: Server, tmp_path: Path) -> None:
    server.body = PACKED[packing]
    faults, requests = CASES[case]
    server.faults = list(faults)
    output = tmp_path / "out" / "g.fa.gz"
    fetch(server.url, output, retry=FAST)
    _check(output, TEXT, server.body)
    assert len(server.requests) == requests
    if "resumed" in case or "slower" in case:
        places = [int((header or "bytes=0-")[6:-1]) for _, header, _ in server.requests]
        assert places == sorted(places)
        assert places[-1] > 0
    if packing == "bgzf":
        assert output.read_bytes() == server.body


@pytest.mark.parametrize("packing", ["plain", "gzip"])
@pytest.mark.parametrize("fault", ["", " careless"])
def test_a_version_that_changes_is_never_spliced(packing: str, fault: str, server: Server, tmp_path: Path) -> None:
    """Whether the server heeds If-Range or not, and sends an ETag or not."""
    output = tmp_path / "out" / "g.fa.gz"
    for silent in ("", " no etag"):
        server.body = PACKED[packing]
        server.faults = ["cut" + silent, f"new {packing}", "ok" + fault + silent, "ok" + fault + silent]
        if silent and packing == "plain":
            continue  # nothing tells the versions apart, but a sha256: below
        fetch(server.url, output, retry=FAST)
        _check(output, NEW_TEXT, server.body)


def test_a_splice_that_only_the_sha256_shows_is_fetched_anew(server: Server, tmp_path: Path) -> None:
    server.body = TEXT
    server.faults = ["cut no etag", "new plain careless no etag"]
    wanted = NEW_TEXT
    output = tmp_path / "out" / "g.fa.gz"
    fetch(server.url, output, retry=FAST, sha256=hashlib.sha256(wanted).hexdigest())
    _check(output, wanted, wanted)


REFUSED = {
    "404": (["404"], "plain", 69, "HTTP 404 Not Found; check the address"),
    "403": (["403"], "plain", 69, "HTTP 403 Forbidden"),
    "500 for ever": (["500"] * 9, "plain", 69, "HTTP 500 Internal Server Error (tried 3 times)"),
    "cut for ever": (["cut no range"] * 9, "plain", 69, "tried 3 times"),
    "slow for ever": (["slow no range"] * 9, "plain", 69, "tried 3 times"),
    "HTML": (["html"], "plain", 69, "an HTML page"),
    "HTML that calls itself text": (["html as text"], "plain", 69, "an HTML page"),
    "no length, plain": (["no length"] * 9, "plain", 69, "E_LENGTH the server tells no length"),
    "no length, cut for ever, plain": (["no length cut"] * 9, "plain", 69, "E_LENGTH"),
    "no length, cut for ever, gzip": (["no length cut"] * 9, "gzip", 69, "E_TRUNCATED_GZ"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_had_is_never_written(
    case: str, server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    faults, packing, code, message = REFUSED[case]
    server.body, server.faults = PACKED[packing], list(faults)
    output = tmp_path / "out" / "g.fa.gz"
    arguments = ["--attempts", "3", "--backoff", "0.001", "--timeout", "0.5"]
    assert cli.run(["fetch", server.url, "--output", str(output), *arguments]) == code
    error = capsys.readouterr().err
    assert error.startswith(f"genossm: {server.url}: ")
    assert message in error
    assert error.count("\n") == 1
    _nothing_left(output)


def _flipped(raw: bytes) -> bytes:
    damaged = bytearray(raw)
    damaged[len(raw) // 2] ^= 4
    return bytes(damaged)


WRONG = {
    "truncated gzip": (PACKED["gzip"][:-5], "E_TRUNCATED_GZ"),
    "damaged gzip": (_flipped(PACKED["gzip"]), "E_CORRUPT_GZ"),
    "BGZF without its end": (PACKED["bgzf"][:-28], "E_TRUNCATED_GZ"),
    "damaged BGZF": (_flipped(PACKED["bgzf"]), "E_CORRUPT_GZ"),
    "bzip2": (b"BZh9" + bytes(50), "E_COMPRESSION"),
    "text": (b"no such genome\n", ":1: E_NO_HEADER"),
    "protein": (b">p\nMEEPQSDPSV\n", ":2: record p col 2: E_NOT_DNA"),
    "nothing": (b"", "E_EMPTY_FILE"),
}


@pytest.mark.parametrize("local", [False, True])
@pytest.mark.parametrize("case", WRONG)
def test_a_whole_file_that_is_wrong_is_refused(case: str, local: bool, server: Server, tmp_path: Path) -> None:
    body, message = WRONG[case]
    server.body = body
    output = tmp_path / "out" / "g.fa.gz"
    source = server.url
    if local:
        (tmp_path / "file").write_bytes(body)
        source = str(tmp_path / "file")
    with pytest.raises(GenoSSMError) as caught:
        fetch(source, output, retry=FAST)
    assert caught.value.exit_code == ExitCode.BAD_INPUT
    assert str(caught.value).startswith(source)
    assert message in str(caught.value)
    _nothing_left(output)
    assert not list(output.parent.glob(".*part*")) if output.parent.exists() else True


def test_checksums(server: Server, tmp_path: Path) -> None:
    """A wrong one is refused and leaves no part; a right one lets a later run do without the network."""
    server.body = PACKED["gzip"]
    output = tmp_path / "out" / "g.fa.gz"
    with pytest.raises(GenoSSMError, match="E_SHA256 sha256 is"):
        fetch(server.url, output, sha256="0" * 64, retry=FAST)
    assert os.listdir(output.parent) == [".g.fa.gz.lock"]
    digest = hashlib.sha256(server.body).hexdigest()
    first = fetch(server.url, output, sha256=digest, retry=FAST)
    _check(output, TEXT, server.body)
    before = len(server.requests)
    assert fetch(server.url, output, sha256=digest, retry=FAST) == first
    assert len(server.requests) == before
    output.write_bytes(b"damaged")
    fetch(server.url, output, sha256=digest, retry=FAST)
    assert len(server.requests) == before + 1
    _check(output, TEXT, server.body)


def test_the_same_bytes_from_every_packing(tmp_path: Path) -> None:
    """Local files; plain text and gzip give the same BGZF, time and again."""
    written: set[bytes] = set()
    for packing in ("plain", "gzip"):
        source = tmp_path / packing
        source.write_bytes(PACKED[packing])
        for address in (str(source), f"file://{source}"):
            output = tmp_path / f"out{len(written)}{packing}{len(address)}" / "g.fa.gz"
            provenance = fetch(address, output)
            assert provenance.served == {"packing": packing}
            _check(output, TEXT, PACKED[packing])
            written.add(output.read_bytes())
        assert source.read_bytes() == PACKED[packing]
    assert len(written) == 1


def test_other_kinds(shared: Path, tmp_path: Path) -> None:
    """GFF3 and tables are checked too; gzip is kept, plain text is packed."""
    gff = next((shared / "data/genomes/yeast").glob("*.gff3.gz"))
    fetch(str(gff), tmp_path / "y.gff3.gz", kind=Kind.GFF3)
    assert (tmp_path / "y.gff3.gz").read_bytes() == gff.read_bytes()
    (tmp_path / "t.csv").write_text("region,start,end\nchr1,5,9\n")
    assert fetch(str(tmp_path / "t.csv"), tmp_path / "t.csv.gz", kind=Kind.TABLE).content == {"rows": 1}
    assert gzip.decompress((tmp_path / "t.csv.gz").read_bytes()).decode() == (tmp_path / "t.csv").read_text()
    with pytest.raises(GenoSSMError, match=r"t.csv:1: E_GFF"):
        fetch(str(tmp_path / "t.csv"), tmp_path / "x.gz", kind=Kind.GFF3)
    assert not (tmp_path / "x.gz").exists()


def test_rna_and_gaps_are_left_to_tokenize(tmp_path: Path) -> None:
    (tmp_path / "r.fa").write_text(">r\nACGU-RN\n")
    provenance = fetch(str(tmp_path / "r.fa"), tmp_path / "r.fa.gz")
    assert provenance.warnings == [
        "W_GAP 1 gaps read as N (first in record r)",
        "W_IUPAC 1 ambiguity codes read as N (first in record r)",
    ]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["{folder}/none.fa", "--output", "{folder}/g.fa.gz"], 2, "none.fa: No such file"),
        (["{folder}", "--output", "{folder}/g.fa.gz"], 2, "Is a directory"),
        (["{folder}/x.fa", "--output", "{folder}/g.fa"], 2, "its name must end in .gz"),
        (["http://127.0.0.1:1/x", "--output", "{folder}/g.fa.gz", "--attempts", "1"], 69, "refused"),
        (["http://no such host/", "--output", "{folder}/g.fa.gz", "--attempts", "1"], 69, ""),
        (["x", "--output", "{folder}/g.fa.gz", "--sha256", "12"], 2, "64 hexadecimal digits"),
    ],
)
def test_usage(
    arguments: list[str], code: int, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["fetch", *(word.format(folder=tmp_path) for word in arguments)]) == code
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_one_fetch_of_a_file_at_a_time(server: Server, tmp_path: Path) -> None:
    output = tmp_path / "g.fa.gz"
    with locked(tmp_path / ".g.fa.gz.lock", "g"), pytest.raises(GenoSSMError, match="in use by process") as caught:
        fetch(server.url, output, retry=FAST)
    assert caught.value.exit_code == ExitCode.TEMPORARY
    assert server.requests == []


@pytest.mark.slow
def test_a_killed_client_goes_on_where_it_was(server: Server, tmp_path: Path) -> None:
    """kill -9 at several points of a slow download: what came is kept, and the file is the same in the end."""
    server.body = PACKED["plain"]
    server.faults = ["drip"] * 20
    output, part = tmp_path / "out" / "g.fa.gz", tmp_path / "out" / ".g.fa.gz.part"
    command = [sys.executable, "-m", "genossm.cli", "fetch", server.url, "--output", str(output)]
    command += ["--sha256", hashlib.sha256(server.body).hexdigest()]
    kept = []
    for threshold in (1, 60_000, 120_000):
        with subprocess.Popen(command, stderr=subprocess.PIPE) as client:
            while not part.exists() or part.stat().st_size < threshold:
                assert client.poll() is None, client.stderr and client.stderr.read()
                time.sleep(0.01)
            client.send_signal(signal.SIGKILL)
        assert not output.exists()
        kept.append(part.stat().st_size)
    server.faults = []
    subprocess.run(command, check=True, timeout=60, capture_output=True)
    _check(output, TEXT, server.body)
    assert [header for _, header, _ in server.requests] == [None, *(f"bytes={size}-" for size in kept)]


@pytest.fixture
def entrez(server: Server) -> Server:
    server.RequestHandlerClass = Entrez
    server.body = fasta("NC_001133.9")
    return server


@pytest.mark.parametrize("accession", ["NC_001133.9", "NC_001133"])
@pytest.mark.parametrize("faults", [[], ["500", "429"], ["cut"], ["reset"]])
def test_an_ncbi_accession(
    accession: str, faults: list[str], entrez: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entrez.faults = list(faults)
    output = tmp_path / "out" / "g.fa.gz"
    monkeypatch.setenv("GENOSSM_ENTREZ_URL", entrez.url.removesuffix("file"))
    arguments = ["--attempts", "4", "--backoff", "0.001", "--timeout", "2"]
    assert cli.run(["fetch", f"ncbi:{accession}", "--output", str(output), *arguments]) == 0
    _check(output, entrez.body, entrez.body)
    path = entrez.requests[-1][0]
    assert path.startswith("/efetch.fcgi?")
    assert f"id={accession}&" in f"{path}&"
    assert "rettype=fasta" in path
    assert len(entrez.requests) == len(faults) + 1


@pytest.mark.parametrize(
    ("faults", "body", "message"),
    [
        (["400"], b"", "HTTP 400 Bad Request; check the accession"),
        (["500"] * 9, b"", "tried 3 times"),
        ([], fasta("NC_001134.8"), "NCBI sent 'NC_001134.8'"),
        (["html as text"], b"", "an HTML page"),
    ],
)
def test_an_accession_that_cannot_be_had(
    faults: list[str], body: bytes, message: str, entrez: Server, tmp_path: Path
) -> None:
    entrez.faults, entrez.body = list(faults), body
    output = tmp_path / "out" / "g.fa.gz"
    with pytest.raises(GenoSSMError, match=message) as caught:
        fetch("ncbi:NC_001133.9", output, retry=FAST, entrez_url=entrez.url.removesuffix("file"))
    assert caught.value.exit_code == ExitCode.NETWORK
    _nothing_left(output)


@pytest.mark.parametrize(("cuts", "tells"), [(0, True), (2, True), (0, False), (1, False)])
def test_ftp(cuts: int, tells: bool, tmp_path: Path) -> None:
    with FtpServer(TEXT, cuts, tells, False) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        output = tmp_path / "out" / "g.fa.gz"
        fetch(f"ftp://127.0.0.1:{server.server_address[1]}/a/g%20x.fa", output, retry=FAST)
        _check(output, TEXT, TEXT)
        assert "RETR /a/g x.fa" in server.log
        assert sum(line.startswith("REST") for line in server.log) == (cuts if tells else 0)
        server.shutdown()


def test_ftp_that_has_no_such_file(tmp_path: Path) -> None:
    with FtpServer(TEXT, 0, True, True) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        with pytest.raises(GenoSSMError, match="FTP 550 no such file") as caught:
            fetch(f"ftp://127.0.0.1:{server.server_address[1]}/x", tmp_path / "g.fa.gz", retry=FAST)
        assert caught.value.exit_code == ExitCode.NETWORK
        server.shutdown()
