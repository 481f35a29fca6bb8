"""Checkpoints: folders that are whole or absent, checked by sha256, and free of pickle.

A checkpoint is a folder with ``config.json``, ``model.safetensors`` and ``MANIFEST.json`` (size and sha256 of each
other file). A training checkpoint, ``RUN/checkpoints/step-00000100``, holds also ``state/``: the optimizer
(safetensors), the step and what it was run on (JSON), and the metrics so far (JSON lines), so that a resumed run
goes on with the same bits and the same log.

Order of a save: a folder ``.tmp-*`` beside, every file synced, the manifest last, the folder synced, renamed, the
parent synced, read back, and only then is the oldest removed. A kill at any moment leaves the old checkpoints, or the
old ones and the new one. Readers trust no name and no link: the newest folder that verifies is the one that counts.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import safetensors
import safetensors.torch
from torch import Tensor

from genossm import __version__
from genossm.errors import ExitCode, GenoSSMError
from genossm.files import atomic_write, fsync_dir

FORMAT = "genossm-checkpoint"
FORMAT_VERSION = 1
CONFIG, WEIGHTS, MANIFEST = "config.json", "model.safetensors", "MANIFEST.json"
OPTIMIZER, STATE, METRICS = "state/optimizer.safetensors", "state/state.json", "state/metrics.jsonl"
KNOWN_FILES = frozenset({CONFIG, WEIGHTS, OPTIMIZER, STATE, METRICS})
KINDS = ("language_model", "classifier")
_STEP_FOLDER = re.compile(r"step-(\d{8,})")
_WRITE_CHUNK = 1 << 24
_MAX_JSON = 1 << 28


@dataclass(frozen=True)
class TrainState:
    """All that training needs beside the weights.

    Attributes:
        step: optimizer steps done.
        tensors: the optimizer's state by name, see :func:`genossm.train.optim.optimizer_tensors`.
        values: plain facts (threads, device, seconds so far), JSON.
        metrics: the lines of metrics.jsonl up to ``step``, without line ends.
    """

    step: int
    tensors: Mapping[str, Tensor]
    values: Mapping[str, Any]
    metrics: tuple[str, ...]


def checkpoint_config(
    kind: Literal["language_model", "classifier"],
    model: Mapping[str, Any],
    training: Mapping[str, Any],
    labels: list[str] | None = None,
) -> dict[str, Any]:
    """The content of ``config.json``: what the model is and where it comes from.

    Args:
        kind: ``language_model`` or ``classifier``.
        model: the dump of a ModelConfig.
        training: provenance (checksum of the tokens, seed, settings); no times, so that equal runs give equal bytes.
        labels: the classes, in the order of the logits (classifier).
    """
    config: dict[str, Any] = {"format": FORMAT, "format_version": FORMAT_VERSION, "kind": kind, "model": dict(model)}
    if labels is not None:
        config["labels"] = list(labels)
    return {**config, "genossm_version": __version__, "training": dict(training)}


# --------------------------------------------------------------------------------------------------------- writing


def save_checkpoint(
    run_dir: Path, step: int, config: Mapping[str, Any], weights: Mapping[str, Tensor], state: TrainState, keep: int = 2
) -> Path:
    """Write ``run_dir/checkpoints/step-XXXXXXXX`` at once, then remove all but the newest ``keep`` good ones.

    Raises:
        OSError: no space, no permission ...; it names the file, and the older checkpoints are as they were.
    """
    folder = run_dir / "checkpoints"
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"step-{step:08d}"
    temporary = folder / f".tmp-{target.name}-{os.getpid()}"
    files = {
        CONFIG: _json(config),
        WEIGHTS: _tensor_bytes(weights),
        OPTIMIZER: _tensor_bytes(state.tensors),
        STATE: _json({"step": state.step, **state.values}),
        METRICS: "".join(line + "\n" for line in state.metrics).encode(),
    }
    files[MANIFEST] = _manifest(files)
    _require_space(folder, sum(map(len, files.values())))
    try:
        for parent in (temporary, temporary / "state"):
            os.mkdir(parent)
        for name, content in files.items():
            with _naming(temporary / name):
                _write_synced(temporary / name, content)
        with _naming(target):
            fsync_dir(temporary / "state")
            fsync_dir(temporary)
            if target.exists():
                _discard(target)
            os.replace(temporary, target)
            fsync_dir(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    verify(target)
    _prune(folder, keep)
    return target


def export_model(folder: Path, config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> None:
    """Write a model folder without training state: ``config.json``, ``model.safetensors``, then ``MANIFEST.json``.

    The manifest is the mark of completeness: it goes first when something else stood there, and comes last.
    """
    files = {CONFIG: _json(config), WEIGHTS: _tensor_bytes(weights)}
    standing = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    _require_space(standing, sum(map(len, files.values())))
    with _naming(folder):
        if (folder / MANIFEST).exists():
            (folder / MANIFEST).unlink()
            fsync_dir(folder)
        for name, content in files.items():
            atomic_write(folder / name, content)
        atomic_write(folder / MANIFEST, _manifest(files))


def sweep(run_dir: Path) -> None:
    """Remove what killed saves left behind. Only for the holder of the run's lock."""
    for left in (run_dir / "checkpoints").glob(".tmp-*"):
        shutil.rmtree(left, ignore_errors=True)


