"""genossm score: rows equal the definition, in input order, the same bytes however the file is cut or ordered."""

from __future__ import annotations

import contextlib
import gzip
import io
import math
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch

from genossm import vocab
from genossm.config import ModelConfig, ScoreSection
from genossm.errors import ExitCode, GenoSSMError
from genossm.models import build_model
from genossm.models.likelihood import Reading, class_probabilities, log_likelihood
from genossm.stages import score as stage
from genossm.stages.loading import load_model
from genossm.train.checkpoint import checkpoint_config, export_model

LABELS = ["coding", "other", "utr"]


def export(
    folder: Path, labels: list[str] | None = None, training: dict[str, Any] | None = None, **changes: Any
) -> Path:
    """A model folder with random weights, large enough to be far from uniform."""
    torch.manual_seed(1)
    config = ModelConfig(**{"d_model": 8, "n_layer": 1, "d_state": 4, **changes})
    model = build_model(config) if labels is None else build_model(config, len(labels))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "embedding" in name or "head" in name or "classifier" in name:
                parameter.mul_(20)
    kind: Literal["language_model", "classifier"] = "language_model" if labels is None else "classifier"
    export_model(folder, checkpoint_config(kind, config.model_dump(), training or {}, labels), model.state_dict())
    return folder


@pytest.fixture(scope="module")
def masked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(tmp_path_factory.mktemp("masked"))


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(tmp_path_factory.mktemp("classifier"), LABELS)


def random_records(count: int, seed: int = 0) -> list[tuple[str, str]]:
    rng = np.random.default_rng(seed)
    return [
        (f"r{i}", vocab.decode(rng.integers(vocab.A, vocab.N + 1, rng.integers(2, 90)).astype(np.uint8)))
        for i in range(count)
    ]


def write(path: Path, records: list[tuple[str, str]]) -> Path:
    path.write_text("".join(f">{name} about it\n{sequence}\n" for name, sequence in records))
    return path


def table(path: Path) -> list[dict[str, str]]:
    lines = [line.split("\t") for line in path.read_text().splitlines()]
    return [dict(zip(lines[0], fields, strict=True)) for fields in lines[1:]]


def run(checkpoint: Path, fasta: Path, output: Path, batch_size: int = 8, passes: int = 4, **options: Any) -> Path:
    stage.score(checkpoint, fasta, output, settings=ScoreSection(passes=passes, batch_size=batch_size), **options)
    return output


def test_a_language_model_gives_likelihoods(masked: Path, tmp_path: Path) -> None:
    records = [*random_records(5), ("all_n", "NNNN"), ("one", "G")]
    rows = table(run(masked, write(tmp_path / "x.fa", records), tmp_path / "x.tsv"))
    assert list(rows[0]) == list(stage.LANGUAGE_COLUMNS)
    assert [row["record"] for row in rows] == [name for name, _ in records]
    model, _ = load_model(masked)
    for row, (name, sequence) in zip(rows, records, strict=True):
        bases = len(sequence) - sequence.count("N")
        assert (row["length"], row["scored_bases"]) == (str(len(sequence)), str(bases))
        if name == "all_n":
            assert (row["log_likelihood"], row["per_base"], row["perplexity"]) == ("NA", "NA", "NA")
            assert row["status"] == "no_bases"
            continue
        tokens = vocab.encode(sequence)
        want = float(log_likelihood(model, tokens, Reading(passes=4)))  # type: ignore[arg-type]
        assert row["status"] == "ok"
        assert row["log_likelihood"] == f"{want:.4f}"
        assert row["per_base"] == f"{want / bases:.6f}"
        assert float(row["perplexity"]) == pytest.approx(math.exp(-want / bases), abs=1e-6)


def test_a_classifier_gives_probabilities(classifier: Path, tmp_path: Path) -> None:
    records = [*random_records(4), ("all_n", "NN"), ("long", "ACGT" * 30)]
    rows = table(run(classifier, write(tmp_path / "x.fa", records), tmp_path / "x.tsv", window=100))
    assert list(rows[0]) == ["record", "length", "label", "p_coding", "p_other", "p_utr", "status"]
    model, _ = load_model(classifier)
    for row, (_, sequence) in zip(rows[:4], records, strict=False):
        want = class_probabilities(model, vocab.encode(sequence), both_strands=True)  # type: ignore[arg-type]
        assert [row[f"p_{label}"] for label in LABELS] == [f"{p:.6f}" for p in want.tolist()]
        assert row["label"] == LABELS[int(want.argmax())]
    assert [row["status"] for row in rows] == ["ok"] * 4 + ["no_bases", "too_long"]
    assert {rows[4][key] for key in ("label", "p_coding", "p_other", "p_utr")} == {"NA"}


