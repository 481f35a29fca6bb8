"""genossm score: formats, tracks, regions, workers, and going on after a kill."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pyBigWig
import pytest
import torch

from genossm import cli, vocab
from genossm.config import ScoreSection
from genossm.data.fasta import Record
from genossm.data.score_tables import TableFormat
from genossm.errors import GenoSSMError
from genossm.models import course
from genossm.models.course import Bookmark
from genossm.models.likelihood import Reading, log_likelihood
from genossm.report.tracks import binned_means
from genossm.stages import score as stage
from genossm.stages.loading import load_model
from genossm.stages.score import Outputs
from genossm.stages.score_journal import Journal
from genossm.stages.scoring import Scorer

from .test_score import LABELS, export, random_records, run, table, write


@pytest.fixture(scope="module")
def masked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(tmp_path_factory.mktemp("masked"))


def scored(checkpoint: Path, fasta: Path, output: Path | None, outputs: Outputs, **options: Any) -> stage.Summary:
    return stage.score(checkpoint, fasta, output, settings=ScoreSection(passes=4), outputs=outputs, **options)


def test_formats_say_the_same(masked: Path, tmp_path: Path) -> None:
    fasta = write(tmp_path / "x.fa", [*random_records(5), ("n", "NN"), ("an\"odd'näme", "ACGT")])
    for name in ("x.tsv", "x.jsonl", "x.parquet"):
        scored(masked, fasta, tmp_path / name, Outputs())
    rows = table(tmp_path / "x.tsv")
    lines = [json.loads(line) for line in (tmp_path / "x.jsonl").read_text().splitlines()]
    parquet = pq.read_table(tmp_path / "x.parquet").to_pylist()
    assert lines == parquet
    assert [line["record"] for line in lines] == [row["record"] for row in rows]
    for line, row in zip(lines, rows, strict=True):
        assert row["log_likelihood"] == ("NA" if line["log_likelihood"] is None else f"{line['log_likelihood']:.4f}")
        assert (row["length"], row["status"]) == (str(line["length"]), line["status"])
    with pytest.raises(GenoSSMError, match="a Parquet table needs a file"):
        scored(masked, fasta, None, Outputs(table=TableFormat.PARQUET))


@pytest.mark.parametrize("name", ["x.bw", "x.bedgraph"])
def test_tracks_hold_every_base(name: str, masked: Path, tmp_path: Path) -> None:
    records = [("one", "ACGTNNACGGTCA" * 5), ("n", "NNN"), ("two", "GATTACA" * 9)]
    fasta = write(tmp_path / "x.fa", records)
    scored(masked, fasta, tmp_path / "x.tsv", Outputs(track=tmp_path / name))
    rows = {row["record"]: row for row in table(tmp_path / "x.tsv")}
    got = read_track(tmp_path / name)
    for record, text in records:
        values = got.get(record, {})
        assert sorted(values) == [i for i, letter in enumerate(text) if letter != "N"]
        if values:
            assert sum(values.values()) == pytest.approx(float(rows[record]["log_likelihood"]), abs=2e-2)
    if name.endswith("bw"):
        with pyBigWig.open(str(tmp_path / name)) as wig:
            assert wig.chroms() == {record: len(text) for record, text in records}


@pytest.mark.parametrize("name", ["x.svg", "x.png"])
def test_a_track_is_drawn(name: str, masked: Path, tmp_path: Path) -> None:
    fasta = write(tmp_path / "x.fa", [("one", "ACGTNNACGGTCA" * 5), ("n", "NNN"), ("two", "GATTACA" * 9)])
    scored(masked, fasta, tmp_path / "x.tsv", Outputs(plot=tmp_path / name))
    magic = (tmp_path / name).read_bytes()[:5]
    assert magic == (b"<?xml" if name.endswith("svg") else b"\x89PNG\r")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.fa", name, "x.tsv"]


def test_bins_are_means_of_what_has_a_value() -> None:
    one, two = np.array([1, 3, np.nan, 5], np.float32), np.array([7], np.float32)
    means = binned_means([("a", 7), ("b", 2)], [("a", 0, one), ("a", 4, two)], 2)
    np.testing.assert_array_equal(means["a"], [2, 5, 7, np.nan])
    np.testing.assert_array_equal(means["b"], [np.nan])


def read_track(path: Path) -> dict[str, dict[int, float]]:
    found: dict[str, dict[int, float]] = {}
    if path.suffix == ".bw":
        with pyBigWig.open(str(path)) as wig:
            for contig, length in wig.chroms().items():
                values = wig.values(contig, 0, length)
                found[contig] = {i: v for i, v in enumerate(values) if not math.isnan(v)}
        return found
    for line in path.read_text().splitlines()[1:]:
        contig, start, end, value = line.split("\t")
        assert int(end) == int(start) + 1
        found.setdefault(contig, {})[int(start)] = float(value)
    return found


def test_regions_are_scored_by_themselves(masked: Path, tmp_path: Path) -> None:
    text = "ACGGTTCAGATTACAGGACCA" * 6
    fasta = write(tmp_path / "x.fa", [("chr1", text), ("chr2", text[::-1])])
    bed = tmp_path / "x.bed"
    bed.write_text("# mine\ntrack name=x\n1\t10\t60\tfirst\t0\t+\nchr1\t70\t90\t.\t0\t-\nchr2\t0\t5\n")
    scored(masked, fasta, tmp_path / "x.tsv", Outputs(regions=bed, track=tmp_path / "x.bw"))
    rows = table(tmp_path / "x.tsv")
    assert [row["record"] for row in rows] == ["first", "chr1:70-90(-)", "chr2:0-5"]
    alone = write(
        tmp_path / "alone.fa",
        [
            ("first", text[10:60]),
            ("chr1:70-90(-)", vocab.decode(vocab.reverse_complement(vocab.encode(text[70:90])))),
            ("chr2:0-5", text[::-1][:5]),
        ],
    )
    assert (tmp_path / "x.tsv").read_bytes() == run(masked, alone, tmp_path / "alone.tsv").read_bytes()
    track = read_track(tmp_path / "x.bw")
    assert sorted(track["chr1"]) == [*range(10, 60), *range(70, 90)]
    assert sum(track["chr1"][i] for i in range(70, 90)) == pytest.approx(float(rows[1]["log_likelihood"]), abs=1e-3)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("chr1\t5\n", "E_BED 2 columns"), ("chr1\t5\tx\n", "E_BED"), ("chr1\t1\t٣\n", "E_BED '1' to '٣' is no"),
        (f"chr1\t5\t{'9' * 5000}\n", r"E_BED '5' to '9{37}\.\.\.' is no"), ("chr1\t5\t5\n", "E_BED"),
        ("chr1\t5\t9\ta\t0\tq\n", "E_BED strand"), ("chr3\t1\t2\n", "E_UNKNOWN_CONTIG"),
        ("chr1\t1\t999\n", "E_POS_RANGE"), ("# none\n", "E_EMPTY_FILE"),
        ("chr1\t5\t9\nchr1\t7\t12\n", "E_BED a track needs regions in order"),
        ("chr1\t5\t9\nchr2\t1\t3\nchr1\t20\t30\n", "E_BED a track needs"),
    ],
)  # fmt: skip
def test_bad_regions(text: str, code: str, masked: Path, tmp_path: Path) -> None:
    fasta = write(tmp_path / "x.fa", [("chr1", "ACGT" * 20), ("chr2", "ACGT" * 20)])
    (tmp_path / "x.bed").write_text(text)
    with pytest.raises(GenoSSMError, match=code):
        scored(masked, fasta, tmp_path / "x.tsv", Outputs(regions=tmp_path / "x.bed", track=tmp_path / "x.bw"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.bed", "x.fa"]


def test_regions_of_the_corpus(masked: Path, shared: Path, tmp_path: Path) -> None:
    pairs = shared / "data" / "bad_input" / "pairs"
    fasta = write(tmp_path / "x.fa", [("chr1", "ACGT" * 20)])
    for name, code in (("malformed.bed", r":1: E_BED "), ("out_of_bounds_regions.bed", "E_UNKNOWN_CONTIG")):
        with pytest.raises(GenoSSMError, match=code):
            scored(masked, fasta, tmp_path / "x.tsv", Outputs(regions=pairs / name))


def test_what_is_refused_before_any_work(masked: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fasta = write(tmp_path / "x.fa", [("a", "ACGT")])
    classifier = export(tmp_path / "classifier", LABELS)
    for arguments, text in (
        ((masked, fasta, "--track", tmp_path / "x.txt"), "is no track; name it .bw or .bedgraph"),
        ((masked, fasta, "--plot", tmp_path / "x.txt"), "is no picture; name it .svg, .png or .pdf"),
        ((masked, "-", "--track", tmp_path / "x.bw"), "give a file in place of a pipe"),
        ((masked, fasta, "--overlap", 5), "an overlap needs a larger --window"),
        ((masked, fasta, "--overlap", 5, "--window", 5), "an overlap needs a larger --window"),
        ((classifier, fasta, "--track", tmp_path / "x.bw"), "is a classifier; a track is of a language model's"),
        ((classifier, fasta, "--window", 9, "--overlap", 5), "is a classifier, which reads a record at once: leave"),
        ((masked, fasta, "--output", masked / "x.tsv"), "is inside the input"),
        ((masked, fasta, "--output", tmp_path / "x.tsv.gz"), "name it .tsv, .jsonl or .parquet, or give --format"),
        ((masked, fasta, "--output", fasta, "--regions", fasta), "is the input"),
        ((masked, fasta, "--output", tmp_path / "x.bed", "--regions", tmp_path / "x.bed"), "is not what is written"),
        ((masked, fasta, "--output", tmp_path / "x.bw", "--track", tmp_path / "x.bw"), "is named for two outputs"),
        ((masked, fasta, "--track", tmp_path / "x.bw", "--plot", tmp_path / "x.bw"), "is named for two outputs"),
    ):
        checkpoint, source, *options = arguments
        assert cli.run(["score", "--checkpoint", str(checkpoint), str(source), *map(str, options)]) == 2
        assert text in capsys.readouterr().err


def test_a_run_goes_on_where_it_was_killed(masked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At every record: what was done is not done again, and the files have the bytes of an undisturbed run."""
    fasta = write(tmp_path / "x.fa", random_records(6, seed=2))
    want, track = tmp_path / "want.tsv", tmp_path / "want.bw"
    scored(masked, fasta, want, Outputs(track=track))
    plain = Scorer.start
    done: list[str] = []

    def counting(self: Scorer, record: Record, *rest: Any) -> Any:
        if len(done) == limit:
            raise KeyboardInterrupt
        done.append(record.name)
        return plain(self, record, *rest)

    monkeypatch.setattr(Scorer, "start", counting)
    settings = ScoreSection(passes=4, batch_size=1)
    output, outputs = tmp_path / "x.tsv", Outputs(track=tmp_path / "x.bw")
    for limit in range(1, 7):
        if limit < 6:
            with pytest.raises(KeyboardInterrupt):
                stage.score(masked, fasta, output, settings=settings, outputs=outputs)
            with (tmp_path / ".x.tsv.resume" / "rows.jsonl").open("a") as torn:
                torn.write('{"record": "r')
        else:
            stage.score(masked, fasta, output, settings=settings, outputs=outputs)
    assert done == [name for name, _ in random_records(6, seed=2)]
    assert output.read_bytes() == want.read_bytes()
    assert (tmp_path / "x.bw").read_bytes() == track.read_bytes()
    assert not list(tmp_path.glob(".*"))


