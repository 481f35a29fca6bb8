"""What a model for a task looks like, read off its training and validation rows; the test rows are never seen."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from genossm.baselines.gapped_kmer import Kind as MachineKind
from genossm.baselines.gapped_kmer import View, choose_view
from genossm.config import FinetuneSection, HeadConfig, MotifConfig
from genossm.errors import GenoSSMError
from genossm.stages.labelled import Augmentation, Splits

SMALL, LARGE = 8_000, 25_000
"""Training rows below which there are more epochs and more networks, and above which there are fewer epochs."""
EPOCHS = {"places": (12, 5, 5), "none": (15, 8, 5)}
"""Epochs of small, middle and large tasks, where places mean something and where they do not."""
SHIFT = 5
"""bp that training cuts off at either end, at most, where places mean nothing."""
MAX_PLACES = 1_000
"""bp up to which a weight for every place is thought of."""
SHORT_STEM = 32
"""Shorter sequences are not pooled."""


@dataclass(frozen=True)
class Design:
    """All that is decided before training.

    Attributes:
        view: what the gapped k-mer machine tells apart, and with it what the network does.
        scores: how well a machine of each view ranked the validation split (empty: nothing was tried).
        head: of the network.
    """

    view: View
    scores: dict[str, float]
    head: HeadConfig
    augmentation: Augmentation
    epochs: int
    batch_size: int
    ema: float
    members: int


def design(splits: Splits, settings: FinetuneSection, seed: int, view: View | None = None) -> Design:
    """Strand, places, size and schedule of a model for this task.

    Strand and places, where ``view`` does not say them: three gapped k-mer machines, on both strands, on the given one,
    and on that with k-mers by place (where all lengths are equal), are fitted to some training rows; the one that ranks
    the validation rows best says what the network is to see. Places mean a stranded head that keeps positions, and
    mutations in training; both strands mean random flips in training and the mean over both afterwards.
    """
    view, scores = _view(splits, settings, seed) if view is None else (view, {})
    train = splits.train
    rows = len(train.sequences)
    size = 0 if rows < SMALL else 1 if rows <= LARGE else 2
    placed = view.length > 0
    epochs = settings.epochs or EPOCHS["places" if placed else "none"][size]
    batch_size = settings.batch_size or (64 if rows < SMALL else 128)
    ema = (0.99 if rows < SMALL else 0.995) if settings.ema is None else settings.ema
    head = _head(splits, settings, view)
    members = settings.members or (2 if rows < SMALL else 1)
    # what a frozen backbone says is kept by sequence, so sequences stay as they are, but for their strand
    fixed = settings.adapt == "frozen" or train.kind == "tokens"
    augmentation = Augmentation(
        flip=view.both_strands, mutation=0.03 if placed and not fixed else 0.0, shift=0 if placed or fixed else SHIFT
    )
    return Design(view, scores, head, augmentation, epochs, batch_size, ema, members)


def _head(splits: Splits, settings: FinetuneSection, view: View) -> HeadConfig:
    tokens = splits.train.kind == "tokens"
    short = int(splits.train.lengths.max()) < SHORT_STEM
    pool = 1 if tokens or short else 2 if view.length else 4
    stem = MotifConfig(pool=pool) if settings.stem else None
    return HeadConfig(
        motif=stem,
        level="token" if tokens else "sequence",
        pools=tuple(settings.pools),
        length=view.length,
        dropout=settings.dropout if settings.dropout is not None else 0.3 if view.length else 0.2,
        wide=() if tokens else (4, 6),
        both_strands=view.both_strands,
    )


def _view(splits: Splits, settings: FinetuneSection, seed: int) -> tuple[View, dict[str, float]]:
    train, valid = splits.train, splits.valid
    if train.kind == "tokens":
        return View(both_strands=settings.strands == "both"), {}
    lengths = set(train.lengths.tolist()) | set(valid.lengths.tolist())
    fixed = len(lengths) == 1 and max(lengths) <= MAX_PLACES
    if settings.positions and (not fixed or settings.strands == "both"):
        raise GenoSSMError(
            f"--positions needs sequences of one length, up to {MAX_PLACES:,} bp, on the given strand: "
            f"these have {min(lengths):,} to {max(lengths):,} bp"
        )
    strands = {"auto": (True, False), "both": (True,), "given": (False,)}[settings.strands]
    views = [] if settings.positions else [View(both) for both in strands]
    if fixed and False in strands and settings.positions is not False:
        views.append(View(False, max(lengths)))
    if len(views) == 1:
        return views[0], {}
    kind: MachineKind = train.kind
    view, scores = choose_view(
        kind, train.sequences, train.flat_targets, valid.sequences, valid.flat_targets, train.outputs,
        views=views, seed=seed,
    )  # fmt: skip
    said = ", ".join(f"{name} {score:.4f}" for name, score in scores.items())
    print(f"design: {view.name} (a gapped k-mer machine's validation score: {said})", file=sys.stderr, flush=True)
    return view, scores
