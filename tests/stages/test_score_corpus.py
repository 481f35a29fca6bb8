"""genossm score on every file of the corpus: a row a record of the oracle, or one line, exit 2 and no output."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from genossm import cli

from .test_score import export, table

VERDICTS = Path(__file__).parent.parent / "data" / "bad_input_verdicts.tsv"
CASES = list(csv.DictReader(VERDICTS.read_text(encoding="utf-8").splitlines(), delimiter="\t"))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small masked language model."""
    return export(tmp_path_factory.mktemp("model"))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["file"])
def test_verdict(
    case: dict[str, str], checkpoint: Path, shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = shared / "data" / "bad_input"
    output = tmp_path / "out.tsv"
    arguments = ["score", "--checkpoint", checkpoint, corpus / case["file"], "--output", output, "--passes", 2]
    code = cli.run([str(argument) for argument in arguments])
    err = capsys.readouterr().err
    assert "Traceback" not in err
    if case["verdict"] == "REJECT":
        assert code == 2
        assert err.count("\n") == 1
        assert f" {case['code']} " in err
        assert not output.exists()
        return
    assert code == 0
    rows = table(output)
    assert rows
    assert {row["status"] for row in rows} <= {"ok", "no_bases"}
    with open(corpus / "ORACLE_FASTA.tsv", encoding="utf-8") as handle:
        oracle = [row for row in csv.DictReader(handle, delimiter="\t") if row["file"] == case["file"]]
    if oracle:
        assert [(row["record"], row["length"]) for row in rows] == [(row["id"], row["length"]) for row in oracle]
