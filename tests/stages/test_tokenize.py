"""genossm tokenize: the verdict on every file of the bad-input corpus, splits, windows, memory, faults of the disk."""

from __future__ import annotations

import csv
import hashlib
import os
import resource
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from genossm import cli, vocab
from genossm.config import SplitSection
from genossm.data.compression import TextSource
from genossm.data.tokens_h5 import check_tokens_file, open_tokens
from genossm.errors import GenoSSMError
from genossm.stages.tokenize import tokenize

VERDICTS = Path(__file__).parent.parent / "data" / "bad_input_verdicts.tsv"
Oracles = dict[str, dict[str, list[dict[str, str]]]]
KINDS = {
    "E_BAD_CHAR": ("BAD_CHAR",),
    "E_NOT_DNA": ("BAD_CHAR",),
    "E_RNA": ("U",),
    "E_GAP": ("GAP",),
    "E_DUP_ID": ("DUP_ID",),
    "E_EMPTY_ID": ("EMPTY_ID",),
    "E_NO_HEADER": ("NO_HEADER",),
    "E_BOM": ("NO_HEADER",),
    "E_ENCODING": ("NO_HEADER",),
}
"""Our code: what the corpus's own oracle calls the same fault."""


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


CASES = {row["file"]: row for row in _rows(VERDICTS)}


@dataclass
class Run:
    """What one command did: exit code, stdout, stderr."""

    code: int
    out: str
    err: str