def _tensor_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    # A clone each: tied weights share memory, which safetensors refuses; both names are kept, so any reader finds them.
    return safetensors.torch.save({n: t.detach().cpu().contiguous().clone() for n, t in sorted(tensors.items())})


def _json(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=2, allow_nan=False) + "\n").encode()


def _manifest(files: Mapping[str, bytes]) -> bytes:
    entries = {n: {"size": len(c), "sha256": hashlib.sha256(c).hexdigest()} for n, c in sorted(files.items())}
    return _json({"format": "genossm-manifest", "format_version": FORMAT_VERSION, "files": entries})


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Give an OSError of a bare file handle the name of what was being written."""
    try:
        yield
    except OSError as error:
        if error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from None


def _write_synced(path: Path, content: bytes) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        rest = memoryview(content)
        while rest:
            rest = rest[os.write(handle, rest[:_WRITE_CHUNK]) :]
        os.fsync(handle)
    finally:
        os.close(handle)


def _require_space(folder: Path, size: int) -> None:
    """Refuse early: a disk that is full in the middle of a save costs the time of the save at every step."""
    if shutil.disk_usage(folder).free < size + (1 << 20):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))


def _discard(folder: Path) -> None:
    """Remove a checkpoint; its name goes at once, so that a half-removed folder never looks like a checkpoint."""
    trash = folder.with_name(f".tmp-trash-{folder.name}-{os.getpid()}")
    os.replace(folder, trash)
    shutil.rmtree(trash, ignore_errors=True)


def _prune(folder: Path, keep: int) -> None:
    kept = 0
    for _, path in _step_folders(folder):
        if kept < keep and is_good(path):
            kept += 1
        else:
            _discard(path)


# --------------------------------------------------------------------------------------------------------- reading


def newest_checkpoint(run_dir: Path) -> tuple[Path | None, list[str]]:
    """The newest checkpoint under ``run_dir/checkpoints`` that verifies, and what is wrong with newer ones.

    Returns:
        The folder, None if there is none; and one message for each newer folder that does not verify.
    """
    faults: list[str] = []
    for _, path in _step_folders(run_dir / "checkpoints"):
        try:
            verify(path)
        except GenoSSMError as error:
            faults.append(str(error))
        else:
            return path, faults
    return None, faults


def verify(folder: Path) -> None:
    """Read every file that the manifest names and compare size and sha256.

    Raises:
        GenoSSMError: names the file that is missing, cut or changed.
    """
    manifest = _read_manifest(folder)
    for name in manifest:
        _read_checked(folder, manifest, name)


def is_good(folder: Path) -> bool:
    """Whether ``folder`` is a checkpoint that verifies."""
    try:
        verify(folder)
    except GenoSSMError:
        return False
    return True


def load_weights(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The configuration and the weights (on the CPU) of a checkpoint folder; runs no code of it.

    Raises:
        GenoSSMError: no such folder, not ours, unfinished, of another version, or a file that does not match its
            checksum; the message names the file.
    """
    manifest = _read_manifest(folder)
    config = load_config(folder, manifest)
    return config, _parse_tensors(folder / WEIGHTS, _read_checked(folder, manifest, WEIGHTS))


def load_config(folder: Path, manifest: Mapping[str, Mapping[str, Any]] | None = None) -> dict[str, Any]:
    """The checked content of a checkpoint's ``config.json``; raises as :func:`load_weights` does."""
    path = folder / CONFIG
    config = _parse_json(path, _read_checked(folder, manifest or _read_manifest(folder), CONFIG))
    if config.get("format") != FORMAT:
        raise GenoSSMError(f"not a GenoSSM checkpoint (its format is {config.get('format')!r})", path=path)
    _check_version(path, config)
    labels = config.get("labels")
    if config.get("kind") not in KINDS or not isinstance(config.get("model"), dict):
        raise GenoSSMError("'kind' or 'model' is missing or unknown", path=path)
    if config["kind"] == "classifier" and not (
        isinstance(labels, list) and len(labels) >= 2 and all(isinstance(x, str) for x in labels)
    ):
        raise GenoSSMError("'labels' of a classifier must list two or more names", path=path)
    return config


