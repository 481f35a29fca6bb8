"""Names of contigs."""

from __future__ import annotations

import pytest

from genossm.data.contigs import ContigNames, canonical


@pytest.mark.parametrize(
    ("asked", "there"),
    [
        ("chr20", "20"), ("20", "chr20"), ("Chr1", "1"), ("chrM", "MT"), ("M", "chrM"), ("MT", "chrM"),
        ("NC_000020.10", "20"), ("chr20", "NC_000020.11"), ("X", "NC_000023.10"), ("chrY", "NC_000024.10"),
        ("chrM", "NC_012920.1"), ("Mito", "Mito"), ("chrIV", "IV"),
    ],
)  # fmt: skip
def test_one_contig_under_two_names(asked: str, there: str) -> None:
    assert ContigNames([("other", ""), (there, "")]).resolve(asked) == there


@pytest.mark.parametrize(
    ("description", "name"),
    [
        ("Homo sapiens chromosome 20, GRCh37.p13 Primary Assembly", "20"),
        ("dna:chromosome chromosome:R64-1-1:IV:1:1531933:1 REF", "IV"),
        ("dna_sm:chromosome chromosome:GRCh38:X:1:156040895:1 REF", "X"),
        ("Saccharomyces cerevisiae S288C chromosome II, complete sequence", "II"),
        ("Homo sapiens mitochondrion, complete genome", "MT"),
    ],
)
def test_descriptions_tell(description: str, name: str) -> None:
    names = ContigNames([("CM000682.2", description)])
    assert names.resolve(f"chr{name}") == names.resolve(name) == "CM000682.2"


def test_what_is_not_told_is_not_guessed() -> None:
    names = ContigNames([("chr1", ""), ("1", ""), ("NT_1.1", "Homo sapiens chromosome 7 unlocalized genomic scaffold")])
    assert (names.resolve("chr1"), names.resolve("1")) == ("chr1", "1")  # each stands for itself
    assert names.resolve("NC_000001.10") is None  # two mean it
    assert names.resolve("7") is None
    assert ContigNames([("1:11-19", "")]).resolve("1") is None
    assert canonical("chr") == "chr"
    assert names.shown(2) == "chr1, 1 ... (3 in all)"
