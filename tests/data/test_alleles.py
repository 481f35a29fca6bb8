"""Alleles against a reference: every oracle row of the corpus, and one smallest form for every spelling."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genossm import vocab
from genossm.data.alleles import judge, smallest
from genossm.data.reference import Reference
from genossm.data.vcf import VariantRecord, VcfReader
from genossm.errors import GenoSSMError

KINDS = {
    "BASES": "ok", "SYMBOLIC": "symbolic", "BREAKEND": "breakend", "SPANNING_DEL": "spanning", "NO_ALT": "no_alt",
}  # fmt: skip
REFUSED_FASTA = {"pairs/failed_empty_fasta.fa": "E_EMPTY_FILE", "pairs/norm.iupac.fa": "E_BAD_CHAR"}


def test_every_pair_of_the_corpus(shared: Path) -> None:
    corpus = shared / "data" / "bad_input"
    with open(corpus / "ORACLE_PAIRS.tsv", encoding="utf-8") as handle:
        oracle = list(csv.DictReader(handle, delimiter="\t"))
    pairs: dict[tuple[str, str], list[dict[str, str]]] = {}
    for row in oracle:
        pairs.setdefault((row["vcf"], row["fasta"]), []).append(row)
    counts: Counter[str] = Counter()
    for (vcf, fasta), rows in pairs.items():
        if fasta in REFUSED_FASTA:
            with pytest.raises(GenoSSMError, match=REFUSED_FASTA[fasta]):
                Reference(corpus / fasta)
            counts["refused"] += len(rows)
            continue
        with Reference(corpus / fasta) as reference:
            got = [(r, a.alt, a.status) for r in VcfReader(corpus / vcf) for a in judge(r, reference)[1]]
        for (record, alt, status), row in zip(got, rows, strict=True):
            # the oracle keeps 60 letters
            assert (record.chrom, str(record.pos)) == (row["chrom"], row["pos"])
            assert (record.ref[:60], alt[:60]) == (row["ref"], row["alt"])
            assert status in _allowed(row), (vcf, row, status)
            counts[status] += 1
    assert sum(counts.values()) == len(oracle) == 110
    assert counts["refused"] == 2
    assert counts["ref_mismatch"] + counts["bad_ref"] == 20  # and one in a FASTA that is refused
    assert counts["unknown_contig"] == 11  # and one in an empty FASTA


def _allowed(row: dict[str, str]) -> set[str]:
    """Statuses that agree with an oracle row."""
    if row["ref_status"] == "UNKNOWN_CONTIG":
        return {"unknown_contig"}
    if row["ref_status"] == "REF_MISMATCH":
        return {"ref_mismatch"} if set(row["ref"].upper()) <= set("ACGTN") else {"bad_ref"}
    if row["alt_kind"] == "BAD_ALT":
        return {"bad_alt"}
    return {"n_allele"} if "N" in row["ref"] + row["alt"] and row["alt_kind"] == "BASES" else {KINDS[row["alt_kind"]]}


@pytest.fixture(scope="module")
def genome(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("genome") / "x.fa"
    path.write_text(">1 first\nACGTTTTTGCACACACACGTNNNGATTACA\n>chr2\nACGTACGT\n")
    return path


def record(chrom: str, pos: int, ref: str, alt: str) -> VariantRecord:
    return VariantRecord(1, chrom, pos, ".", ref, tuple(alt.split(",")), ".\t.\t.", None)


@pytest.mark.parametrize(
    ("chrom", "pos", "ref", "alt", "status"),
    [
        ("1", 1, "A", "C", "ok"), ("chr1", 1, "a", "c", "ok"), ("2", 8, "T", "G", "ok"),
        ("3", 1, "A", "C", "unknown_contig"),
        ("1", 2, "A", "C", "ref_mismatch"), ("1", 30, "A", "C", "ok"), ("1", 30, "AC", "C", "out_of_range"),
        ("1", 31, "A", "C", "telomere"), ("1", 0, "N", "C", "telomere"), ("1", 32, "A", "C", "out_of_range"),
        ("1", 10_009_999_919, "A", "C", "out_of_range"), ("1", 1, "A", "a", "unchanged"),
        ("1", 21, "N", "A", "n_allele"),
        ("1", 1, "A", "N", "n_allele"), ("1", 21, "A", "C", "ref_mismatch"), ("1", 1, "A", "<DEL>", "symbolic"),
    ],
)  # fmt: skip
def test_statuses(genome: Path, chrom: str, pos: int, ref: str, alt: str, status: str) -> None:
    with Reference(genome) as reference:
        fault, (allele,) = judge(record(chrom, pos, ref, alt), reference)
    assert allele.status == status
    assert (allele.change is None) == (status != "ok")
    assert (fault is not None) == (status in ("unknown_contig", "ref_mismatch", "out_of_range"))


def change(reference: Reference, pos: int, ref: str, alt: str) -> tuple[int, int, str]:
    found = judge(record("1", pos, ref, alt), reference)[1][0].change
    assert found is not None
    return found.start, found.end, vocab.decode(found.tokens)


def test_every_spelling_is_one_change(genome: Path) -> None:
    with Reference(genome) as reference:
        assert change(reference, 3, "GTTTTTG", "GTTTTG") == (3, 4, "")
        for pos, ref, alt in ((3, "GT", "G"), (7, "TT", "T"), (8, "TG", "G"), (4, "TTTTT", "TTTT")):
            assert change(reference, pos, ref, alt) == (3, 4, "")
        for pos, ref, alt in ((9, "G", "GCA"), (11, "A", "ACA"), (18, "C", "CAC"), (10, "CACA", "CACACA")):
            assert change(reference, pos, ref, alt) == (9, 9, "CA")
        assert change(reference, 1, "ACG", "ATG") == (1, 2, "T")
        assert change(reference, 1, "ACG", "TTG") == (0, 2, "TT")
        assert change(reference, 24, "GATT", "GATTGATT") == (23, 23, "GATT")  # N stops a shift


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_the_smallest_form_makes_the_same_sequence(genome: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    with Reference(genome) as reference:
        text = reference.read("1", 0, 30)
        start = int(rng.integers(0, 29))
        ref = text[start : start + int(rng.integers(1, 6))]
        alt = rng.integers(vocab.A, vocab.C + 1, int(rng.integers(1, 6))).astype(np.uint8)
        if np.array_equal(ref, alt):
            return
        found = smallest(reference, "1", start, ref, alt)
    want = np.concatenate([text[:start], alt, text[start + len(ref) :]])
    got = np.concatenate([text[: found.start], found.tokens, text[found.end :]])
    np.testing.assert_array_equal(got, want)
    assert len(found.tokens) + found.end - found.start <= len(ref) + len(alt)


def test_shifts_cross_the_pieces_that_are_read(tmp_path: Path) -> None:
    path = tmp_path / "x.fa"
    path.write_text(">1\nG" + "AC" * 2000 + "GT\n")
    with Reference(path) as reference:
        assert change(reference, 4001, "CG", "CACG") == (1, 1, "AC")
        assert change(reference, 3998, "ACAC", "AC") == (1, 3, "")
