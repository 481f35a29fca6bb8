"""The loop with a toy model: equal bits after any interruption, a clean stop, no step on a NaN.

Run as a program, this file trains the toy model in children that die at every file operation (see _kill_everywhere).
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from genossm.errors import GenoSSMError
from genossm.train.checkpoint import checkpoint_config, export_model, load_state, load_weights, newest_checkpoint
from genossm.train.loop import LoopSettings, StepLoss, Trainer
from genossm.train.signals import StopRequest

STEPS = 12


class Crash(BaseException):
    """Stands for the end of the process: nothing catches it."""


class Toy:
    """Predict a noisy linear function; batch, noise and dropout follow from (seed, step)."""

    bases_per_step = 20

    def __init__(self) -> None:
        self.before_step: dict[int, Callable[[], object]] = {}
        self.in_validation: dict[int, Callable[[], object]] = {}
        self.spoil: Callable[[Tensor], Tensor] = lambda loss: loss
        self.validations = 0

    def loss(self, model: nn.Module, step: int) -> StepLoss:
        self.before_step.pop(step, lambda: None)()
        rng = np.random.Generator(np.random.Philox(key=1, counter=[0, step, 0, 0]))
        x = torch.from_numpy(rng.normal(size=(20, 6)).astype(np.float32))
        loss = (model(x) - x.sum(1, keepdim=True)).square().mean()
        return StepLoss(self.spoil(loss), loss.detach().sqrt())

    def validate(self, model: nn.Module, stopped: Callable[[], bool]) -> dict[str, float] | None:
        assert not model.training
        self.validations += 1
        self.in_validation.pop(self.validations, lambda: None)()
        if stopped():
            return None
        x = torch.linspace(-1, 1, 30).reshape(5, 6)
        return {"valid_loss": float((model(x) - x.sum(1, keepdim=True)).square().mean())}

    def describe(self, step: int) -> str:
        return f"windows {step}, {step + 1}"


def _train(run_dir: Path, task: Toy | None = None, stop: StopRequest | None = None, **changes: Any) -> list[Any]:
    """Train to the end, or raise on the way, as a new process would: new model, new optimizer."""
    torch.manual_seed(5)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Dropout(0.2), nn.Linear(8, 1))
    values: dict[str, Any] = {
        "steps": STEPS,
        "lr": 0.05,
        "warmup_steps": 2,
        "weight_decay": 0.1,
        "grad_clip": 1.0,
        "valid_every": 4,
        "checkpoint_every": 3,
        "keep": 2,
        "seed": 3,
    }
    settings = LoopSettings(**{**values, **changes})
    training = {key: getattr(settings, key) for key in ("steps", "lr", "seed", "valid_every")}
    config = checkpoint_config("language_model", {"d_model": 6}, training)
    trainer = Trainer(
        model,
        task or Toy(),
        settings,
        run_dir=run_dir,
        config=config,
        no_decay=lambda name, p: p.ndim < 2,
        stop=stop or StopRequest(),
    )
    if stop is not None:
        stop.hold()
    records = trainer.run()
    export_model(run_dir, config, model.state_dict())
    return records


def _result(run_dir: Path) -> tuple[str, str]:
    """What must be equal: the sha256 of the final weights, and the log."""
    return (
        hashlib.sha256((run_dir / "model.safetensors").read_bytes()).hexdigest(),
        (run_dir / "metrics.jsonl").read_text(),
    )


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """The result of a run that nothing disturbed."""
    run_dir = tmp_path_factory.mktemp("straight")
    _train(run_dir)
    return _result(run_dir)


def _crash() -> None:
    raise Crash


def test_a_run_learns_and_logs_every_step_and_validation(tmp_path: Path, expected: tuple[str, str]) -> None:
    records = _train(tmp_path)
    assert _result(tmp_path) == expected
    assert [r["step"] for r in records if "loss" in r] == list(range(1, STEPS + 1))
    assert [r["step"] for r in records if "valid_loss" in r] == [4, 8, 12]
    assert all(r["grad_norm"] > 0 and r["lr"] > 0 for r in records if "loss" in r)
    assert all(r["loss"] == pytest.approx(r["objective"] ** 0.5) for r in records if "loss" in r)
    validations = [r["valid_loss"] for r in records if "valid_loss" in r]
    assert validations[-1] < validations[0]
    assert list((tmp_path / "tensorboard").iterdir())
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["step-00000009", "step-00000012"]


def test_a_crash_before_any_step_changes_no_bit(tmp_path: Path, expected: tuple[str, str]) -> None:
    for step in range(STEPS):
        run_dir = tmp_path / str(step)
        task = Toy()
        task.before_step[step] = _crash
        with pytest.raises(Crash):
            _train(run_dir, task)
        _train(run_dir)
        assert _result(run_dir) == expected, f"crash before step {step}"


def test_a_chain_of_crashes_changes_no_bit(tmp_path: Path, expected: tuple[str, str]) -> None:
    """Ten processes of a few steps each; two of them die in a validation."""
    crashes = 0
    for step, validation in [(1, 9), (4, 9), (5, 1), (6, 9), (7, 9), (8, 1), (9, 9), (10, 9), (11, 9), (11, 9)]:
        task = Toy()
        task.before_step[step] = task.in_validation[validation] = _crash
        with pytest.raises(Crash):
            _train(tmp_path, task)
        crashes += 1
    _train(tmp_path)
    assert crashes == 10
    assert _result(tmp_path) == expected


def test_tensorboard_shows_every_step_once_after_a_crash(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import (  # type: ignore[import-untyped]
        EventAccumulator,
    )

    task = Toy()
    task.before_step[8] = _crash
    with pytest.raises(Crash):
        _train(tmp_path, task)
    records = _train(tmp_path)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [e.step for e in events.Scalars("loss")] == list(range(1, STEPS + 1))
    assert [e.step for e in events.Scalars("valid_loss")] == [4, 8, 12]
    shown = [e.value for e in events.Scalars("loss")]
    assert shown == pytest.approx([r["loss"] for r in records if "loss" in r], rel=1e-6)
    assert all(e.value > 0 for e in events.Scalars("bases_per_second"))


def test_a_finished_run_does_no_step_again(tmp_path: Path, expected: tuple[str, str]) -> None:
    _train(tmp_path)
    task = Toy()
    task.before_step = dict.fromkeys(range(STEPS), _crash)
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "metrics.jsonl").unlink()
    _train(tmp_path, task)
    assert _result(tmp_path) == expected


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.parametrize("at", [0, 2, 7, STEPS - 1])
def test_a_signal_in_a_step_saves_that_step(
    tmp_path: Path, expected: tuple[str, str], number: signal.Signals, code: int, at: int
) -> None:
    task = Toy()
    task.before_step[at] = lambda: signal.raise_signal(number)
    with StopRequest() as stop, pytest.raises(GenoSSMError) as caught:
        _train(tmp_path, task, stop)
    assert caught.value.exit_code == code
    assert str(caught.value).startswith(f"stopped by {number.name}; step {at + 1} is saved")
    newest, _ = newest_checkpoint(tmp_path)
    assert newest is not None
    assert load_state(newest).step == at + 1
    _train(tmp_path)
    assert _result(tmp_path) == expected


def test_a_signal_in_a_validation_leaves_it_and_saves(tmp_path: Path, expected: tuple[str, str]) -> None:
    task = Toy()
    task.in_validation[1] = lambda: signal.raise_signal(signal.SIGTERM)
    with StopRequest() as stop, pytest.raises(GenoSSMError, match="step 4 is saved"):
        _train(tmp_path, task, stop)
    assert "valid_loss" not in (tmp_path / "metrics.jsonl").read_text()
    _train(tmp_path)
    assert _result(tmp_path) == expected


def test_a_chain_of_signals_changes_no_bit(tmp_path: Path, expected: tuple[str, str]) -> None:
    for step in range(STEPS):
        task = Toy()
        task.before_step[step] = lambda: signal.raise_signal(signal.SIGTERM)
        with StopRequest() as stop, pytest.raises(GenoSSMError, match=f"step {step + 1} is saved"):
            _train(tmp_path, task, stop)
    _train(tmp_path)
    assert _result(tmp_path) == expected


def test_a_signal_before_training_raises_at_once_and_handlers_are_put_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(GenoSSMError, match="stopped by SIGTERM; training had not begun"), StopRequest():
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_second_signal_ends_the_process_at_once() -> None:
    program = (
        "import signal, time\nfrom genossm.train.signals import StopRequest\n"
        "with StopRequest() as stop:\n    stop.hold()\n    signal.raise_signal(signal.SIGINT)\n"
        "    print(stop.received.name, flush=True)\n    signal.raise_signal(signal.SIGTERM)\n    time.sleep(60)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=50, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (143, "SIGINT\n", "")


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_stops_before_a_weight_is_touched(
    tmp_path: Path, expected: tuple[str, str], bad: float
) -> None:
    task = Toy()

    def spoil_from_now() -> None:
        task.spoil = lambda loss: loss * bad

    task.before_step[7] = spoil_from_now
    with pytest.raises(GenoSSMError) as caught:
        _train(tmp_path, task)
    text = str(caught.value)
    assert text.startswith(f"E_NOT_FINITE the loss is {bad} in step 8 (windows 7, 8); no weight was changed by it")
    assert "the last checkpoint is of step 6" in text
    assert caught.value.exit_code == 2
    _train(tmp_path)
    assert _result(tmp_path) == expected


def test_a_gradient_that_is_no_number_stops_before_a_weight_is_touched(
    tmp_path: Path, expected: tuple[str, str]
) -> None:
    task = Toy()
    task.spoil = lambda loss: loss + (loss - loss.detach()).sqrt()  # the same value, an infinite slope
    with pytest.raises(GenoSSMError, match=r"the gradient norm is nan in step 1 .* there is no checkpoint yet"):
        _train(tmp_path, task)
    _train(tmp_path)
    assert _result(tmp_path) == expected


def test_other_settings_are_refused_and_named(tmp_path: Path) -> None:
    _train(tmp_path)
    with pytest.raises(GenoSSMError, match=r"other settings: lr is 0\.05 there and 0\.1 here"):
        _train(tmp_path, lr=0.1)


def test_a_damaged_newest_checkpoint_costs_steps_but_no_bit(
    tmp_path: Path, expected: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    task = Toy()
    task.before_step[7] = _crash
    with pytest.raises(Crash):
        _train(tmp_path, task)
    os.truncate(tmp_path / "checkpoints/step-00000006/state/optimizer.safetensors", 100)
    _train(tmp_path)
    assert "passed over" in capsys.readouterr().err
    assert _result(tmp_path) == expected


def test_another_number_of_threads_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    task = Toy()
    task.before_step[4] = _crash
    with pytest.raises(Crash):
        _train(tmp_path, task)
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        _train(tmp_path)
    finally:
        torch.set_num_threads(threads)
    assert f"threads was {threads} and is {threads + 1}" in capsys.readouterr().err


def test_a_model_in_the_place_of_a_checkpoint_is_refused(tmp_path: Path) -> None:
    _train(tmp_path)
    newest, _ = newest_checkpoint(tmp_path)
    assert newest is not None
    config, weights = load_weights(newest)
    shutil.rmtree(newest)
    export_model(newest, config, {**weights, "extra": torch.zeros(1)})
    with pytest.raises(GenoSSMError, match="cannot be resumed"):
        _train(tmp_path)


@pytest.mark.slow
def test_a_kill_at_any_file_operation_changes_no_bit(tmp_path: Path, expected: tuple[str, str]) -> None:
    """SIGKILL in real processes, at every sixth operation on files of a whole run, saves and logs included."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", __file__, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    outcome = json.loads(done.stdout)
    assert outcome["points"] > 20
    assert outcome["results"] == [list(expected)]


