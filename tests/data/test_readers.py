"""Labelled sequences from files of every kind, and what is said when they are wrong."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from genossm.data.layouts import find_splits
from genossm.data.readers import checksum, parse_source, read_labelled, read_places
from genossm.errors import GenoSSMError

ROWS = [("ACGTACGTAC", "b"), ("TTTTACGTNN", "a"), ("GGGGGGGGGG", "b")]
FASTA = ">r1|b\nACGTACG\nTAC\n>r2 some text label=a\nttttacgtnn\n>r3 x|b\nGGGGGGGGGG\n"


def parquet(path: Path, **columns: list) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def genome(folder: Path) -> Path:
    path = folder / "genome.fa"
    path.write_text(">1\n" + "ACGTTGCA" * 20 + "\n>2\n" + "AACC" * 20 + "\n")
    return path


def test_fasta_whose_headers_tell_the_label(tmp_path: Path) -> None:
    path = tmp_path / "train.fna.gz"
    path.write_bytes(gzip.compress(FASTA.encode(), mtime=0))
    found = read_labelled(path)
    assert list(zip(found.sequences, found.labels, strict=True)) == ROWS
    assert found.lines == [1, 4, 6]
    assert found.names == ["a", "b"]


def test_a_fasta_a_class_in_the_order_of_the_names(tmp_path: Path) -> None:
    for name in ("pos", "neg"):
        (tmp_path / f"{name}.fa").write_text(f">1\nACGT{'A' if name == 'pos' else 'C'}\n")
    source = parse_source([f"x={tmp_path / 'pos.fa'}", f"a={tmp_path / 'neg.fa'}"])
    found = read_labelled(source)
    assert list(zip(found.sequences, found.labels, strict=True)) == [("ACGTC", "a"), ("ACGTA", "x")]
    assert checksum(source) == checksum(dict(reversed(source.items())))  # type: ignore[union-attr]


def test_a_folder_a_class(tmp_path: Path) -> None:
    for name, texts in {"negative": ["ACGT", "AAAA"], "positive": ["GGGG"]}.items():
        (tmp_path / name).mkdir()
        for i, text in enumerate(texts):
            (tmp_path / name / f"{i}.txt").write_text(f"{text[:2]}\n{text[2:]}\n")
    found = read_labelled(tmp_path)
    wanted = [("ACGT", "negative"), ("AAAA", "negative"), ("GGGG", "positive")]
    assert list(zip(found.sequences, found.labels, strict=True)) == wanted


def test_parquet_with_columns_that_are_guessed(tmp_path: Path) -> None:
    said: list[str] = []
    rows = 40
    path = parquet(tmp_path / "t.parquet", dna_text=["ACGTACGTACGT"] * rows, kind=[i % 3 for i in range(rows)])
    found = read_labelled(path, say=said.append)
    assert found.labels[:4] == ["0", "1", "2", "0"]
    assert "sequences of column 'dna_text', classes of kind" in said[0]


def test_parquet_of_the_nucleotide_transformer(tmp_path: Path) -> None:
    path = parquet(tmp_path / "t.parquet", sequence=["ACGT", "GGGG"], name=["x|0", "y|1"], label=[0, 1])
    found = read_labelled(path)
    assert (found.sequences, found.labels, found.lines) == (["ACGT", "GGGG"], ["0", "1"], [1, 2])


def test_intervals_are_cut_on_their_strand(tmp_path: Path) -> None:
    bed = tmp_path / "t.bed"
    bed.write_text("track name=x\n1\t0\t5\tpos\t0\t-\nchr2\t2\t6\tneg\n# end\n")
    found = read_labelled(bed, reference=genome(tmp_path))
    assert list(zip(found.sequences, found.labels, found.lines, strict=True)) == [
        ("AACGT", "pos", 2),
        ("CCAA", "neg", 3),
    ]
    table = tmp_path / "t.csv"
    table.write_text("chrom,start,end,strand,label\n1,0,5,-,pos\n2,2,6,+,neg\n")
    assert read_labelled(table, reference=genome(tmp_path)).sequences == found.sequences
    lists = {}
    for name, text in {"pos": "1,0,5,-", "neg": "2,2,6,+"}.items():
        lists[name] = tmp_path / f"{name}.csv.gz"
        lists[name].write_bytes(gzip.compress(f"id,region,start,end,strand\n0,{text}\n".encode(), mtime=0))
    listed = read_labelled(lists, reference=genome(tmp_path))
    assert dict(zip(listed.labels, listed.sequences, strict=True)) == {"pos": "AACGT", "neg": "CCAA"}
    for source in (bed, table, lists):
        places = read_places(source)
        assert places is not None
        assert sorted((e.label, e.start, e.end) for e in places) == [("neg", 2, 6), ("pos", 0, 5)]
    assert read_places(tmp_path / "genome.fa") is None


def test_layouts_of_benchmarks(tmp_path: Path) -> None:
    gue = tmp_path / "gue"
    gue.mkdir()
    for name in ("train.csv.gz", "dev.csv", "test.csv", "readme.md"):
        (gue / name).write_text("")
    found = find_splits(gue)
    assert (found.train, found.valid, found.test) == (gue / "train.csv.gz", gue / "dev.csv", gue / "test.csv")
    transformer = tmp_path / "nt"
    transformer.mkdir()
    for name in ("train-00000-of-00001.parquet", "test-00000-of-00001.parquet"):
        (transformer / name).write_text("")
    assert find_splits(transformer).valid is None
    benchmarks = tmp_path / "gb"
    for split in ("train", "test"):
        (benchmarks / split).mkdir(parents=True)
    assert find_splits(benchmarks).test == benchmarks / "test"
    (gue / "train.tsv").write_text("")
    for folder, message in (
        (gue, "could all be train"),
        (tmp_path, "holds no train.csv"),
        (gue / "dev.csv", "no folder"),
    ):
        with pytest.raises(GenoSSMError, match=message):
            find_splits(folder)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a=x.fa"], "one class, 'a'"),
        (["a=x.fa", "y.fa"], "y.fa: where several files are given, each is LABEL=FILE"),
        (["a=x.fa", "a=y.fa"], "the label 'a' is given twice"),
        (["a=", "b=y.fa"], "each is LABEL=FILE"),
    ],
)
def test_sources_that_cannot_be_meant(words: list[str], message: str) -> None:
    with pytest.raises(GenoSSMError) as caught:
        parse_source(words)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("t.fa", ">r1\nACGT\n", "t.fa:1: record r1: the header tells no label: write '>id|label'"),
        ("t.fa", ">r1|a\nACGT\n>r2|a\nAC\n", "all rows have the label 'a'"),
        ("t.fa", ">r1|a\nACXT\n", "E_NOT_DNA"),
        ("t.bed", "1\t0\t5\tpos\n", "holds intervals: give the genome that they are of with --reference"),
        ("t.bed", "1\t5\t5\tpos\n", "t.bed:1: E_BAD_POS"),
        ("t.bed", "1\tx\t5\tpos\n", "t.bed:1: E_BAD_POS"),
        ("t.bed", "1\t0\t5\n", "t.bed:1: no label in column 4"),
        ("t.bed", "1\t0\t5\tp\t0\t?\n", "t.bed:1: strand '?'"),
        ("t.bed", "# nothing\n", "E_EMPTY_FILE no interval"),
        ("t.parquet", "no parquet", "t.parquet: is no Parquet file"),
        ("t.csv", "chrom,start,end,label\n1,0,5,a\n", "holds intervals"),
    ],
)
def test_faults_of_files(name: str, text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(GenoSSMError) as caught:
        read_labelled(tmp_path / name)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "code"), [("1\t0\t999\ta\n2\t0\t5\tb\n", "E_POS_RANGE"), ("1\t0\t5\ta\n9\t0\t5\tb\n", "E_UNKNOWN_CONTIG")]
)
def test_intervals_that_are_not_of_the_genome(text: str, code: str, tmp_path: Path) -> None:
    (tmp_path / "t.bed").write_text(text)
    with pytest.raises(GenoSSMError, match=code):
        read_labelled(tmp_path / "t.bed", reference=genome(tmp_path))


def test_a_folder_that_holds_no_classes(tmp_path: Path) -> None:
    (tmp_path / "only").mkdir()
    with pytest.raises(GenoSSMError, match="holds no two classes"):
        read_labelled(tmp_path)
    (tmp_path / "test").mkdir()
    with pytest.raises(GenoSSMError, match="give it as --data"):
        read_labelled(tmp_path)


def test_the_shared_benchmarks_are_read(shared: Path) -> None:
    tasks = shared / "data" / "tasks"
    found = find_splits(tasks / "gue" / "mouse" / "3")
    table = read_labelled(found.train)
    assert (len(table), table.names) == (1904, ["0", "1"])
    layer = tasks / "ienhancer" / "layer1"
    pair = {"enhancer": layer / "train_enhancers.fa", "none": layer / "train_nonenhancers.fa"}
    assert read_labelled(pair).names == ["enhancer", "none"]
    places = read_places(tasks / "genomic_benchmarks_intervals" / "dummy_mouse_enhancers_ensembl" / "train")
    assert places is not None
    assert len(places) > 900
    with open(tasks / "uci_splice" / "splice.txt", newline="") as handle:
        first = next(csv.reader(handle))
    assert first[0] == "EI"
