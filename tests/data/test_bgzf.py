"""Our own BGZF and index: any region as the text has it; no index is trusted for other bytes."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
from Bio import bgzf

from genossm import vocab
from genossm.data.bgzf import IndexedFasta, build_index, index_path, write_bgzf
from genossm.data.compression import TextSource
from genossm.data.fasta import FastaOptions, Warnings, read_fasta
from genossm.errors import GenoSSMError


def _irregular() -> bytes:
    """Contigs of several MiB with lines of any length, CRLF, blank lines, blanks at line ends, lower case."""
    rng = random.Random(0)
    parts = []
    for name, length in (("short", 7), ("long", 2_600_000), ("mid", 70_000)):
        parts.append(f">{name} text\n".encode())
        letters = bytes(rng.choices(b"ACGTNacgtR", weights=[9, 9, 9, 9, 1, 3, 3, 3, 3, 1], k=length))
        at = 0
        while at < length:
            width = rng.choice((1, 50, 61, 7000))
            parts.append(letters[at : at + width] + rng.choice((b"\n", b"\r\n", b"\n\n", b" \n")))
            at += width
    return b"".join(parts)


@pytest.fixture(scope="module")
def fasta(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bgzf") / "g.fa.gz"
    write_bgzf([_irregular()], path)
    index_path(path).write_text(json.dumps(build_index(path, FastaOptions(), Warnings())))
    return path


def test_the_writer_gives_bgzf_and_the_same_bytes(tmp_path: Path) -> None:
    text = _irregular()
    write_bgzf([text], tmp_path / "a")
    write_bgzf([text[:5], text[5:90_000], text[90_000:]], tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    source = TextSource(tmp_path / "a")
    assert b"".join(source) == text
    assert source.kind == "bgzf"
    write_bgzf([], tmp_path / "none")
    assert (tmp_path / "none").read_bytes() == bgzf._bgzf_eof


def test_regions(fasta: Path) -> None:
    whole = {record.name: record for record in read_fasta(fasta)}
    rng = random.Random(1)
    with IndexedFasta(fasta) as indexed:
        assert indexed.lengths == {name: record.tokens.size for name, record in whole.items()}
        for name, length in indexed.lengths.items():
            edges = [sorted(rng.choices(range(length + 1), k=2)) for _ in range(25)]
            for start, end in [(0, 0), (0, length), (length - 1, length), (length, length), *edges]:
                tokens, soft_mask = indexed.read(name, start, end)
                assert np.array_equal(tokens, whole[name].tokens[start:end])
                assert np.array_equal(soft_mask, whole[name].soft_mask[start:end])
        for start, end in ((-1, 2), (3, 2), (0, 8)):
            with pytest.raises(GenoSSMError, match="E_POS_RANGE"):
                indexed.read("short", start, end)
        with pytest.raises(GenoSSMError, match="E_UNKNOWN_CONTIG"):
            indexed.read("other", 0, 1)


def test_a_real_chromosome(shared: Path, tmp_path: Path) -> None:
    """BGZF by another program, held against the letters of the text."""
    source = shared / "data/bad_input/fasta/derived/good.bgz.fa.gz"
    path = tmp_path / "x.fa.gz"
    shutil.copy(source, path)
    index_path(path).write_text(json.dumps(build_index(path, FastaOptions(), Warnings())))
    text = b"".join(TextSource(path)).partition(b"\n")[2].replace(b"\n", b"").decode()
    with IndexedFasta(path) as indexed:
        (name,) = indexed.lengths
        for start in range(0, 9000, 977):
            assert vocab.decode(indexed.read(name, start, start + 600)[0]) == text[start : start + 600].upper()


@pytest.mark.parametrize("fault", ["absent", "not JSON", "another format", "another file", "same size, other bytes"])
def test_an_index_of_other_bytes_is_refused(fasta: Path, tmp_path: Path, fault: str) -> None:
    path = tmp_path / fasta.name
    shutil.copy(fasta, path)
    shutil.copy(index_path(fasta), index_path(path))
    (tmp_path / "g.fa.gz.fai").write_text("short\t2147483658\t0\t60\t61\n")  # a foreign one, never looked at
    IndexedFasta(path).__exit__(None, None, None)
    if fault == "absent":
        index_path(path).unlink()
    elif fault == "not JSON":
        index_path(path).write_text("{")
    elif fault == "another format":
        index_path(path).write_text(index_path(path).read_text().replace("genossm-fasta-index", "x"))
    elif fault == "another file":
        path.write_bytes(path.read_bytes() + bgzf._bgzf_eof)
    else:
        raw = bytearray(path.read_bytes())
        raw[len(raw) // 2] ^= 1
        path.write_bytes(raw)
    with pytest.raises(GenoSSMError, match="E_BAD_INDEX"):
        IndexedFasta(path)


def test_an_index_that_leads_beyond_the_file(fasta: Path, tmp_path: Path) -> None:
    path = tmp_path / fasta.name
    shutil.copy(fasta, path)
    index = json.loads(index_path(fasta).read_text())
    index["contigs"][2]["length"] = 2**31 + 10
    index_path(path).write_text(json.dumps(index))
    with IndexedFasta(path) as indexed, pytest.raises(GenoSSMError, match="E_BAD_INDEX"):
        indexed.read("mid", 0, 80_000)


def test_plain_gzip_has_no_index(shared: Path) -> None:
    with pytest.raises(GenoSSMError, match="E_COMPRESSION not BGZF"):
        build_index(shared / "data/bad_input/fasta/gz/test.fa.gz", FastaOptions(), Warnings())