def _kill_everywhere(folder: Path) -> None:
    """Train, killed at file operation n = 1, 7, 13 ..., until a run ends unharmed; then train each to its end.

    The parent trains once, so that all is imported before the forks, and on one thread: a process with a pool of
    OpenMP threads cannot be forked.
    """
    torch.set_num_threads(1)
    _train(folder / "first")
    results = {_result(folder / "first")}
    n, points = 1, 0
    while True:
        run_dir = folder / str(n)
        killed = _train_in_child(run_dir, n) == -signal.SIGKILL
        points += killed
        if _train_in_child(run_dir) != 0:
            raise SystemExit(f"the run killed at {n} could not be resumed")
        results.add(_result(run_dir))
        shutil.rmtree(run_dir)
        if not killed:
            break
        n += 6
    print(json.dumps({"points": points, "results": sorted(results)}))


def _die_at(n: int) -> None:
    left = [n]

    def wrap(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            left[0] -= 1
            if left[0] == 0:
                if name == "write":
                    os.pwrite(args[0], bytes(args[1])[: len(args[1]) // 2], 0)
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **kwargs)

        return call

    for name in ("write", "fsync", "replace", "mkdir", "unlink", "rmdir", "open"):
        setattr(os, name, wrap(name, getattr(os, name)))


def _train_in_child(run_dir: Path, die_at: int | None = None) -> int:
    """Train in a forked child: its exit code, or minus the signal that killed it."""
    child = os.fork()
    if child == 0:
        try:
            if die_at is not None:
                _die_at(die_at)
            _train(run_dir)
            os._exit(0)
        except BaseException as error:
            print(repr(error), file=sys.stderr)
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


if __name__ == "__main__":
    _kill_everywhere(Path(sys.argv[1]))
