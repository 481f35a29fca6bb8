"""Every accepted base is the byte in the file; everything else is an error that names its place."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from Bio.SeqIO.FastaIO import SimpleFastaParser
from hypothesis import given, settings
from hypothesis import strategies as st

from genossm import vocab
from genossm.data.compression import TextSource
from genossm.data.fasta import Block, FastaOptions, Header, Warnings, read_fasta, stream_fasta
from genossm.data.fasta_parser import FastaParser
from genossm.errors import GenoSSMError

OPTIONS = [FastaOptions(), FastaOptions(rna=True, gaps="N")]


def _records(path: Path, options: FastaOptions = OPTIONS[0], warnings: Warnings | None = None) -> list[tuple[str, str]]:
    """(name, sequence) of each record, lower case where soft-masked."""
    found = []
    for record in read_fasta(path, options, warnings):
        letters = np.frombuffer(vocab.decode(record.tokens).encode(), dtype=np.uint8)
        found.append((record.name, (letters + 32 * record.soft_mask.astype(np.uint8)).tobytes().decode()))
    return found


def _fasta(folder: Path, text: str | bytes) -> Path:
    path = folder / "x.fa"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def _events(text: bytes, options: FastaOptions, step: int, defer: bool = True) -> tuple[Any, ...]:
    """What the parser says of a text that it gets in pieces of ``step`` bytes."""
    warnings = Warnings()
    parser = FastaParser("x", options, warnings, defer)
    headers: list[Header] = []
    codes: list[list[int]] = []

    def take(event: Header | Block) -> None:
        if isinstance(event, Header):
            headers.append(event)
            codes.append([])
        else:
            codes[-1] += (event.tokens + 100 * event.soft_mask).tolist()

    fault = None
    try:
        for start in range(0, len(text), step):
            for event in parser.feed(text[start : start + step]):
                take(event)
        for event in parser.close():
            take(event)
    except GenoSSMError as error:
        fault = str(error)
    return headers, codes if fault is None else None, fault, warnings.counts if fault is None else None


LINES = st.one_of(
    st.text("ACGTNacgtn", min_size=0, max_size=9),
    st.text("ACGTRYKMUu-. *>QE\t\r1\x00", min_size=0, max_size=6),
    st.builds(">{}".format, st.sampled_from(["a", "b", "c d", "", " x", ">y", "é", "e\tf", "g\x1b"])),
)


@given(st.lists(LINES, max_size=12), st.sampled_from(["\n", "\r\n"]), st.booleans(), st.sampled_from(OPTIONS))
@settings(max_examples=300, deadline=None)
def test_the_pieces_of_the_text_make_no_difference(
    lines: list[str], end: str, final: bool, options: FastaOptions
) -> None:
    text = (end.join([">r", *lines]) + end * final).encode()
    whole = _events(text, options, len(text))
    for step in (1, 2, 5):
        assert _events(text, options, step) == whole


@given(
    st.lists(st.text("ACGTNRYSWKMBDHVacgtnryswkmbdhv", min_size=1, max_size=60), min_size=1, max_size=5),
    st.integers(1, 70),
    st.sampled_from(["\n", "\r\n", "  \n", "\n\n"]),
    st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_round_trip(sequences: list[str], width: int, end: str, final: bool) -> None:
    """Any wrap, any line end, blanks and blank lines: the letters come back, IUPAC codes as N."""
    lines = []
    for index, sequence in enumerate(sequences):
        lines += [f">r{index} some text", *(sequence[i : i + width] for i in range(0, len(sequence), width))]
    text = (end.join(lines) + end * final).encode()
    headers, codes, fault, _ = _events(text, OPTIONS[0], 1 << 20)
    assert fault is None
    assert [header.name for header in headers] == [f"r{index}" for index in range(len(sequences))]
    for sequence, got in zip(sequences, codes, strict=True):
        assert got == [int(vocab.LETTER_TO_ID[ord(c)]) + 100 * c.islower() for c in sequence]


def test_headers_and_lines(tmp_path: Path) -> None:
    path = _fasta(tmp_path, "\n>a first  record \nAC\n\nGT\n>b\tx\nNn")
    warnings = Warnings()
    records = list(read_fasta(path, warnings=warnings))
    assert [(r.name, r.description, r.line, r.tokens.size) for r in records] == [
        ("a", "first  record", 2, 4),
        ("b", "x", 6, 2),
    ]
    assert warnings.lines() == ["W_BLANK_LINE 2 blank lines skipped (first in record a)"]


def test_stream_and_records_agree_across_blocks(tmp_path: Path) -> None:
    """Long lines, records longer than a block, and the source's identity."""
    rng = np.random.default_rng(0)
    letters = rng.choice(np.frombuffer(b"ACGTacgtN", dtype=np.uint8), 3_000_000).tobytes()
    path = _fasta(tmp_path, b">one\n" + letters + b"\n>two\n" + letters[:100] + b"\n")
    reader = stream_fasta(path)
    names = [event.name for event in reader if isinstance(event, Header)]
    assert names == ["one", "two"]
    assert reader.source.size == path.stat().st_size
    assert _records(path) == [("one", letters.decode()), ("two", letters[:100].decode())]


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b">a\nACGT\n")))
    assert [record.name for record in read_fasta("-")] == ["a"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (">a\nAC T\n", "x.fa:2: record a col 3: E_BAD_CHAR ' '"),
        (">a\nAC\n ACT\n", "x.fa:3: record a col 1: E_BAD_CHAR ' '"),
        (">a\nACGT\x00\n", "x.fa:2: record a col 5: E_BAD_CHAR byte 0x00"),
        (">a\nAC.T\n", "x.fa:2: record a col 3: E_BAD_CHAR '.' is no nucleotide letter; --gaps N reads it as N"),
        (">a\nACGT\rACGT\n", "x.fa:2: record a col 5: E_LINE_END"),
        (">a\rACGT\r", "x.fa:1: col 3: E_LINE_END"),
        (">a\nAC\n>a\nAC\n", "x.fa:3: record a: E_DUP_ID this id stands also on line 1"),
        (">a\n>b\nAC\n", "x.fa:1: record a: E_EMPTY_RECORD"),
        (">a\nAC-U\n", "x.fa:2: record a col 3: E_GAP"),
        (">a\nACxU\n", "x.fa:2: record a col 3: E_NOT_DNA 'x'"),
        (">" + "i" * 1025 + "\nAC\n", "x.fa:1: E_BAD_ID an id of 1025 bytes"),
        (">a" + " " * (1 << 21), "x.fa:1: E_BAD_ID a header of more than"),
        ("> a\nAC\n", "x.fa:1: E_EMPTY_ID"),
        ("@a\nAC\n+\nII\n", "x.fa:1: E_FASTQ"),
        ("\n\nACGT\n", "x.fa:3: E_NO_HEADER"),
        ("<!DOCTYPE html>\n", "x.fa:1: E_NO_HEADER text before the first '>'; looks like HTML"),
        (" \n\r\n", "x.fa: E_EMPTY_FILE"),
    ],
)
def test_faults_name_their_place(tmp_path: Path, text: str, message: str) -> None:
    path = _fasta(tmp_path, text)
    with pytest.raises(GenoSSMError) as caught:
        list(stream_fasta(path))
    assert str(caught.value).startswith(f"{path.parent}/{message}")


