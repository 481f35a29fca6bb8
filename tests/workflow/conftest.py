"""A small project on three chromosomes of yeast, and Snakemake as a user calls it."""

from __future__ import annotations

import fcntl
import gzip
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CONTIGS = ("I", "III", "VI")

CONFIG = """\
model: mini.yaml
fetch:
  genomes:
    mini: {source: mini.fa.gz}
  annotations:
    mini: {source: mini.gff3.gz}
tokenize:
  window: 8192
  splits:
    mini: {by: contig, valid: [VI], test: [I]}
pretrain:
  genome: mini
  steps: 12
  batch_size: 4
  seqlen: 256
  warmup_steps: 2
  valid_every: 6
  valid_tokens: 4096
  checkpoint_every: 3
  baseline_max_k: 4
derive:
  tasks:
    coding: {kind: coding, genome: mini, annotation: mini, length: 100, valid_contigs: [VI], test_contigs: [I],
      max_per_class: 60}
finetune:
  tasks: [coding]
  epochs: 1
  members: 1
  baselines: [gc, kmer_lr]
  bootstrap: 20
score:
  inputs: {holdout: results/tasks/coding/holdout.fa}
  passes: 4
"""

MODEL = "d_model: 16\nn_layer: 1\nmixer: mamba\nd_state: 4\n"


def snakemake_command(*arguments: str) -> list[str]:
    """Snakemake of this environment on the project's Snakefile, with its default profile."""
    profile = ROOT / "workflow" / "profiles" / "default"
    # Not by the name alone: the environment need not be activated.
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile")]
    return [*command, "--workflow-profile", str(profile), "--cores", "2", "--nocolor", *arguments]


def snakemake(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Snakemake in a folder; stderr comes with stdout."""
    return subprocess.run(
        snakemake_command(*arguments),
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


@pytest.fixture(scope="session")
def cut_genome() -> dict[str, bytes]:
    """Three chromosomes of the embedded genome and their annotation, by file name."""
    resources = ROOT / "workflow" / "resources"
    with gzip.open(resources / "Saccharomyces_cerevisiae.R64-1-1.dna.toplevel.fa.gz", "rt") as handle:
        records = handle.read().split(">")[1:]
    fasta = "".join(f">{record}" for record in records if record.split(None, 1)[0] in CONTIGS)
    with gzip.open(resources / "Saccharomyces_cerevisiae.R64-1-1.99.gff3.gz", "rt") as handle:
        lines = [line for line in handle if line.startswith("##gff") or line.split("\t", 1)[0] in CONTIGS]
    return {
        "mini.fa.gz": gzip.compress(fasta.encode(), 1, mtime=0),
        "mini.gff3.gz": gzip.compress("".join(lines).encode(), 1, mtime=0),
    }


def project(folder: Path, files: dict[str, bytes]) -> Path:
    """A folder with the small genome and its configuration."""
    (folder / "config").mkdir(parents=True)
    (folder / "config" / "config.yaml").write_text(CONFIG)
    (folder / "mini.yaml").write_text(MODEL)
    for file, content in files.items():
        (folder / file).write_bytes(content)
    return folder


@pytest.fixture
def make_project(tmp_path: Path, cut_genome: dict[str, bytes]) -> Callable[[str], Path]:
    """Make a project of the test, by name."""
    return lambda name: project(tmp_path / name, cut_genome)


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory, cut_genome: dict[str, bytes]) -> Path:
    """A project that ran to its end undisturbed; all workers share it, so copy it before you change it."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    folder, mark = shared / "whole", shared / "whole.done"
    with open(shared / "whole.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not mark.exists():
            done = snakemake(project(folder, cut_genome))
            assert done.returncode == 0, done.stdout
            mark.touch()
    return folder
