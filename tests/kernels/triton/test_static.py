"""Machine code of every shipped kernel on every target: no spills, registers and shared memory within budget.

``static.json`` beside this file holds the figures, each under a key of the kernel's source, constants, target and
Triton's version. Figures whose key is current are not made again, so this is quick; anything else is compiled here.
After a change: ``python -m genossm.kernels.static --json tests/kernels/triton/static.json``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

triton = pytest.importorskip("triton")

FIGURES = Path(__file__).with_name("static.json")
SHARED = {"sm_80": 163 * 1024, "sm_90": 227 * 1024, "sm_100": 227 * 1024, "gfx942": 64 * 1024}
"""Bytes of shared memory (LDS) that one program can have."""

LOOPS = {"conv_forward": 70, "scan_local": 320, "scan_output": 450, "adjoint_local": 560}
"""Most instructions of the time loop on sm_90, for the tokens and channels of one turn."""


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The table, from a process that does not interpret; stored figures are used as far as they are current."""
    path = tmp_path_factory.mktemp("static") / "static.json"
    path.write_bytes(FIGURES.read_bytes())
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "genossm.kernels.static", "--json", str(path)]
    subprocess.run(command, env=environment, check=True, capture_output=True)
    return list(json.loads(path.read_text()).values())


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_budgets(rows: list[dict[str, Any]]) -> None:
    assert {row["target"] for row in rows} == set(SHARED)
    for row in rows:
        figures = row["figures"]
        assert figures["spilled"] == 0, row
        assert figures["shared"] <= SHARED[row["target"]], row
        assert figures["registers"] <= (512 if row["target"] == "gfx942" else 255), row
        if row["target"] == "sm_90" and row["kernel"] in LOOPS:
            assert 0 < figures["loops"][0]["all"] <= LOOPS[row["kernel"]], row


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_nothing_crosses_lanes_in_the_scan(rows: list[dict[str, Any]]) -> None:
    """The state lives in the registers of a lane: no shuffle, no barrier, no shared memory in the time loop."""
    for row in rows:
        if row["target"].startswith("sm_") and row["kernel"] in ("scan_local", "scan_output", "adjoint_local"):
            assert not {"SHFL", "BAR", "LDS", "STS"} & set(row["figures"]["loops"][0]), row


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_one_kernel_is_compiled_every_time(tmp_path: Path) -> None:
    """The stored figures are what the compiler says today."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    path = tmp_path / "static.json"
    command = [sys.executable, "-m", "genossm.kernels.static", "--operator", "rms_norm", "--target", "sm_90"]
    subprocess.run([*command, "--json", str(path)], env=environment, check=True, capture_output=True)
    stored = json.loads(FIGURES.read_text())
    for key, row in json.loads(path.read_text()).items():
        assert stored[key]["figures"] == row["figures"]
