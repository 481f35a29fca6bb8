"""genossm inspect: a table and a picture of what each layer remembers."""

from __future__ import annotations

from pathlib import Path

import pytest

from genossm import cli
from genossm.config import ModelConfig
from genossm.models import build_model
from genossm.models.mixers import MIXERS
from genossm.train.checkpoint import checkpoint_config, export_model


def model_folder(folder: Path, **changes) -> Path:
    options = {
        "attention": {"headdim": 8},
        "hyena": {"max_length": 64, "filter_order": 8},
        "ssd": {"headdim": 8},
        "rwkv": {"headdim": 8},
    }
    config = ModelConfig(**{"d_model": 16, "n_layer": 4, **options, **changes})
    weights = build_model(config).state_dict()
    export_model(folder, checkpoint_config("language_model", config.model_dump(mode="json"), {}), weights)
    return folder


def test_the_table_has_a_row_a_core_and_the_picture_is_svg(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = model_folder(tmp_path / "model", pattern="M4HA", bidirectional=False)
    picture = tmp_path / "memory.svg"
    assert cli.run(["inspect", str(folder), "--output", str(picture), "--length", "256"]) == 0
    header, *rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    table = [dict(zip(header, row, strict=True)) for row in rows]
    assert [(row["core"], row["mixer"]) for row in table] == [
        ("blocks.0", "Mamba"), ("blocks.1", "DPLR"), ("blocks.2", "Hyena"), ("blocks.3", "Attention")
    ]  # fmt: skip
    assert 1 < float(table[0]["half_life_median"]) < float(table[0]["half_life_max"]) < 1000
    assert 0.9e-3 < float(table[1]["dt_min"]) < float(table[1]["dt_max"]) < 0.11
    assert 1 <= float(table[2]["memory_median"]) <= 64
    assert float(table[0]["memory_max"]) == pytest.approx(1.661 * float(table[0]["half_life_max"]), rel=1e-3)
    assert [row["reach"] for row in table] == ["all"] * 4
    assert table[3]["half_life_max"] == ""
    assert picture.read_text().count("<svg") == 1


@pytest.mark.slow
@pytest.mark.parametrize("mixer", sorted(MIXERS))
def test_every_preset_can_be_looked_into(mixer: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Every layer has its row in both directions, and a picture wherever something decays."""
    folder, picture = model_folder(tmp_path / "model", mixer=mixer, n_layer=2), tmp_path / "memory.svg"
    forgets = mixer not in ("attention", "local_attention", "conv", "rwkv_channel_mix")
    assert cli.run(["inspect", str(folder), "--length", "64", *(["--output", str(picture)] if forgets else [])]) == 0
    header, *rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    table = [dict(zip(header, row, strict=True)) for row in rows]
    assert len(table) == (2 if mixer in ("attention", "local_attention") else 4)
    for row in table:
        assert (row["half_life_max"] != "") == (row["memory_max"] != "") == forgets
        assert row["reach"] == {"local_attention": "511", "conv": "60", "rwkv_channel_mix": "1"}.get(mixer, "all")
        if forgets:
            assert float(row["half_life_median"]) > 0
            assert float(row["memory_median"]) > 0
    assert picture.exists() == forgets


def test_nothing_to_draw_is_said(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = model_folder(tmp_path / "model", mixer="attention")
    assert cli.run(["inspect", str(folder), "--output", str(tmp_path / "x.svg")]) == 2
    assert "nothing to draw" in capsys.readouterr().err
    assert not (tmp_path / "x.svg").exists()