def test_faults_far_into_a_file_name_their_place(tmp_path: Path) -> None:
    """The fast path keeps count of lines and columns: CRLF, and a line of many blocks."""
    wrapped = b"ACGTACGTAC\r\n" * 300_000
    with pytest.raises(GenoSSMError, match=r"x.fa:300003: record b col 7: E_BAD_CHAR '!'"):
        list(stream_fasta(_fasta(tmp_path, b">a\r\n" + wrapped + b">b\r\nACGTAC!\r\n")))
    with pytest.raises(GenoSSMError, match=r"x.fa:2: record a col 5000001: E_BAD_CHAR '!'"):
        list(stream_fasta(_fasta(tmp_path, b">a\n" + b"A" * 5_000_000 + b"!")))


def test_what_an_option_mends_is_told_last(tmp_path: Path) -> None:
    """Streaming: a U does not hide the blank that no option admits. Whole records: stop at once, for they are used."""
    path = _fasta(tmp_path, ">a\nAC\n>b\nAUC-\n>c\nA CT\n")
    with pytest.raises(GenoSSMError, match=r":6: record c col 2: E_BAD_CHAR"):
        list(stream_fasta(path))
    with pytest.raises(GenoSSMError, match=r":4: record b col 2: E_RNA"):
        list(read_fasta(path))
    path = _fasta(tmp_path, ">b\nAUC-\n>c\nACT\n")
    with pytest.raises(GenoSSMError, match=r":2: record b col 2: E_RNA"):
        list(stream_fasta(path))
    with pytest.raises(GenoSSMError, match=r":2: record b col 4: E_GAP"):
        list(stream_fasta(path, FastaOptions(rna=True)))
    assert _records(path, FastaOptions(rna=True, gaps="N")) == [("b", "ATCN"), ("c", "ACT")]


def test_damage_of_the_packing_is_told_first(tmp_path: Path) -> None:
    """A text fault in the part that can be read is not the cause of what is wrong with a truncated file."""
    raw = gzip.compress(
        b">a\nAC\n>a\n" + np.random.default_rng(0).choice(list(b"ACGT"), 500_000).astype("u1").tobytes()
    )
    with pytest.raises(GenoSSMError, match="E_TRUNCATED_GZ"):
        list(stream_fasta(_fasta(tmp_path, raw[:-9])))
    with pytest.raises(GenoSSMError, match="E_DUP_ID"):
        list(stream_fasta(_fasta(tmp_path, raw)))


