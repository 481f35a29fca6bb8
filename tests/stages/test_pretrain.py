"""genossm pretrain: from tokens to a model, through kills and signals to the same bytes, and a word for every fault."""

from __future__ import annotations

import inspect
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from genossm import cli
from genossm.config import PretrainSection
from genossm.errors import GenoSSMError
from genossm.files import locked
from genossm.stages import pretrain as stage
from genossm.stages.loading import load_model
from genossm.stages.pretrain import pretrain
from genossm.train.checkpoint import newest_checkpoint
from tests.stages.pretraining import CAUSAL, MODEL, section, tokens_file

MODEL_FILES = ("config.json", "model.safetensors", "MANIFEST.json", "metrics.jsonl", "baselines.json")


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tokens file of the toy genome."""
    return tokens_file(tmp_path_factory.mktemp("tokens"))


def _bytes(output: Path) -> dict[str, bytes]:
    return {name: (output / name).read_bytes() for name in MODEL_FILES}


@pytest.mark.parametrize("model", [MODEL, CAUSAL], ids=["masked", "causal"])
def test_a_run_leaves_a_model_and_its_figures(tmp_path: Path, tokens: Path, model: Any) -> None:
    metrics = pretrain(tokens, tmp_path, model, section())
    assert metrics == json.loads((tmp_path / "metrics.json").read_text())
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [r["step"] for r in records if "loss" in r] == list(range(1, 9))
    assert [r["step"] for r in records if "valid_loss" in r] == [4, 8]
    assert metrics["valid_loss"] == records[-1]["valid_loss"]
    baseline = metrics["baseline"]
    assert baseline["kind"] == ("flank" if model is MODEL else "markov")
    assert metrics["gap"]["best_k"] == baseline["best"] - metrics["valid_loss"]
    assert metrics["gap"]["uniform"] == pytest.approx(1.3862943611 - metrics["valid_loss"])
    assert metrics["valid_targets"] == baseline["targets"] > 100
    loaded, config = load_model(tmp_path)
    assert metrics["parameters"] == sum(p.numel() for p in loaded.parameters())
    assert config["training"] == metrics["training"]
    assert config["training"]["seed"] == 1
    assert list((tmp_path / "tensorboard").iterdir())


def test_equal_settings_give_equal_bytes_and_another_seed_does_not(tmp_path: Path, tokens: Path) -> None:
    for name, seed in (("1", 1), ("2", 1), ("3", 2)):
        pretrain(tokens, tmp_path / name, MODEL, section(), seed)
    assert _bytes(tmp_path / "1") == _bytes(tmp_path / "2")
    assert _bytes(tmp_path / "1")["model.safetensors"] != _bytes(tmp_path / "3")["model.safetensors"]


def test_a_finished_run_is_left_alone_and_lost_files_come_back(tmp_path: Path, tokens: Path) -> None:
    metrics = pretrain(tokens, tmp_path, MODEL, section())
    before, stamp = _bytes(tmp_path), (tmp_path / "model.safetensors").stat().st_mtime_ns
    assert pretrain(tokens, tmp_path, MODEL, section()) == metrics
    assert (tmp_path / "model.safetensors").stat().st_mtime_ns == stamp
    for name in MODEL_FILES:
        (tmp_path / name).unlink()
        assert pretrain(tokens, tmp_path, MODEL, section()) == metrics, name
    assert _bytes(tmp_path) == before


def test_other_settings_are_refused_but_bookkeeping_may_change(tmp_path: Path, tokens: Path) -> None:
    metrics = pretrain(tokens, tmp_path, MODEL, section())
    for changes, text in (({"lr": 0.5}, "lr is 0.01 there and 0.5 here"), ({"steps": 9}, "steps is 8 there")):
        with pytest.raises(GenoSSMError, match=text):
            pretrain(tokens, tmp_path, MODEL, section(**changes))
    with pytest.raises(GenoSSMError, match="n_layer is 1 there and 2 here"):
        pretrain(tokens, tmp_path, MODEL.model_copy(update={"n_layer": 2}), section())
    again = pretrain(tokens, tmp_path, MODEL, section(keep=4, checkpoint_every=2, genome="other"))
    assert again["valid_loss"] == metrics["valid_loss"]


@pytest.mark.slow
def test_a_small_model_learns_what_the_tables_know(tmp_path: Path, tokens: Path) -> None:
    """The toy genome is a chain of order 2: a causal model comes near the best table in a few steps."""
    metrics = pretrain(tokens, tmp_path, CAUSAL, section(steps=150, batch_size=8, lr=0.02, valid_every=150))
    assert metrics["baseline"]["best_k"] >= 2
    assert metrics["valid_loss"] < metrics["baseline"]["by_k"]["1"]
    assert metrics["gap"]["best_k"] > -0.05


def test_a_diverging_run_stops_with_the_step_and_its_windows(tmp_path: Path, tokens: Path) -> None:
    with pytest.raises(GenoSSMError) as caught:
        pretrain(
            tokens, tmp_path, MODEL, section(lr=1e30, warmup_steps=0, checkpoint_every=1, steps=50, valid_every=50)
        )
    text = str(caught.value)
    assert text.startswith("E_NOT_FINITE the ")
    assert "(windows I" in text
    assert "no weight was changed by it, the last checkpoint is of step" in text
    assert caught.value.exit_code == 2
    newest, faults = newest_checkpoint(tmp_path)
    assert newest is not None
    assert not faults
    assert not (tmp_path / "metrics.json").exists()
    assert not (tmp_path / "model.safetensors").exists()


def test_two_runs_never_share_a_folder(tmp_path: Path, tokens: Path) -> None:
    with locked(tmp_path / ".lock", "the run"), pytest.raises(GenoSSMError, match="in use by process") as caught:
        pretrain(tokens, tmp_path, MODEL, section())
    assert caught.value.exit_code == 75


# ------------------------------------------------------------------------------------------------- in real processes


def _command(tokens: Path, output: Path, folder: Path) -> list[str]:
    shape = folder / "shape.yaml"
    shape.write_text(yaml.safe_dump(MODEL.model_dump()))
    values = section(steps=60, checkpoint_every=5, valid_every=20, seqlen=512).model_dump(exclude={"genome"})
    words = [
        sys.executable,
        "-m",
        "genossm.cli",
        "pretrain",
        str(tokens),
        "--output",
        str(output),
        "--model",
        str(shape),
    ]
    for name, value in values.items():
        flag = f"--{name.replace('_', '-')}"
        words += [flag if value else f"--no-{flag[2:]}"] if isinstance(value, bool) else [flag, str(value)]
    return words


def _wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not condition() and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.002)


def _newest_step(output: Path) -> int:
    return max((int(p.name[5:]) for p in output.glob("checkpoints/step-*")), default=0)


@pytest.mark.slow
def test_killed_and_stopped_processes_end_in_the_same_bytes(tmp_path: Path, tokens: Path) -> None:
    """SIGKILL at a random moment after a new checkpoint, then SIGTERM, then to the end: as if nothing was."""
    output = tmp_path / "run"
    rng = random.Random(os.getpid())
    command = _command(tokens, output, tmp_path)
    for number in (signal.SIGKILL, signal.SIGTERM):
        begun = _newest_step(output)
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
            _wait_for(lambda begun=begun: _newest_step(output) > begun, process)  # type: ignore[misc]
            time.sleep(rng.random() * 0.05)
            process.send_signal(number)
            _, stderr = process.communicate(timeout=120)
        if number == signal.SIGTERM:
            assert process.returncode == 143, stderr
            last = stderr.strip().splitlines()[-1]
            assert last.startswith("genossm: stopped by SIGTERM; step "), stderr
            assert f"step {_newest_step(output)} is saved, and the same command goes on from there" in last
        else:
            assert process.returncode == -signal.SIGKILL, stderr
        assert "Traceback" not in stderr
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    assert "resumed after step" in done.stderr
    assert "validation loss:" in done.stdout
    straight = tmp_path / "straight"
    pretrain(tokens, straight, MODEL, section(steps=60, checkpoint_every=5, valid_every=20, seqlen=512))
    assert _bytes(output) == _bytes(straight)


# ------------------------------------------------------------------------------------------------------ command line


def _cli(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = cli.run(["pretrain", *words])
    out = capsys.readouterr()
    return code, out.out, out.err


def test_every_key_of_the_section_is_an_option_with_its_help() -> None:
    parameters = inspect.signature(stage.command).parameters
    assert set(PretrainSection.model_fields) - {"genome"} <= set(parameters)
    done = subprocess.run(
        [sys.executable, "-m", "genossm.cli", "pretrain", "--help"],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
        env={**os.environ, "COLUMNS": "200", "TERM": "dumb"},
    )
    for name in set(PretrainSection.model_fields) - {"genome"}:
        assert f"--{name.replace('_', '-')}" in done.stdout
    assert "Example: genossm pretrain" in done.stdout


def test_a_config_gives_what_the_options_do_not(
    tmp_path: Path, tokens: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model/mini.yaml").write_text(yaml.safe_dump(MODEL.model_dump()))
    config = tmp_path / "config.yaml"
    config.write_text(
        yaml.safe_dump(
            {
                "seed": 7,
                "model": "mini",
                "fetch": {"genomes": {"toy": {"source": "toy.fa"}}},
                "pretrain": section(steps=3).model_dump(),
            }
        )
    )
    code, out, err = _cli(
        capsys, str(tokens), "--output", str(tmp_path / "run"), "--config", str(config), "--batch-size", "2"
    )
    assert code == 0, err
    assert "count table, best k" in out
    training = json.loads((tmp_path / "run/metrics.json").read_text())["training"]
    assert (training["steps"], training["batch_size"], training["seed"]) == (3, 2, 7)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--steps", "0"], "--steps: Input should be greater than 0, not 0"),
        (["--lr", "inf"], "--lr: "),
        (["--mask-fraction", "1"], "--mask-fraction: Input should be less than 1"),
        (["--keep", "1"], "--keep: "),
        (["--seqlen", "1000"], "seqlen 1,000 is longer than the windows of 512 bp"),
        (["--device", "cuda:77"], "device: there is no cuda:77 here"),
        (["--model", "huge"], "model: there is no preset 'huge' in config/model"),
        (["--model", "absent.yaml"], "absent.yaml: cannot be read: No such file or directory"),
        (["--steps", "many"], "--steps"),
    ],
)
def test_a_wrong_option_is_one_line_that_names_it(
    tmp_path: Path, tokens: Path, capsys: pytest.CaptureFixture[str], words: list[str], text: str
) -> None:
    code, _, err = _cli(capsys, str(tokens), "--output", str(tmp_path / "run"), *words)
    assert code == 2
    assert text in err
    assert len(err.strip().splitlines()) == 1


def test_a_file_that_holds_no_tokens_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "tokens.h5"
    path.write_text("not HDF5")
    code, _, err = _cli(capsys, str(path), "--output", str(tmp_path / "run"), "--model", "tiny")
    assert code == 2
    assert "tokens.h5: " in err
