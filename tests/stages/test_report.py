"""The report: what it shows, that it needs no network, and that it has the same bytes each time."""

from __future__ import annotations

import base64
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from genossm import cli, metrics
from genossm.config import SplitSection
from genossm.errors import GenoSSMError
from genossm.report import figures, sections
from genossm.report.inputs import read_columns, read_job, read_json
from genossm.report.page import Html, Section, Tile, code, render, table
from genossm.stages.compare import COLUMNS
from genossm.stages.report import Sources, build
from genossm.stages.tokenize import tokenize

BY_K = {"0": 1.36, "1": 1.35, "2": 1.34, "3": 1.33, "4": 1.31, "5": 1.32}


class Tags(HTMLParser):
    """Start tags with their attributes, and whether every element is closed in order."""

    VOID = frozenset({"meta", "img", "link", "br"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def pictures(page: str) -> list[str]:
    """The SVG documents of a page."""
    return [base64.b64decode(raw).decode() for raw in re.findall(r"data:image/svg\+xml;base64,([^\"]+)", page)]


def text_of(page: str) -> str:
    """A page without markup."""
    return re.sub(r"<[^>]+>", " ", re.sub(r"<style>.*?</style>|<img[^>]*>", "", page, flags=re.DOTALL))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Sources:
    """What a run leaves, small; the classifier and its baselines are judged by the real metrics."""
    tmp_path = tmp_path_factory.mktemp("run")
    rng = np.random.default_rng(3)
    pretrain, finetune = tmp_path / "pretrain" / "tiny", tmp_path / "finetune" / "coding"
    pretrain.mkdir(parents=True)
    finetune.mkdir(parents=True)
    baseline = {"kind": "flank", "by_k": BY_K, "best_k": 4, "best": 1.31, "targets": 500}
    figures_ = {"valid_loss": 1.3021, "uniform": 1.3863, "baseline": baseline, "parameters": 51234, "seconds": 12.5}
    (pretrain / "metrics.json").write_text(json.dumps(figures_))
    rows = [{"step": step, "loss": 1.3 + 1 / step} for step in range(1, 41)] + [{"step": 40, "valid_loss": 1.3021}]
    (pretrain / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    names = ["coding", "<intergenic>"]
    labels = rng.integers(0, 2, 60)
    first = {
        who: 1 / (1 + np.exp((2 * labels - 1) * pull + rng.normal(size=60)))
        for who, pull in {"": 2.0, "kmer_lr_": 1.0}.items()
    }
    both = {who: np.stack([p, 1 - p], axis=1) for who, p in first.items()}
    judged = {who: metrics.summarize(labels, p, resamples=20) for who, p in both.items()}
    gain = metrics.gain(labels, both[""], both["kmer_lr_"], resamples=20)
    leak = {"k": 32, "shared": 3, "identical": 1, "mcc_without": 0.5}
    about = {
        "judged": "test",
        "labels": names,
        "test": judged[""],
        "leak": leak,
        "baselines": {"kmer_lr": {**judged["kmer_lr_"], "gain": gain}},
    }
    (finetune / "metrics.json").write_text(json.dumps(about))
    head = ["line", "label", *(f"{who}p_{name}" for who in both for name in names)]
    lines = [
        [str(i + 2), names[label], *(f"{p:.6f}" for who in both for p in both[who][i])]
        for i, label in enumerate(labels)
    ]
    (finetune / "predictions.csv").write_text("".join(",".join(line) + "\n" for line in [head, *lines]))

    likelihoods, classes = tmp_path / "holdout.tsv", tmp_path / "holdout.coding.tsv"
    likelihoods.write_text(
        "record\tlength\tscored_bases\tlog_likelihood\tper_base\tperplexity\tstatus\n"
        + "".join(f"r{i}\t9\t9\t-11.7\t{-1.3 - i / 100:.6f}\t3.6\tok\n" for i in range(20))
        + "gone\t0\t0\tNA\tNA\tNA\tempty\n"
    )
    classes.write_text("record\tlength\tlabel\tp_a\tp_b\tstatus\nr0\t9\ta\t0.9\t0.1\tok\nr1\t0\tNA\tNA\tNA\tempty\n")

    fasta = tmp_path / "mini.fa"
    fasta.write_text("".join(f">{name}\n{'ACGT' * 500}\n" for name in ("I", "II", "III", "Mito")))
    split = SplitSection(by="contig", valid=["II"], test=["III"], exclude=["Mito"])
    tokenize(fasta, tmp_path / "mini.h5", window=800, split=split)

    (tmp_path / "tasks" / "coding").mkdir(parents=True)
    (tmp_path / "tasks" / "coding" / "task.json").write_text(json.dumps({"counts": {"test": {"coding": 1234}}}))
    source = {
        "source": "https://x.org/a.fa?b&c",
        "sha256": "ab" * 32,
        "size": 9876,
        "written": {"file": "mini.fa.gz", "sha256": "cd" * 32, "size": 4321},
        "content": {"bases": 8000},
        "warnings": ["W_IUPAC 3 letters"],
        "date": "2026-01-02",
    }
    (tmp_path / "mini.fa.gz.provenance.json").write_text(json.dumps(source))
    (tmp_path / "pretrain.tiny.tsv").write_text("s\th:m:s\tmax_rss\tmean_load\n12.5\t0:00:12\t345.6\t1.0\n")
    (tmp_path / "settings.json").write_text(json.dumps({"seed": 77, "model": "tiny"}))
    return Sources(
        pretrain=pretrain,
        finetune=[finetune],
        task=[tmp_path / "tasks" / "coding" / "task.json"],
        score=[likelihoods, classes],
        tokens=tmp_path / "mini.h5",
        provenance=[tmp_path / "mini.fa.gz.provenance.json"],
        benchmark=[tmp_path / "pretrain.tiny.tsv"],
        settings=tmp_path / "settings.json",
    )


@pytest.fixture(scope="module")
def page(run: Sources) -> str:
    """The report of the run."""
    return build(run)


def test_the_page_is_whole_needs_no_network_and_has_the_same_bytes_each_time(run, page):
    tags = Tags(page).tags
    assert {tag for tag, _ in tags} & {"script", "link", "iframe"} == set()
    outside = [value for _, attrs in tags for key, value in attrs.items() if key in ("src", "href", "srcset")]
    assert all(value and value.startswith(("data:", "#")) for value in outside)
    assert "url(" not in page
    assert "@import" not in page
    anchors = {attrs["id"] for tag, attrs in tags if tag == "section"}
    assert {value[1:] for value in outside if value and value.startswith("#")} == anchors
    assert page == build(run)


def test_every_picture_is_there_and_described(page):
    drawn = pictures(page)
    # loss, baselines, ROC, precision-recall, calibration, two confusions, likelihoods, classes, windows, times
    assert len(drawn) == 11
    assert all(svg.lstrip().startswith("<?xml") and "</svg>" in svg and "<path" in svg for svg in drawn)
    assert all(attrs.get("alt") for tag, attrs in Tags(page).tags if tag == "img")


def test_figures_stand_in_the_text(page):
    shown = text_of(page)
    for expected in (
        "1.3021",  # validation loss
        "0.0279 below the count baseline with k up to 3",
        "0.0079 below that with the best k of all",
        "1.3863",  # uniform
        "51,234",  # parameters
        "k-mer regression",
        "3 sequences share 32 bp or more with a training sequence, 1 are identical to one; the figure without",
        "1,234",  # from task.json
        "21 records: 1 empty, 20 ok",
        "4 sequences, 8,000 bp, in windows of 800 bp",
        "ab" * 32,
        "cd" * 32,
        "9,876",
        "8,000 bases",
        "W_IUPAC 3 letters",
        "12.5",
        "346",
        "seed: 77",
    ):
        assert expected in shown, expected


def test_what_comes_from_files_is_escaped(page):
    assert "<intergenic>" not in page
    assert "&lt;intergenic&gt;" in page
    assert "https://x.org/a.fa?b&amp;c" in page


def test_parts_that_are_not_given_are_left_out(run):
    page = build(Sources(pretrain=run.pretrain))
    assert 'id="pretraining"' in page
    assert 'id="scores"' not in page
    assert len(pictures(page)) == 2


def test_models_side_by_side(tmp_path, capsys):
    rows = [("s4", "s4", "masked", 1.34), ("hybrid", "MA", "masked", 1.35), ("s4-causal", "s4", "causal", 1.36)]
    lines = ["\t".join(COLUMNS)]
    lines += [f"{name}\t{mixer}\t{kind}\t43000\t100\t1000\t{loss}\t0.01\t9.5\t800" for name, mixer, kind, loss in rows]
    (tmp_path / "compare.tsv").write_text("\n".join(lines) + "\n")
    page = tmp_path / "report.html"
    assert cli.run(["report", "--compare", str(tmp_path / "compare.tsv"), "--output", str(page)]) == 0
    shown = page.read_text(encoding="utf-8")
    assert 'id="comparison"' in shown
    first, second = pictures(shown)
    assert "hybrid" in first
    assert "hybrid" not in second
    assert "0.0363" in first  # the best count table: ln 4 less 1.34 + 0.01
    (tmp_path / "compare.tsv").write_text("model\n")
    assert cli.run(["report", "--compare", str(tmp_path / "compare.tsv"), "--output", str(page)]) == 2
    assert "compare.tsv:1: has no column" in capsys.readouterr().err


def test_a_model_that_is_worse_is_said_to_be_worse(run):
    assert run.pretrain
    worse = {**read_json(run.pretrain / "metrics.json"), "valid_loss": 1.3421}
    part, tile = sections.pretraining("tiny", worse, [])
    assert "0.0121 above the count baseline with k up to 3" in part.parts[0].markup
    assert tile.good is False


def test_the_command_takes_folders_or_files_and_writes_the_page(run, tmp_path, capsys):
    output = tmp_path / "out" / "report.html"
    code_ = cli.run(["report", "--output", str(output), "--pretrain", f"{run.pretrain}/metrics.json"])
    assert (code_, output.exists()) == (0, True)
    assert str(output) in capsys.readouterr().out
    assert cli.run(["report", "--output", str(output)]) == 2
    assert "nothing to report" in capsys.readouterr().err
    assert cli.run(["report", "--output", str(output), "--pretrain", str(tmp_path / "none")]) == 2
    assert "none" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "expected"),
    [("{", "not JSON"), ("[1]", "not a JSON object"), ("\xff", "not JSON")],
)
def test_a_damaged_json_file_is_named(tmp_path, content, expected):
    path = tmp_path / "metrics.json"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(GenoSSMError, match=f"metrics.json: {expected}"):
        read_json(path)


@pytest.mark.parametrize(
    ("content", "expected"),
    [("", ":1: has no column at all"), ("a\tb\n", ":1: has no column s"), ("a\ts\n1\t2\n3\n", ":3: 1 columns")],
)
def test_a_damaged_table_is_named_with_its_line(tmp_path, content, expected):
    path = tmp_path / "t.tsv"
    path.write_text(content)
    with pytest.raises(GenoSSMError, match=expected):
        read_columns(path, "\t", ("s",) if content else ())


def test_a_job_too_short_for_its_memory_to_be_seen(tmp_path):
    path = tmp_path / "b.tsv"
    path.write_text("s\tmax_rss\n0.5\t-\n1.5\tNA\n")
    assert (read_job(path).seconds, read_job(path).max_rss_mb) == (1.0, None)


def test_coverage_counts_a_base_once():
    assert sections.coverage([], 10) == 0
    assert sections.coverage([0, 10, 20], 10) == 30
    assert sections.coverage([15, 0, 10], 10) == 25  # the last window begins before the one before it ends


def test_the_map_of_a_genome_of_many_contigs_shows_those_with_windows_first():
    none = {"train": [], "valid": [], "test": []}
    bars = [figures.ContigBar(f"scaffold_{i}", 900, none) for i in range(100)]
    bars.append(figures.ContigBar("chr1", 500, {**none, "train": [0]}))
    part = sections.windows("g", bars, 100, 100, {})
    assert "The map shows 40 sequences" in part.parts[0].markup
    assert "chr1" in part.parts[2].markup


def test_running_mean_is_shorter_at_the_ends():
    assert figures.running_mean([1, 2, 3, 4], 3).tolist() == [1.5, 2.0, 3.0, 3.5]
    assert figures.running_mean([5], 9).tolist() == [5.0]


def test_markup_is_escaped_unless_it_is_ours():
    shown = table(["<a>"], [[Html("<b>x</b>")], [code("<c>")]]).markup
    assert "&lt;a&gt;" in shown
    assert "<b>x</b>" in shown
    assert "<code>&lt;c&gt;</code>" in shown
    page = render("<t>", "s", [Tile("n", "<v>", "")], [Section("i", "<h>")], "f")
    assert Tags(page).tags
    assert "&lt;v&gt;" in page
