"""The whole way on a small genome, with the commands themselves: once, again, and killed in the middle."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.workflow.conftest import snakemake, snakemake_command
from tests.workflow.test_plan import jobs

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

TIMES = ("seconds", "tokens_per_second", "date")
"""Keys of JSON files that say when and how fast, not what."""


def timeless(content: object) -> object:
    """JSON without what says when and how fast."""
    if isinstance(content, dict):
        return {key: timeless(value) for key, value in content.items() if key not in TIMES}
    return [timeless(value) for value in content] if isinstance(content, list) else content


def made(folder: Path) -> dict[str, object]:
    """Every result by path: its bytes, or its content without times. Left out: logs, times, the report of them."""
    found: dict[str, object] = {}
    for path in sorted((folder / "results").rglob("*")):
        name = path.relative_to(folder / "results").as_posix()
        private = any(part.startswith(".") or part in ("checkpoints", "tensorboard") for part in path.parts[-4:])
        if path.is_dir() or private or name.startswith(("logs/", "benchmarks/")) or name == "report.html":
            continue
        content = path.read_bytes()
        found[name] = timeless(json.loads(content)) if name.endswith(".json") else content
    return found


def start(folder: Path) -> subprocess.Popen[bytes]:
    """Snakemake in the background, in a process group of its own."""
    return subprocess.Popen(
        snakemake_command(), cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )


def kill_when(run: subprocess.Popen[bytes], happened: Callable[[], bool], *, group: bool) -> None:
    """kill -9 a run, or it and all its jobs, as soon as something has happened."""
    deadline = time.monotonic() + 300
    while not happened():
        assert run.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    if group:
        os.killpg(run.pid, signal.SIGKILL)
    else:
        run.kill()
    run.wait()


def test_one_command_goes_from_the_genome_to_the_report(whole):
    results = made(whole)
    expected = {
        "genomes/mini.fa.gz", "annotations/mini.gff3.gz", "tokens/mini.h5", "pretrain/mini/model.safetensors",
        "tasks/coding/test.csv", "finetune/coding/metrics.json", "finetune/coding/predictions.csv", "score/holdout.tsv",
        "score/holdout.coding.tsv", "settings.json",
    }  # fmt: skip
    assert expected <= results.keys()
    page = (whole / "results" / "report.html").read_text()
    assert page.count("<img ") >= 13
    assert all(f"{job}." in page for job in ("fetch.genome", "tokenize", "pretrain", "derive", "finetune", "score"))


def test_a_second_run_does_nothing(whole):
    before = {path: path.stat().st_mtime_ns for path in (whole / "results").rglob("*")}
    again = snakemake(whole)
    assert again.returncode == 0, again.stdout
    assert "Nothing to be done" in again.stdout
    assert {path: path.stat().st_mtime_ns for path in (whole / "results").rglob("*")} == before


def test_after_kill_9_the_same_command_completes_to_the_same_bytes(whole, make_project):
    folder = make_project("killed")
    # Once everything is killed, in the middle of training ...
    checkpoints = folder / "results" / "pretrain" / "mini" / "checkpoints"
    kill_when(start(folder), lambda: any(checkpoints.glob("step-*")), group=True)
    assert not (folder / "results" / "pretrain" / "mini" / "metrics.json").exists()
    # ... once Snakemake alone, so that its job goes on as an orphan ...
    log = folder / "results" / "logs" / "finetune" / "coding.log"
    kill_when(start(folder), log.exists, group=False)
    # ... and the same command again, at once.
    done = snakemake(folder)
    assert done.returncode == 0, done.stdout
    assert made(folder) == made(whole)
    assert "Nothing to be done" in snakemake(folder).stdout


def test_changed_settings_redo_what_depends_on_them(whole, tmp_path):
    folder = shutil.copytree(whole, tmp_path / "changed")
    config = folder / "config" / "config.yaml"
    config.write_text(config.read_text().replace("steps: 12", "steps: 9"))
    plan = snakemake(folder, "--dry-run")
    assert {"pretrain", "finetune", "score", "classify", "report"} <= jobs(plan.stdout).keys()
    assert not {"fetch_genome", "tokenize", "derive_coding"} & jobs(plan.stdout).keys()
    # The folder holds the checkpoints of the run before, with other settings: they make way.
    done = snakemake(folder, "results/pretrain/mini/metrics.json")
    assert done.returncode == 0, done.stdout
    metrics = json.loads((folder / "results" / "pretrain" / "mini" / "metrics.json").read_text())
    assert metrics["training"]["steps"] == 9
    assert metrics["valid_loss"] != json.loads((whole / "results/pretrain/mini/metrics.json").read_text())["valid_loss"]
