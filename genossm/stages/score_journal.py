"""What was scored before a kill: rows, and tracks, kept beside the output until it is whole.

The journal is a hidden folder that names what it belongs to: the model, the FASTA's bytes and the settings. The same
command goes on from it; any other begins anew. A line that a kill cut short is not counted. Of a long record a bookmark
is kept once a minute, so that a chromosome does not begin anew either.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from genossm.data.score_tables import Row
from genossm.files import atomic_write, locked
from genossm.models.course import Bookmark
from genossm.train.tensors import load_tensors, save_tensors

Track = npt.NDArray[np.float32]


def _save(path: Path, track: Track) -> None:
    """Write float32 (n,) as .npy; unlike :func:`numpy.save`, a fault of the disk says which."""
    with path.open("wb") as handle:
        np.lib.format.write_array_header_1_0(handle, np.lib.format.header_data_from_array_1_0(track))
        handle.write(np.ascontiguousarray(track).data)


class Journal:
    """Rows and tracks of the records that are done, in order.

    Args:
        output: the file they are for; None keeps tracks in a temporary folder, and no rows.
        key: what a journal must belong to.

    Raises:
        GenoSSMError: another process writes the same output.
    """

    def __init__(self, output: Path | None, key: dict[str, Any]) -> None:
        self._rows: list[Row] = []
        self._output, self._lasting = output, output is not None
        self._lock = contextlib.ExitStack()
        if output is None:
            self.folder = Path(tempfile.mkdtemp(prefix="genossm-"))
        else:
            self.folder = output.parent / f".{output.name}.resume"
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock.enter_context(locked(self.folder / "lock", f"the score of {output.name}"))
            self._open(hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest())
        self._handle = (self.folder / "rows.jsonl").open("a", encoding="utf-8")

    def _open(self, key: str) -> None:
        known, rows = self.folder / "key", self.folder / "rows.jsonl"
        if not known.is_file() or known.read_text(encoding="utf-8") != key or not self._read_rows(rows):
            for path in self.folder.iterdir():
                if path.name != "lock":
                    path.unlink()
            atomic_write(known, key)

    def _read_rows(self, rows: Path) -> bool:
        """Take the rows of an earlier run; False where they are none of ours."""
        if not rows.is_file():
            return True
        try:
            whole, _, _ = rows.read_text(encoding="utf-8").rpartition("\n")
            found = [json.loads(line) for line in whole.splitlines()]
            if not all(isinstance(row, dict) and {"record", "length", "status"} <= row.keys() for row in found):
                return False
        except ValueError:  # no text, or no JSON
            return False
        self._rows = found
        atomic_write(rows, whole + "\n" if whole else "")
        return True

    @property
    def done(self) -> list[Row]:
        """The rows that an earlier run left."""
        return self._rows

    def _track_path(self, index: int) -> Path:
        return self.folder / f"track-{index:07d}.npy"

    def add(self, index: int, row: Row, track: Track | None) -> None:
        """Keep the result of record ``index``; its track first, so that a row never stands without it."""
        with self._faults():
            if track is not None:
                _save(self._track_path(index), track)
            if self._lasting:
                self._handle.write(json.dumps(dict(row)) + "\n")
                self._handle.flush()
                self._mark_path(index).unlink(missing_ok=True)

    @contextlib.contextmanager
    def _faults(self) -> Iterator[None]:
        """A fault of the disk is told of the output, for the user knows nothing of the journal."""
        try:
            yield
        except OSError as error:
            code = error.errno or errno.EIO
            raise OSError(code, os.strerror(code), str(self._output or self.folder)) from None

    def _mark_path(self, index: int) -> Path:
        return self.folder / f"mark-{index:07d}.safetensors"

    @property
    def marks(self) -> bool:
        """Whether bookmarks are kept: a pipe cannot be read again."""
        return self._lasting

    def mark(self, index: int, track: Track | None, bookmark: Bookmark) -> None:
        """Keep a place within record ``index``, and its track up to there."""
        tensors = {} if track is None else {"track": torch.from_numpy(track)}
        for layer, state in enumerate(bookmark.state or []):
            tensors |= {f"{layer}.{i}": value for i, value in enumerate(state)}
        place = {"part": bookmark.part, "place": bookmark.place, "layers": len(bookmark.state or [])}
        about = {"place": json.dumps(place), "total": bookmark.total.hex()}
        with self._faults():
            save_tensors(self._mark_path(index), tensors, about)

    def bookmark(self, index: int, track: Track | None, device: torch.device) -> Bookmark | None:
        """The place within record ``index`` that an earlier run left; fills ``track``. None where there is none."""
        found = load_tensors(self._mark_path(index), device)
        if found is None:
            return None
        tensors, about = found
        place = json.loads(about["place"])
        if track is not None:
            track[:] = tensors.pop("track").cpu().numpy()
        layers: list[list[Tensor]] = [[] for _ in range(place["layers"])]
        for layer, i in sorted((int(x), int(y)) for x, _, y in (name.partition(".") for name in tensors)):
            layers[layer].append(tensors[f"{layer}.{i}"])
        state = [tuple(values) for values in layers] or None
        return Bookmark(place["part"], place["place"], state, float.fromhex(about["total"]))

    def tracks(self, count: int) -> Iterator[Track | None]:
        """The tracks of the first ``count`` records, in order; None for one without a value."""
        for index in range(count):
            path = self._track_path(index)
            yield np.load(path, allow_pickle=False) if path.is_file() else None

    def remove(self) -> None:
        """Everything is in its place: the journal is needed no longer."""
        self._handle.close()
        shutil.rmtree(self.folder)
        self._lock.close()

    def close(self) -> None:
        """Stop; a lasting journal stays for the next run."""
        with self._faults():  # what could not be written is tried again
            self._handle.close()
        self._lock.close()
        if not self._lasting:
            shutil.rmtree(self.folder, ignore_errors=True)
