"""Work in several processes: results in order, errors as they are, and nobody who outlives the work."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from genossm.errors import ExitCode, GenoSSMError
from genossm.stages.crew import crew
from genossm.stages.loading import load_model


def test_one_process_works_here_when_it_is_asked() -> None:
    with crew(1) as submit:
        late = submit(load_model, Path("nowhere"))
        assert submit(os.getpid)() == os.getpid()
        with pytest.raises(GenoSSMError, match="nowhere"):
            late()


@pytest.mark.slow
def test_two_processes_share_the_threads() -> None:
    with crew(2) as submit:
        waiting = [submit(abs, -number) for number in range(5)]
        threads, process = submit(torch.get_num_threads), submit(os.getpid)
        assert [wait() for wait in waiting] == [0, 1, 2, 3, 4]
        assert threads() == max(1, torch.get_num_threads() // 2)
        assert process() != os.getpid()


@pytest.mark.slow
def test_an_error_keeps_its_fields_and_ends_the_others() -> None:
    def one_rests_one_fails() -> None:
        with crew(2) as submit:
            submit(time.sleep, 600)
            submit(load_model, Path("nowhere"))()

    begun = time.monotonic()
    with pytest.raises(GenoSSMError) as caught:
        one_rests_one_fails()
    assert caught.value.path == Path("nowhere")
    assert str(caught.value).startswith("nowhere: ")
    assert time.monotonic() - begun < 300
    deadline = time.monotonic() + 60
    while multiprocessing.active_children() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not multiprocessing.active_children()


@pytest.mark.slow
def test_a_killed_process_is_one_line() -> None:
    with pytest.raises(GenoSSMError, match="a worker process was killed") as caught, crew(2) as submit:
        submit(signal.raise_signal, signal.SIGKILL)()
    assert caught.value.exit_code == ExitCode.TEMPORARY


@pytest.mark.slow
def test_workers_end_with_a_killed_parent(tmp_path: Path) -> None:
    script = (
        "import os, time\n"
        "from genossm.stages.crew import crew\n"
        "if __name__ == '__main__':\n"
        "    with crew(2) as submit:\n"
        "        print(submit(os.getpid)(), flush=True)\n"
        "        submit(time.sleep, 600)()\n"
    )
    (tmp_path / "parent.py").write_text(script)
    command = [sys.executable, str(tmp_path / "parent.py")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())
        parent.kill()
    deadline = time.monotonic() + 60
    while _alive(worker) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not _alive(worker)


def _alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