@pytest.mark.parametrize("which", ["masked", "classifier"])
def test_rows_have_the_same_bytes_whatever_stands_beside(
    which: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    checkpoint: Path = request.getfixturevalue(which)
    records = random_records(17, seed=3)
    fasta = write(tmp_path / "x.fa", records)
    whole = run(checkpoint, fasta, tmp_path / "8.tsv").read_bytes()
    for batch_size in (1, 3, 100):
        assert run(checkpoint, fasta, tmp_path / "other.tsv", batch_size).read_bytes() == whole
    backwards = run(checkpoint, write(tmp_path / "back.fa", records[::-1]), tmp_path / "back.tsv").read_bytes()
    head, *lines = whole.splitlines()
    assert backwards.splitlines() == [head, *lines[::-1]]
    alone = run(checkpoint, write(tmp_path / "alone.fa", records[5:6]), tmp_path / "alone.tsv").read_bytes()
    assert alone.splitlines() == [head, lines[5]]
    (tmp_path / "x.fa.gz").write_bytes(gzip.compress(fasta.read_bytes()))
    assert run(checkpoint, tmp_path / "x.fa.gz", tmp_path / "gz.tsv").read_bytes() == whole


def test_case_is_no_part_of_a_score_and_iupac_is_n(masked: Path, tmp_path: Path) -> None:
    upper = write(tmp_path / "upper.fa", [("a", "ACGTNACGTTGCA" * 12)])
    lower = write(tmp_path / "lower.fa", [("a", "ACGTNacgttgca" * 12)])
    coded = write(tmp_path / "coded.fa", [("a", "ACGTRacgttgca" + "ACGTNACGTTGCA" * 11)])
    want = run(masked, upper, tmp_path / "upper.tsv").read_bytes()
    assert run(masked, lower, tmp_path / "lower.tsv").read_bytes() == want
    summary = stage.score(masked, coded, tmp_path / "coded.tsv", settings=ScoreSection(passes=4))
    assert (tmp_path / "coded.tsv").read_bytes() == want
    assert [line.split()[0] for line in summary.warnings] == ["W_IUPAC"]
    assert " 1 " in summary.warnings[0]


def test_a_record_without_sequence_is_refused(masked: Path, tmp_path: Path) -> None:
    fasta = tmp_path / "x.fa"
    fasta.write_text(">a\nACGT\n>b\n>c\nAC\n")
    with pytest.raises(GenoSSMError, match=r"x\.fa:3: record b: E_EMPTY_RECORD"):
        stage.score(masked, fasta, tmp_path / "x.tsv")
    assert not (tmp_path / "x.tsv").exists()


def test_a_value_that_is_no_number_is_no_score(tmp_path: Path) -> None:
    folder = export(tmp_path / "model")
    model, config = load_model(folder)
    with torch.no_grad():
        model.lm_head.weight.fill_(float("nan"))  # type: ignore[union-attr, operator]
    export_model(folder, config, model.state_dict())
    (row,) = table(run(folder, write(tmp_path / "x.fa", [("a", "ACGT")]), tmp_path / "x.tsv"))
    assert (row["log_likelihood"], row["perplexity"], row["status"]) == ("NA", "NA", "not_finite")


def test_long_records(tmp_path: Path) -> None:
    """A causal model carries its state, so the window does not matter; a masked one tells that it cut the record."""
    fasta = write(tmp_path / "x.fa", [("a", "ACGGT" * 20), ("b", "ACGTA")])
    causal = export(tmp_path / "causal", objective="causal", bidirectional=False)
    whole = table(run(causal, fasta, tmp_path / "whole.tsv"))
    for row, again in zip(whole, table(run(causal, fasta, tmp_path / "cut.tsv", window=13)), strict=True):
        assert float(again["log_likelihood"]) == pytest.approx(float(row["log_likelihood"]), abs=2e-3)
    assert stage.score(causal, fasta, tmp_path / "cut.tsv", window=13).cut == 0
    masked = export(tmp_path / "masked")
    assert stage.score(masked, fasta, tmp_path / "cut.tsv", window=13).cut == 1


def test_a_classifier_of_one_strand_reads_one_strand(classifier: Path, tmp_path: Path) -> None:
    stranded = export(tmp_path / "stranded", LABELS, {"strands": "given"})
    fasta = write(tmp_path / "x.fa", random_records(3, seed=4))
    given = run(classifier, fasta, tmp_path / "given.tsv", strands="given").read_bytes()
    both = run(classifier, fasta, tmp_path / "both.tsv").read_bytes()
    assert given != both
    assert run(stranded, fasta, tmp_path / "auto.tsv").read_bytes() == given
    assert run(stranded, fasta, tmp_path / "forced.tsv", strands="both").read_bytes() == both


@pytest.mark.parametrize("fault", [">a\nACGT\n>b\nAC!T\n", ">a\nACGT\n>a\nACGT\n", "ACGT\n", ""])
def test_a_bad_fasta_leaves_what_was_there(
    fault: str, masked: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fasta, output = tmp_path / "x.fa", tmp_path / "out" / "x.tsv"
    fasta.write_text(fault)
    with pytest.raises(GenoSSMError) as caught:
        stage.score(masked, fasta, output)
    assert caught.value.exit_code == ExitCode.BAD_INPUT
    assert "\n" not in str(caught.value)
    assert str(fasta) in str(caught.value)
    assert not output.exists()
    with pytest.raises(GenoSSMError):
        stage.score(masked, fasta)
    assert capsys.readouterr().out == ""  # the file is read to its end before the first row
    output.parent.mkdir(exist_ok=True)
    output.write_text("old")
    with pytest.raises(GenoSSMError):
        stage.score(masked, fasta, output)
    assert output.read_text() == "old"
    assert list(output.parent.iterdir()) == [output]


def test_a_file_that_is_not_there(masked: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in (tmp_path / "absent.fa", tmp_path):
        with pytest.raises((GenoSSMError, OSError), match=str(path)):
            stage.score(masked, path)
        assert capsys.readouterr().out == ""


def test_a_pipe_is_read_once(masked: Path, tmp_path: Path) -> None:
    fasta = write(tmp_path / "x.fa", random_records(3))
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_bytes(fasta.read_bytes()))
    writer.start()
    piped = run(masked, pipe, tmp_path / "pipe.tsv").read_bytes()
    writer.join()
    assert piped == run(masked, fasta, tmp_path / "x.tsv").read_bytes()


def test_sigterm_leaves_no_table(masked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scored = 0

    @contextlib.contextmanager
    def interrupted(*_: Any) -> Iterator[Callable[[int], None]]:
        def advance(_: int) -> None:
            nonlocal scored
            scored += 1
            if scored == 2:
                signal.raise_signal(signal.SIGTERM)

        yield advance

    monkeypatch.setattr(stage, "progress", interrupted)
    fasta = write(tmp_path / "x.fa", random_records(5))
    with pytest.raises(GenoSSMError, match="SIGTERM") as caught:
        stage.command(str(fasta), masked, tmp_path / "x.tsv")
    assert caught.value.exit_code == ExitCode.TERMINATED
    assert scored == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == [".x.tsv.resume", "x.fa"]
    monkeypatch.undo()
    stage.command(str(fasta), masked, tmp_path / "x.tsv")
    assert (tmp_path / "x.tsv").read_bytes() == run(masked, fasta, tmp_path / "y.tsv", passes=8).read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.fa", "x.tsv", "y.tsv"]


@pytest.mark.slow
def test_standard_input_to_standard_output(masked: Path, tmp_path: Path) -> None:
    fasta = write(tmp_path / "x.fa", [*random_records(4), ("n", "NN")])
    want = run(masked, fasta, tmp_path / "x.tsv", passes=8).read_text()
    command = [sys.executable, "-m", "genossm.cli", "score", "--checkpoint", str(masked), "-"]
    done = subprocess.run(command, input=fasta.read_text(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == want
    assert done.stderr.splitlines()[-1] == "5 records: 1 no_bases, 4 ok"


def test_the_table_goes_to_standard_output_by_default(
    masked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fasta = write(tmp_path / "x.fa", random_records(2))
    shown = io.StringIO()
    monkeypatch.setattr(sys, "stdout", shown)
    stage.command(str(fasta), masked)
    assert shown.getvalue() == run(masked, fasta, tmp_path / "x.tsv", passes=8).read_text()
