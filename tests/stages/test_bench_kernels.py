"""genossm bench kernels: a quick run as a user types it."""

from __future__ import annotations

import csv
import importlib.util
from pathlib import Path

import pytest

from genossm import cli
from genossm.bench.rows import COLUMNS, ERROR_COLUMNS


def read(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    with open(path, newline="") as handle:
        reader = csv.DictReader(handle)
        rows = list(reader)
        return list(reader.fieldnames or ()), rows


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the peers
def test_a_quick_run_writes_the_table_the_csv_and_the_picture(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    common = ["bench", "kernels", "--quick", "--output", str(tmp_path), "--repeats", "1", "--threads", "1"]
    assert cli.run([*common, "--operators", "rms_norm,mamba_block", "--lengths", "32"]) == 0
    shown = capsys.readouterr()
    columns, rows = read(tmp_path / "kernels.csv")
    assert columns == COLUMNS
    contestants = {row["contestant"] for row in rows if row["operator"] == "mamba_block"}
    assert {"genossm", "mambapy", "transformers Mamba", "transformers Mamba-2", "torch LSTM"} < contestants
    for row in rows:
        assert row["note"] or float(row["seconds"]) > 0
    for package in ("transformers", "mambapy", "mamba_ssm", "fla"):
        absent = importlib.util.find_spec(package) is None
        assert (package in shown.out.splitlines()[-1]) == absent or package in ("transformers", "mambapy")
        if absent and package in ("transformers", "mambapy"):
            assert any(row["note"].startswith(f"not installed ({package}") for row in rows)
    columns, found = read(tmp_path / "errors.csv")
    assert columns == ERROR_COLUMNS
    assert all(float(row["error"]) < float(row["bound"]) for row in found if row["bound"])
    assert (tmp_path / "kernels.svg").read_text().count("<svg") == 1
    assert shown.out.splitlines()[0].split()[:4] == ["operator", "pass", "tokens", "contestant"]

    assert cli.run([*common, "--operators", "embedding", "--lengths", "64", "--no-peers", "--append"]) == 0
    _, more = read(tmp_path / "kernels.csv")
    assert [row for row in more if row["operator"] != "embedding"] == rows
    assert {row["contestant"] for row in more if row["operator"] == "embedding"} == {"genossm"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--operators", "selective_scam"], "there is no 'selective_scam'"),
        (["--lengths", "1024,long"], "--lengths '1024,long'"),
        (["--device", "tpu"], "--device 'tpu'"),
    ],
)
def test_what_cannot_be_measured_is_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture) -> None:
    assert cli.run(["bench", "kernels", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_the_list_has_operators_blocks_and_mixers(capsys: pytest.CaptureFixture) -> None:
    assert cli.run(["bench", "kernels", "--list"]) == 0
    names = capsys.readouterr().out.split()
    assert {"selective_scan", "lti", "mamba_block", "rc_block", "pretraining_step", "startup", "rwkv7_block"} <= set(
        names
    )
