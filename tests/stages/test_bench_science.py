"""genossm bench science: table, CSV, pictures and page."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from genossm import cli


def test_table_csv_pictures_and_page(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    output = tmp_path / "science"
    words = ["bench", "science", "--quick", "--only", "resolution", "--only", "gradients", "--output", str(output)]
    assert cli.run(words) == 0
    shown = capsys.readouterr()
    assert "resolution: S4 reads another resolution" in shown.out
    assert "2 of 2 claims hold here" in shown.out
    assert "gradients: LSTM" in shown.err
    with open(output / "science.csv", newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert {row["claim"] for row in rows} == {"resolution", "gradients"}
    exact = next(row for row in rows if row["figure"].startswith("zero-order hold"))
    assert float(exact["measured"]) < 1e-11
    assert exact["verdict"] == "holds"
    page = (output / "index.html").read_text()
    assert page.count("data:image/svg+xml") == 2
    assert "http" not in page.replace("http://www.w3.org", "")
    assert {path.name for path in output.glob("*.svg")} == {"resolution.svg", "gradients.svg"}


def test_an_unknown_claim_is_named(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert cli.run(["bench", "science", "--only", "magic", "--output", str(tmp_path / "x")]) == 2
    assert "there is no claim 'magic'; there is memory_capacity" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_a_file_is_no_folder(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "x").write_text("kept")
    assert cli.run(["bench", "science", "--only", "resolution", "--output", str(tmp_path / "x")]) == 2
    assert "names a folder" in capsys.readouterr().err
    assert (tmp_path / "x").read_text() == "kept"
