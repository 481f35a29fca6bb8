"""What a model says of one record, as a row of a table: shared by ``genossm score``, its workers and the Python API."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from genossm.data.fasta import Record
from genossm.data.score_tables import Row, columns_of
from genossm.errors import GenoSSMError
from genossm.models import LanguageModel
from genossm.models.course import Course
from genossm.models.likelihood import ONE_PASS, Reading, class_probabilities, is_base, log_likelihood, pieces_of
from genossm.stages.crew import begin_worker, pool
from genossm.stages.loading import load_model, pick_device

Track = npt.NDArray[np.float32]
Scored = tuple[Record, Row, Track | None]

LANGUAGE_COLUMNS = ("record", "length", "scored_bases", "log_likelihood", "per_base", "perplexity", "status")
_KINDS = {"record": str, "length": int, "scored_bases": int, "label": str, "status": str}
DECIMALS = {"log_likelihood": 4}
"""Of a TSV; six for any other."""


@dataclass(frozen=True)
class Scorer:
    """A model and how to use it; a record becomes a value on the device, and the value a row."""

    model: Any
    """A language model, or a classifier."""
    labels: list[str]
    reading: Reading

    @classmethod
    def of(
        cls,
        model: Any,
        config: dict[str, Any],
        reading: Reading,
        strands: Literal["auto", "both", "given"],
    ) -> Scorer:
        """A scorer whose ``auto`` strands are those that the model was trained on."""
        if strands not in ("auto", "both", "given"):
            raise GenoSSMError(f"strands {strands!r}: auto, both or given")
        trained = config.get("training", {}).get("strands", "both")
        both = (trained if strands == "auto" else strands) == "both"
        chosen = Reading(reading.passes, both, reading.window, reading.overlap, reading.memory)
        return cls(model.eval(), config.get("labels") or [], chosen)

    @property
    def columns(self) -> dict[str, type]:
        """Names and types."""
        if isinstance(self.model, LanguageModel):
            return columns_of(LANGUAGE_COLUMNS, _KINDS)
        return columns_of(("record", "length", "label", *(f"p_{label}" for label in self.labels), "status"), _KINDS)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        parameter: torch.Tensor = next(self.model.parameters())
        return parameter.device

    def cuts(self, length: int) -> bool:
        """Whether a record of this length is scored in pieces that do not see one another."""
        return isinstance(self.model, LanguageModel) and pieces_of(self.model, length, self.reading) > 1

    def start(
        self, record: Record, track: Track | None, course: Course | None = None
    ) -> tuple[str, torch.Tensor | None]:
        """The record's status so far, and its value on the device (None: it has none)."""
        tokens = record.tokens
        if not is_base(tokens).any():
            return "no_bases", None
        if isinstance(self.model, LanguageModel):
            return "ok", log_likelihood(self.model, tokens, self.reading, track, course)
        longest = self.reading.window or ONE_PASS
        if len(tokens) > min(longest, self.model.max_seqlen or longest):
            return "too_long", None
        return "ok", class_probabilities(self.model, tokens, both_strands=self.reading.both_strands)

    def row(self, record: Record, status: str, value: torch.Tensor | None) -> Row:
        """The fields of a record; reads its value from the device."""
        numbers = [] if value is None else [float(x) for x in value.cpu().reshape(-1)]
        if not all(map(math.isfinite, numbers)):
            status, numbers = "not_finite", []
        row: dict[str, Any] = dict.fromkeys(self.columns)
        row |= {"record": record.name, "length": len(record.tokens), "status": status}
        if isinstance(self.model, LanguageModel):
            row["scored_bases"] = int(is_base(record.tokens).sum())
            if numbers:
                row |= _likelihood_fields(numbers[0], row["scored_bases"])
        elif numbers:
            row["label"] = self.labels[numbers.index(max(numbers))]
            row |= {f"p_{label}": p for label, p in zip(self.labels, numbers, strict=True)}
        return row

    def rows(
        self,
        records: Iterable[Record],
        in_flight: int,
        *,
        tracks: bool = False,
        course: Callable[[int, Record, Track | None], Course] | None = None,
    ) -> Iterator[Scored]:
        """Each record, its fields and its track. ``in_flight`` records are begun before the first value is read.

        ``course``: of a record by its index, with the track that it fills.
        """
        source = enumerate(records)
        while group := list(islice(source, in_flight)):
            started = []
            for index, record in group:
                track = np.zeros(len(record.tokens), np.float32) if tracks else None
                way = course(index, record, track) if course else None
                started.append((record, *self.start(record, track, way), track))
                if way:
                    way.end()
            for record, status, value, track in started:
                row = self.row(record, status, value)
                yield record, row, _shown(record, row, track)


def _likelihood_fields(value: float, bases: int) -> dict[str, float]:
    per_base = value / bases
    try:
        perplexity = math.exp(-per_base)
    except OverflowError:
        perplexity = math.inf
    return {"log_likelihood": value, "per_base": per_base, "perplexity": perplexity}


def _shown(record: Record, row: Row, track: Track | None) -> Track | None:
    """A track with NaN where there is no base; none for a record without a value."""
    if track is None or row["status"] != "ok":
        return None
    return np.where(is_base(record.tokens), track, np.float32(np.nan))


_worker: Scorer | None = None
"""The scorer of a worker process."""


def _begin_worker(
    threads: int, parent: int, checkpoint: Path, reading: Reading, strands: Literal["auto", "both", "given"]
) -> None:
    global _worker
    begin_worker(threads, parent)
    model, config = load_model(checkpoint, pick_device("cpu"))
    _worker = Scorer.of(model, config, reading, strands)


def _work(record: Record, tracks: bool) -> tuple[Row, Track | None]:
    assert _worker is not None
    ((_, row, track),) = _worker.rows([record], 1, tracks=tracks)
    return row, track


def rows_by_workers(
    workers: int,
    checkpoint: Path,
    reading: Reading,
    strands: Literal["auto", "both", "given"],
    records: Iterable[Record],
    *,
    tracks: bool,
) -> Iterator[Scored]:
    """:meth:`Scorer.rows` by several processes on the CPU, a record each, in order; a few records are on their way."""
    waiting: deque[tuple[Record, Future[tuple[Row, Track | None]]]] = deque()
    with pool(workers, _begin_worker, checkpoint, reading, strands) as processes:
        for record in records:
            waiting.append((record, processes.submit(_work, record, tracks)))
            if len(waiting) > 2 * workers:
                done, future = waiting.popleft()
                yield done, *future.result()
        while waiting:
            done, future = waiting.popleft()
            yield done, *future.result()
