"""The state of a fit on disk: one file, whole or absent, that says what it is the state of."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from genossm.train.classification import Epoch, FitState
from genossm.train.tensors import load_tensors, save_tensors


def save_fit_state(path: Path, state: FitState, fingerprint: str) -> None:
    """Write ``state`` at once; ``fingerprint``: of the data and settings that it belongs to."""
    about = {
        "fingerprint": fingerprint,
        "history": json.dumps([asdict(epoch) for epoch in state.history]),
        "best_epoch": str(state.best_epoch),
    }
    save_tensors(path, state.tensors, about)


def load_fit_state(path: Path, fingerprint: str) -> FitState | None:
    """The state, or None where there is none, it is damaged, or it belongs to other data or settings."""
    found = load_tensors(path, about={"fingerprint": fingerprint})
    if found is None:
        return None
    tensors, about = found
    try:
        history = [Epoch(**epoch) for epoch in json.loads(about["history"])]
        return FitState(tensors, history, int(about["best_epoch"]))
    except (KeyError, ValueError, TypeError):
        return None
