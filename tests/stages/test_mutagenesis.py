"""genossm mutagenesis: every substitution, gradients against finite differences, and the picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from genossm import cli, vocab
from genossm.models import base_log_probs
from genossm.models.attribution import gradients
from genossm.models.edits import Edit, EditedWindow
from genossm.models.likelihood import Reading, log_likelihood
from genossm.report.logo import information

from ..models.test_likelihood import CAUSAL, sequence, small
from .test_score import export, table
from .test_variants import write_genome


@pytest.fixture(scope="module")
def genome(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_genome(tmp_path_factory.mktemp("genome"))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(tmp_path_factory.mktemp("model"), n_layer=2)


def run(checkpoint: Path, genome: Path, region: str, *options: Any) -> int:
    arguments = ["mutagenesis", "--checkpoint", checkpoint, "--reference", genome, "--region", region, *options]
    return cli.run([str(argument) for argument in arguments])


def test_every_substitution_in_both_formats(checkpoint: Path, genome: Path, tmp_path: Path) -> None:
    window = ("--window", 256)
    assert run(checkpoint, genome, "chr1:1,001-1,020", "--output", tmp_path / "x.tsv", *window) == 0
    assert run(checkpoint, genome, "1:1001-1020", "--output", tmp_path / "x.h5", *window) == 0
    rows = table(tmp_path / "x.tsv")
    text = genome.read_text().splitlines()[1]
    assert [(int(row["pos"]), row["ref"]) for row in rows[::3]] == [(p + 1, text[p]) for p in range(1000, 1020)]
    assert all({row["alt"] for row in rows[i : i + 3]} == set("ACGT") - {rows[i]["ref"]} for i in range(0, 60, 3))
    with h5py.File(tmp_path / "x.h5") as file:
        assert (file.attrs["contig"], file.attrs["start"]) == ("1", 1000)
        for row in rows:
            place, base = int(row["pos"]) - 1001, "ACGT".index(row["alt"])
            own = "ACGT".index(row["ref"])
            assert float(row["llr_site"]) == pytest.approx(file["llr_site"][place, base], abs=1e-5)
            assert float(row["llr_window"]) == pytest.approx(file["llr_window"][place, base], abs=1e-5)
            slope = file["gradient"][place, base] - file["gradient"][place, own]
            assert float(row["gradient"]) == pytest.approx(slope, abs=1e-5)
            assert file["llr_site"][place, own] == 0


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_the_picture(suffix: str, checkpoint: Path, genome: Path, tmp_path: Path) -> None:
    picture = tmp_path / f"x.{suffix}"
    options = ("--output", tmp_path / "x.tsv", "--window", 128, "--logo", picture)
    assert run(checkpoint, genome, "1:901-920", *options) == 0
    head = picture.read_bytes()[:300]
    assert head.startswith(b"\x89PNG") if suffix == "png" else b"<svg" in picture.read_bytes()[:1000]


def test_information() -> None:
    heights = information(np.array([[0.25, 0.25, 0.25, 0.25], [1, 0, 0, 0], [0.5, 0.5, 0, 0]]))
    np.testing.assert_allclose(heights.sum(1), [0, 2, 1], atol=1e-6)
    np.testing.assert_allclose(heights[2], [0.5, 0.5, 0, 0], atol=1e-6)


@pytest.mark.parametrize("changes", [{}, {"rc_equivariant": True}, CAUSAL])
@pytest.mark.parametrize("both", [False, True])
def test_gradients_are_slopes_of_the_score(changes: dict[str, Any], both: bool) -> None:
    """Against finite differences of the same score, moved along one-hot inputs."""
    model, tokens = small(**changes).double(), sequence(24, n_every=11)
    got = gradients(model, tokens, 8, 16, passes=3, both_strands=both)
    assert got.shape == (24, 4)
    assert (got[tokens == vocab.N] == 0).all()
    np.testing.assert_allclose(got.sum(1), 0, atol=1e-5)
    for place in (3, 9, 20):
        want = slopes(model, tokens, place, both)
        np.testing.assert_allclose(got[place], want - want.mean(), rtol=2e-2, atol=2e-3)


def slopes(model: Any, tokens: np.ndarray, place: int, both: bool) -> np.ndarray:
    """Central differences: each base's embedding moved a little towards that of every base, wherever it stands."""
    embedding = (model.backbone.backbone if model.config.rc_equivariant else model.backbone).embedding
    values = []
    for base in vocab.BASES:
        ends = []
        for step in (1e-4, -1e-4):
            marker = step * (embedding.weight[base]).detach()
            other = step * (embedding.weight[int(vocab.COMPLEMENT[base])]).detach()
            ends.append(moved(model, tokens, place, marker, other, both))
        values.append((ends[0] - ends[1]) / 2e-4)
    return np.array(values)


