"""genossm fetch: a genome, an annotation or a table comes here, whole, checked and with its provenance."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import unquote, urlsplit

import typer

from genossm import __version__
from genossm.data.bgzf import build_index, index_path, write_bgzf
from genossm.data.compression import TextSource, is_bgzf
from genossm.data.download import Retry, Served, discard, download, opener_for
from genossm.data.fasta import FastaOptions, Warnings
from genossm.data.gff import read_annotation
from genossm.data.tables import read_csv
from genossm.data.transport import ENTREZ_URL
from genossm.errors import ExitCode, GenoSSMError
from genossm.files import atomic_path, atomic_write, check_output, locked, sha256_of
from genossm.progress import progress

ADMIT_ALL = FastaOptions(rna=True, gaps="N")
"""What any option of tokenize could admit: whether U and gaps are wanted is decided there."""


class Kind(StrEnum):
    """What a file must hold."""

    FASTA = "fasta"
    GFF3 = "gff3"
    TABLE = "table"


@dataclass
class Provenance:
    """Where a file came from and what was made of it; OUTPUT.provenance.json."""

    source: str
    kind: str
    sha256: str
    size: int
    served: dict[str, Any]
    written: dict[str, Any]
    content: dict[str, Any]
    warnings: list[str] = field(default_factory=list)
    date: str = ""
    genossm_version: str = __version__


def provenance_path(output: Path) -> Path:
    """Where the provenance of a fetched file lies."""
    return output.with_name(output.name + ".provenance.json")


def fetch(
    source: str,
    output: Path,
    *,
    sha256: str | None = None,
    kind: Kind = Kind.FASTA,
    retry: Retry | None = None,
    entrez_url: str = ENTREZ_URL,
) -> Provenance:
    """Bring ``source`` to ``output``; the file appears only when it is whole, checked and has its companions.

    A FASTA becomes BGZF unless it is already, and gets an index (:mod:`genossm.data.bgzf`); of the other kinds, plain
    text is packed and gzip is kept. A download goes on where an earlier one, killed or cut, has left off.

    Args:
        source: http(s):// or ftp:// URL, ``ncbi:ACCESSION``, or a path.
        output: must end in ``.gz``.
        sha256: of the file as served; recorded when not given.

    Raises:
        GenoSSMError: not to be had (exit code 69), not what it should be (exit code 2), or being fetched by another
            process (exit code 75).
    """
    if output.suffix != ".gz":
        raise GenoSSMError("the output is packed, so its name must end in .gz", path=output)
    local = _local_path(source)
    if local is not None:
        with local.open("rb"):
            pass  # says at once what is wrong with the path
    check_output(output, *([] if local is None else [local]))
    if local is not None:
        return _publish(local, output, _Request(source, sha256, kind, None))
    opener = opener_for(source, entrez_url)
    part = output.with_name(f".{output.name}.part")
    with locked(output.with_name(f".{output.name}.lock"), output.name):
        known = _already_there(source, output, sha256, kind)
        if known is not None:
            return known
        for fresh in (False, True):
            with progress(f"fetch {output.name}", None, "bytes") as advance:
                served = download(source, part, opener, retry or Retry(), advance)
            try:
                return _publish(part, output, _Request(source, sha256, kind, served))
            except GenoSSMError:
                # Two versions of a file may have been spliced, where the server does not name its versions.
                if fresh or not served.resumed:
                    raise
            finally:
                discard(part)
        raise AssertionError("the second round returns or raises")


@dataclass(frozen=True)
class _Request:
    """What was asked for, and how it came; ``served`` is None for a local file."""

    source: str
    sha256: str | None
    kind: Kind
    served: Served | None


def _local_path(source: str) -> Path | None:
    """The path that a source is, None for what is remote."""
    if source.lower().startswith("file://"):
        return Path(unquote(urlsplit(source).path))
    remote = source.lower().startswith(("http://", "https://", "ftp://", "ncbi:"))
    return None if remote else Path(source)


def _already_there(source: str, output: Path, sha256: str | None, kind: Kind) -> Provenance | None:
    """The provenance of an output that is what is asked for, if its checksums say so; only a given sha256 can."""
    try:
        known = Provenance(**json.loads(provenance_path(output).read_text(encoding="utf-8")))
        same = (known.source, known.kind, known.sha256) == (source, kind.value, sha256)
        complete = kind is not Kind.FASTA or index_path(output).exists()
        return known if same and complete and sha256_of(output) == known.written["sha256"] else None
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _publish(raw: Path, output: Path, request: _Request) -> Provenance:
    """Check the bytes that came, pack them, write the companions and at last the file itself."""
    size, digest = raw.stat().st_size, sha256_of(raw)
    if request.sha256 is not None and digest != request.sha256.lower():
        raise GenoSSMError(
            f"sha256 is {digest}, not {request.sha256}; another version, or damaged",
            code="E_SHA256",
            path=request.source,
        )
    _refuse_html(raw, request)
    warnings = Warnings()
    with _named(raw, request), atomic_path(output) as temporary:
        packing = _pack(raw, temporary, request.kind, move=request.served is not None)
        if packing == "plain" and request.served is not None and not (request.served.checked_length or request.sha256):
            raise GenoSSMError(
                "the server tells no length, so this plain text may be cut; give its --sha256",
                code="E_LENGTH",
                path=raw,
                exit_code=ExitCode.NETWORK,
            )
        content: dict[str, Any] = {}
        with _named(temporary, request):
            if request.kind is Kind.FASTA:
                index = build_index(temporary, ADMIT_ALL, warnings)
                _check_accession(index, request)
                lengths = [contig["length"] for contig in index["contigs"]]
                content = {"contigs": len(lengths), "bases": sum(lengths)}
                atomic_write(index_path(output), json.dumps(index, separators=(",", ":")) + "\n")
            elif request.kind is Kind.GFF3:
                spans = read_annotation(temporary)
                content = {"contigs": len(spans.features), "features": sum(map(len, spans.features.values()))}
            else:
                content = {"rows": len(read_csv(temporary).rows)}
        provenance = Provenance(
            source=request.source,
            kind=request.kind.value,
            sha256=digest,
            size=size,
            served=_served(request, packing),
            written={"file": output.name, "sha256": sha256_of(temporary), "size": temporary.stat().st_size},
            content=content,
            warnings=warnings.lines(),
            date=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        atomic_write(provenance_path(output), json.dumps(vars(provenance), indent=2) + "\n")
    return provenance


def _served(request: _Request, packing: str) -> dict[str, Any]:
    if request.served is None:
        return {"packing": packing}
    return {"packing": packing, "url": request.served.url, **request.served.validators}


def _refuse_html(raw: Path, request: _Request) -> None:
    """An error page that came with status 200; a local page is a FASTA's fault, told with its line."""
    with raw.open("rb") as file:
        head = file.read(1024).lstrip().lower()
    if request.served is not None and head.startswith((b"<!doctype html", b"<html")):
        raise GenoSSMError(
            "the server sent an HTML page, not the file (a login or error page?)",
            path=request.source,
            exit_code=ExitCode.NETWORK,
        )


