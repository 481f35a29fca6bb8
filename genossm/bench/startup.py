"""How long a process takes until its first result: with nothing compiled yet, and with what an earlier one has left.

    python -m genossm.bench.startup NAME

is such a process; it prints its figures as JSON.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from genossm.bench.rows import OURS, Row

LENGTH = 1024
NAMES = ("mamba_block", "bidirectional_block", "rc_block", "ssd_block", "lti")
"""What is called: forward and backward."""


def startup(threads: int) -> Iterator[Row]:
    """Rows of the first process ever (an empty cache of compiled code) and of the next one, on the CPU."""
    for name in NAMES:
        with tempfile.TemporaryDirectory() as cache:
            for process in ("first process", "later process"):
                for part, seconds in _process(name, Path(cache)).items():
                    what = f"{process}: {part}"
                    row = Row(name, OURS, what, LENGTH, threads, "cpu", note=f"{seconds:.2f} s")
                    yield replace(row, repeats=1, seconds=seconds, low=seconds, high=seconds)


def _process(name: str, cache: Path) -> dict[str, float]:
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(cache)}
    command = [sys.executable, "-m", "genossm.bench.startup", name]
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def main(name: str) -> None:
    """Import and call, with a clock."""
    begun = time.perf_counter()
    import torch

    imported_torch = time.perf_counter()
    for operator in ("selective_scan", "causal_conv1d", "ssd", "lti"):
        importlib.import_module(f"genossm.kernels.{operator}")

    imported_kernels = time.perf_counter()
    from genossm.bench.blocks import BLOCKS
    from genossm.bench.clock import sample
    from genossm.kernels.benchmark import operator_case

    case = BLOCKS[name] if name in BLOCKS else operator_case(name)
    problem = case.problem(LENGTH, torch.device("cpu"))
    prepared = time.perf_counter()
    sample(problem, "forward", torch.device("cpu"))
    sample(problem, "training", torch.device("cpu"))
    figures = {
        "import torch": imported_torch - begun,
        "import the kernels": imported_kernels - imported_torch,
        "first calls": time.perf_counter() - prepared,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main(sys.argv[1])
