"""genossm finetune: it learns, reports what it should, is deterministic, and is all or nothing."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner

from genossm import metrics, vocab
from genossm.config import FinetuneSection, HeadConfig, ModelConfig
from genossm.errors import ExitCode, GenoSSMError
from genossm.models import build_model
from genossm.models.task import TaskModel, TaskNetwork
from genossm.stages import attribution, task_fit
from genossm.stages import finetune as stage
from genossm.stages.labelled import Split, Tables, prediction_batches
from genossm.stages.loading import load_model
from genossm.train.checkpoint import checkpoint_config, export_model, verify

QUICK = FinetuneSection(
    epochs=3, batch_size=16, lr=2e-2, bootstrap=50, members=1, strands="both", baselines=["kmer_lr", "gapped_kmer_svm"]
)
ALONE = QUICK.model_copy(update={"baselines": ["gc"], "epochs": 2, "machine": False})
FILES = ["MANIFEST.json", "config.json", "metrics.json", "model.safetensors", "predictions.csv"]


def export(folder: Path, **changes: Any) -> Path:
    torch.manual_seed(1)
    config = ModelConfig(**{"d_model": 8, "n_layer": 1, "d_state": 4, **changes})
    model = build_model(config)
    export_model(folder, checkpoint_config("language_model", config.model_dump(), {}), model.state_dict())
    return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(tmp_path_factory.mktemp("model"))


def rows(count: int, seed: int, classes: tuple[str, ...] = ("rich", "poor")) -> list[tuple[str, str]]:
    """Sequences of unequal length whose share of G and C tells the class; on either strand the same."""
    rng = np.random.default_rng(seed)
    found = []
    for i in range(count):
        label = i % len(classes)
        share = 0.75 - 0.5 * label / (len(classes) - 1)
        letters = np.where(rng.random(rng.integers(20, 60)) < share, rng.choice(["G", "C"]), rng.choice(["A", "T"]))
        found.append(("".join(letters), classes[label]))
    return found


def write(path: Path, content: list[tuple[str, str]]) -> Path:
    path.write_text("sequence,label\n" + "".join(f"{sequence},{label}\n" for sequence, label in content))
    return path


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Tables:
    folder = tmp_path_factory.mktemp("tables")
    sizes = {"train": 96, "valid": 40, "test": 60}
    paths = {name: write(folder / f"{name}.csv", rows(n, seed)) for seed, (name, n) in enumerate(sizes.items())}
    return Tables(paths["train"], paths["valid"], paths["test"])


@pytest.fixture(scope="module")
def finished(checkpoint: Path, tables: Tables, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    stage.finetune(checkpoint, tables, folder, settings=QUICK)
    return folder


def content(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in FILES}


def read_csv(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_text())))


def report_of(folder: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((folder / "metrics.json").read_text())
    return report


def test_the_report(finished: Path) -> None:
    report = report_of(finished)
    assert report["labels"] == ["poor", "rich"]
    assert report["test"]["mcc"] > 0.8
    assert set(report["baselines"]) == {"kmer_lr", "gapped_kmer_svm", "from_scratch"}
    for row in (report["test"], *report["baselines"].values()):
        assert set(metrics.METRICS) | {f"{name}_ci" for name in metrics.METRICS} <= row.keys()
        assert row["mcc_ci"][0] <= row["mcc"] <= row["mcc_ci"][1]
        assert row["n"] == 60
    for row in report["baselines"].values():
        assert row["gain"]["mcc"] == pytest.approx(report["test"]["mcc"] - row["mcc"])
    assert [[epoch["epoch"] for epoch in fit] for fit in report["history"]] == [[1, 2, 3]]
    assert report["networks"][0]["best_epoch"] == [3]
    assert report["data"]["train"]["classes"] == {"poor": 48, "rich": 48}
    assert report["data"]["test"]["rows"] == 60
    assert report["training"]["seed"] == 1
    assert report["parts"].keys() == {"network", "gapped_kmers"}
    assert report["leak"] == {"k": 32, "shared": 0, "identical": 0, "mcc_without": report["test"]["mcc"]}
    assert not (finished / ".work").exists()


def test_predictions_are_those_of_the_saved_model(finished: Path, tables: Tables) -> None:
    verify(finished)
    model, config = load_model(finished)
    assert isinstance(model, TaskModel)
    assert config["labels"] == ["poor", "rich"]
    wanted = read_csv(Path(str(tables.test)))
    predicted = read_csv(finished / "predictions.csv")
    assert [int(row["line"]) for row in predicted] == list(range(2, 62))
    for row, want in zip(predicted, wanted, strict=True):
        tokens = vocab.encode(want["sequence"])
        with torch.inference_mode():  # one by one: no batch mate, no padding; either strand says the same
            given, other = (
                torch.softmax(model(torch.from_numpy(s.astype(np.int64))[None]).logits[0], 0)
                for s in (tokens, vocab.reverse_complement(tokens))
            )
        torch.testing.assert_close(given, other, rtol=0, atol=1e-5)
        assert row["label"] == want["label"]
        assert [float(row["p_poor"]), float(row["p_rich"])] == pytest.approx(given.tolist(), abs=2e-5)
        assert row["predicted"] == ("rich" if given[1] > given[0] else "poor")
        for baseline in ("kmer_lr", "gapped_kmer_svm", "from_scratch"):
            assert float(row[f"{baseline}_p_poor"]) + float(row[f"{baseline}_p_rich"]) == pytest.approx(1, abs=2e-6)


@pytest.mark.slow
def test_a_stopped_run_goes_on_to_the_same_bytes(
    checkpoint: Path, tables: Tables, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped_at(step: int, number: signal.Signals) -> Callable[..., Any]:
        done = 0

        @contextlib.contextmanager
        def progress(*_: Any) -> Iterator[Callable[[int], None]]:
            def advance(n: int) -> None:
                nonlocal done
                done += n
                if done == step:
                    signal.raise_signal(number)

            yield advance

        return progress

    torch.rand(7)  # the state of the global generator must not matter
    for step, number, code in (
        (1, signal.SIGTERM, ExitCode.TERMINATED),
        (9, signal.SIGINT, ExitCode.INTERRUPTED),  # in the second epoch; one is kept
        (15, signal.SIGTERM, ExitCode.TERMINATED),  # while the twin is trained
    ):
        with monkeypatch.context() as patched:
            patched.setattr(task_fit, "progress", stopped_at(step, number))
            with pytest.raises(GenoSSMError, match="the same command goes on") as caught:
                stage.finetune(checkpoint, tables, tmp_path, settings=QUICK)
        assert caught.value.exit_code == code
        assert {path.name for path in tmp_path.iterdir()} <= {".lock", ".work"}
    stage.finetune(checkpoint, tables, tmp_path, settings=QUICK)
    assert content(tmp_path) == content(finished)


def test_without_a_checkpoint_three_classes_and_no_other_table(tmp_path: Path) -> None:
    train = write(tmp_path / "train.csv", rows(150, 5, ("c", "a", "b")))
    report = stage.finetune(None, Tables(train, valid_fraction=0.2), tmp_path / "out", settings=QUICK)
    assert report["judged"] == "valid"
    assert "test" not in report
    assert report["labels"] == ["a", "b", "c"]
    assert set(report["baselines"]) == {"kmer_lr", "gapped_kmer_svm"}
    assert report["data"]["train"]["classes"] == {"a": 40, "b": 40, "c": 40}
    assert report["data"]["valid"]["classes"] == {"a": 10, "b": 10, "c": 10}
    assert np.array(report["valid"]["confusion"]).shape == (3, 3)
    assert report["valid"]["mcc"] > 0.3
    truth = train.read_text().splitlines()
    for row in read_csv(tmp_path / "out" / "predictions.csv"):  # lines lead back to the rows that were held out
        assert truth[int(row["line"]) - 1].split(",")[1] == row["label"]
    with pytest.raises(GenoSSMError, match="no backbone to start from"):
        stage.finetune(tmp_path / "out", Tables(train), tmp_path / "again", settings=QUICK)


@pytest.mark.parametrize("equivariant", [False, True])
def test_a_prediction_does_not_depend_on_its_batch_mates(equivariant: bool) -> None:
    torch.manual_seed(3)
    shape = ModelConfig(d_model=8, n_layer=2, d_state=4, rc_equivariant=equivariant)
    network = TaskNetwork(shape, HeadConfig(pools=("max", "mean", "attention")), 3).eval()
    rng = np.random.default_rng(6)
    sequences = [rng.integers(7, 12, length).astype(np.uint8) for length in (1, 5, 30, 31, 90, 300, 300)]
    split = Split(sequences, np.zeros(7, dtype=np.int64), list(range(7)), ["a", "b", "c"], "")
    assert len(prediction_batches(split)) == 1

    def outputs(rows: Split, both: bool = True) -> np.ndarray:
        run = lambda ids, mask: network(ids, mask=mask)  # noqa: E731
        return task_fit.network_outputs(run, rows, both_strands=both, device=torch.device("cpu"))

    together = outputs(split)
    for i in range(7):
        np.testing.assert_allclose(outputs(split.take(np.array([i])))[0], together[i], rtol=0, atol=1e-5)
    flipped = replace(split, sequences=[vocab.reverse_complement(s) for s in sequences])
    np.testing.assert_allclose(outputs(flipped), together, rtol=0, atol=1e-5)
    assert np.abs(outputs(split, both=False) - together).max() > 1e-3


def test_leaks_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    known = [("".join(np.random.default_rng(i).choice(list("ACGT"), 50)), ("a", "b")[i % 2]) for i in range(40)]
    flipped = vocab.decode(vocab.reverse_complement(vocab.encode(known[3][0])))
    held = [("".join(np.random.default_rng(70 + i).choice(list("ACGT"), 50)), ("a", "b")[i % 2]) for i in range(8)]
    test = [("".join(np.random.default_rng(90 + i).choice(list("ACGT"), 50)), ("a", "b")[i % 2]) for i in range(10)]
    test += [known[0], (flipped, "b"), (known[5][0][:40], "b")]
    contents = {"train": known, "valid": held, "test": test}
    paths = [write(tmp_path / f"{name}.csv", content) for name, content in contents.items()]
    report = stage.finetune(None, Tables(*paths), tmp_path / "out", settings=ALONE.model_copy(update={"epochs": 1}))
    assert {key: report["leak"][key] for key in ("shared", "identical")} == {"shared": 3, "identical": 2}
    assert "warning: 3 of 13 judged sequences share 32 bp with a training sequence" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("test", "sequence,label\nACGT,rich\nACGT,odd\n", "test.csv:3: the label 'odd' is not in the training table"),
        ("test", "sequence,label\nACGT,rich\nAC!T,poor\n", "test.csv:3: col 3: E_BAD_CHAR"),
        ("train", "sequence,label\n" + "ACGT,rich\nACGT,poor\n" * 3 + "ACTT,odd\n", "has one row"),
        ("train", "", "train.csv"),
    ],
)
def test_a_bad_table_is_one_line_and_nothing_is_written(name: str, text: str, message: str, tmp_path: Path) -> None:
    paths = {key: write(tmp_path / f"{key}.csv", rows(20, 7)) for key in ("train", "test")}
    paths[name].write_text(text)
    with pytest.raises(GenoSSMError) as caught:
        stage.finetune(None, Tables(paths["train"], None, paths["test"]), tmp_path / "out", settings=QUICK)
    assert message in str(caught.value)
    assert caught.value.exit_code == ExitCode.BAD_INPUT
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("adapt", ["frozen", "lora"])
def test_a_frozen_backbone_stays_and_adapters_are_merged_into_projections(
    adapt: str, finished: Path, tables: Tables, tmp_path: Path
) -> None:
    settings = ALONE.model_copy(update={"epochs": 1, "from_scratch": False, "adapt": adapt, "ema": 0.0})
    stage.finetune(finished, tables, tmp_path, settings=settings)
    before, after = load_model(finished)[0].state_dict(), load_model(tmp_path)[0].state_dict()
    for name in before.keys() & after.keys():
        if name.startswith("members.0.base."):
            moved = adapt == "lora" and name.endswith("proj.weight")
            assert torch.equal(before[name], after[name]) == (not moved), name
    assert sum(name.endswith("proj.weight") for name in after) > 3


def test_seeds_are_averaged_and_each_is_reported(tables: Tables, tmp_path: Path) -> None:
    report = stage.finetune(None, tables, tmp_path, settings=ALONE, seeds=2)
    first = stage.finetune(None, tables, tmp_path / "first", settings=ALONE)
    assert len(report["seeds"]["mcc"]["values"]) == 2
    assert report["seeds"]["mcc"]["values"][0] == pytest.approx(first["test"]["mcc"])
    assert report["seeds"]["mcc"]["mean"] == pytest.approx(np.mean(report["seeds"]["mcc"]["values"]))
    model = load_model(tmp_path)[0]
    assert isinstance(model, TaskModel)
    assert len(model.members) == 2
    row = read_csv(tmp_path / "predictions.csv")[0]
    ids = torch.from_numpy(vocab.encode(read_csv(Path(str(tables.test)))[0]["sequence"]).astype(np.int64))[None]
    with torch.inference_mode():
        assert torch.softmax(model(ids).logits[0], 0)[0].item() == pytest.approx(float(row["p_poor"]), abs=2e-5)


def test_attributions_are_those_of_the_model(finished: Path) -> None:
    model = load_model(finished)[0]
    assert isinstance(model, TaskModel)
    tokens = np.random.default_rng(0).integers(7, 11, 40).astype(np.uint8)

    def logit(sequence: np.ndarray) -> float:
        with torch.inference_mode():
            return float(model(torch.from_numpy(sequence.astype(np.int64))[None]).logits[0, 1])

    falls = attribution.mutagenesis(model, tokens, 1, slice(5, 8))
    for place, fall in zip(range(5, 8), falls, strict=True):
        others = [base for base in vocab.BASES if base != tokens[place]]
        changed = [logit(np.concatenate([tokens[:place], [base], tokens[place + 1 :]])) for base in others]
        assert fall == pytest.approx(logit(tokens) - np.mean(changed), abs=1e-4)
    gradient = attribution.gradient_times_input(model, tokens, 1)
    assert gradient.shape == (40,)
    assert np.abs(gradient).max() > 0
    flipped = attribution.gradient_times_input(model, vocab.reverse_complement(tokens), 1)
    np.testing.assert_allclose(flipped[::-1], gradient, atol=1e-5)  # either strand says the same
    shown = json.loads((finished / "examples.json").read_text())
    assert 1 <= len(shown) <= 4
    assert all(len(e["gradient"]) == len(e["mutagenesis"]) == len(e["sequence"]) for e in shown)


def test_the_page_shows_everything_and_needs_no_network(finished: Path) -> None:
    page = (finished / "report.html").read_text()
    for words in ("Learning curves", "ROC curves", "Precision-recall", "Calibration", "Confusion matrix"):
        assert words in page
    for words in ("Errors by class", "The hardest rows", "What the model looks at", "gapped k-mer SVM", "from scratch"):
        assert words in page
    assert "http://" not in page
    assert "https://" not in page


def test_a_search_is_kept_and_its_choice_is_used(tables: Tables, tmp_path: Path) -> None:
    settings = ALONE.model_copy(update={"epochs": 1, "search_minutes": 0.0001})
    report = stage.finetune(None, tables, tmp_path, settings=settings)
    found = report["search"]
    assert len(found["trials"]) == 1  # the settings as they are come first, whatever the budget
    assert found["chosen"]["lr"] == settings.lr
    assert report["design"]["epochs"] == found["chosen"]["epochs"] == 1


def test_folds_judge_every_row_once(tmp_path: Path) -> None:
    train = write(tmp_path / "train.csv", rows(90, 8))
    report = stage.finetune(None, Tables(train), tmp_path / "out", settings=ALONE, folds=3)
    assert report["judged"] == "out_of_fold"
    assert report["out_of_fold"]["n"] == 90
    assert len(report["folds"]["mcc"]["values"]) == 3
    predicted = read_csv(tmp_path / "out" / "predictions.csv")
    assert [int(row["line"]) for row in predicted] == list(range(2, 92))
    truth = train.read_text().splitlines()
    assert all(truth[int(row["line"]) - 1].split(",")[1] == row["label"] for row in predicted)
    with pytest.raises(GenoSSMError, match="--folds takes"):
        stage.finetune(None, Tables(train, train), tmp_path / "no", settings=ALONE, folds=3)


def kinds_of_rows(kind: str, count: int, seed: int) -> str:
    """A table of a kind of labels that follow from the share of G and C."""
    lines = ["sequence,a,b" if kind in ("multilabel", "regression") else "sequence,label"]
    rng = np.random.default_rng(seed)
    for _ in range(count):
        share = rng.random()
        letters = np.where(rng.random(40) < share, rng.choice(list("GC"), 40), rng.choice(list("AT"), 40))
        sequence = "".join(letters)
        told = {
            "multilabel": f"{int(share > 0.5)},{int(share > 0.3)}",
            "regression": f"{10 + 5 * share:.4f},{-share:.4f}",
            "tokens": "".join("s" if letter in "GC" else "w" for letter in letters),
        }[kind]
        lines.append(f"{sequence},{told}")
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize(("kind", "figure"), [("multilabel", "auroc"), ("regression", "pearson"), ("tokens", "mcc")])
def test_other_kinds_of_labels(kind: str, figure: str, tmp_path: Path) -> None:
    paths = []
    for seed, (name, count) in enumerate({"train": 96, "valid": 32, "test": 32}.items()):
        paths.append(tmp_path / f"{name}.csv")
        paths[-1].write_text(kinds_of_rows(kind, count, seed))
    columns = () if kind == "tokens" else ("a", "b")
    settings = QUICK.model_copy(update={"epochs": 6, "baselines": ["gc", "gapped_kmer_svm"], "lr": 5e-3})
    report = stage.finetune(None, Tables(*paths, label_columns=columns), tmp_path / "out", settings=settings)
    assert report["kind"] == kind
    assert report["headline"] == figure
    assert report["test"][figure] > 0.7
    assert set(report["baselines"]) == (set() if kind == "tokens" else {"gc", "gapped_kmer_svm"})
    model = load_model(tmp_path / "out")[0]
    test = read_csv(paths[2])
    ids = torch.from_numpy(vocab.encode(test[0]["sequence"]).astype(np.int64))[None]
    with torch.inference_mode():
        logits = model(ids).logits[0]
    row = read_csv(tmp_path / "out" / "predictions.csv")[0]
    if kind == "tokens":
        assert "".join("sw"[i] for i in logits.argmax(-1)) == row["predicted"]
    else:
        said = torch.sigmoid(logits) if kind == "multilabel" else logits
        mark = "p" if kind == "multilabel" else "y"
        assert said.tolist() == pytest.approx([float(row[f"{mark}_a"]), float(row[f"{mark}_b"])], abs=1e-4)


def test_the_command_line(checkpoint: Path, tables: Tables, finished: Path, tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(stage.command)
    options = {
        "checkpoint": checkpoint, "train": tables.train, "valid": tables.valid, "test": tables.test, "output": tmp_path,
        "epochs": 3, "batch-size": 16, "lr": 0.02, "bootstrap": 50, "members": 1, "strands": "both",
    }  # fmt: skip
    arguments = [f"--{name}={value}" for name, value in options.items()]
    arguments += ["--baselines=kmer_lr", "--baselines=gapped_kmer_svm"]
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0
    assert content(tmp_path) == content(finished)
    lines = io.StringIO(done.stdout).readlines()
    told = [line.split(":")[0] for line in lines if "test MCC" in line]
    assert told == ["fine-tuned", "kmer_lr", "gapped_kmer_svm", "from_scratch"]