def _pack(raw: Path, temporary: Path, kind: Kind, move: bool) -> str:
    """Write what is to be kept: as it came (``move``: it is the very file), or packed. Gives the packing that came."""
    with raw.open("rb") as file:
        head = file.read(64)
    packing = "bgzf" if is_bgzf(head) else "gzip" if head.startswith(b"\x1f\x8b") else "plain"
    if packing == "bgzf" or (packing == "gzip" and kind is not Kind.FASTA):
        (shutil.move if move else shutil.copyfile)(raw, temporary)
    else:
        write_bgzf(TextSource(raw), temporary)
    return packing


def _check_accession(index: dict[str, Any], request: _Request) -> None:
    """NCBI must have sent the record that was asked for."""
    if request.source.startswith("ncbi:"):
        asked, got = request.source.removeprefix("ncbi:"), index["contigs"][0]["name"]
        if got != asked and got.rpartition(".")[0] != asked:
            raise GenoSSMError(f"NCBI sent {got!r}", path=request.source, exit_code=ExitCode.NETWORK)


@contextlib.contextmanager
def _named(path: Path, request: _Request) -> Iterator[None]:
    """Faults in ``path`` are told of the source, which is what the user knows."""
    try:
        yield
    except GenoSSMError as error:
        if error.path is None or os.fspath(error.path) != os.fspath(path):
            raise
        # Bytes whose end nobody vouched for are no fault of the file but of the way here.
        cut = error.code in ("E_TRUNCATED_GZ", "E_CORRUPT_GZ") and request.served and not request.served.checked_length
        raise GenoSSMError(
            error.text,
            code=error.code,
            path=request.source,
            line=error.line,
            record=error.record,
            col=error.col,
            exit_code=ExitCode.NETWORK if cut else error.exit_code,
        ) from None


def command(
    source: Annotated[str, typer.Argument(help="http(s) or ftp URL, ncbi:ACCESSION, or a path.")],
    output: Annotated[Path, typer.Option(help="The file to write, as genomes/yeast.fa.gz.")],
    sha256: Annotated[str | None, typer.Option(help="sha256 of the file as served; recorded when not given.")] = None,
    kind: Annotated[Kind, typer.Option(help="What the file must hold.")] = Kind.FASTA,
    attempts: Annotated[int, typer.Option(min=1, help="Tries in a row that bring nothing new before giving up.")] = 5,
    backoff: Annotated[
        float, typer.Option(min=0, help="Seconds before the second try; doubled each time, with jitter.")
    ] = 1.0,
    timeout: Annotated[float, typer.Option(min=0.01, help="Seconds without a byte before a try is given up.")] = 60.0,
    entrez_url: Annotated[
        str, typer.Option(envvar="GENOSSM_ENTREZ_URL", help="Base address of the NCBI E-utilities.")
    ] = ENTREZ_URL,
) -> None:
    """Bring a genome, an annotation or a list of intervals here: resumed, checked, indexed.

    Example: genossm fetch https://hgdownload.soe.ucsc.edu/goldenPath/hg38/bigZips/hg38.fa.gz --output hg38.fa.gz
    """
    if sha256 is not None and not (len(sha256) == 64 and set(sha256.lower()) <= set("0123456789abcdef")):
        raise GenoSSMError(f"--sha256 {sha256}: a sha256 has 64 hexadecimal digits")
    retry = Retry(attempts=attempts, backoff=backoff, timeout=timeout)
    done = fetch(source, output, sha256=sha256, kind=kind, retry=retry, entrez_url=entrez_url)
    for line in done.warnings:
        print(f"warning: {source}: {line}", file=sys.stderr)
    counts = ", ".join(f"{n:,} {what}" for what, n in done.content.items())
    print(f"{output}: {counts}; sha256 as served {done.sha256}")