def load_state(folder: Path) -> TrainState:
    """The training state of a checkpoint folder.

    Raises:
        GenoSSMError: as :func:`load_weights`; also when the folder is a model without training state.
    """
    manifest = _read_manifest(folder)
    if not {OPTIMIZER, STATE, METRICS} <= manifest.keys():
        raise GenoSSMError("a finished model without training state: it cannot be resumed", path=folder)
    values = _parse_json(folder / STATE, _read_checked(folder, manifest, STATE))
    tensors = _parse_tensors(folder / OPTIMIZER, _read_checked(folder, manifest, OPTIMIZER))
    metrics = _read_checked(folder, manifest, METRICS).decode().splitlines()
    return TrainState(int(values.pop("step")), tensors, values, tuple(metrics))


def _step_folders(folder: Path) -> Iterator[tuple[int, Path]]:
    """Checkpoint folders, newest first."""
    found = ((_STEP_FOLDER.fullmatch(p.name), p) for p in folder.glob("step-*") if p.is_dir())
    yield from sorted(((int(match[1]), path) for match, path in found if match), reverse=True)


def _read_manifest(folder: Path) -> dict[str, dict[str, Any]]:
    if not folder.is_dir():
        raise GenoSSMError("not a checkpoint folder" if folder.exists() else "no such checkpoint folder", path=folder)
    path = folder / MANIFEST
    if not path.is_file():
        raise GenoSSMError(_why_no_manifest(folder), path=folder)
    content = _parse_json(path, _read(path))
    files = content.get("files")
    if content.get("format") != "genossm-manifest" or not isinstance(files, dict):
        raise GenoSSMError("not a GenoSSM manifest", path=path)
    _check_version(path, content)
    for name, entry in files.items():
        if name not in KNOWN_FILES or not isinstance(entry, dict) or not {"size", "sha256"} <= entry.keys():
            raise GenoSSMError(f"damaged entry {name!r}", path=path)
    for name in (CONFIG, WEIGHTS):
        if name not in files:
            raise GenoSSMError(f"does not list {name}", path=path)
    return files


def _why_no_manifest(folder: Path) -> str:
    unfinished, _ = newest_checkpoint(folder)
    if unfinished is not None:
        return f"the training in it is not finished; run the same command again, or use {unfinished}"
    pickles = sorted(p.name for p in folder.iterdir() if p.suffix in (".bin", ".pt", ".pth", ".ckpt", ".pkl"))
    if pickles:
        return f"not a GenoSSM checkpoint; {pickles[0]} is a pickle, which can run code and is never loaded"
    return f"not a GenoSSM checkpoint, or an unfinished one: it has no {MANIFEST}"


def _check_version(path: Path, content: Mapping[str, Any]) -> None:
    if content.get("format_version") != FORMAT_VERSION:
        raise GenoSSMError(
            f"format version {content.get('format_version')!r}; this GenoSSM ({__version__}) reads {FORMAT_VERSION}",
            path=path,
        )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        missing = error.errno in (errno.ENOENT, errno.EISDIR)
        code = ExitCode.BAD_INPUT if missing or error.errno == errno.EACCES else ExitCode.IO
        text = "is missing from the checkpoint" if missing else f"cannot be read: {error.strerror}"
        raise GenoSSMError(text, path=path, exit_code=code) from None


def _read_checked(folder: Path, manifest: Mapping[str, Mapping[str, Any]], name: str) -> bytes:
    path = folder / name
    content = _read(path)
    if len(content) != manifest[name]["size"]:
        text = f"damaged: {len(content)} bytes, {MANIFEST} says {manifest[name]['size']}"
    elif hashlib.sha256(content).hexdigest() != manifest[name]["sha256"]:
        text = f"damaged: its sha256 differs from the one in {MANIFEST}"
    else:
        return content
    raise GenoSSMError(text + "; copy it again, or use an older checkpoint", path=path)


def _parse_json(path: Path, content: bytes) -> dict[str, Any]:
    try:
        if len(content) > _MAX_JSON:
            raise ValueError("too large")
        parsed = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise GenoSSMError(f"damaged: not valid JSON ({type(error).__name__})", path=path) from None
    if not isinstance(parsed, dict):
        raise GenoSSMError("damaged: not a JSON object", path=path)
    return parsed


def _parse_tensors(path: Path, content: bytes) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load(content)
    except (safetensors.SafetensorError, ValueError, KeyError) as error:
        raise GenoSSMError(f"not a valid safetensors file: {error}", path=path) from None
