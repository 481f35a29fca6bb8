"""A disk that fills: every scoring command says so in one line that names the output, and leaves nothing.

A limit of a file's size stands for the disk: the system refuses what lies beyond it.
"""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyBigWig
import pytest

from genossm import cli, vocab
from genossm.data import tracks
from genossm.data.tracks import write_track
from genossm.models.course import Bookmark
from genossm.stages.score import Outputs, score
from genossm.stages.score_journal import Journal

from .test_score import export, write
from .test_variants import write_genome

Capture = pytest.CaptureFixture[str]


@contextlib.contextmanager
def largest(most: int) -> Iterator[None]:
    """No file may grow beyond ``most`` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def is_told(most: int, output: Path, capsys: Capture, *arguments: Any) -> None:
    """Exit 74, one line, and no such file."""
    with largest(most):
        code = cli.run([str(argument) for argument in arguments])
    err = capsys.readouterr().err
    assert code == 74, err
    assert err == f"genossm: {output}: File too large\n"
    assert not output.exists()
    assert not list(output.parent.glob("*.tmp"))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def fasta(tmp_path_factory: pytest.TempPathFactory) -> Path:
    text = vocab.decode(np.random.default_rng(0).integers(vocab.A, vocab.T + 1, 3000).astype(np.uint8))
    return write(tmp_path_factory.mktemp("fasta") / "x.fa", [(f"r{i}", text) for i in range(4)])


@pytest.mark.parametrize("name", ["e.h5", "e.parquet"])
@pytest.mark.parametrize("most", [0, 100_000])
def test_embed(name: str, most: int, checkpoint: Path, fasta: Path, tmp_path: Path, capsys: Capture) -> None:
    output = tmp_path / name
    is_told(most, output, capsys, "embed", "--checkpoint", checkpoint, fasta, "--output", output, "--level", "token")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["m.h5", "m.tsv"])
def test_mutagenesis(name: str, checkpoint: Path, tmp_path: Path, capsys: Capture) -> None:
    genome, output = write_genome(tmp_path), tmp_path / "out" / name
    arguments = ("--reference", genome, "--region", "1:1001-1060", "--window", 128, "--output", output)
    is_told(5000, output, capsys, "mutagenesis", "--checkpoint", checkpoint, *arguments)
    assert not output.parent.exists()


@pytest.mark.parametrize("name", ["s.tsv", "s.parquet"])
def test_score(name: str, checkpoint: Path, fasta: Path, tmp_path: Path, capsys: Capture) -> None:
    """The journal's first row has no place."""
    output = tmp_path / name
    is_told(100, output, capsys, "score", "--checkpoint", checkpoint, fasta, "--output", output)


def test_a_parquet_of_scores(fasta: Path, checkpoint: Path, tmp_path: Path, capsys: Capture) -> None:
    """The journal has its place, the table has not."""
    output = tmp_path / "s.parquet"
    score(checkpoint, fasta, output)
    most = output.stat().st_size - 1
    output.unlink()
    is_told(most, output, capsys, "score", "--checkpoint", checkpoint, fasta, "--output", output)


@pytest.mark.parametrize("name", ["t.bw", "t.bedgraph"])
def test_tracks(name: str, checkpoint: Path, fasta: Path, tmp_path: Path, capsys: Capture) -> None:
    """First the journal's track has no place; then it has, the file of the track has none, and the journal stays."""
    table, track = tmp_path / "s.tsv", tmp_path / name
    arguments = ("score", "--checkpoint", checkpoint, fasta, "--output", table, "--track", track)
    is_told(5000, table, capsys, *arguments)
    is_told(20_000, track, capsys, *arguments)
    journal = tmp_path / ".s.tsv.resume"
    assert (journal / "rows.jsonl").read_text().count("\n") == 4
    assert len(list(journal.glob("track-*.npy"))) == 4
    assert cli.run([str(argument) for argument in arguments]) == 0
    assert not journal.exists()
    score(checkpoint, fasta, tmp_path / "again.tsv", outputs=Outputs(track=tmp_path / f"again.{name}"))
    assert (tmp_path / f"again.{name}").read_bytes() == track.read_bytes()


def test_a_bookmark(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "s.tsv", {})
    with largest(20_000), pytest.raises(OSError, match=r"File too large: '.*/s\.tsv'$"):
        journal.mark(0, np.zeros(9000, np.float32), Bookmark(0, 5, None, 0.0))
    journal.close()
    assert sorted(path.name for path in (tmp_path / ".s.tsv.resume").iterdir()) == ["key", "lock", "rows.jsonl"]


def test_a_bigwig_whose_disk_fills_on_the_way(tmp_path: Path, capfd: Capture) -> None:
    """libBigWig itself must never see it: it ends the process, or never ends."""
    values = np.zeros(1 << 20, np.float32)
    stretches = (("a", i << 20, values) for i in range(9))
    with largest(30 << 20), pytest.raises(OSError, match=r"File too large: '.*/x\.bw'$"):
        write_track(tmp_path / "x.bw", [("a", 9 << 20)], stretches)
    assert capfd.readouterr().err == ""
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("every", [1, 2, 40, 3000])
def test_a_bigwig_keeps_within_what_is_set_aside(every: int, tmp_path: Path) -> None:
    """Runs of every length, of numbers that do not compress; and the file ends where its last value does."""
    values = np.random.default_rng(0).normal(size=60_000).astype(np.float32)
    values[every :: every + 1] = np.nan
    runs = int(np.isnan(values).sum()) + 1
    contigs = [("a", 60_000), *((f"contig{i}", 10) for i in range(3000))]
    write_track(tmp_path / "x.bw", contigs, [("a", 0, values)])
    size = (tmp_path / "x.bw").stat().st_size
    names = 2 * len(contigs) * (len("contig2999") + tracks._CONTIG_BYTES)
    assert size < names + len(values) * tracks._BASE_BYTES + runs * tracks._RUN_BYTES
    with pyBigWig.open(str(tmp_path / "x.bw")) as wig:
        np.testing.assert_array_equal(wig.values("a", 0, 60_000, numpy=True), values)
        assert wig.header()["nBasesCovered"] == np.isfinite(values).sum()
