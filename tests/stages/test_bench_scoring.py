"""genossm bench scoring: its plain ways are the definitions, and every part runs, small."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from genossm import cli
from genossm.bench.scoring import Seconds, drawn_lengths, padded, plain_effect, random_bases
from genossm.models import LanguageModel, likelihood
from genossm.models.edits import Edit, EditedWindow
from genossm.models.likelihood import Reading, log_likelihood
from genossm.stages.bench_scoring import pictures
from genossm.stages.bench_scoring_parts import Figure
from genossm.stages.loading import load_model

from .test_score import LABELS, export
from .test_variants import rows_of, write, write_genome

CAUSAL = {"objective": "causal", "bidirectional": False}


def run(output: Path, *words: object) -> int:
    return cli.run(["bench", "scoring", "--output", str(output), *(str(word) for word in words)])


def table(output: Path) -> dict[tuple[str, str], float]:
    with open(output / "scoring.csv", newline="") as handle:
        return {(row["part"], row["figure"]): float(row["value"]) for row in csv.DictReader(handle)}


def test_lengths_span_the_range() -> None:
    lengths = drawn_lengths(500, 50, 20_000, seed=3)
    assert (min(lengths), max(lengths), len(lengths)) == (50, 20_000, 500)
    assert np.median(lengths) < 120
    assert lengths == drawn_lengths(500, 50, 20_000, seed=3) != drawn_lengths(500, 50, 20_000, seed=4)


@pytest.mark.parametrize("changes", [{}, CAUSAL, {"rc_equivariant": True}])
def test_the_plain_ways_are_the_definitions(changes: dict, tmp_path: Path) -> None:
    model, _ = load_model(export(tmp_path / "m", **changes))
    assert isinstance(model, LanguageModel)
    rng = np.random.default_rng(0)
    batch = [random_bases(length, rng) for length in (31, 64, 7)]
    batch[1][5:9] = 11
    for tokens, value in zip(batch, padded(model, batch, 3), strict=True):
        want = float(log_likelihood(model, tokens, Reading(3, both_strands=False)))
        assert value == pytest.approx(want, abs=1e-4)
        assert value == pytest.approx(padded(model, [tokens], 3)[0], abs=1e-4)
    edit, spent = Edit(20, 22, np.array([7, 8, 10], np.uint8)), Seconds()
    (want_effect,) = EditedWindow(model, batch[1], [edit], both_strands=True, tolerance=0).effects([edit])
    got = plain_effect(model, batch[1], edit, both_strands=True, spent=spent)
    assert (got.site, got.window, got.distance) == pytest.approx(
        (want_effect.site, want_effect.window, want_effect.distance), abs=1e-4
    )
    assert 0 < spent.windows < spent.all


def test_records_and_variants(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, genome = export(tmp_path / "model"), write_genome(tmp_path)
    vcf = write(tmp_path / "x.vcf", rows_of(genome)[:6])
    words = ["--count", 30, "--longest", 900, "--batch-size", 8, "--window", 1024, "--plain-alleles", 4]
    parts = ["--part", "records", "--part", "variants", "--vcf", vcf, "--reference", genome]
    assert run(tmp_path / "out", "--checkpoint", model, *words, *parts) == 0
    shown, found = capsys.readouterr().out, table(tmp_path / "out")
    assert "| records | genossm score: records |" in shown
    assert found["records", "records"] == 30
    assert (found["records", "shortest"], found["records", "longest"]) == (50, 900)
    for name in ("padded batches", "one by one"):
        assert found["records", f"{name}: largest difference"] < 1e-5
        assert found["records", f"{name}: records"] > 0
    assert found["records", "batch size 1, shuffled, against 8: largest difference"] == 0
    assert (found["variants", "alleles"], found["variants", "alleles read plainly"]) == (6, 4)
    assert found["variants", "llr_site: largest difference"] < 3e-5
    assert found["variants", "llr_window: largest difference"] < 5e-5
    assert found["variants", "speed, three scores over two windows"] > 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["scoring.csv", "speed.svg"]


@pytest.mark.slow
def test_long_records_and_generation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(likelihood, "ONE_PASS", 2_000)
    model = export(tmp_path / "model", **CAUSAL)
    words = ["--length", 3_000, "--length", 6_000, "--whole", 3_000, "--generate", 400]
    parts = ["--part", "length", "--part", "generation"]
    assert run(tmp_path / "out", "--checkpoint", model, *words, *parts) == 0
    found = table(tmp_path / "out")
    assert found["length", "3,000 bp in one pass: difference"] < 1e-6
    for part, longest in (("length", "6,000"), ("generation", "400")):
        assert found[part, f"{longest} bp: peak memory"] > 50
        assert found[part, f"{longest} bp: without starting"] > 0
    assert found["length", "peak memory, longest over shortest"] == pytest.approx(1, abs=0.2)
    assert (tmp_path / "out" / "memory.svg").is_file()


def test_pictures_are_of_what_was_measured() -> None:
    assert pictures([Figure("variants", "alleles", 3, "")]) == {}
    (line,) = pictures([Figure("length", "1,000 bp: peak memory", 5.0, "MB")])["memory"].lines
    assert (line.name, list(line.x), list(line.y)) == ("score", [1000.0], [5.0])


def test_what_it_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    masked, classifier = export(tmp_path / "masked"), export(tmp_path / "classifier", LABELS)
    (tmp_path / "file").write_text("x")
    for output, model, part, text in (
        ("file", masked, "records", "--output names a folder"),
        ("out", classifier, "records", "is a classifier"),
        ("out", masked, "variants", "needs --vcf and --reference"),
        ("out", masked, "generation", "needs a causal model"),
    ):
        assert run(tmp_path / output, "--checkpoint", model, "--part", part) == 2
        assert text in capsys.readouterr().err
