"""genossm compare: runs side by side."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from genossm import cli
from genossm.stages.pretrain import pretrain
from tests.stages.pretraining import CAUSAL, MODEL, section, tokens_file


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("runs")
    tokens = tokens_file(folder)
    shapes = {"mamba": MODEL, "s4d": MODEL.model_copy(update={"mixer": "s4d"}), "causal": CAUSAL}
    for name, shape in shapes.items():
        pretrain(tokens, folder / name, shape, section(steps=2, valid_every=2))
    return [folder / name for name in shapes]


def test_rows_are_sorted_by_loss_within_an_objective(
    runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    output = tmp_path / "compare.tsv"
    assert cli.run(["compare", *map(str, runs), "--output", str(output)]) == 0
    assert capsys.readouterr().out == output.read_text()
    with open(output, newline="") as handle:
        rows = list(csv.DictReader(handle, delimiter="\t"))
    assert [row["objective"] for row in rows] == ["causal", "masked", "masked"]
    assert float(rows[1]["valid_loss"]) <= float(rows[2]["valid_loss"])
    for row in rows:
        metrics = json.loads((runs[0].parent / row["model"] / "metrics.json").read_text())
        assert int(row["parameters"]) == metrics["parameters"]
        assert float(row["valid_loss"]) == pytest.approx(metrics["valid_loss"], rel=1e-5)
        assert row["mixer"] == ("s4d" if row["model"] == "s4d" else "mamba")
        assert int(row["steps"]) == 2


def test_a_folder_without_a_run_is_named(runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert cli.run(["compare", str(runs[0]), str(tmp_path)]) == 2
    assert f"{tmp_path}: has no metrics.json" in capsys.readouterr().err


def test_a_torn_run_is_named(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "metrics.json").write_text("{}")
    (tmp_path / "config.json").write_text('{"model": {"mixer": "mamba"}}')
    assert cli.run(["compare", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith(f"genossm: {tmp_path}")


def test_runs_of_different_genomes_are_refused(runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for name in ("metrics.json", "config.json", "MANIFEST.json"):
        (tmp_path / name).write_text((runs[0] / name).read_text())
    other = json.loads((tmp_path / "metrics.json").read_text())
    other["training"]["tokens_sha256"] = "0" * 64
    (tmp_path / "metrics.json").write_text(json.dumps(other))
    assert cli.run(["compare", str(runs[0]), str(tmp_path)]) == 2
    assert "2 different tokens files" in capsys.readouterr().err