def test_ambiguity_codes_are_counted_and_limited(tmp_path: Path) -> None:
    warnings = Warnings()
    assert _records(_fasta(tmp_path, ">p\nRYRYACGT\n"), warnings=warnings) == [("p", "NNNNACGT")]
    assert warnings.lines() == ["W_IUPAC 4 ambiguity codes read as N (first in record p)"]
    assert _records(_fasta(tmp_path, ">a\nACGT\n>p\n" + "ACGT" * 24 + "ACGTR" * 1 + "R" * 4))
    with pytest.raises(GenoSSMError, match=r":3: record p: E_NOT_DNA 6 of 106 letters are ambiguity codes"):
        list(stream_fasta(_fasta(tmp_path, ">a\nACGT\n>p\n" + "ACGT" * 25 + "R" * 6)))


def test_an_index_beside_the_file_is_never_read(shared: Path) -> None:
    """Stale, doubled and lying .fai files lie beside these; what comes out is what the FASTA says."""
    folder = shared / "data/bad_input/fasta/derived"
    for name in ("stale_index.fa", "dup_index.fa", "huge_fai.fa"):
        text = b"".join(TextSource(folder / name)).decode()
        wanted = [(part.split()[0], "".join(part.split()[1:])) for part in text.split(">")[1:]]
        assert _records(folder / name) == wanted


def test_the_corpus_in_pieces(shared: Path) -> None:
    """The verdict on every file of the corpus is the same when it comes in small pieces."""
    for path in sorted((shared / "data/bad_input/fasta").rglob("*")):
        if path.is_dir() or path.stat().st_size > 30_000:
            continue
        try:
            text = b"".join(TextSource(path))
        except GenoSSMError:
            continue
        for options in OPTIONS:
            whole = _events(text, options, max(len(text), 1))
            assert _events(text, options, 61) == whole, path


def test_the_pairs_of_the_corpus(shared: Path) -> None:
    """The FASTA files that go with VCF files, held against the oracle's counts and checksums."""
    folder = shared / "data/bad_input"
    wanted: dict[str, list[dict[str, str]]] = {}
    with (folder / "ORACLE_FASTA.tsv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE):
            wanted.setdefault(row["file"], []).append(row)
    refused = {"pairs/norm.iupac.fa": "E_BAD_CHAR", "pairs/failed_empty_fasta.fa": "E_EMPTY_FILE"}
    paths = sorted((folder / "pairs").glob("*.fa"))
    assert len(paths) > 20
    for path in paths:
        name = f"pairs/{path.name}"
        if name in refused:
            with pytest.raises(GenoSSMError, match=refused[name]):
                _records(path)
            continue
        records = _records(path)
        assert [record for record, _ in records] == [row["id"] for row in wanted[name]]
        for (_, sequence), row in zip(records, wanted[name], strict=True):
            assert sequence.upper().count("N") == int(row["N"]) + int(row["other"])
            if row["other"] == "0":
                assert hashlib.sha256(sequence.upper().encode()).hexdigest() == row["sha256_upper"]


def test_real_genomes(shared: Path) -> None:
    """Bacteria, with ambiguity codes among them, held against Biopython's reader."""
    ambiguous = 0
    for path in sorted((shared / "data/genomes/bacteria").iterdir()):
        warnings = Warnings()
        with gzip.open(path, "rt") as file:
            wanted = list(SimpleFastaParser(file))
        records = _records(path, warnings=warnings)
        assert [name for name, _ in records] == [title.split()[0] for title, _ in wanted]
        to_n = str.maketrans("RYSWKMBDHVryswkmbdhv", "N" * 10 + "n" * 10)
        assert [sequence for _, sequence in records] == [sequence.translate(to_n) for _, sequence in wanted]
        ambiguous += warnings.counts["W_IUPAC"]
    assert ambiguous == 35


@pytest.mark.slow
def test_a_record_of_more_than_2_to_the_31_bp() -> None:
    """Lengths and places beyond 32 bits, in one line that never lies in memory."""
    parser = FastaParser("x", OPTIONS[0], Warnings(), defer=True)
    list(parser.feed(b">huge\n"))
    block = b"ACGT" * (1 << 20)
    total = 0
    for _ in range(512):
        total += sum(event.tokens.size for event in parser.feed(block) if isinstance(event, Block))
    assert total == 1 << 31
    with pytest.raises(GenoSSMError, match=r"x:2: record huge col 2147483652: E_BAD_CHAR '!'"):
        list(parser.feed(b"ACG!\n"))
