"""What was scored before a kill: rows, and tracks, kept beside the output until it is whole.

The journal is a hidden folder that names what it belongs to: the model, the FASTA's bytes and the settings. The same
command goes on from it; any other begins anew. A line that a kill cut short is not counted.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from genossm.data.score_tables import Row
from genossm.files import atomic_write

Track = npt.NDArray[np.float32]


class Journal:
    """Rows and tracks of the records that are done, in order.

    Args:
        output: the file they are for; None keeps tracks in a temporary folder, and no rows.
        key: what a journal must belong to.
    """

    def __init__(self, output: Path | None, key: dict[str, Any]) -> None:
        self._rows: list[Row] = []
        self._lasting = output is not None
        if output is None:
            self.folder = Path(tempfile.mkdtemp(prefix="genossm-"))
        else:
            self.folder = output.parent / f".{output.name}.resume"
            self._open(hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest())
        self._handle = (self.folder / "rows.jsonl").open("a", encoding="utf-8")

    def _open(self, key: str) -> None:
        known, rows = self.folder / "key", self.folder / "rows.jsonl"
        if not known.is_file() or known.read_text(encoding="utf-8") != key:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.mkdir(parents=True)
            atomic_write(known, key)
        if rows.is_file():
            whole, _, _ = rows.read_text(encoding="utf-8").rpartition("\n")
            self._rows = [json.loads(line) for line in whole.splitlines()]
            atomic_write(rows, whole + "\n" if whole else "")

    @property
    def done(self) -> list[Row]:
        """The rows that an earlier run left."""
        return self._rows

    def _track_path(self, index: int) -> Path:
        return self.folder / f"track-{index:07d}.npy"

    def add(self, index: int, row: Row, track: Track | None) -> None:
        """Keep the result of record ``index``; its track first, so that a row never stands without it."""
        if track is not None:
            np.save(self._track_path(index), track, allow_pickle=False)
        if self._lasting:
            self._handle.write(json.dumps(dict(row)) + "\n")
            self._handle.flush()

    def tracks(self, count: int) -> Iterator[Track | None]:
        """The tracks of the first ``count`` records, in order; None for one without a value."""
        for index in range(count):
            path = self._track_path(index)
            yield np.load(path, allow_pickle=False) if path.is_file() else None

    def remove(self) -> None:
        """Everything is in its place: the journal is needed no longer."""
        self._handle.close()
        shutil.rmtree(self.folder)

    def close(self) -> None:
        """Stop; a lasting journal stays for the next run."""
        self._handle.close()
        if not self._lasting:
            shutil.rmtree(self.folder, ignore_errors=True)