def test_another_command_does_not_go_on(masked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fasta, output = write(tmp_path / "x.fa", random_records(3)), tmp_path / "x.tsv"
    plain = Scorer.start

    def stopping(self: Scorer, record: Record, *rest: Any) -> Any:
        if record.name == "r2":
            raise KeyboardInterrupt
        return plain(self, record, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(Scorer, "start", stopping)
        with pytest.raises(KeyboardInterrupt):
            stage.score(masked, fasta, output, settings=ScoreSection(passes=4, batch_size=1))
    stage.score(masked, fasta, output, settings=ScoreSection(passes=2, batch_size=1))
    assert output.read_bytes() == run(masked, fasta, tmp_path / "y.tsv", passes=2).read_bytes()


def test_a_run_goes_on_within_a_long_record(masked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At every bookmark: no pass of a strand that was done is done again, and the files have the same bytes."""
    fasta = write(tmp_path / "x.fa", [("short", "ACGTTGCA" * 9), ("long", "ACGGTCATTG" * 60), ("last", "ACGT")])
    for module in ("genossm.models.likelihood", "genossm.stages.score"):
        monkeypatch.setattr(f"{module}.ONE_PASS", 500)
    want, track = tmp_path / "want.tsv", tmp_path / "want.bw"
    scored(masked, fasta, want, Outputs(track=track))
    monkeypatch.setattr(course, "SECONDS_BETWEEN_MARKS", 0.0)
    monkeypatch.setattr(course, "SHARE_OF_MARKING", 1e9)
    kept: list[tuple[int, int]] = []
    plain = Journal.mark

    def stopping(self: Journal, index: int, track: Any, bookmark: Bookmark) -> None:
        plain(self, index, track, bookmark)
        kept.append((index, bookmark.part))
        raise KeyboardInterrupt

    monkeypatch.setattr(Journal, "mark", stopping)
    output, outputs = tmp_path / "x.tsv", Outputs(track=tmp_path / "x.bw")
    for _ in range(8):
        with pytest.raises(KeyboardInterrupt):
            stage.score(masked, fasta, output, settings=ScoreSection(passes=4, batch_size=1), outputs=outputs)
    stage.score(masked, fasta, output, settings=ScoreSection(passes=4, batch_size=1), outputs=outputs)
    assert kept == [(1, part) for part in range(1, 9)]
    assert output.read_bytes() == want.read_bytes()
    assert (tmp_path / "x.bw").read_bytes() == track.read_bytes()
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("left", ['{"record": 1}\n', "no json\n", "[1]\n", "\udcff\n"])
def test_a_damaged_journal_is_left_aside(left: str, masked: Path, tmp_path: Path) -> None:
    fasta, output = write(tmp_path / "x.fa", random_records(2)), tmp_path / "x.tsv"
    want = run(masked, fasta, tmp_path / "want.tsv").read_bytes()
    kept: list[Path] = []

    def stopping(self: Scorer, record: Record, *rest: Any) -> Any:
        kept.append(tmp_path / ".x.tsv.resume" / "rows.jsonl")
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Scorer, "start", stopping)
        with pytest.raises(KeyboardInterrupt):
            run(masked, fasta, output)
    kept[0].write_bytes(left.encode("utf-8", "surrogateescape"))
    assert run(masked, fasta, output).read_bytes() == want


def test_a_damaged_bookmark_begins_the_record_anew(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "x.tsv", {})
    journal.mark(3, None, Bookmark(1, 2, [(torch.ones(2), torch.zeros(3))], 0.1))
    kept = journal.bookmark(3, None, torch.device("cpu"))
    assert kept is not None
    assert (kept.part, kept.place, kept.total) == (1, 2, 0.1)
    assert [tuple(map(len, state)) for state in kept.state or []] == [(2, 3)]
    (path,) = journal.folder.glob("mark-*")
    path.write_bytes(path.read_bytes()[:50])
    assert journal.bookmark(3, None, torch.device("cpu")) is None
    journal.close()


def test_contigs_may_be_called_track(masked: Path, tmp_path: Path) -> None:
    fasta = write(tmp_path / "x.fa", [("track1", "ACGT" * 20), ("browserX", "ACGT" * 20)])
    bed = tmp_path / "x.bed"
    bed.write_text("track name=x\nbrowser position 1\n#\ntrack1\t0\t9\tone\u2028name\nbrowserX\t5\t50\n", "utf-8")
    scored(masked, fasta, tmp_path / "x.jsonl", Outputs(regions=bed))
    rows = [json.loads(line) for line in (tmp_path / "x.jsonl").read_text("utf-8").split("\n")[:-1]]
    assert [(row["record"], row["length"]) for row in rows] == [("one\u2028name", 9), ("browserX:5-50", 45)]
    bed.write_bytes(b"\xef\xbb\xbftrack1\t0\t9\n")
    with pytest.raises(GenoSSMError, match=":1: E_BOM "):
        scored(masked, fasta, tmp_path / "x.jsonl", Outputs(regions=bed))


def test_closed_streams_are_no_fault(masked: Path, tmp_path: Path) -> None:
    fasta = write(tmp_path / "x.fa", random_records(1))
    command = f"'{sys.executable}' -m genossm.cli score --checkpoint '{masked}'"
    for rest, code, said in (
        (f"'{fasta}' --output '{tmp_path / 'x.tsv'}' >&-", 0, "1 records: 1 ok"),
        ("- <&-", 2, "E_EMPTY_FILE"),
    ):
        done = subprocess.run(f"{command} {rest}", shell=True, stderr=subprocess.PIPE, text=True)
        assert done.returncode == code
        assert said in done.stderr


def test_two_runs_of_one_output(masked: Path, tmp_path: Path) -> None:
    fasta, output = write(tmp_path / "x.fa", random_records(2)), tmp_path / "x.tsv"
    journal = Journal(output, {})
    with pytest.raises(GenoSSMError, match=r"the score of x\.tsv is in use by process \d+"):
        run(masked, fasta, output)
    journal.close()
    run(masked, fasta, output)


@pytest.mark.slow
def test_kill_9(masked: Path, tmp_path: Path) -> None:
    fasta = write(tmp_path / "x.fa", [(f"r{i}", "ACGTTGCA" * 60) for i in range(3000)])
    output = tmp_path / "x.tsv"
    command = [sys.executable, "-m", "genossm.cli", "score", "--checkpoint", str(masked), str(fasta)]
    command += ["--output", str(output), "--passes", "4"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    rows = tmp_path / ".x.tsv.resume" / "rows.jsonl"
    while not rows.is_file() or rows.stat().st_size < 1000:
        time.sleep(0.01)
        assert process.poll() is None
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not output.exists()
    left = len(rows.read_text().splitlines())
    assert 0 < left < 3000
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    assert output.read_bytes() == run(masked, fasta, tmp_path / "y.tsv").read_bytes()


@pytest.mark.slow
def test_workers_give_the_rows_in_order(masked: Path, tmp_path: Path) -> None:
    fasta = write(tmp_path / "x.fa", [*random_records(9), ("n", "NN")])
    scored(masked, fasta, tmp_path / "two.jsonl", Outputs(workers=2, track=tmp_path / "two.bw"))
    scored(masked, fasta, tmp_path / "one.jsonl", Outputs(track=tmp_path / "one.bw"))
    two, one = ([json.loads(x) for x in (tmp_path / n).read_text().splitlines()] for n in ("two.jsonl", "one.jsonl"))
    assert [row["record"] for row in two] == [row["record"] for row in one]
    for a, b in zip(two, one, strict=True):
        assert a["status"] == b["status"]
        expected = b["log_likelihood"]  # none where there is no base
        assert a["log_likelihood"] == (expected if expected is None else pytest.approx(expected, rel=1e-6))


def test_a_long_record_is_exact(masked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A record longer than one pass has the value of one pass; it is cut only where that was asked for."""
    rng = np.random.default_rng(1)
    tokens = rng.integers(vocab.A, vocab.T + 1, 3000).astype(np.uint8)
    fasta = write(tmp_path / "x.fa", [("a", vocab.decode(tokens))])
    model, _ = load_model(masked)
    want = float(log_likelihood(model, tokens, Reading(passes=4)))  # type: ignore[arg-type]
    monkeypatch.setattr("genossm.models.likelihood.ONE_PASS", 1000)
    for memory in (0, 1 << 30):
        summary = scored(masked, fasta, tmp_path / "x.jsonl", Outputs(), memory=memory)
        assert summary.cut == 0
        assert json.loads((tmp_path / "x.jsonl").read_text())["log_likelihood"] == pytest.approx(want, rel=1e-5)
    assert scored(masked, fasta, tmp_path / "x.jsonl", Outputs(), window=900, overlap=100).cut == 1
