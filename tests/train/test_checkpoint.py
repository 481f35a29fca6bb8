"""Checkpoints under faults: every kill point, every failing call, flipped bits, foreign and hostile folders."""

from __future__ import annotations

import errno
import json
import os
import pickle
import random
import shutil
import signal
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from genossm.errors import GenoSSMError
from genossm.train import checkpoint
from genossm.train.checkpoint import (
    MANIFEST,
    TrainState,
    checkpoint_config,
    export_model,
    load_config,
    load_state,
    load_weights,
    newest_checkpoint,
    save_checkpoint,
)

CONFIG = checkpoint_config("language_model", {"d_model": 4}, {"seed": 1})
PATCHED = ("write", "fsync", "replace", "mkdir", "unlink", "rmdir", "open", "rename")


def _weights(step: int) -> dict[str, torch.Tensor]:
    return {"a.weight": torch.full((3, 5), float(step)), "a.bias": torch.arange(5) + step, "b": torch.tensor(1.5)}


def _save(run: Path, step: int, keep: int = 2) -> Path:
    state = TrainState(step, {"a.weight/exp_avg": torch.ones(3, 5) * step}, {"threads": 2}, (f'{{"step": {step}}}',))
    return save_checkpoint(run, step, CONFIG, _weights(step), state, keep)


