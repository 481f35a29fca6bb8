"""The state of a fit on disk: one safetensors file, whole or absent, that says what it is the state of."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import safetensors
import safetensors.torch

from genossm.files import atomic_write
from genossm.train.classification import Epoch, FitState


def save_fit_state(path: Path, state: FitState, fingerprint: str) -> None:
    """Write ``state`` at once; ``fingerprint``: of the data and settings that it belongs to."""
    about = {
        "fingerprint": fingerprint,
        "history": json.dumps([asdict(epoch) for epoch in state.history]),
        "best_epoch": str(state.best_epoch),
    }
    atomic_write(path, safetensors.torch.save({k: v.cpu().contiguous() for k, v in state.tensors.items()}, about))


def load_fit_state(path: Path, fingerprint: str) -> FitState | None:
    """The state, or None where there is none, it is damaged, or it belongs to other data or settings."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
            if about.get("fingerprint") != fingerprint:
                return None
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - the file is no mapping
        history = [Epoch(**epoch) for epoch in json.loads(about["history"])]
        return FitState(tensors, history, int(about["best_epoch"]))
    except (FileNotFoundError, safetensors.SafetensorError, KeyError, ValueError, TypeError):
        return None
