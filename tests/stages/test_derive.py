"""genossm derive: files that the other stages read, the same bytes every time, and faults in one line."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from genossm import cli
from genossm.data.fasta import read_fasta
from genossm.data.tasks import read_table
from genossm.stages.derive import derive_intervals

CONTIGS = ["--valid-contigs", "XIV", "--test-contigs", "XVI", "--exclude", "Mito"]


@pytest.fixture(scope="module")
def coding(repository: Path) -> list[str]:
    folder = repository / "workflow" / "resources"
    genome, annotation = next(folder.glob("*.fa.gz")), next(folder.glob("*.gff3.gz"))
    return ["derive", "coding", "--genome", str(genome), "--annotation", str(annotation), *CONTIGS]


def _digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def test_coding(coding: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--max-per-class", "60", "--length", "400"]
    assert cli.run([*coding, *options, "--output", str(tmp_path / "a")]) == 0
    assert "test.csv: coding 60, intergenic 60" in capsys.readouterr().out
    assert sorted(_digests(tmp_path / "a")) == ["holdout.fa", "task.json", "test.csv", "train.csv", "valid.csv"]
    table = read_table(tmp_path / "a" / "test.csv")
    assert len(table) == 120
    assert {len(sequence) for sequence in table.sequences} == {400}
    about = json.loads((tmp_path / "a" / "task.json").read_text())
    assert about["counts"]["train"] == {"coding": 60, "intergenic": 60}
    assert about["test_identical_to_train"] == 0
    assert len(about["sources"]["annotation"]["sha256"]) == 64
    rows = {
        f"{chrom}:{start}-{end}({strand})": sequence
        for sequence, _, chrom, start, end, strand in (
            line.split(",") for line in (tmp_path / "a" / "test.csv").read_text().splitlines()[1:]
        )
    }
    holdout = list(read_fasta(tmp_path / "a" / "holdout.fa"))
    assert len(holdout) == 120
    assert all(record.name in rows for record in holdout)
    assert cli.run([*coding, *options, "--output", str(tmp_path / "b")]) == 0
    assert _digests(tmp_path / "a") == _digests(tmp_path / "b")


def test_a_contig_given_twice(coding: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run([*coding, "--exclude", "XIV", "--output", str(tmp_path / "a")]) == 2
    assert "contig 'XIV' is given 2 times" in capsys.readouterr().err
    assert not (tmp_path / "a").exists()


@pytest.fixture
def genome(tmp_path: Path) -> Path:
    path = tmp_path / "g.fa"
    path.write_text(">c\n" + "ACGTTGCATT" * 30 + "\n")
    return path


def _list(path: Path, starts: range) -> Path:
    path.write_text("region,start,end,strand\n" + "".join(f"c,{start},{start + 21},+\n" for start in starts))
    return path


def test_intervals_and_their_leaks(genome: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The genome repeats every 10 bp, so all test sequences of one phase are in train."""
    words = []
    for option, starts in (("--train", range(100)), ("--test", range(100, 110))):
        for label in ("x", "y"):
            words += [option, f"{label}={_list(tmp_path / f'{option}{label}.csv', starts)}"]
    out = tmp_path / "out"
    assert cli.run(["derive", "intervals", "--genome", str(genome), "--output", str(out), *words]) == 0
    assert "W_LEAK 20 of 20 test sequences are also in train or valid" in capsys.readouterr().err
    assert json.loads((out / "task.json").read_text())["counts"] == {
        "train": {"x": 90, "y": 90},
        "valid": {"x": 10, "y": 10},
        "test": {"x": 10, "y": 10},
    }
    # Both labels name the same places: an id of holdout.fa stands once.
    assert len(list(read_fasta(out / "holdout.fa"))) == 10


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--train", "x", "--test", "x=a.csv"], "--train x: write LABEL=CSV"),
        (["--train", "x=a", "--train", "x=b", "--test", "x=a"], "the label 'x' is given twice"),
        (["--train", "x=a", "--test", "y=a"], "train has the labels x and test y; both need the same two or more"),
    ],
)
def test_faults(
    genome: Path, tmp_path: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["derive", "intervals", "--genome", str(genome), "--output", str(tmp_path / "o"), *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_fault_in_a_list_writes_nothing(genome: Path, tmp_path: Path) -> None:
    lists = {"x": _list(tmp_path / "x.csv", range(3)), "y": _list(tmp_path / "y.csv", range(290, 295))}
    with pytest.raises(Exception, match="E_POS_RANGE"):
        derive_intervals(genome, lists, lists, tmp_path / "o")
    assert not (tmp_path / "o").exists()
