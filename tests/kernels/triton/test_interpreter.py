"""Runs the checks in ``interpreted/`` under Triton's interpreter.

Each file has a process of its own: Triton decides when it is first imported whether to interpret, and the process of
this test may have imported it already.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")

ROOT = Path(__file__).resolve().parents[3]
CHECKS = sorted((Path(__file__).parent / "interpreted").glob("check_*.py"))


@pytest.mark.slow
@pytest.mark.parametrize("path", CHECKS, ids=lambda path: path.stem)
def test_under_the_interpreter(path: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-n", "0", "-q", "-p", "no:cacheprovider", str(path)]
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    environment.pop("GENOSSM_KERNELS", None)
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