def _genossm(capsys: pytest.CaptureFixture[str], *arguments: object) -> Run:
    code = cli.run([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return Run(code, captured.out, captured.err)


@pytest.fixture(scope="module")
def oracles(shared: Path) -> Oracles:
    """{oracle: {file: rows}} of the corpus."""
    tables: Oracles = {}
    for name in ("ORACLE_FASTA", "ORACLE_BADCHAR", "MANIFEST"):
        tables[name] = {}
        for row in _rows(shared / "data/bad_input" / f"{name}.tsv"):
            tables[name].setdefault(row["file"], []).append(row)
    return tables


def test_the_table_of_verdicts_is_complete(shared: Path) -> None:
    folder = shared / "data/bad_input"
    assert sorted(CASES) == sorted(str(p.relative_to(folder)) for p in (folder / "fasta").rglob("*") if p.is_file())


@pytest.mark.parametrize("file", CASES)
def test_verdict(file: str, shared: Path, tmp_path: Path, oracles: Oracles, capsys: pytest.CaptureFixture[str]) -> None:
    """Accepted: the oracle's sequences, base for base. Rejected: code and place as the oracle has them, no output."""
    case, path, output = CASES[file], shared / "data/bad_input" / file, tmp_path / "out" / "tokens.h5"
    run = _genossm(capsys, "tokenize", path, "--output", output, "--window", 8)
    assert "Traceback" not in run.err
    if case["verdict"] == "ACCEPT":
        assert run.code == 0
        asked = oracles["MANIFEST"][file][0]["tokenizer_expect"]
        assert "ACCEPT" in asked or asked.startswith(("n/a", "must not serve wrong bases"))
        for code in filter(None, case["warnings"].split(",")):
            assert f": {code} " in run.err
        _check_sequences(output, path, oracles["ORACLE_FASTA"].get(file))
        return
    assert run.code == 2
    assert run.err.count("\n") == 1
    assert run.err[:-1].isprintable()
    place = f"{path}:{case['line']}: " if case["line"] else f"{path}: "
    place += f"record {case['record']}" if case["record"] else ""
    place += f" col {case['col']}: " if case["record"] and case["col"] else ": " if case["record"] else ""
    place += f"col {case['col']}: " if case["col"] and not case["record"] else ""
    assert run.err.startswith(f"genossm: {place}{case['code']} ")
    assert not output.parent.exists() or list(output.parent.iterdir()) == []
    expected = oracles["MANIFEST"][file][0]["tokenizer_expect"]
    assert case["code"] in expected or expected.startswith(
        ("n/a", "use or rebuild", "rebuild", "REJECT E_BAD_INDEX", "ACCEPT/REJECT")
    )
    _check_place(case, oracles["ORACLE_BADCHAR"].get(file, []))


def _check_place(case: dict[str, str], oracle: list[dict[str, str]]) -> None:
    """The oracle's line and column for this kind of fault, where it names one."""
    for row in oracle:
        if row["kind"] in KINDS.get(case["code"], ()):
            assert case["line"] == row["line"]
            if case["col"]:
                assert (case["col"], case["record"]) == (row["col"], row["record"])


def _check_sequences(output: Path, path: Path, oracle: list[dict[str, str]] | None) -> None:
    with open_tokens(output) as tokens:
        if oracle is None:
            # Not in the oracle: the text itself, read in the plainest way.
            text = b"".join(TextSource(path)).decode()
            for contig, part in zip(tokens.contigs, text.split(">")[1:], strict=True):
                sequence = "".join(part.split("\n")[1:]).replace(" ", "").replace("\t", "")
                ids, _ = tokens.read(tokens.contigs.index(contig), 0, contig.length)
                assert vocab.decode(ids) == sequence.upper()
            return
        assert [contig.name for contig in tokens.contigs] == [row["id"] for row in oracle]
        for index, row in enumerate(oracle):
            contig = tokens.contigs[index]
            ids, soft_mask = tokens.read(index, 0, contig.length)
            assert contig.length == ids.size == int(row["length"])
            counts = {letter: int(np.sum(ids == token)) for letter, token in zip("ACGTN", range(7, 12), strict=True)}
            wanted = {letter: int(row[letter]) for letter in "ACGTN"}
            wanted["N"] += int(row["other"])
            assert counts == wanted
            assert int(soft_mask.sum()) == contig.lower == int(row["lowercase"])
            if row["other"] == "0":
                assert hashlib.sha256(vocab.decode(ids).encode()).hexdigest() == row["sha256_upper"]


def test_summary_of_the_corpus() -> None:
    """The count of verdicts; print it with: pytest tests/stages/test_tokenize.py -n 0 -s -k summary."""
    counts = Counter(case["code"] or "ACCEPT" for case in CASES.values())
    print(f"\n{len(CASES)} files: " + ", ".join(f"{code} {n}" for code, n in sorted(counts.items())))
    assert counts["ACCEPT"] == 55
    assert sum(counts.values()) == 125


@pytest.mark.parametrize(
    ("file", "options", "total"),
    [
        ("fasta/derived/rna_u.fa", ["--rna"], 9609),
        ("fasta/bad/good_pfv_has_U.fasta", ["--rna"], 394),
        ("fasta/bad/bug2901_gaps.fasta", ["--gaps", "N"], None),
        ("fasta/odd/amb_all_iupac.fa", ["--gaps", "N"], 31),
        ("fasta/odd/ambiguityCodes.fasta", ["--gaps", "N"], 23),
    ],
)
def test_options_admit_rna_and_gaps(
    file: str, options: list[str], total: int | None, shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = shared / "data/bad_input" / file
    run = _genossm(capsys, "tokenize", path, "--output", tmp_path / "t.h5", "--window", 8, *options)
    assert run.code == 0
    with open_tokens(tmp_path / "t.h5") as tokens:
        assert total in (None, sum(contig.length for contig in tokens.contigs))


TWINS = {
    "fasta/odd/NC_001802lc.fna": "fasta/good/NC_001802.fna",
    "fasta/derived/mixed_eol.fa": "fasta/good/good_multiline.fasta",
    "fasta/gz/good_multiline.fasta.gz": "fasta/good/good_multiline.fasta",
    "fasta/derived/long_line.fa": "fasta/good/EMN908947.fa",
    "fasta/derived/no_final_newline.fa": "fasta/good/NC_005816.fna",
    "fasta/derived/good.bgz.fa.gz": "fasta/good/NC_005816.fna",
    "fasta/derived/multi_member.fasta.gz": "fasta/good/xx.fa",
    "fasta/derived/gz_named_fa.fa": "fasta/good/xx.fa",
}


@pytest.mark.parametrize("file", TWINS)
def test_twins_have_the_same_tokens(file: str, shared: Path, tmp_path: Path) -> None:
    corpus = shared / "data/bad_input"
    tokenize(corpus / file, tmp_path / "a.h5", window=8)
    tokenize(corpus / TWINS[file], tmp_path / "b.h5", window=8)
    with open_tokens(tmp_path / "a.h5") as a, open_tokens(tmp_path / "b.h5") as b:
        assert len(a.contigs) == len(b.contigs) > 0
        for index, (ours, theirs) in enumerate(zip(a.contigs, b.contigs, strict=True)):
            assert np.array_equal(a.read(index, 0, ours.length)[0], b.read(index, 0, theirs.length)[0])


def _genome(path: Path, contigs: dict[str, str]) -> Path:
    path.write_text("".join(f">{name}\n{sequence}\n" for name, sequence in contigs.items()))
    return path


def test_windows_splits_and_the_n_filter(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    genome = _genome(tmp_path / "g.fa", {"a": "ACGT" * 25, "b": "N" * 40 + "acgt" * 10, "c": "A" * 35, "m": "C" * 90})
    output = tmp_path / "out" / "g.h5"
    options = ["--window", 20, "--valid", "b", "--test", "c", "--exclude", "m", "--max-n", 0.5]
    run = _genossm(capsys, "tokenize", genome, "--output", output, *options)
    assert run.code == 0
    assert "windows: train 5, valid 2, test 2; 2 left out for their N" in run.out
    with open_tokens(output) as tokens:
        assert tokens.windows("train").tolist() == [[0, 0], [0, 20], [0, 40], [0, 60], [0, 80]]
        assert tokens.windows("valid").tolist() == [[1, 40], [1, 60]]
        assert tokens.windows("test").tolist() == [[2, 0], [2, 15]]
        assert tokens.read(1, 38, 42)[1].tolist() == [False, False, True, True]
        assert tokens.source == "g.fa"
        assert tokens.source_sha256 == hashlib.sha256(genome.read_bytes()).hexdigest()
        assert tokens.options["split"]["valid"] == ["b"]


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    genome = _genome(tmp_path / "g.fa", {"a": "ACGTTGCA" * 500})
    split = SplitSection(by="block", block=500, margin=10, valid_fraction=0.2, test_fraction=0.2)
    digests = set()
    for name in ("one.h5", "two.h5"):
        summary = tokenize(genome, tmp_path / name, window=64, stride=10, split=split, seed=3)
        assert min(summary.windows.values()) > 0
        digests.add(hashlib.sha256((tmp_path / name).read_bytes()).hexdigest())
    assert len(digests) == 1
    other = tokenize(genome, tmp_path / "three.h5", window=64, stride=10, split=split, seed=4)
    assert other.sha256 != summary.sha256


def test_faults_of_the_split_are_explained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    genome = _genome(tmp_path / "g.fa", {"chr1": "ACGT" * 25})
    run = _genossm(capsys, "tokenize", genome, "--output", tmp_path / "g.h5", "--valid", "1")
    assert run.code == 2
    assert run.err == f"genossm: {genome}: split: valid: there is no contig '1'; there are chr1\n"
    run = _genossm(capsys, "tokenize", genome, "--output", tmp_path / "g.h5", "--valid", "chr1", "--split-by", "block")
    assert run.code == 2
    assert "--split-by contig" in run.err
    assert not (tmp_path / "g.h5").exists()


def test_short_records_and_empty_splits_are_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    genome = _genome(tmp_path / "g.fa", {"a": "ACGT"})
    run = _genossm(capsys, "tokenize", genome, "--output", tmp_path / "g.h5")
    assert run.code == 0
    assert "W_SHORT_RECORD 1 records shorter than a window (first in record a)" in run.err
    assert "W_EMPTY_SPLIT the train split has no window" in run.err
    check_tokens_file(tmp_path / "g.h5")


def test_a_missing_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = _genossm(capsys, "tokenize", tmp_path / "none.fa", "--output", tmp_path / "g.h5")
    assert (run.code, run.err) == (2, f"genossm: {tmp_path / 'none.fa'}: No such file or directory\n")


def _limited(limit: tuple[int, int]) -> list[str]:
    """A genossm command in a process of its own, with a resource limit."""
    kind, most = limit
    code = f"import resource; resource.setrlimit({kind}, ({most}, {most})); from genossm.cli import main; main()"
    return [sys.executable, "-c", code]


@pytest.mark.slow
def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    """Every size at which the file system may refuse more (here: the limit of a file's size)."""
    genome = _genome(tmp_path / "g.fa", {"a": "ACGT" * 700_000})
    output = tmp_path / "out" / "g.h5"
    output.parent.mkdir()
    output.write_text("old")
    for most in (0, 4096, 1 << 20, (1 << 20) + 5000, 3 << 20):
        command = [*_limited((resource.RLIMIT_FSIZE, most)), "tokenize", str(genome), "--output", str(output)]
        run = subprocess.run([*command, "--window", "64"], capture_output=True, text=True, timeout=100)
        assert run.returncode == 74, run.stderr
        assert run.stderr.count("\n") == 1
        assert output.read_text() == "old"
        assert os.listdir(output.parent) == ["g.h5"]


@pytest.mark.slow
def test_memory_does_not_grow_with_the_genome(tmp_path: Path) -> None:
    """Peak memory of a process that tokenizes 4 Mb and one that tokenizes 64 Mb."""
    peaks = []
    for megabases in (4, 64):
        genome = tmp_path / f"{megabases}.fa"
        line = b"ACGTTGCANNacgtacgtacgtacgtacgtacgtacgtacgtacgtacgtacgtacgt\n"
        with genome.open("wb") as file:
            file.write(b">a\n")
            for _ in range(megabases):
                file.write(line * (1_000_000 // (len(line) - 1)))
        code = (
            "import re; from pathlib import Path; from genossm.stages.tokenize import tokenize; "
            f"tokenize({str(genome)!r}, Path({str(tmp_path / 'g.h5')!r}), window=131072); "
            # Not ru_maxrss: that begins at what the parent held when it forked.
            "print(re.search(r'VmHWM:\\s+(\\d+) kB', Path('/proc/self/status').read_text())[1])"
        )
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=200)
        peaks.append(int(run.stdout) / 1024)
        genome.unlink()
    assert peaks[1] < 500
    assert peaks[1] - peaks[0] < 30


@pytest.mark.slow
def test_a_kill_leaves_no_output_and_a_rerun_gives_the_same_bytes(tmp_path: Path) -> None:
    genome = _genome(tmp_path / "g.fa", {"a": "ACGTTGCA" * 1000})
    tokenize(genome, tmp_path / "whole.h5", window=64)
    wanted = (tmp_path / "whole.h5").read_bytes()
    output = tmp_path / "killed.h5"
    killed = 0
    for nth in range(1, 30):
        code = (
            "import os, signal, sys; import genossm.files, h5py; from pathlib import Path\n"
            "from genossm.stages.tokenize import tokenize\n"
            f"left = {nth}\n"
            "def hook(event, args):\n"
            "    global left\n"
            "    if event in ('open', 'os.rename', 'os.remove') and 'killed.h5' in str(args[0]):\n"
            "        left -= 1\n"
            "        if not left: os.kill(os.getpid(), signal.SIGKILL)\n"
            "sys.addaudithook(hook)\n"
            f"tokenize({str(genome)!r}, Path({str(output)!r}), window=64)\n"
        )
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
        if run.returncode == 0:
            break
        assert run.returncode == -9, run.stderr
        killed += 1
        assert not output.exists() or output.read_bytes() == wanted
    assert killed >= 2
    assert output.read_bytes() == wanted


def test_errors_of_the_library_call_carry_their_parts(shared: Path, tmp_path: Path) -> None:
    with pytest.raises(GenoSSMError) as caught:
        tokenize(shared / "data/bad_input/fasta/bad/space.fasta", tmp_path / "t.h5")
    error = caught.value
    assert (error.code, error.line, error.record, error.col) == ("E_BAD_CHAR", 14, "seq7_F", 3)
