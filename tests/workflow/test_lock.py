"""One workflow in a folder at a time, no lock that outlives its process, no race with jobs of a killed run."""

from __future__ import annotations

import fcntl
import subprocess
from pathlib import Path

from tests.workflow.conftest import snakemake, snakemake_command

TARGET = "results/settings.json"


def lock_file(folder: Path, name: str) -> Path:
    path = folder / ".snakemake" / f"genossm.{name}.lock"
    path.parent.mkdir(exist_ok=True)
    path.touch()
    return path


def test_a_second_workflow_in_the_folder_is_refused(make_project):
    folder = make_project("p")
    with open(lock_file(folder, "run")) as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        refused = snakemake(folder, TARGET)
        assert refused.returncode == 1
        assert "another snakemake is at work in this directory" in refused.stdout
        assert not (folder / TARGET).exists()
    # The file is still there, and that alone stops nobody; neither does the lock that Snakemake itself leaves behind.
    locks = folder / ".snakemake" / "locks"
    locks.mkdir(exist_ok=True)
    (locks / "0.output.lock").write_text(TARGET + "\n")
    assert snakemake(folder, TARGET).returncode == 0
    assert (folder / TARGET).exists()


def test_a_run_waits_for_the_jobs_of_one_that_was_killed(make_project):
    folder = make_project("p")
    with open(lock_file(folder, "jobs")) as orphan:
        fcntl.flock(orphan, fcntl.LOCK_SH)  # as the shell of every job does
        command = snakemake_command(TARGET)
        with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as run:
            assert run.stdout is not None
            seen = ""
            while "waiting until they have ended" not in seen:
                line = run.stdout.readline()
                assert line, seen
                seen += line
            assert run.poll() is None
            assert not (folder / TARGET).exists()
            fcntl.flock(orphan, fcntl.LOCK_UN)
            run.stdout.read()
    assert run.returncode == 0
    assert (folder / TARGET).exists()
