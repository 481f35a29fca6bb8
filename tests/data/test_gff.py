"""GFF3 lines become features; what is not GFF3 is named by its line."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import pytest

from genossm.data.gff import read_annotation, read_features
from genossm.errors import GenoSSMError

GFF = """##gff-version 3
chr1\tx\tregion\t1\t1000\t.\t.\t.\tID=chr1
chr1\tx\tgene\t11\t60\t.\t+\t.\tID=g1;biotype=protein_coding
chr1\tx\tmRNA\t11\t60\t.\t+\t.\tID=t1;Parent=g1
chr1\tx\tCDS\t21\t30\t.\t+\t0\tID=c1;Parent=t1
# a comment

chr1\tx\tCDS\t41\t50\t.\t+\t1\tID=c1;Parent=t1,t2
chr1\tx\tpseudogene\t101\t160\t.\t-\t.\tID=g2
chr1\tx\tCDS\t111\t120\t.\t-\t0\tParent=g2
chr1\tx\tgene\t201\t260\t.\t-\t.\tID=g3;gene_biotype=lncRNA
chr1\tx\tCDS\t211\t220\t.\t-\t0\tParent=g3
chr1\tx\tgene\t301\t360\t.\t-\t.\tID=g4;pseudo=true
chr1\tx\tCDS\t311\t320\t.\t-\t0\tParent=g4
chr2\tx\tCDS\t1\t9\t.\t?\t0\tID=loop;Parent=loop
##FASTA
>chr1
ACGT
"""


def _gff(folder: Path, text: str | bytes) -> Path:
    path = folder / "a.gff3"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize("pack", [str.encode, lambda text: gzip.compress(text.encode())])
def test_annotation(tmp_path: Path, pack: Callable[[str], bytes]) -> None:
    annotation = read_annotation(_gff(tmp_path, pack(GFF)))
    assert annotation.coding == {"chr1": [(20, 30), (40, 50)], "chr2": [(0, 9)]}
    assert (10, 60) in annotation.features["chr1"]
    assert (0, 1000) not in annotation.features["chr1"]


def test_features(tmp_path: Path) -> None:
    feature = list(read_features(_gff(tmp_path, GFF.replace("\n", "\r\n"))))[1]
    assert (feature.chrom, feature.type, feature.start, feature.end, feature.strand) == ("chr1", "gene", 10, 60, "+")
    assert feature.attribute("biotype") == "protein_coding"
    assert feature.attribute("type") is None


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("chr1\tx\tgene\t5\t9\t.\t+\tID=a", "a.gff3:2: E_GFF 8 tab-separated columns"),
        ("chr1 x gene 5 9 . + . ID=a", "a.gff3:2: E_GFF 1 tab-separated"),
        ("chr1\tx\tgene\t9\t5\t.\t+\t.\tID=a", "a.gff3:2: E_GFF start '9' and end '5' are no span"),
        ("chr1\tx\tgene\t0\t5\t.\t+\t.\tID=a", "no span"),
        ("chr1\tx\tgene\tx\t5\t.\t+\t.\tID=a", "no span"),
        ("chr1\tx\tgene\t1\t5\t.\t1\t.\tID=a", "strand '1' is none of"),
        ('chr1\tx\tgene\t1\t5\t.\t+\t.\tgene_id "a";', "is this GTF?"),
        ("", "a.gff3: E_EMPTY_FILE"),
    ],
)
def test_faults(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(GenoSSMError) as caught:
        read_annotation(_gff(tmp_path, f"##gff-version 3\n{line}\n"))
    assert message in str(caught.value)


def test_real_annotations(shared: Path) -> None:
    """The counts that the files' own lines give."""
    yeast = read_annotation(next((shared / "data/genomes/yeast").glob("*.gff3.gz")))
    assert sum(map(len, yeast.coding.values())) == 6913
    assert len(yeast.features) == 17
    ecoli = read_annotation(next((shared / "data/genomes/ecoli").glob("*.gff.gz")))
    assert 4200 < len(ecoli.coding["NC_000913.3"]) < 4450