def _bytes(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def _steps(run: Path) -> list[str]:
    return sorted(p.name for p in (run / "checkpoints").iterdir() if not p.name.startswith("."))


class Countdown:
    """Replaces the calls of ``os`` that change files; the ``n``-th of them is where ``fault`` strikes."""

    def __init__(self, n: int, fault: Callable[[str, tuple[Any, ...]], None]) -> None:
        self.left, self.fault, self.fired = n, fault, False

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in PATCHED:
            monkeypatch.setattr(os, name, self._wrap(name, getattr(os, name)))

    def _wrap(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if not (name == "open" and not args[1] & os.O_CREAT):
                self.left -= 1
                if self.left == 0:
                    self.fired = True
                    self.fault(name, args)
            return real(*args, **kwargs)

        return call


def _die(name: str, args: tuple[Any, ...]) -> None:
    """Kill -9 at a call; a write has written half of its bytes by then."""
    if name == "write":
        os.pwrite(args[0], bytes(args[1])[: len(args[1]) // 2], 0)
    os.kill(os.getpid(), signal.SIGKILL)


def _run_killed(action: Callable[[], object], n: int) -> bool:
    """Run ``action`` in a child that dies at its n-th file operation; whether it died there."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # fork beside idle torch threads: the child only writes
        child = os.fork()
    if child == 0:
        try:
            with pytest.MonkeyPatch.context() as monkeypatch:
                Countdown(n, _die).install(monkeypatch)
                action()
            os._exit(0)
        except BaseException:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.WEXITSTATUS(status) == 0
    return False


def test_a_checkpoint_gives_back_what_was_saved(tmp_path: Path) -> None:
    folder = _save(tmp_path, 7)
    config, weights = load_weights(folder)
    state = load_state(folder)
    assert config == CONFIG
    assert weights.keys() == _weights(7).keys()
    assert all(torch.equal(weights[name], value) for name, value in _weights(7).items())
    assert (state.step, state.values, state.metrics) == (7, {"threads": 2}, ('{"step": 7}',))
    assert torch.equal(state.tensors["a.weight/exp_avg"], torch.full((3, 5), 7.0))


def test_tied_weights_are_saved_under_both_names(tmp_path: Path) -> None:
    shared = torch.randn(4, 4)
    export_model(tmp_path, CONFIG, {"x": shared, "y": shared, "view": shared.t()})
    weights = load_weights(tmp_path)[1]
    assert torch.equal(weights["x"], shared)
    assert torch.equal(weights["y"], shared)
    assert torch.equal(weights["view"], shared.t())


def test_equal_saves_have_equal_bytes_and_the_modes_of_the_umask(tmp_path: Path) -> None:
    first, second = _save(tmp_path / "1", 3), _save(tmp_path / "2", 3)
    assert _bytes(first) == _bytes(second)
    mask = os.umask(0o022)
    os.umask(mask)
    assert all(p.stat().st_mode & 0o777 == 0o666 & ~mask for p in first.rglob("*") if p.is_file())


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    for step in (1, 2, 3, 4):
        _save(tmp_path, step, keep=3)
    assert _steps(tmp_path) == ["step-00000002", "step-00000003", "step-00000004"]


def test_a_damaged_checkpoint_counts_neither_as_newest_nor_as_kept(tmp_path: Path) -> None:
    _save(tmp_path, 1)
    _save(tmp_path, 9)
    with open(tmp_path / "checkpoints/step-00000009/model.safetensors", "r+b") as handle:
        handle.truncate(50)
    newest, faults = newest_checkpoint(tmp_path)
    assert newest is not None
    assert newest.name == "step-00000001"
    assert len(faults) == 1
    assert "step-00000009/model.safetensors: damaged: 50 bytes" in faults[0]
    _save(tmp_path, 2)
    assert _steps(tmp_path) == ["step-00000001", "step-00000002"]


def test_no_kill_point_of_a_save_loses_a_checkpoint(tmp_path: Path) -> None:
    """SIGKILL at every file operation of the save of step 3 over steps 1 and 2, pruning included."""
    expected = {step: _bytes(_save(tmp_path / "reference", step, keep=3)) for step in (1, 2, 3)}
    run, points, found = tmp_path / "run", 0, []
    while True:
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(tmp_path / "reference", run, ignore=shutil.ignore_patterns("step-00000003"))
        if not _run_killed(lambda: _save(run, 3), points + 1):
            break
        points += 1
        newest, faults = newest_checkpoint(run)
        assert newest is not None
        assert faults == [], "a folder under its final name is whole"
        step = load_state(newest).step
        assert _bytes(newest) == expected[step]
        found.append(step)
        checkpoint.sweep(run)
        if step == 2:
            _save(run, 3)
        assert _bytes(run / "checkpoints/step-00000003") == expected[3]
    assert points > 25
    assert found == sorted(found)
    assert set(found) == {2, 3}
    assert _steps(run) == ["step-00000002", "step-00000003"]


def test_no_kill_point_of_an_export_leaves_a_model_that_seems_whole(tmp_path: Path) -> None:
    """SIGKILL at every file operation of the export of a new model over an old one."""
    run, points, outcomes = tmp_path / "run", 0, []
    while True:
        shutil.rmtree(run, ignore_errors=True)
        export_model(run, CONFIG, _weights(1))
        if not _run_killed(lambda: export_model(run, CONFIG, _weights(2)), points + 1):
            break
        points += 1
        try:
            outcomes.append(float(load_weights(run)[1]["a.weight"][0, 0]))
        except GenoSSMError:
            outcomes.append(1.5)  # refused: neither the old nor the new
        export_model(run, CONFIG, _weights(2))
        assert torch.equal(load_weights(run)[1]["a.weight"], _weights(2)["a.weight"])
    assert points >= 8
    assert outcomes == sorted(outcomes)
    assert {1.0, 1.5} <= set(outcomes)


def test_no_failing_call_of_a_save_loses_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Disk full at every file operation: it is told, the old checkpoints stand, the next save goes through."""

    def fail(name: str, args: tuple[Any, ...]) -> None:
        path = str(args[0]) if isinstance(args[0], str | Path) else None
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)

    for step in (1, 2):
        _save(tmp_path / "reference", step)
    points = 0
    while True:
        run = tmp_path / f"run{points}"
        shutil.copytree(tmp_path / "reference", run)
        before = _bytes(run / "checkpoints/step-00000002")
        with monkeypatch.context() as patched:
            countdown = Countdown(points + 1, fail)
            countdown.install(patched)
            error: OSError | None = None
            try:
                _save(run, 3)
            except OSError as caught:
                error = caught
        if not countdown.fired:
            break
        points += 1
        assert error is None or (error.errno == errno.ENOSPC and error.filename), "the message names a file"
        newest, faults = newest_checkpoint(run)
        assert newest is not None
        assert not faults
        if error is not None and newest.name == "step-00000002":
            assert _bytes(newest) == before
            assert not [p for p in (run / "checkpoints").iterdir() if p.name.startswith(".tmp-step")]
        _save(run, 4)
    assert points > 20


def test_a_full_disk_is_told_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(OSError, match="No space left") as caught:
        _save(tmp_path, 1)
    assert caught.value.errno == errno.ENOSPC
    assert list((tmp_path / "checkpoints").iterdir()) == []
    with pytest.raises(OSError, match="No space left") as caught:
        export_model(tmp_path / "model", CONFIG, _weights(1))
    assert caught.value.filename == str(tmp_path)
    assert not (tmp_path / "model").exists()


def test_no_flipped_bit_is_silent(tmp_path: Path) -> None:
    folder = _save(tmp_path, 1)
    rng = random.Random(0)
    silent = 0
    for path in [p for p in folder.rglob("*") if p.is_file()]:
        original = path.read_bytes()
        for _ in range(100):
            flipped = bytearray(original)
            flipped[rng.randrange(len(flipped))] ^= 1 << rng.randrange(8)
            path.write_bytes(flipped)
            silent += checkpoint.is_good(folder)
        path.write_bytes(original)
    assert silent == 0
    assert checkpoint.is_good(folder)


def _model(folder: Path) -> Path:
    export_model(folder, CONFIG, _weights(1))
    return folder


def _remanifest(folder: Path) -> None:
    """Make the manifest fit the files again, as someone who forges a checkpoint would."""
    files = {name: (folder / name).read_bytes() for name in ("config.json", "model.safetensors")}
    (folder / MANIFEST).write_bytes(checkpoint._manifest(files))


def _write(folder: Path, name: str, content: bytes) -> None:
    (folder / name).write_bytes(content)
    _remanifest(folder)


def _edit(folder: Path, **changes: Any) -> None:
    config = {**json.loads((folder / "config.json").read_text()), **changes}
    (folder / "config.json").write_text(json.dumps(config))
    _remanifest(folder)


def _faults() -> Iterator[tuple[str, Callable[[Path], object], str]]:
    yield "absent", lambda p: shutil.rmtree(p), "no such checkpoint folder"
    yield "a file", lambda p: p.rename(p.with_name("x")) and p.write_text("x"), "not a checkpoint folder"
    yield "no manifest", lambda p: (p / MANIFEST).unlink(), "unfinished one: it has no MANIFEST.json"
    yield "no weights", lambda p: (p / "model.safetensors").unlink(), "model.safetensors: is missing"
    yield "no config", lambda p: (p / "config.json").unlink(), "config.json: is missing"
    yield "manifest not JSON", lambda p: (p / MANIFEST).write_text("{"), "MANIFEST.json: damaged: not valid JSON"
    yield "manifest too deep", lambda p: (p / MANIFEST).write_text("[" * 10**6), "MANIFEST.json: damaged: not valid"
    yield "manifest a list", lambda p: (p / MANIFEST).write_text("[]"), "MANIFEST.json: damaged: not a JSON object"
    yield "manifest foreign", lambda p: (p / MANIFEST).write_text("{}"), "MANIFEST.json: not a GenoSSM manifest"
    yield "cut", lambda p: os.truncate(p / "model.safetensors", 9), "model.safetensors: damaged: 9 bytes"
    yield (
        "longer",
        lambda p: (p / "config.json").write_text((p / "config.json").read_text() + " "),
        "config.json: damaged",
    )
    yield "other format", lambda p: _edit(p, format="other"), "config.json: not a GenoSSM checkpoint"
    yield "other version", lambda p: _edit(p, format_version=2), "config.json: format version 2"
    yield "other kind", lambda p: _edit(p, kind="diffusion"), "config.json: 'kind' or 'model' is missing"
    yield "no labels", lambda p: _edit(p, kind="classifier"), "config.json: 'labels' of a classifier"
    yield (
        "not safetensors",
        lambda p: _write(p, "model.safetensors", b"\xff" * 40),
        "model.safetensors: not a valid safetensors file",
    )


@pytest.mark.parametrize(("fault", "text"), [pytest.param(f, t, id=name) for name, f, t in _faults()])
def test_what_is_wrong_with_a_folder_is_named(tmp_path: Path, fault: Callable[[Path], object], text: str) -> None:
    folder = _model(tmp_path / "model")
    fault(folder)
    with pytest.raises(GenoSSMError) as caught:
        load_weights(folder)
    assert text in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_manifest_cannot_point_outside_the_folder(tmp_path: Path) -> None:
    folder = _model(tmp_path / "model")
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["files"]["../../secret"] = manifest["files"]["config.json"]
    (folder / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(GenoSSMError, match="damaged entry"):
        checkpoint.verify(folder)


class _Payload:
    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (os.environ["GENOSSM_TEST_PAYLOAD"],))


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "MANIFEST.json", "pytorch_model.bin"])
def test_a_pickle_is_never_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    executed = tmp_path / "executed"
    monkeypatch.setenv("GENOSSM_TEST_PAYLOAD", str(executed))
    folder = _model(tmp_path / "model")
    (folder / name).write_bytes(pickle.dumps(_Payload()))
    if name == "pytorch_model.bin":
        (folder / MANIFEST).unlink()
    elif name != MANIFEST:
        _remanifest(folder)
    with pytest.raises(GenoSSMError) as caught:
        load_weights(folder)
    assert name in str(caught.value)
    assert not executed.exists()


def test_a_model_cannot_be_resumed_and_an_unfinished_run_says_so(tmp_path: Path) -> None:
    with pytest.raises(GenoSSMError, match="cannot be resumed"):
        load_state(_model(tmp_path / "model"))
    folder = _save(tmp_path / "run", 5)
    with pytest.raises(GenoSSMError, match=r"not finished.*step-00000005"):
        load_config(tmp_path / "run")
    assert load_config(folder) == CONFIG
