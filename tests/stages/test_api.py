"""The Python API: its rows are those of the commands, and its documented examples run."""

from __future__ import annotations

import doctest
import json
from pathlib import Path
from typing import Any

import pytest
import torch

import genossm
from genossm.config import ScoreSection
from genossm.errors import GenoSSMError
from genossm.stages import api
from genossm.stages import score as score_stage
from genossm.stages.finetune import finetune
from genossm.stages.labelled import Tables
from genossm.stages.variants import VariantOptions

from .test_finetune import ALONE, rows
from .test_finetune import write as write_table
from .test_score import LABELS, export, random_records, write
from .test_variants import rows_of, write_genome
from .test_variants import write as write_vcf


@pytest.fixture(scope="module")
def genome(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_genome(tmp_path_factory.mktemp("genome"))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(tmp_path_factory.mktemp("model"))


def test_score_gives_the_rows_of_the_command(checkpoint: Path, tmp_path: Path) -> None:
    records = random_records(4)
    fasta = write(tmp_path / "x.fa", records)
    score_stage.score(checkpoint, fasta, tmp_path / "x.jsonl", settings=ScoreSection(passes=4))
    want = [json.loads(line) for line in (tmp_path / "x.jsonl").read_text().splitlines()]
    model = genossm.load(checkpoint)
    assert list(model.score(dict(records), passes=4)) == want
    assert list(model.score(records, passes=4)) == want
    assert list(model.score(fasta, passes=4)) == want
    (row,) = model.score([records[0][1]], passes=4)
    assert row == {**want[0], "record": "sequence_1"}


def test_a_classifier_scores_too(tmp_path: Path) -> None:
    model = genossm.load(export(tmp_path / "classifier", LABELS))
    (row,) = model.score({"mine": "ACGTACGT"})
    assert row["label"] in LABELS
    assert sum(float(str(row[f"p_{label}"])) for label in LABELS) == pytest.approx(1)
    with pytest.raises(GenoSSMError, match="the model is a classifier"):
        list(model.variants("x.vcf", "x.fa"))


def test_a_model_of_a_labelled_task_scores_and_nothing_else(tmp_path: Path) -> None:
    train = write_table(tmp_path / "train.csv", rows(96, 1))
    finetune(None, Tables(train, valid_fraction=0.3), tmp_path / "task", settings=ALONE)
    fasta = write(tmp_path / "x.fa", random_records(4))
    score_stage.score(tmp_path / "task", fasta, tmp_path / "x.jsonl")
    model = genossm.load(tmp_path / "task")
    assert list(model.score(fasta)) == [json.loads(line) for line in (tmp_path / "x.jsonl").read_text().splitlines()]
    for use in (lambda: model.embed(["ACGT"]), lambda: model(torch.tensor([[7, 8]]))):
        with pytest.raises(GenoSSMError, match=r"reads records alone: use \.score"):
            use()
    with pytest.raises(GenoSSMError, match="the model is a classifier"):
        list(model.variants("x.vcf", "x.fa"))


def test_embed_takes_text(checkpoint: Path) -> None:
    model = genossm.load(checkpoint)
    texts = ["ACGTTGCAGT", "GATT"]
    pooled = model.embed(texts, pool=True)
    for row, text in zip(pooled, texts, strict=True):
        ids = torch.tensor([_tokens(text)])
        torch.testing.assert_close(row, model.embed(ids, pool=True)[0], rtol=1e-4, atol=1e-5)
    assert model.embed(texts).shape == (2, 10, 8)
    assert torch.equal(model.embed({"G": texts[0], "T": texts[1]}), model.embed(texts))
    with pytest.raises(GenoSSMError, match="no sequence to embed"):
        model.embed([])


@pytest.mark.parametrize(
    "options", [{"passes": 0}, {"strands": "x"}, {"window": 10, "overlap": 20}, {"overlap": 3}, {"window": 0}]
)
def test_nonsense_is_refused(options: dict[str, Any], checkpoint: Path) -> None:
    with pytest.raises(GenoSSMError):
        list(genossm.load(checkpoint).score(["ACGT"], **options))


def _tokens(text: str) -> list[int]:
    return ["ACGT".index(letter) + 7 for letter in text]


def test_variants_gives_the_rows_of_the_command(
    checkpoint: Path, tmp_path: Path, genome: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    vcf = write_vcf(tmp_path / "x.vcf", rows_of(genome))
    model = genossm.load(checkpoint)
    with pytest.raises(GenoSSMError, match="E_REF_MISMATCH"):
        list(model.variants(vcf, genome))
    rows = list(model.variants(vcf, genome, options=VariantOptions(window=1024), strict=False))
    assert len(rows) == 15
    assert (rows[0]["chrom"], rows[0]["pos"], rows[0]["status"]) == ("chr1", 1500, "ok")
    assert isinstance(rows[0]["score"], float)
    assert rows[2]["score"] is None


@pytest.mark.parametrize(
    ("sequences", "text"),
    [
        ({"mine": "ACGQ"}, r"record mine: E_BAD_CHAR 'Q' at position 3"),
        ([""], "record sequence_1: E_EMPTY_RECORD"),
        ([b"ACGT"], "record sequence_1: E_BAD_CHAR bytes"),
    ],
)
def test_a_sequence_that_is_no_dna_is_named(sequences: object, text: str, checkpoint: Path) -> None:
    with pytest.raises(GenoSSMError, match=text):
        list(genossm.load(checkpoint).score(sequences))  # type: ignore[arg-type]


def test_the_examples_of_the_documentation_run(
    checkpoint: Path, genome: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model").symlink_to(checkpoint)
    (tmp_path / "ref.fa").write_bytes(genome.read_bytes())
    write_vcf(tmp_path / "my.vcf", rows_of(genome)[:3])
    monkeypatch.chdir(tmp_path)
    result = doctest.testmod(api)
    assert result.attempted >= 5
    assert result.failed == 0
