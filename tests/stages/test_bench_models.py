"""genossm bench models: the laws as they are kept, the table and the CSV."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import get_args

import pytest
import torch

from genossm import cli
from genossm.config.model import MixerName
from genossm.models.mixers import build_mixer
from genossm.science.cost import Cost
from genossm.science.systems import SYSTEMS, causality, laws, neighbours, small_config
from genossm.stages.bench_models import _cells


def test_every_preset_is_a_system() -> None:
    assert set(SYSTEMS) == set(get_args(MixerName))


@pytest.mark.slow
@pytest.mark.parametrize("preset", sorted(SYSTEMS))
def test_laws_are_kept_or_refused(preset: MixerName) -> None:
    kept = laws(preset)
    assert all(error < 1e-9 for error in kept.errors.values()), kept.errors
    assert kept.refused == ([1, 2] if preset == "hyena" else [])


def test_a_broken_law_is_seen() -> None:
    torch.manual_seed(0)
    layer = build_mixer(small_config("mamba")).double()
    x = torch.randn(2, 40, 12, dtype=torch.float64)
    assert neighbours(lambda x, **where: layer(x), x) > 1e-3  # type: ignore[arg-type]
    assert causality(lambda x: (layer(x.flip(1))[0].flip(1), ()), x) > 1e-3  # type: ignore[arg-type]


def test_table_and_csv(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    output = tmp_path / "models.csv"
    words = [
        "--only",
        "ssd",
        "--only",
        "MMMA",
        "--lengths",
        "64",
        "--lengths",
        "256",
        "--d-model",
        "32",
        "--repeats",
        "1",
    ]
    assert cli.run(["bench", "models", *words, "--output", str(output)]) == 0
    shown = capsys.readouterr().out
    assert "| Mamba-2 (SSD) | ssd | 1 2 3 4 5 |" in shown
    with open(output, newline="") as handle:
        ssd, hybrid = csv.DictReader(handle)
    assert float(ssd["forward_ns_256"]) > 0
    assert float(ssd["law_error"]) < 1e-9
    assert 0 < float(ssd["float32_error"]) < 1e-4
    assert hybrid["laws"] == "1 2 3 4 5"


def test_what_was_not_run_says_why() -> None:
    found = [Cost(1000, 1e-3, 2e-3, 4e6), Cost(8000, refused="over 20 s")]
    assert _cells(found) == ["1000", "2000", "over 20 s", "over 20 s", "over 20 s"]


@pytest.mark.parametrize(
    ("words", "fault"), [(["--only", "magic"], "there is no preset 'magic'"), (["--d-model", "33"], "multiple of 32")]
)
def test_wrong_words_are_named(words: list[str], fault: str, capsys: pytest.CaptureFixture) -> None:
    assert cli.run(["bench", "models", *words]) == 2
    assert fault in capsys.readouterr().err
