"""genossm benchmark: the registry is complete, tasks are found or downloaded, results stand beside published ones."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from genossm.config import FinetuneSection
from genossm.data.benchmarks import SUITES, suite
from genossm.errors import GenoSSMError
from genossm.stages import benchmark as stage
from tests.stages.test_finetune import rows, write

QUICK = FinetuneSection(
    epochs=1, batch_size=16, bootstrap=20, members=1, strands="both", machine=False, baselines=["gc"]
)


def mirror(folder: Path) -> Path:
    for seed, (name, count) in enumerate({"train": 64, "dev": 24, "test": 30}.items()):
        write(folder / f"{name}.csv", rows(count, seed, ("0", "1")))
    return folder


def test_the_registry_holds_all_published_tasks() -> None:
    assert {name: len(one.tasks) for name, one in SUITES.items()} == {
        "genomic-benchmarks": 9, "gue": 28, "nucleotide-transformer": 18, "nucleotide-transformer-revised": 18,
    }  # fmt: skip
    for one in SUITES.values():
        assert one.source.startswith("https://")
        assert len({task.name for task in one.tasks}) == len(one.tasks)
        for task in one.tasks:
            assert set(task.published) <= set(one.sources_of_figures)
            assert set(task.spread) <= set(task.published)
            assert set(task.elsewhere) <= set(one.sources_of_figures)
            assert all(0 < value < 1 for value in [*task.published.values(), *task.elsewhere.values()])
            assert all(url.startswith("https://") for url in task.files.values())
    assert sum(bool(task.published) for task in suite("genomic-benchmarks").tasks) == 8
    assert sum(bool(task.published) for task in suite("nucleotide-transformer").tasks) == 18
    with pytest.raises(GenoSSMError, match="no suite 'gua'"):
        suite("gua")
    with pytest.raises(GenoSSMError, match="gue has no task 'tf_9'"):
        suite("gue").task("tf_9")


def test_a_run_stands_beside_the_published_figures_and_is_not_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "GUE" / "tf" / "0").mkdir(parents=True)
    mirror(tmp_path / "GUE" / "tf" / "0")
    where, out = tmp_path / "GUE", tmp_path / "out"
    found = stage.run_suite(suite("gue"), out, tasks=["tf/0"], mirror=where, settings=QUICK, seeds=2)
    assert (found[0]["task"], found[0]["metric"], found[0]["seeds"], found[0]["rows"]) == ("tf_0", "mcc", 2, 30)
    assert found[0]["comparable"] is False
    assert found[0]["because"] == "88 rows of train, officially 33378; 30 rows of test, officially 1000"
    lines = [line.split("\t") for line in (out / "results.tsv").read_text().splitlines()]
    shown = dict(zip(*lines, strict=True))
    assert shown["DNABERT-2 117M"] == "0.7199"
    assert shown["mean"] == f"{found[0]['mean']:.4f}"
    assert json.loads((out / "results.json").read_text())["results"] == found
    with monkeypatch.context() as patched:
        patched.setattr(stage, "finetune", lambda *_, **__: pytest.fail("it was finished"))
        again = stage.run_suite(suite("gue"), out, tasks=["tf_0"], mirror=where, settings=QUICK, seeds=2)
    assert again == found


def test_a_task_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(GenoSSMError, match="holds neither tf/0 nor gue/tf/0"):
        stage.run_suite(suite("gue"), tmp_path / "out", tasks=["tf_0"], mirror=tmp_path, settings=QUICK)
    with pytest.raises(GenoSSMError, match="no file at a fixed address: get it from https"):
        stage.run_suite(suite("gue"), tmp_path / "out", tasks=["tf_0"], settings=QUICK)


def test_the_list_names_source_protocol_and_figures() -> None:
    done = CliRunner().invoke(stage.command, ["list", "--suite", "genomic-benchmarks"], catch_exceptions=False)
    assert "90 % of the official train" in done.stdout
    assert "- human_enhancers_cohn (accuracy): CNN 264K 0.702" in done.stdout
    assert "Mamba 468K 0.814 +-0.211" in done.stdout
    assert "seeds 5; epochs 10" in done.stdout
    assert "drosophila_enhancers_stark (accuracy): no figure known" in done.stdout


def test_the_shared_lists_are_the_official_ones(shared: Path) -> None:
    folder = shared / "data" / "tasks" / "genomic_benchmarks_intervals"
    task = suite("genomic-benchmarks").task("dummy_mouse_enhancers_ensembl")
    found = stage.find_task(task, "genomic-benchmarks", folder)
    assert stage.check_sources(task, found) is True
    other = suite("genomic-benchmarks").task("human_enhancers_cohn")
    assert stage.check_sources(other, found) is False


def test_what_no_source_states_is_not_asserted() -> None:
    done = CliRunner().invoke(stage.command, ["list", "--suite", "nucleotide-transformer-revised"])
    assert "protocol: not stated; seeds not stated; epochs not stated" in done.stdout
    revised = suite("nucleotide-transformer-revised")
    assert not any(task.published or task.rows for task in revised.tasks)


def test_metrics_are_those_of_the_published_figures() -> None:
    original = {task.name: task.metric for task in suite("nucleotide-transformer").tasks}
    assert {name for name, metric in original.items() if metric == "f1_binary"} == {
        "promoter_all", "promoter_no_tata", "promoter_tata", "splice_sites_acceptors", "splice_sites_donors",
    }  # fmt: skip
    assert [task.name for task in suite("gue").tasks if task.metric == "f1"] == ["virus_covid"]


def test_rows_of_the_shared_tasks_are_the_official_ones(shared: Path) -> None:
    gue = [task for task in suite("gue").tasks if task.rows]
    assert len(gue) == 6
    for task in gue:
        folder = shared / "data" / "tasks" / "gue" / task.folder
        sizes = {p.name: gzip.decompress(p.read_bytes()).count(b"\n") - 1 for p in folder.glob("*.csv.gz")}
        assert task.rows == (sizes["train.csv.gz"] + sizes["dev.csv.gz"], sizes["test.csv.gz"])
    for task in suite("genomic-benchmarks").tasks:
        folder = shared / "data" / "tasks" / "genomic_benchmarks_intervals" / task.folder
        counts = [
            sum(gzip.decompress(p.read_bytes()).count(b"\n") - 1 for p in (folder / split).glob("*.csv.gz"))
            for split in ("train", "test")
        ]
        assert tuple(counts) == task.rows
