"""VCF and BCF against the corpus and what bcftools reads in it, and the grammar of an ALT."""

from __future__ import annotations

import ctypes
import gzip
import hashlib
import json
import struct
from pathlib import Path

import pytest
from Bio import bgzf

from genossm.data.vcf import VariantRecord, VcfReader, alt_kind
from genossm.errors import GenoSSMError

REJECTED = {
    "pairs/passed_empty_vcf.vcf": "E_EMPTY_FILE",
    "vcf/odd/empty_0bytes.vcf": "E_EMPTY_FILE",
    "vcf/odd/passed_compressed.vcf.bz2": "E_COMPRESSION",
    "vcf/odd/test-invalid-header.vcf": "E_VCF_HEADER",
    "vcf/odd/vcfexampleV3.2.vcf": "E_VCF_VERSION",
    "vcf/bad/baseVariants.mangled.vcf.gz": "E_VCF_HEADER",
    "vcf/bad/compressed.vcf.tar.xz": "E_COMPRESSION",
    "vcf/bad/compressed.vcf.tar.zip": "E_COMPRESSION",
    "vcf/bad/corrupt_starts_with_hash.vcf": "E_VCF_HEADER",
    "vcf/bad/failed_fileformat_000.vcf": "E_VCF_HEADER",
    "vcf/bad/failed_header_000.vcf": "E_VCF_HEADER",
    "vcf/bad/failed_header_001.vcf": "E_VCF_HEADER",
    "vcf/bad/mangledBaseVariants.vcf": "E_VCF_HEADER",
    "vcf/bad/no_header_lines.vcf": "E_VCF_HEADER",
    "vcf/bad/vcfexample.truncated.hdr.vcf.gz": "E_TRUNCATED_GZ",
    "vcf/bad/vcfexample.truncated.vcf.gz": "E_TRUNCATED_GZ",
    "vcf/derived/bom.vcf": "E_BOM",
    "vcf/derived/no_fileformat.vcf": "E_VCF_HEADER",
    "vcf/derived/short_row.vcf": "E_VCF_ROW",
    "vcf/derived/spaces_for_tabs.vcf": "E_VCF_HEADER",
}
"""Where the catalogue leaves a choice, this is ours."""

FAULTS = {
    "pairs/norm.2.vcf": ["E_BAD_REF"],
    "pairs/norm.iupac.vcf": ["E_BAD_REF"],
    "pairs/norm.setref.vcf": ["E_BAD_REF", "E_BAD_REF"],
    "pairs/norm.vcf": ["E_BAD_ALT"],
    **{f"vcf/bad/failed_body_alt_{n}.vcf": ["E_BAD_ALT"] for n in ("000", "001", "002", "003", "005")},
    **{f"vcf/bad/failed_body_chrom_{n}.vcf": ["E_BAD_CHROM"] for n in ("000", "002")},
    **{f"vcf/bad/failed_body_pos_00{n}.vcf": ["E_BAD_POS"] for n in range(3)},
    **{f"vcf/bad/failed_body_ref_00{n}.vcf": ["E_BAD_REF"] for n in range(3)},
}
"""Faults of records, in order; every other record of the corpus has none."""

READ_OTHERWISE = {
    "vcf/bad/failed_body_alt_002.vcf",  # bcftools shows A,,T as A,.,T
    "vcf/bad/failed_body_chrom_000.vcf",  # bcftools stops
    "vcf/bad/failed_body_pos_000.vcf",  # bcftools makes numbers of '.', '123abc' and '-1'
    "vcf/bad/failed_body_pos_001.vcf",
    "vcf/bad/failed_body_pos_002.vcf",
}
UNSORTED = {
    "vcf/bad/failed_body_contiguous_000.vcf",
    "vcf/bad/failed_body_unsorted_000.vcf",
    "vcf/good/zero_length_LAA.vcf",
    "vcf/odd/sort.vcf",
}


def digest(records: list[VariantRecord], *, wrap: bool = False) -> str:
    """The sha256 of the oracle: CHROM, POS, REF and ALT as bcftools prints them; ``wrap`` as its 32 bits do."""
    rows = (
        f"{r.chrom}\t{ctypes.c_int32(r.pos).value if wrap else r.pos}\t{r.ref}\t{','.join(r.alts)}\n" for r in records
    )
    return hashlib.sha256("".join(rows).encode()).hexdigest()


