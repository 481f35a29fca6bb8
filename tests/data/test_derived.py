"""Derived tasks: every window is where it says, and the classes are what they say."""

from __future__ import annotations

import gzip
import itertools
from pathlib import Path

import numpy as np
import pyfaidx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genossm.data.derived import Example, coding_windows, gaps_between, interval_sequences, merged, tile
from genossm.errors import GenoSSMError

SPANS = st.lists(st.tuples(st.integers(0, 90), st.integers(1, 10)).map(lambda t: (t[0], t[0] + t[1])), max_size=8)


@given(SPANS)
def test_union_and_gaps(spans: list[tuple[int, int]]) -> None:
    inside = np.zeros(100, dtype=bool)
    for start, end in spans:
        inside[start:end] = True
    union = merged(spans)
    painted = np.zeros(100, dtype=bool)
    for start, end in union:
        painted[start:end] = True
    assert np.array_equal(painted, inside)
    assert all(a[1] < b[0] for a, b in itertools.pairwise(union))
    for start, end in gaps_between(union, 100):
        assert not inside[start:end].any()
        painted[start:end] = True
    assert painted.all()


@given(SPANS, st.integers(1, 6), st.integers(0, 3))
def test_tiles_lie_in_their_spans_and_never_overlap(spans: list[tuple[int, int]], length: int, seed: int) -> None:
    union = merged(spans)
    starts = tile(union, length, np.random.default_rng(seed)).tolist()
    assert len(starts) == sum((end - start) // length for start, end in union)
    assert all(b - a >= length for a, b in itertools.pairwise(starts))
    assert all(any(s <= start and start + length <= e for s, e in union) for start in starts)


@pytest.fixture(scope="module")
def yeast(repository: Path) -> tuple[Path, Path]:
    folder = repository / "workflow" / "resources"
    return next(folder.glob("*.fa.gz")), next(folder.glob("*.gff3.gz"))


def test_coding_windows_of_yeast(yeast: tuple[Path, Path], tmp_path: Path) -> None:
    """Held against pyfaidx for the sequence, and against the GFF3's own lines for the class."""
    genome, annotation = yeast

    def derive(seed: int) -> dict[str, list[Example]]:
        return coding_windows(
            genome,
            annotation,
            length=300,
            max_per_class=150,
            seed=seed,
            valid_contigs=["XIV"],
            test_contigs=["XVI"],
            exclude=["Mito"],
        )

    task = derive(5)
    plain = tmp_path / "g.fa"
    plain.write_bytes(gzip.decompress(genome.read_bytes()))
    with pyfaidx.Fasta(str(plain)) as reference:
        lengths = {name: len(reference[name]) for name in reference.keys()}  # noqa: SIM118 (not a dict)
        coding = {name: np.zeros(n, dtype=bool) for name, n in lengths.items()}
        annotated = {name: np.zeros(n, dtype=bool) for name, n in lengths.items()}
        for line in gzip.decompress(annotation.read_bytes()).decode().splitlines():
            if line.startswith("#"):
                continue
            chrom, _, kind, start, end = line.split("\t")[:5]
            if kind == "CDS":
                coding[chrom][int(start) - 1 : int(end)] = True
            if kind != "chromosome":
                annotated[chrom][int(start) - 1 : int(end)] = True
        taken = {name: np.zeros(n, dtype=bool) for name, n in lengths.items()}
        for split, examples in task.items():
            labels = [example.label for example in examples]
            assert labels.count("coding") == labels.count("intergenic") == 150
            assert 100 < sum(example.strand == "+" for example in examples) < 200
            for example in examples:
                assert (example.chrom == "XIV", example.chrom == "XVI") == (split == "valid", split == "test")
                assert example.chrom != "Mito"
                place = slice(example.start, example.end)
                assert not taken[example.chrom][place].any()
                taken[example.chrom][place] = True
                if example.label == "coding":
                    assert coding[example.chrom][place].all()
                else:
                    assert not annotated[example.chrom][place].any()
                wanted = reference[example.chrom][example.start : example.end]
                wanted = wanted.reverse.complement if example.strand == "-" else wanted
                assert example.sequence == wanted.seq.upper()
                assert len(example.sequence) == 300
    assert derive(5) == task != derive(6)


GENOME = ">1\n" + "ACGT" * 30 + "\n>2\n" + "AACC" * 30 + "N" * 20 + "\n"


def _files(folder: Path, gff: str) -> tuple[Path, Path]:
    (folder / "g.fa").write_text(GENOME)
    (folder / "g.gff3").write_text("##gff-version 3\n" + gff)
    return folder / "g.fa", folder / "g.gff3"


def _line(chrom: str, kind: str, start: int, end: int) -> str:
    return f"{chrom}\tx\t{kind}\t{start}\t{end}\t.\t+\t0\tID={kind}{start}\n"


@pytest.mark.parametrize(
    ("gff", "options", "word"),
    [
        (_line("1", "CDS", 1, 60), {"test_contigs": ["3"]}, "there is no contig '3'; there are 1, 2"),
        (_line("1", "CDS", 1, 600), {}, "E_POS_RANGE a feature of 1 ends at 600"),
        (_line("1", "CDS", 1, 60), {}, "no coding window of 20 bp for the valid split"),
        (_line("1", "CDS", 1, 60) + _line("2", "gene", 1, 140), {}, "no coding window of 20 bp for the valid split"),
    ],
)
def test_faults_of_coding_windows(tmp_path: Path, gff: str, options: dict[str, list[str]], word: str) -> None:
    genome, annotation = _files(tmp_path, gff)
    with pytest.raises(GenoSSMError, match=word):
        coding_windows(genome, annotation, length=20, valid_contigs=["2"], test_contigs=options.get("test_contigs", []))


def _interval_files(folder: Path) -> dict[str, Path]:
    lists = {
        "a": "id,region,start,end,strand\n" + "".join(f"{i},chr1,{i},{i + 10},{'+-'[i % 2]}\n" for i in range(40)),
        "b": "region,start,end\n" + "".join(f"2,{i},{i + 5}\n" for i in range(20)),
    }
    for name, text in lists.items():
        (folder / f"{name}.csv").write_text(text)
    return {name: folder / f"{name}.csv" for name in lists}


def test_interval_sequences(tmp_path: Path) -> None:
    """0-based and half-open, on the strand that the list says; chr1 in the list finds 1 in the genome."""
    genome, _ = _files(tmp_path, "")
    lists = _interval_files(tmp_path)
    task = interval_sequences(genome, lists, lists, max_per_class=30, valid_fraction=0.2, seed=2)
    counts = {split: [sum(e.label == label for e in rows) for label in "ab"] for split, rows in task.items()}
    assert counts == {"train": [24, 16], "valid": [6, 4], "test": [30, 20]}
    bases = "ACGT" * 30
    for example in [*task["train"], *task["valid"], *task["test"]]:
        if example.label == "a":
            forward = bases[example.start : example.end]
            backward = forward[::-1].translate(str.maketrans("ACGT", "TGCA"))
            assert example.sequence == (backward if example.start % 2 else forward)
        else:
            assert example.sequence == ("AACC" * 30)[example.start : example.end]
    train = {(e.label, e.start) for e in task["train"]}
    assert train.isdisjoint((e.label, e.start) for e in task["valid"])
    assert interval_sequences(genome, lists, lists, max_per_class=30, valid_fraction=0.2, seed=2) == task


@pytest.mark.parametrize(
    ("row", "word"),
    [
        ("1,5,5,+", "x.csv:3: E_BAD_POS start '5' and end '5' are no span"),
        ("1,-1,5,+", "x.csv:3: E_BAD_POS"),
        ("1,1,5,x", "x.csv:3: strand 'x'"),
        ("3,1,5,+", "x.csv:3: E_UNKNOWN_CONTIG .* has no contig '3'; it has 1, 2"),
        ("1,1,121,+", r"x.csv:3: E_POS_RANGE 1:1-121\(\+\) is beyond the 120 bp of 1"),
    ],
)
def test_faults_of_interval_lists(tmp_path: Path, row: str, word: str) -> None:
    genome, _ = _files(tmp_path, "")
    (tmp_path / "x.csv").write_text(f"chrom,start,end,strand\n1,1,5,+\n{row}\n")
    lists = {"x": tmp_path / "x.csv"}
    with pytest.raises(GenoSSMError, match=word):
        interval_sequences(genome, lists, lists)


def test_a_benchmark_list_on_a_real_genome(shared: Path, tmp_path: Path) -> None:
    """Worm intervals of Genomic Benchmarks that lie in the first 1 % of each chromosome."""
    genome = shared / "data/genomes/modelorg_1pct/C.elegans.fa.gz"
    source = shared / "data/tasks/genomic_benchmarks_intervals/demo_human_or_worm/test/worm.csv.gz"
    lines = gzip.decompress(source.read_bytes()).decode().splitlines()
    few = [line for line in lines[1:] if int(line.split(",")[3]) < 137_000 and line.split(",")[1] != "MtDNA"]
    assert len(few) > 50
    (tmp_path / "worm.csv").write_text("\n".join([lines[0], *few]) + "\n")
    lists = {"a": tmp_path / "worm.csv", "b": tmp_path / "worm.csv"}
    task = interval_sequences(genome, lists, lists)
    plain = tmp_path / "g.fa"
    plain.write_bytes(gzip.decompress(genome.read_bytes()))
    with pyfaidx.Fasta(str(plain)) as reference:
        for example in task["test"]:
            wanted = reference[example.chrom][example.start : example.end]
            assert example.sequence == (wanted.reverse.complement if example.strand == "-" else wanted).seq.upper()
