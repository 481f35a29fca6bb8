"""The count tables that stand beside a validation loss: same held-out bases, same view, fitted on the same sequence."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from genossm.baselines.counts import (
    UNIFORM,
    CountBaseline,
    FlankBaseline,
    MarkovBaseline,
    Questions,
    Tokens,
    score_baseline,
)
from genossm.config import ModelConfig
from genossm.data.intervals import Interval, hold_out, merge_windows, pieces, spread_tiles, total_length
from genossm.errors import GenoSSMError
from genossm.files import atomic_write
from genossm.models.formats.shapes import PublishedShape
from genossm.progress import progress
from genossm.stages.language_modelling import Batch, LanguageModelling, hold_back, read_all

STRETCH = 1 << 22
"""bp that are read and counted at a time."""


def count_baseline(task: LanguageModelling, model: ModelConfig | PublishedShape, path: Path) -> dict[str, Any]:
    """Losses of the count tables for every k, from ``path`` if they stand there already, else computed and written.

    A model that reads both strands, by augmentation or by construction, has tables that count both.

    Raises:
        GenoSSMError: there is too little training sequence to choose k on.
    """
    section, tokens = task.section, task.tokens
    both_strands = section.rc_augment or model.rc_equivariant
    identity = {
        "tokens_sha256": tokens.sha256,
        "objective": task.objective,
        "seqlen": task.seqlen,
        "valid_tokens": section.valid_tokens,
        "mask_fraction": section.mask_fraction if task.objective == "masked" else None,
        "max_k": section.baseline_max_k,
        "both_strands": both_strands,
        **({} if task.bos else {"first_base": False}),
    }
    known = _read(path)
    if known.get("identity") == identity:
        return known
    kind: type[CountBaseline] = FlankBaseline if task.objective == "masked" else MarkovBaseline
    stretches = merge_windows(tokens.windows("train"), tokens.window)
    kept, held = hold_out(stretches)
    length = min(task.seqlen, max((end - start for _, start, end in held), default=0))
    tiles = spread_tiles(held, length, len(task.held_out.tokens)) if length else []
    if not tiles:
        raise GenoSSMError("too little training sequence for the count baseline", path=tokens.path)
    tuning = hold_back(*read_all(tokens, tiles), task.objective, section.mask_fraction, step=1, bos=task.bos)
    if not tuning.targets.any():
        raise GenoSSMError("the tuning share of the training sequence has no base to predict", path=tokens.path)
    with progress("count baseline", total_length(stretches)) as advance:

        def read(intervals: list[Interval]) -> Iterator[Tokens]:
            for contig, start, end in pieces(intervals, STRETCH):
                yield tokens.read(contig, start, end)[0]
                advance(end - start)

        k = section.baseline_max_k
        losses = score_baseline(
            kind, _ask(kind, task.held_out, k), _ask(kind, tuning, k), read(kept), read(held), both_strands=both_strands
        )
    result = {
        "identity": identity,
        "kind": "flank" if kind is FlankBaseline else "markov",
        "uniform": UNIFORM,
        "best_k": losses.best_k,
        "best": losses.best,
        "by_k": {str(k): loss for k, loss in losses.by_k.items()},
        "tuning_by_k": {str(k): loss for k, loss in losses.tuning_by_k.items()},
        "strength_by_k": {str(k): strength for k, strength in losses.strength_by_k.items()},
        "targets": losses.targets,
        "tuning_targets": losses.tuning_targets,
        "train_bases": total_length(stretches),
    }
    atomic_write(path, json.dumps(result, indent=2) + "\n")
    return result


def _ask(kind: type[CountBaseline], batch: Batch, k: int) -> Questions:
    # A causal table looks at the tokens themselves: it sees those before a base only.
    seen = batch.input_ids if kind is FlankBaseline else batch.tokens
    return kind.ask(seen, batch.tokens, batch.targets, k)


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