def test_every_file_of_the_corpus(shared: Path) -> None:
    """All files are read as bcftools reads them, or refused by name; exceptions are listed above, each with its why."""
    corpus = shared / "data" / "bad_input"
    oracle = json.loads((corpus / "ORACLE_VCF.json").read_text())
    seen = {"rejected": 0, "equal": 0, "faults": 0}
    for name, want in oracle.items():
        reader = VcfReader(corpus / name)
        if name in REJECTED:
            with pytest.raises(GenoSSMError, match=f" {REJECTED[name]} ") as caught:
                list(reader)
            assert "\n" not in str(caught.value)
            seen["rejected"] += 1
            continue
        records = list(reader)
        faults = [record.fault.code for record in records if record.fault]
        assert faults == FAULTS.get(name, []), name
        assert reader.unsorted == (name in UNSORTED), name
        assert reader.odd_qual == ((1, 4) if name == "vcf/bad/failed_body_qual_000.vcf" else (0, 0)), name
        seen["faults"] += bool(faults)
        if name not in READ_OTHERWISE:
            assert want["rc"] == 0, name
            assert len(records) == want["records"], name
            assert digest(records, wrap="longrefs" in name) == want["sha256"], name
            seen["equal"] += 1
    assert seen == {"rejected": 20, "equal": 84, "faults": 17}
    assert sum(seen.values()) - seen["faults"] + len(READ_OTHERWISE) == len(oracle) == 109


def test_bcf_is_its_vcf(shared: Path) -> None:
    folder = shared / "data" / "bad_input" / "vcf" / "odd"
    text, binary = VcfReader(folder / "multi-contig.vcf.gz"), VcfReader(folder / "multi-contig.bcf")
    for a, b in zip(text, binary, strict=True):
        assert (a.chrom, a.pos, a.id, a.ref, a.alts) == (b.chrom, b.pos, b.id, b.ref, b.alts)
    assert binary.is_bcf
    assert binary.header[-1] == text.header[-1]


@pytest.mark.parametrize("cut", [3, 20, 300, -1])
def test_a_bcf_that_is_none(cut: int, shared: Path, tmp_path: Path) -> None:
    whole = gzip.decompress((shared / "data" / "bad_input" / "vcf" / "odd" / "multi-contig.bcf").read_bytes())
    path = tmp_path / "x.bcf"
    with bgzf.BgzfWriter(str(path)) as file:
        file.write(whole[:cut])
    with pytest.raises(GenoSSMError, match=r"x\.bcf.* E_(BCF|VCF_HEADER) "):
        list(VcfReader(path))


def test_a_lying_bcf(tmp_path: Path) -> None:
    header = b"##fileformat=VCFv4.2\n##contig=<ID=1>\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n\0"
    start = b"BCF\x02\x02" + struct.pack("<I", len(header)) + header
    fixed = struct.pack("<iiifII", 0, 9, 1, 0.0, 2 << 16, 0)
    good = fixed + b"\x07" + b"\x17A" + b"\x17C"
    faulty = {
        "size": struct.pack("<II", 1 << 31, 0),
        "contig": struct.pack("<II", len(good), 0) + struct.pack("<i", 5) + good[4:],
        "string": struct.pack("<II", len(good), 0) + good[:-2] + b"\xf7C",
        "type": struct.pack("<II", len(good), 0) + good[:-2] + b"\x15C",
        "none": struct.pack("<II", len(good), 0) + fixed[:16] + struct.pack("<II", 0, 0) + good[24:],
    }
    path = tmp_path / "x.bcf"
    path.write_bytes(start + struct.pack("<II", len(good), 0) + good)
    (record,) = VcfReader(path)
    assert (record.chrom, record.pos, record.id, record.ref, record.alts) == ("1", 10, ".", "A", ("C",))
    for row in faulty.values():
        path.write_bytes(start + row)
        with pytest.raises(GenoSSMError, match=" E_BCF "):
            list(VcfReader(path))


@pytest.mark.parametrize(
    ("alt", "kind"),
    [
        ("A", "bases"), ("acgtN", "bases"), (".", "no_alt"), ("*", "spanning"), ("<DEL>", "symbolic"),
        ("<*>", "symbolic"), ("<NON_REF>", "symbolic"), ("<DUP:TANDEM>", "symbolic"), ("G]17:198982]", "breakend"),
        ("]13:123456]T", "breakend"), ("C[2:321682[", "breakend"), (".TGCA", "breakend"), ("A.", "breakend"),
        ("R", "bad"), ("A T", "bad"), ("", "bad"), ("<INS>BLAH>", "bad"), ("[1:5[", "bad"), ("I", "bad"), ("..", "bad"),
        ("A<DEL>", "bad"), ("1", "bad"), ("<>", "bad"), ("A*", "bad"),
    ],
)  # fmt: skip
def test_kinds_of_alt(alt: str, kind: str) -> None:
    assert alt_kind(alt) == kind


def test_lines_are_counted_and_the_rest_is_kept(tmp_path: Path) -> None:
    head = "##fileformat=VCFv4.2\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT\ts\n"
    path = tmp_path / "x.vcf"
    path.write_text(head + "1\t5\trs1\tA\tC\t.\tPASS\tDP=1;é\tGT\t0/1\n\n1\t99999999999999999999\t.\tA\tC\t.\t.\t.")
    first, second = VcfReader(path)
    assert (first.line, first.rest) == (3, ".\tPASS\tDP=1;é\tGT\t0/1")
    assert (second.line, second.fault and second.fault.code) == (5, "E_BAD_POS")
