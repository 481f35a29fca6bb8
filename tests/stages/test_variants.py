"""genossm variants: every record once, in order, with the score of its window or the reason why not."""

from __future__ import annotations

import gzip
import io
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genossm import cli, vocab
from genossm.data.alleles import judge
from genossm.data.reference import Reference
from genossm.data.vcf import VcfReader
from genossm.models import LanguageModel
from genossm.models.edits import Edit, EditedWindow
from genossm.stages.loading import load_model
from genossm.stages.variants import VariantOptions, score_records, window_of

from .test_score import LABELS, export, table

HEAD = "##fileformat=VCFv4.2\n##contig=<ID=chr1>\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT\ts1\n"
LENGTH = 3000


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(tmp_path_factory.mktemp("model"), n_layer=2)


@pytest.fixture(scope="module")
def genome(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_genome(tmp_path_factory.mktemp("genome"))


def write_genome(folder: Path) -> Path:
    """A contig of random bases, and one of N."""
    rng = np.random.default_rng(5)
    text = vocab.decode(rng.integers(vocab.A, vocab.T + 1, LENGTH).astype(np.uint8))
    path = folder / "ref.fa"
    path.write_text(f">1 about it\n{text}\n>empty\n{'N' * 500}\n")
    return path


def bases(genome: Path) -> str:
    return genome.read_text().splitlines()[1]


def rows_of(genome: Path) -> list[str]:
    """Records of every kind, out of order, with aliases; the last two are faulty."""
    text = bases(genome)

    def row(pos: int, alt: str, k: int = 1, name: str = ".", chrom: str = "chr1", ref: str | None = None) -> str:
        ref = text[pos - 1 : pos - 1 + k] if ref is None else ref
        return "\t".join([chrom, str(pos), name, ref, alt, "50", "PASS", "DP=3", "GT", "0/1"])

    other = {"A": "C", "C": "G", "G": "T", "T": "A"}
    return [
        row(1500, other[text[1499]], name="snv"),
        row(40, f"{other[text[39]]},<DEL>,*", name="multi"),
        row(1600, text[1599] + "ACGTA", name="insertion"),
        row(1700, text[1699], k=9, name="deletion"),
        row(1, other[text[0]], chrom="1", name="first"),
        row(LENGTH, other[text[-1]], name="last"),
        row(1500, "N[chr1:5[", name="breakend"),
        row(1500, ".", name="none"),
        row(0, "A", ref="N", name="telomere"),
        row(200, "A" * 300, name="long"),
        row(7, "A", chrom="empty", ref="N", name="all_n"),
        row(1510, "C", ref=other[text[1509]], name="mismatch"),
        row(5, "C", chrom="chr9", ref="A", name="elsewhere"),
    ]


def write(path: Path, rows: list[str]) -> Path:
    path.write_text(HEAD + "".join(f"{row}\n" for row in rows))
    return path


def run(checkpoint: Path, genome: Path, vcf: Path | str, output: Path | None, *options: Any) -> int:
    where = [] if output is None else ["--output", output]
    arguments = ["variants", "--checkpoint", checkpoint, "--reference", genome, "--vcf", vcf, *where, *options]
    return cli.run([str(argument) for argument in arguments])


def test_every_record_is_accounted_for(
    checkpoint: Path, genome: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    vcf = write(tmp_path / "x.vcf", rows_of(genome))
    assert run(checkpoint, genome, vcf, tmp_path / "x.tsv", "--window", 1024, "--invalid", "report") == 0
    rows = table(tmp_path / "x.tsv")
    assert list(rows[0]) == [
        "chrom", "pos", "id", "ref", "alt", "score", "llr_site", "llr_window", "embedding_distance", "status",
    ]  # fmt: skip
    got = [(row["id"], row["status"]) for row in rows]
    assert got == [
        ("snv", "ok"), ("multi", "ok"), ("multi", "symbolic"), ("multi", "spanning"), ("insertion", "ok"),
        ("deletion", "ok"), ("first", "ok"), ("last", "ok"), ("breakend", "breakend"), ("none", "no_alt"),
        ("telomere", "telomere"), ("long", "too_long"), ("all_n", "n_allele"), ("mismatch", "ref_mismatch"),
        ("elsewhere", "unknown_contig"),
    ]  # fmt: skip
    for row in rows:
        numbers = [row[name] for name in ("score", "llr_site", "llr_window", "embedding_distance")]
        assert (row["status"] == "ok") == all(number != "NA" for number in numbers)
        assert row["score"] == row["llr_site"]
    err = capsys.readouterr().err
    assert "13 records, 15 alleles: 1 breakend, " in err
    assert "W_ALIAS contigs have other names in the FASTA: chr1 is 1\n" in err
    assert "W_UNSORTED" in err


def test_scores_are_those_of_the_window(checkpoint: Path, genome: Path, tmp_path: Path) -> None:
    vcf = write(tmp_path / "x.vcf", rows_of(genome)[:6])
    assert run(checkpoint, genome, vcf, tmp_path / "x.tsv", "--window", 1024, "--tolerance", 0) == 0
    assert run(checkpoint, genome, vcf, tmp_path / "near.tsv", "--window", 1024) == 0
    rows = [row for row in table(tmp_path / "x.tsv") if row["status"] == "ok"]
    model, _ = load_model(checkpoint)
    assert isinstance(model, LanguageModel)
    with Reference(genome) as reference:
        changes = [judge(record, reference)[1][0].change for record in VcfReader(vcf)]
        for row, change in zip(rows, changes, strict=True):
            assert change is not None
            start, end = window_of(change.start, LENGTH, 1024)
            edit = Edit(change.start - start, change.end - start, change.tokens)
            window = EditedWindow(model, reference.read("1", start, end), [edit], both_strands=True, tolerance=0)
            (effect,) = window.effects([edit])
            charge = (len(edit.tokens) - (edit.end - edit.start)) * window.typical()
            assert float(row["llr_site"]) == pytest.approx(effect.site - charge, abs=1e-4)
            assert float(row["llr_window"]) == pytest.approx(effect.window - charge, abs=1e-4)
            assert float(row["embedding_distance"]) == pytest.approx(effect.distance, rel=1e-4)
    near = [row for row in table(tmp_path / "near.tsv") if row["status"] == "ok"]
    for row, exact in zip(near, rows, strict=True):
        for name in ("score", "llr_window"):
            assert float(row[name]) == pytest.approx(float(exact[name]), abs=3e-5)
    assert run(checkpoint, genome, vcf, tmp_path / "site.tsv", "--window", 1024, "--scores", "site") == 0
    site = [row for row in table(tmp_path / "site.tsv") if row["status"] == "ok"]
    for row, exact in zip(site, rows, strict=True):
        assert float(row["score"]) == float(row["llr_site"]) == pytest.approx(float(exact["llr_site"]), abs=3e-5)
        assert row["llr_window"] == row["embedding_distance"] == "NA"


def test_order_and_company_change_nothing(checkpoint: Path, genome: Path, tmp_path: Path) -> None:
    rows = rows_of(genome)[:10]
    scores = []
    for name, chosen in (("a", rows), ("b", rows[::-1]), ("c", rows[:1])):
        vcf = write(tmp_path / f"{name}.vcf", chosen)
        assert run(checkpoint, genome, vcf, tmp_path / f"{name}.tsv", "--window", 1024) == 0
        found = table(tmp_path / f"{name}.tsv")
        scores.append({(row["id"], row["alt"]): row["score"] for row in found})
        assert [row["id"] for row in found] == [r.split("\t")[2] for r in chosen for _ in r.split("\t")[4].split(",")]
    assert scores[0].keys() == scores[1].keys()
    for other in scores[1:]:
        for key, value in other.items():
            assert value == scores[0][key] == "NA" or float(value) == pytest.approx(float(scores[0][key]), abs=2e-5)


def test_the_reading_of_a_file_in_blocks_changes_nothing(
    checkpoint: Path, genome: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vcf = write(tmp_path / "x.vcf", rows_of(genome)[:10])
    model, _ = load_model(checkpoint)
    assert isinstance(model, LanguageModel)
    options = VariantOptions(window=1024)
    with Reference(genome) as reference:
        whole = [scores for _, scores in score_records(model, reference, VcfReader(vcf), options)]
        monkeypatch.setattr("genossm.stages.variants.RECORDS", 3)
        parts = [scores for _, scores in score_records(model, reference, VcfReader(vcf), options)]
    for a, b in zip(whole, parts, strict=True):
        assert [(x.alt, x.status) for x in a] == [(x.alt, x.status) for x in b]
        assert [x.score for x in a] == pytest.approx([x.score for x in b], abs=1e-5)


@pytest.mark.parametrize("packed", [False, True])
def test_vcf_out(checkpoint: Path, genome: Path, tmp_path: Path, packed: bool) -> None:
    """The records come back as they were, in order, with declared fields; and the result can be scored again."""
    vcf = write(tmp_path / "x.vcf", rows_of(genome)[:11])
    output = tmp_path / ("y.vcf.gz" if packed else "y.vcf")
    assert run(checkpoint, genome, vcf, output, "--window", 1024) == 0
    raw = output.read_bytes()
    lines = (gzip.decompress(raw) if packed else raw).decode().splitlines()
    declared = [line for line in lines if line.startswith("##INFO=<ID=GENOSSM_")]
    assert len(declared) == 5
    assert all("Number=A" in line and "Description=" in line for line in declared)
    before, after = list(VcfReader(vcf)), list(VcfReader(output))
    for a, b in zip(before, after, strict=True):
        assert (a.chrom, a.pos, a.id, a.ref, a.alts) == (b.chrom, b.pos, b.id, b.ref, b.alts)
        old, new = a.rest.split("\t"), b.rest.split("\t")
        assert (old[:2], old[3:]) == (new[:2], new[3:])
        info = dict(entry.split("=") for entry in new[2].split(";"))
        assert info["DP"] == "3"
        assert all(len(info[f"GENOSSM_{name}"].split(",")) == len(a.alts) for name in ("SCORE", "STATUS", "DISTANCE"))
    assert run(checkpoint, genome, output, tmp_path / "again.vcf", "--window", 1024) == 0
    assert (tmp_path / "again.vcf").read_text().splitlines() == lines


def test_length_control(checkpoint: Path, genome: Path, tmp_path: Path) -> None:
    """Uncorrected, a random insertion costs in proportion to its length; corrected, it does not."""
    rng, text = np.random.default_rng(0), bases(genome)
    rows = []
    for i in range(40):
        pos, size = 900 + 25 * i, 1 + i % 10
        letters = vocab.decode(rng.integers(vocab.A, vocab.T + 1, size).astype(np.uint8))
        rows.append(f"1\t{pos}\ti{size}\t{text[pos - 1]}\t{text[pos - 1]}{letters}\t.\t.\t.\tGT\t0")
    vcf = write(tmp_path / "x.vcf", rows)
    slopes = []
    for option in ("--no-length-control", "--length-control"):
        assert run(checkpoint, genome, vcf, tmp_path / "x.tsv", "--window", 1024, option) == 0
        found = table(tmp_path / "x.tsv")
        sizes = [int(row["id"][1:]) for row in found]
        slopes.append(np.polyfit(sizes, [float(row["llr_site"]) for row in found], 1)[0])
    assert slopes[0] < -1
    assert abs(slopes[1]) < 0.35 * abs(slopes[0])


@pytest.mark.parametrize(
    ("index", "code"),
    [(11, r"x\.vcf:4: record chr1:1510: E_REF_MISMATCH REF is "), (12, r"x\.vcf:4: record chr9:5: E_UNKNOWN_CONTIG ")],
)
def test_a_fault_stops_before_anything_is_scored(
    index: int, code: str, checkpoint: Path, genome: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    vcf = write(tmp_path / "x.vcf", [rows_of(genome)[i] for i in (index, 0)])
    assert run(checkpoint, genome, vcf, tmp_path / "x.tsv") == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert re.search(code, err)
    assert "--invalid report" in err
    assert [path.name for path in tmp_path.iterdir()] == ["x.vcf"]


def test_another_assembly_is_told(
    checkpoint: Path, genome: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    vcf = write(tmp_path / "x.vcf", [rows_of(genome)[11]] * 2)
    assert run(checkpoint, genome, vcf, tmp_path / "x.tsv") == 2
    assert " E_WRONG_ASSEMBLY 2 of 2 REF alleles disagree" in capsys.readouterr().err


def test_pipes_and_standard_output(
    checkpoint: Path, genome: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    vcf = write(tmp_path / "x.vcf", rows_of(genome)[:3])
    assert run(checkpoint, genome, vcf, tmp_path / "x.tsv", "--window", 1024) == 0
    capsys.readouterr()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(gzip.compress(vcf.read_bytes()))))
    assert run(checkpoint, genome, "-", None, "--window", 1024) == 0
    assert capsys.readouterr().out == (tmp_path / "x.tsv").read_text()


def test_faults_of_standard_input_are_named_so(
    checkpoint: Path, genome: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    vcf = write(tmp_path / "x.vcf", rows_of(genome)[:3])
    packed = gzip.compress(vcf.read_bytes())
    for raw, text in (
        (b"chr1\t5\n", "<stdin>:1: E_VCF_HEADER"),
        (vcf.read_bytes() + b"chr1\tx\t.\tA\tC\t.\t.\t.\n", "<stdin>:7: record chr1:x: E_BAD_POS"),
        (packed[:-3], "<stdin>: E_TRUNCATED_GZ"),
        (b"BCF\x02\x09", "<stdin>: E_BCF BCF 2.9"),
    ):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(raw)))
        assert run(checkpoint, genome, "-", None) == 2
        assert capsys.readouterr().err.startswith(f"genossm: {text}")


def test_a_malformed_position_can_be_found(checkpoint: Path, genome: Path, tmp_path: Path) -> None:
    written = ["12a", "-3", "", "1\x1b[2J", "7" * 60]
    vcf = write(tmp_path / "x.vcf", [f"chr1\t{pos}\t.\tA\tC\t.\t.\tDP=3\tGT\t0" for pos in written])
    for name in ("y.tsv", "y.vcf"):
        assert run(checkpoint, genome, vcf, tmp_path / name, "--invalid", "report") == 0
    rows = table(tmp_path / "y.tsv")
    assert [row["pos"] for row in rows] == ["12a", "-3", "NA", "1\\x1b[2J", "7" * 37 + "..."]
    assert {row["status"] for row in rows} == {"bad_pos"}
    lines = [line.split("\t") for line in (tmp_path / "y.vcf").read_text().splitlines() if not line.startswith("#")]
    assert [line[1] for line in lines] == ["."] * 5


def test_a_bcf_is_refused_for_vcf_before_any_work(
    checkpoint: Path, shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before the reference is so much as opened: there is none."""
    bcf = next((shared / "data" / "bad_input" / "vcf").glob("*/multi-contig.bcf"))
    assert run(checkpoint, tmp_path / "none.fa", bcf, tmp_path / "x.vcf") == 2
    assert capsys.readouterr().err == (
        f"genossm: {bcf}: a BCF gives a TSV; for VCF out, convert it first (bcftools view)\n"
    )


def test_what_it_refuses(checkpoint: Path, genome: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    vcf = write(tmp_path / "x.vcf", rows_of(genome)[:1])
    classifier = export(tmp_path / "classifier", LABELS)
    hyena = export(
        tmp_path / "hyena", mixer="hyena", objective="causal", bidirectional=False, hyena={"max_length": 512}
    )
    for model, output, text in (
        (classifier, "x.tsv", "is a classifier; variants are scored by a language model"),
        (hyena, "x.tsv", "reads 512 tokens at most; use --window 256"),
        (checkpoint, "x.vcf", "is the input; give the output another name"),
        (checkpoint, "x.tsv.gz", "a TSV is written plain"),
    ):
        assert run(model, genome, vcf, tmp_path / output) == 2
        assert text in capsys.readouterr().err
    assert run(checkpoint, genome, vcf, tmp_path / "x.tsv", "--scores", "site", "--score", "window") == 2
    assert "--score window is not computed with --scores site" in capsys.readouterr().err


def test_a_model_that_reads_whole_sequences(genome: Path, tmp_path: Path) -> None:
    model = export(
        tmp_path / "hyena", mixer="hyena", objective="causal", bidirectional=False, hyena={"max_length": 512}
    )
    vcf = write(tmp_path / "x.vcf", rows_of(genome)[:6])
    assert run(model, genome, vcf, tmp_path / "x.tsv", "--window", 256) == 0
    assert Counter(row["status"] for row in table(tmp_path / "x.tsv"))["ok"] == 6


def test_every_pair_of_the_corpus(
    checkpoint: Path, shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """From the command: each pair is refused by one line, or gives a row an allele of the oracle."""
    folder = shared / "data" / "bad_input" / "pairs"
    codes = {
        "failed_allmismatch_multipleentry": "E_WRONG_ASSEMBLY", "failed_empty_fasta": "E_EMPTY_FILE",
        "failed_multiplemismatch_multipleentry": "E_REF_MISMATCH",
        "failed_singlemismatch_singleentry": "E_REF_MISMATCH",
        "consensus.22": "E_UNKNOWN_CONTIG", "consensus.beyond": "E_UNKNOWN_CONTIG", "norm": "E_REF_MISMATCH",
        "norm.check-ref": "E_REF_MISMATCH", "norm.2": "E_BAD_REF", "norm.iupac": "E_BAD_CHAR",
        "norm.setref": "E_WRONG_ASSEMBLY",
    }  # fmt: skip
    fastas = {"norm.setref": "norm", "norm.telomere": "norm", "norm.symbolic.2": "norm.symbolic"}
    accepted = 0
    for vcf in sorted(folder.glob("*.vcf")):
        name, output = vcf.stem, tmp_path / f"{vcf.stem}.tsv"
        if name == "passed_empty_vcf":
            continue  # it has no FASTA; the reader's test has it
        code = run(checkpoint, folder / f"{fastas.get(name, name)}.fa", vcf, output, "--window", 256)
        err = capsys.readouterr().err
        assert "Traceback" not in err
        assert code == (2 if name in codes else 0), (name, err)
        if name in codes:
            assert f" {codes[name]} " in err, (name, err)
            assert not output.exists()
            continue
        accepted += 1
        assert len(table(output)) == sum(len(record.alts) for record in VcfReader(vcf))
    assert accepted == 13
