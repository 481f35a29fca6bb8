"""genossm finetune: it learns, reports what it should, is deterministic, and is all or nothing."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner

from genossm import metrics, vocab
from genossm.config import FinetuneSection, ModelConfig
from genossm.errors import ExitCode, GenoSSMError
from genossm.models import build_model
from genossm.stages import finetune as stage
from genossm.stages.labelled import Split, Splits, Tables, prediction_batches
from genossm.stages.loading import load_model
from genossm.train.checkpoint import checkpoint_config, export_model, verify

QUICK = FinetuneSection(epochs=3, batch_size=16, lr=2e-2, bootstrap=50)
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
    assert set(report["baselines"]) == {"kmer_lr", "from_scratch"}
    for row in (report["test"], *report["baselines"].values()):
        assert set(metrics.METRICS) | {f"{name}_ci" for name in metrics.METRICS} <= row.keys()
        assert row["mcc_ci"][0] <= row["mcc"] <= row["mcc_ci"][1]
        assert row["n"] == 60
    for row in report["baselines"].values():
        assert row["gain"]["mcc"] == pytest.approx(report["test"]["mcc"] - row["mcc"])
    best = max(report["history"], key=lambda epoch: (epoch["valid_mcc"], -epoch["valid_loss"]))
    assert report["best_epoch"] == best["epoch"]
    assert report["data"]["train"]["classes"] == {"poor": 48, "rich": 48}
    assert report["data"]["test"]["rows"] == 60
    assert report["training"]["seed"] == 1
    assert report["leak"] == {"k": 32, "shared": 0, "identical": 0, "mcc_without": report["test"]["mcc"]}


def test_predictions_are_those_of_the_saved_model(finished: Path, tables: Tables) -> None:
    verify(finished)
    model, config = load_model(finished)
    assert config["labels"] == ["poor", "rich"]
    assert config["training"]["strands"] == "both"
    assert tables.test is not None
    wanted = read_csv(tables.test)
    predicted = read_csv(finished / "predictions.csv")
    assert [int(row["line"]) for row in predicted] == list(range(2, 62))
    for row, want in zip(predicted, wanted, strict=True):
        tokens = vocab.encode(want["sequence"])
        with torch.inference_mode():  # one by one: no batch mate, no padding
            strands = (tokens, vocab.reverse_complement(tokens))
            logits = [model(torch.from_numpy(s.astype(np.int64))[None]).logits[0] for s in strands]
        probabilities = torch.softmax((logits[0] + logits[1]) / 2, 0)
        assert row["label"] == want["label"]
        assert [float(row["p_poor"]), float(row["p_rich"])] == pytest.approx(probabilities.tolist(), abs=1e-5)
        assert row["predicted"] == ("rich" if probabilities[1] > probabilities[0] else "poor")
        for baseline in ("kmer_lr", "from_scratch"):
            assert float(row[f"{baseline}_p_poor"]) + float(row[f"{baseline}_p_rich"]) == pytest.approx(1, abs=2e-6)


@pytest.mark.slow
def test_the_same_command_gives_the_same_bytes(
    checkpoint: Path, tables: Tables, finished: Path, tmp_path: Path
) -> None:
    torch.rand(7)  # the state of the global generator must not matter
    stage.finetune(checkpoint, tables, tmp_path, settings=QUICK)
    assert content(tmp_path) == content(finished)
    stage.finetune(checkpoint, tables, tmp_path / "other", settings=QUICK, seed=2)
    assert content(tmp_path / "other")["model.safetensors"] != content(finished)["model.safetensors"]


@pytest.mark.slow
def test_a_stopped_run_leaves_what_was_there_and_starts_again_to_the_same_bytes(
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

    for step, number, code in (
        (1, signal.SIGTERM, ExitCode.TERMINATED),
        (9, signal.SIGINT, ExitCode.INTERRUPTED),
        (25, signal.SIGTERM, ExitCode.TERMINATED),  # while the twin is trained
    ):
        with monkeypatch.context() as patched:
            patched.setattr(stage, "progress", stopped_at(step, number))
            with pytest.raises(GenoSSMError, match="nothing was written") as caught:
                stage.finetune(checkpoint, tables, tmp_path, settings=QUICK)
        assert caught.value.exit_code == code
        assert [path.name for path in tmp_path.iterdir()] == [".lock"]
    stage.finetune(checkpoint, tables, tmp_path, settings=QUICK)
    assert content(tmp_path) == content(finished)
    with monkeypatch.context() as patched:
        patched.setattr(stage, "progress", stopped_at(3, signal.SIGTERM))
        with pytest.raises(GenoSSMError):
            stage.finetune(checkpoint, tables, tmp_path, settings=QUICK, seed=5)
    assert content(tmp_path) == content(finished)


def test_three_classes_without_validation_or_test_table(checkpoint: Path, tmp_path: Path) -> None:
    train = write(tmp_path / "train.csv", rows(150, 5, ("c", "a", "b")))
    settings = QUICK.model_copy(update={"epochs": 2, "from_scratch": False})
    report = stage.finetune(checkpoint, Tables(train, valid_fraction=0.2), tmp_path / "out", settings=settings)
    assert report["judged"] == "valid"
    assert "test" not in report
    assert report["labels"] == ["a", "b", "c"]
    assert set(report["baselines"]) == {"kmer_lr"}
    assert report["data"]["train"]["classes"] == {"a": 40, "b": 40, "c": 40}
    assert report["data"]["valid"]["classes"] == {"a": 10, "b": 10, "c": 10}
    assert np.array(report["valid"]["confusion"]).shape == (3, 3)
    assert report["valid"]["mcc"] > 0.3
    predicted = read_csv(tmp_path / "out" / "predictions.csv")
    truth = train.read_text().splitlines()
    for row in predicted:  # line numbers lead back to the rows that were held out
        assert truth[int(row["line"]) - 1].split(",")[1] == row["label"]


def job(both_strands: bool, split: Split) -> stage._Job:
    settings = QUICK.model_copy(update={"strands": "both" if both_strands else "given"})
    return stage._Job(Splits(split, split, None), settings, 1, torch.device("cpu"))


@pytest.mark.parametrize("equivariant", [False, True])
def test_a_prediction_does_not_depend_on_its_batch_mates(equivariant: bool) -> None:
    torch.manual_seed(3)
    model = build_model(ModelConfig(d_model=8, n_layer=2, d_state=4, rc_equivariant=equivariant), 3).eval()
    with torch.no_grad():
        model.classifier.weight.mul_(10)
    rng = np.random.default_rng(6)
    sequences = [rng.integers(7, 12, length).astype(np.uint8) for length in (1, 5, 30, 31, 90, 300, 300)]
    split = Split(sequences, np.zeros(7, dtype=np.int64), list(range(7)), ["a", "b", "c"], "")
    assert len(prediction_batches(split)) == 1
    together = job(True, split).logits(model, split)
    for i in range(7):
        alone = split.take(np.array([i]))
        torch.testing.assert_close(job(True, alone).logits(model, alone)[0], together[i], rtol=0, atol=1e-5)
    flipped = Split([vocab.reverse_complement(s) for s in sequences], split.labels, split.lines, split.names, "")
    torch.testing.assert_close(job(True, flipped).logits(model, flipped), together, rtol=0, atol=1e-5)
    if not equivariant:
        one_strand = job(False, split).logits(model, split)
        assert (one_strand - together).abs().max() > 1e-3


def test_leaks_are_told(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    known = [("".join(np.random.default_rng(i).choice(list("ACGT"), 50)), ("a", "b")[i % 2]) for i in range(40)]
    flipped = vocab.decode(vocab.reverse_complement(vocab.encode(known[3][0])))
    test = [("".join(np.random.default_rng(90 + i).choice(list("ACGT"), 50)), ("a", "b")[i % 2]) for i in range(10)]
    test += [known[0], (flipped, "b"), (known[5][0][:40], "b")]
    tables = Tables(write(tmp_path / "train.csv", known), None, write(tmp_path / "test.csv", test), 0.1)
    settings = QUICK.model_copy(update={"epochs": 1, "from_scratch": False})
    with pytest.MonkeyPatch.context() as patched:
        # Hold out rows that leave 0, 3 and 5 among the training rows.
        patched.setattr("genossm.stages.labelled.stratified_split", lambda *_, **__: (np.arange(36), np.arange(36, 40)))
        report = stage.finetune(checkpoint, tables, tmp_path / "out", settings=settings)
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
def test_a_bad_table_is_one_line_and_nothing_is_written(
    name: str, text: str, message: str, checkpoint: Path, tmp_path: Path
) -> None:
    paths = {key: write(tmp_path / f"{key}.csv", rows(20, 7)) for key in ("train", "test")}
    paths[name].write_text(text)
    with pytest.raises(GenoSSMError) as caught:
        stage.finetune(checkpoint, Tables(paths["train"], None, paths["test"]), tmp_path / "out", settings=QUICK)
    assert message in str(caught.value)
    assert caught.value.exit_code == ExitCode.BAD_INPUT
    assert not (tmp_path / "out").exists()


def test_a_classifier_can_be_the_start_and_zero_rate_freezes_its_backbone(
    finished: Path, tables: Tables, tmp_path: Path
) -> None:
    changes = {"epochs": 1, "from_scratch": False, "backbone_lr_scale": 0.0, "strands": "given"}
    stage.finetune(finished, tables, tmp_path, settings=QUICK.model_copy(update=changes))
    before, after = load_model(finished)[0].state_dict(), load_model(tmp_path)[0].state_dict()
    for name, value in before.items():
        assert torch.equal(value, after[name]) == name.startswith("backbone.")
    assert load_model(tmp_path)[1]["training"]["strands"] == "given"


def test_the_command_line(checkpoint: Path, tables: Tables, finished: Path, tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(stage.command)
    arguments = [
        f"--checkpoint={checkpoint}",
        f"--train={tables.train}",
        f"--valid={tables.valid}",
        f"--test={tables.test}",
        f"--output={tmp_path}",
        "--epochs=3",
        "--batch-size=16",
        "--lr=0.02",
        "--bootstrap=50",
    ]
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0
    assert content(tmp_path) == content(finished)
    lines = io.StringIO(done.stdout).readlines()
    assert [line.split(":")[0] for line in lines if "test MCC" in line] == ["fine-tuned", "kmer_lr", "from_scratch"]
