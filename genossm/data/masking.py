"""Everything random of pretraining, as pure functions of (seed, step, slot).

There is no loader state: which window a slot of a batch reads, where it is cropped, which strand it shows and
which bases are hidden follow from the seed, the optimizer step and the slot alone. So a resumed run sees the
same batches, and row ``slot`` of a batch is the same whatever the batch size (only :func:`sample_batch_windows`
lets the batch size choose the *window*, since a step consumes ``batch_size`` places of the epoch's permutation).

Source of the numbers: the counter-based generator Philox-4x64 (Salmon et al. 2011) as in numpy; its key is the seed
and its counter starts at (0, slot, step, purpose), which leaves 2^64 draws to every stream.
"""

from __future__ import annotations

from enum import IntEnum
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from genossm import vocab


class _Purpose(IntEnum):
    """What a stream of random numbers is for; keeps the streams of one (seed, step, slot) apart."""

    PERMUTATION = 0
    CROP = 1
    STRAND = 2
    MASK = 3


MASK_SHARE = 0.8
"""Share of the targets that are shown as [MASK] (Devlin et al. 2019)."""
RANDOM_SHARE = 0.1
"""Share of the targets that are shown as a random base; the rest are shown as they are."""


def _generator(seed: int, step: int, slot: int, purpose: _Purpose) -> np.random.Generator:
    counter = np.array([0, slot, step, purpose], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=seed, counter=counter))


@lru_cache(maxsize=4)
def _permutation(seed: int, epoch: int, n: int) -> npt.NDArray[np.int64]:
    order = _generator(seed, epoch, 0, _Purpose.PERMUTATION).permutation(n)
    order.setflags(write=False)
    return order


def sample_batch_windows(
    seed: int, step: int, batch_size: int, n_windows: int, window: int, seqlen: int
) -> npt.NDArray[np.int64]:
    """Which window every slot of a batch reads, and where in it the sequence starts.

    Windows come in a random order without replacement, epoch after epoch: slot s of step t is place
    ``t * batch_size + s`` of the run, and every run of ``n_windows`` places is one permutation.

    Args:
        seed, step: name the batch; ``step`` counts from 0.
        n_windows: rows of the window table. window, seqlen: lengths in bp, seqlen <= window.

    Returns:
        int64, shape (batch_size, 2): (window index, offset of the crop in the window, 0 .. window - seqlen).

    Raises:
        ValueError: there is no window, or the sequence is longer than it.
    """
    if n_windows < 1:
        raise ValueError("there is no window to sample")
    if not 0 < seqlen <= window:
        raise ValueError(f"seqlen {seqlen} must be between 1 and the window, {window}")
    batch = np.empty((batch_size, 2), dtype=np.int64)
    for slot in range(batch_size):
        epoch, place = divmod(step * batch_size + slot, n_windows)
        batch[slot, 0] = _permutation(seed, epoch, n_windows)[place]
        batch[slot, 1] = _generator(seed, step, slot, _Purpose.CROP).integers(window - seqlen, endpoint=True)
    return batch


def strand_flips(seed: int, step: int, batch: int) -> npt.NDArray[np.bool_]:
    """A fair coin for every slot: True where the reverse complement is shown; shape (batch,)."""
    return np.array([_generator(seed, step, slot, _Purpose.STRAND).random() < 0.5 for slot in range(batch)], dtype=bool)


def mask_tokens(
    tokens: npt.NDArray[np.integer], *, seed: int, step: int, mask_fraction: float
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Hide bases for masked-language modelling by the rule of BERT (Devlin et al. 2019, section 3.1).

    Every base (A, C, G, T) is a target with probability ``mask_fraction``, independently. Of the targets 80 % are
    shown as [MASK], 10 % as a random base (the true one included), 10 % as they are. N and the special tokens are
    never a target and never changed, and no special token but [MASK] is ever put in.

    Args:
        tokens: ids, shape (batch, seqlen).
        seed, step: name the batch; row ``slot`` depends on (seed, step, slot) and on that row alone.

    Returns:
        input_ids: int64, shape (batch, seqlen), what the model sees.
        targets: bool, shape (batch, seqlen), where the loss is taken, against ``tokens``.
    """
    input_ids = tokens.astype(np.int64)
    targets = np.zeros(tokens.shape, dtype=bool)
    seqlen = tokens.shape[1]
    for slot in range(tokens.shape[0]):
        generator = _generator(seed, step, slot, _Purpose.MASK)
        # One draw decides both whether a base is a target and how it is shown: [0, f) cut at 0.8 f and 0.9 f.
        draw = generator.random(seqlen)
        other = generator.choice(np.array(vocab.BASES), size=seqlen)
        row = tokens[slot]
        target = (draw < mask_fraction) & (row >= vocab.A) & (row <= vocab.T)
        targets[slot] = target
        hidden = target & (draw < MASK_SHARE * mask_fraction)
        replaced = target & ~hidden & (draw < (MASK_SHARE + RANDOM_SHARE) * mask_fraction)
        input_ids[slot, hidden] = vocab.MASK
        input_ids[slot, replaced] = other[replaced]
    return input_ids, targets