@torch.no_grad()
def moved(model: Any, tokens: np.ndarray, place: int, given: torch.Tensor, other: torch.Tensor, both: bool) -> float:
    causal, equivariant = model.config.objective == "causal", model.config.rc_equivariant
    embedding = (model.backbone.backbone if equivariant else model.backbone).embedding
    strands = [(tokens, place, given, 8, 16)]
    if both and not equivariant:
        n = len(tokens)
        strands.append((vocab.reverse_complement(tokens), n - 1 - place, other, n - 16, n - 8))
    total = 0.0
    for text, at, vector, start, end in strands:
        for turn in range(1 if causal else 3):
            hidden = np.zeros(len(text), bool) if causal else (np.arange(len(text)) % 3 == turn) & (text != vocab.N)
            inputs = np.where(hidden, vocab.MASK, text).astype(np.int64)
            ids = np.concatenate([[vocab.BOS], inputs]) if causal else inputs
            calls = 0

            def move(_: Any, __: Any, out: torch.Tensor) -> torch.Tensor:
                nonlocal calls
                flipped = calls % 2 and equivariant
                calls += 1
                out = out.clone()
                if not hidden[at]:  # noqa: B023 - used at once
                    out[0, len(text) - 1 - at if flipped else at + causal] += other if flipped else vector  # noqa: B023
                return out

            hook = embedding.register_forward_hook(move)
            logits = model(torch.from_numpy(ids)[None]).logits[0]
            hook.remove()
            log_probs = torch.log_softmax(logits[:, vocab.A : vocab.A + 4], dim=-1)
            for i in range(start, end):
                if text[i] != vocab.N and (causal or hidden[i]):
                    total += float(log_probs[i, text[i] - vocab.A]) / len(strands)
    return total


def test_a_region_is_scored_as_a_variant(checkpoint: Path, genome: Path, tmp_path: Path) -> None:
    """The scores are those of the substitutions themselves, in the window around the region."""
    assert (
        run(checkpoint, genome, "1:1001-1004", "--output", tmp_path / "x.tsv", "--window", 256, "--tolerance", 0) == 0
    )
    from genossm.stages.loading import load_model

    model, _ = load_model(checkpoint)
    tokens = vocab.encode(genome.read_text().splitlines()[1])[1002 - 128 : 1002 + 128]
    for row in table(tmp_path / "x.tsv"):
        place = int(row["pos"]) - 1 - (1002 - 128)
        edit = Edit(place, place + 1, vocab.encode(row["alt"]))
        (effect,) = EditedWindow(model, tokens, [edit], both_strands=True, tolerance=0).effects([edit])  # type: ignore[arg-type]
        assert float(row["llr_site"]) == pytest.approx(effect.site, abs=1e-4)


def test_what_it_refuses(checkpoint: Path, genome: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for region, options, text in (
        ("chr1", (), "write it as chr1:1000-1200"),
        ("chr1:5-x", (), "write it as chr1:1000-1200"),
        ("chr1:1-٣", (), "write it as chr1:1000-1200"),
        ("1:1-" + "9" * 5000, (), "E_REGION --region '1:1-999"),
        ("chr7:1-5", (), "E_UNKNOWN_CONTIG contig 'chr7' is not in the FASTA, which has 1, empty"),
        ("1:2990-3001", (), "E_POS_RANGE --region 1:2990-3001: contig 1 has positions 1 to 3,000"),
        ("1:1-400", ("--window", 512), "a region of 400 bp needs a --window of 800 at least"),
        ("1:1-10", ("--logo", tmp_path / "x.txt"), "is no picture"),
        ("1:1-500", ("--logo", tmp_path / "x.png"), "a logo of 500 positions; 400 at most can be read"),
    ):
        assert run(checkpoint, genome, region, *options) == 2
        err = capsys.readouterr().err
        assert text in err
        assert len(err) < 200
    assert not list(tmp_path.iterdir())


def test_a_region_of_n_alone_is_told(
    checkpoint: Path, genome: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(checkpoint, genome, "empty:11-20", "--output", tmp_path / "x.tsv", "--window", 64) == 0
    assert table(tmp_path / "x.tsv") == []
    assert "note: --region empty:11-20: every base is N, and none has a row\n" in capsys.readouterr().err


def test_the_score_that_is_differentiated_is_the_likelihood() -> None:
    """On the whole window: moving along the gradient changes the log-likelihood as it says, to first order."""
    model, tokens = small(), sequence(30)
    value = float(log_likelihood(model, tokens, Reading(3, False)))
    hidden = np.arange(30) % 3
    total = 0.0
    with torch.no_grad():
        for turn in range(3):
            ids = np.where(hidden == turn, vocab.MASK, tokens).astype(np.int64)
            log_probs = base_log_probs(model(torch.from_numpy(ids)[None]).logits[0])
            total += sum(float(log_probs[i, tokens[i] - vocab.A]) for i in range(30) if hidden[i] == turn)
    assert value == pytest.approx(total, rel=1e-5)
