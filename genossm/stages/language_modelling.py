"""The task of pretraining: batches from tokens.h5, the loss, and validation on bases that are held out.

Masked objective: a share of the bases is hidden, and each is to be told from both sides. In training they are shown by
the 80/10/10 rule; in validation every one of them is [MASK], so that neither the model nor the count table beside it
ever sees an answer. Causal objective: [BOS], then the sequence; every base is to be told from those before it. A model
that was trained without [BOS] is not given it here either, so that the first base is no target.

A target is always one of A, C, G, T; probabilities are taken over these four. The training objective weighs soft-masked
bases down; the losses that are shown, of training and validation, do not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from genossm import vocab
from genossm.config import PretrainSection
from genossm.data.intervals import Interval, merge_windows, spread_tiles
from genossm.data.masking import mask_tokens, sample_batch_windows, strand_flips
from genossm.data.tokens_h5 import TokensFile
from genossm.models import base_log_probs
from genossm.train.loop import StepLoss, autocast

Objective = Literal["masked", "causal"]
Tokens = npt.NDArray[np.uint8]

HELD_OUT_SEED = 0
"""Validation masks are the same whatever the seed of the training, so that runs can be compared."""


@dataclass(frozen=True)
class Batch:
    """Sequences and what is asked of them, each of shape (batch, seqlen).

    Attributes:
        input_ids: int64, what the model sees; for the causal objective shifted by one, after [BOS].
        tokens: uint8, what is there.
        targets: bool, the bases to predict.
        soft_mask: bool, lower case in the FASTA.
    """

    input_ids: npt.NDArray[np.int64]
    tokens: Tokens
    targets: npt.NDArray[np.bool_]
    soft_mask: npt.NDArray[np.bool_]


def flip_strands(
    tokens: Tokens, soft_mask: npt.NDArray[np.bool_], flips: npt.NDArray[np.bool_]
) -> tuple[Tokens, npt.NDArray[np.bool_]]:
    """The rows with ``flips`` as their reverse complement, the soft-mask along with them; copies, (batch, seqlen)."""
    tokens, soft_mask = tokens.copy(), soft_mask.copy()
    tokens[flips] = vocab.reverse_complement(tokens[flips])
    soft_mask[flips] = soft_mask[flips, ::-1]
    return tokens, soft_mask


def is_base(tokens: npt.NDArray[np.integer]) -> npt.NDArray[np.bool_]:
    """Where ``tokens`` is A, C, G or T."""
    return (tokens >= vocab.A) & (tokens <= vocab.T)


def shift_right(tokens: Tokens) -> npt.NDArray[np.int64]:
    """[BOS] and all but the last token of each row: what a causal model sees of (batch, seqlen)."""
    return np.pad(tokens[:, :-1], ((0, 0), (1, 0)), constant_values=vocab.BOS).astype(np.int64)


def causal_batch(tokens: Tokens, soft_mask: npt.NDArray[np.bool_], *, bos: bool) -> Batch:
    """A batch in which every base is to be told from those before it; with ``bos`` also the first."""
    targets = is_base(tokens)
    targets[:, :1] &= bos
    return Batch(shift_right(tokens), tokens, targets, soft_mask)


def hold_back(
    tokens: Tokens,
    soft_mask: npt.NDArray[np.bool_],
    objective: Objective,
    mask_fraction: float,
    step: int = 0,
    *,
    bos: bool = True,
) -> Batch:
    """A batch to be judged by: fixed targets; where they are hidden, every one is [MASK]."""
    if objective == "causal":
        return causal_batch(tokens, soft_mask, bos=bos)
    _, targets = mask_tokens(tokens, seed=HELD_OUT_SEED, step=step, mask_fraction=mask_fraction)
    return Batch(np.where(targets, vocab.MASK, tokens).astype(np.int64), tokens, targets, soft_mask)


def read_all(tokens: TokensFile, intervals: Sequence[Interval]) -> tuple[Tokens, npt.NDArray[np.bool_]]:
    """Tokens and soft-mask of intervals of one length, each of shape (intervals, length)."""
    read = [tokens.read(*interval) for interval in intervals]
    return np.stack([t for t, _ in read]), np.stack([s for _, s in read])


def target_losses(model: nn.Module, batch: Batch, device: torch.device) -> Tensor:
    """-log p of every target in nats, float32, shape (targets,), in row-major order."""
    input_ids = torch.from_numpy(batch.input_ids).to(device)
    targets = torch.from_numpy(batch.targets).to(device)
    answers = torch.from_numpy(batch.tokens[batch.targets].astype(np.int64) - vocab.FIRST_BASE).to(device)
    if not getattr(model, "bos", True):  # the sequence itself, without the [BOS] before it and with no first target
        input_ids, targets = input_ids[:, 1:], targets[:, 1:]
    with autocast(device):
        logits = model(input_ids).logits
    return -base_log_probs(logits[targets]).gather(1, answers[:, None])[:, 0]


class LanguageModelling:
    """Pretraining as a :class:`genossm.train.loop.Task`.

    Args:
        tokens: an open tokens file with windows for train and valid.
        objective: masked or causal.
        section: batch_size, seqlen, mask_fraction, soft_mask_weight, rc_augment, valid_tokens.
        seed: of windows, crops, strands and masks.
        device: where the model is.
        bos: whether a causal model is given [BOS].
    """

    def __init__(
        self,
        tokens: TokensFile,
        objective: Objective,
        section: PretrainSection,
        seed: int,
        device: torch.device,
        *,
        bos: bool = True,
    ) -> None:
        self.tokens, self.objective, self.section, self.bos = tokens, objective, section, bos
        self.seed, self.device = seed, device
        self.seqlen = section.seqlen or tokens.window
        self.windows = tokens.windows("train")
        wanted = -(-section.valid_tokens // self.seqlen)
        stretches = merge_windows(tokens.windows("valid"), tokens.window)
        self.held_out = hold_back(
            *read_all(tokens, spread_tiles(stretches, self.seqlen, wanted)), objective, section.mask_fraction, bos=bos
        )

    @property
    def bases_per_step(self) -> int:
        """bp that one step reads."""
        return self.section.batch_size * self.seqlen

    def places(self, step: int) -> list[Interval]:
        """Where the sequences of batch ``step`` lie."""
        sampled = sample_batch_windows(
            self.seed, step, self.section.batch_size, len(self.windows), self.tokens.window, self.seqlen
        )
        starts = self.windows[sampled[:, 0], 1] + sampled[:, 1]
        contigs = self.windows[sampled[:, 0], 0]
        return [(int(c), int(s), int(s) + self.seqlen) for c, s in zip(contigs, starts, strict=True)]

    def batch(self, step: int) -> Batch:
        """Batch ``step`` of the training, a function of (seed, step)."""
        tokens, soft_mask = read_all(self.tokens, self.places(step))
        if self.section.rc_augment:
            tokens, soft_mask = flip_strands(tokens, soft_mask, strand_flips(self.seed, step, len(tokens)))
        if self.objective == "causal":
            return causal_batch(tokens, soft_mask, bos=self.bos)
        input_ids, targets = mask_tokens(tokens, seed=self.seed, step=step, mask_fraction=self.section.mask_fraction)
        return Batch(input_ids, tokens, targets, soft_mask)

    def loss(self, model: nn.Module, step: int) -> StepLoss:
        """Loss of the targets of batch ``step``, in nats per base; 0 where there are none.

        The objective is the mean weighted by the soft-mask. What is shown is the plain mean, of a masked model over
        those that it saw as [MASK]: the 10 % that are shown as they are would flatter it.
        """
        batch = self.batch(step)
        losses = target_losses(model, batch, self.device)
        weights = np.where(batch.soft_mask[batch.targets], self.section.soft_mask_weight, 1.0)
        hidden = np.ones_like(weights)
        if self.objective == "masked":
            hidden = (batch.input_ids[batch.targets] == vocab.MASK).astype(np.float64)
        # Below one whole base a sum is not divided further: a batch of repeats alone must not count as a full one.
        both = np.stack([w / max(1.0, w.sum()) for w in (weights, hidden)]).astype(np.float32)
        objective, shown = torch.from_numpy(both).to(self.device) @ losses
        return StepLoss(objective, shown.detach())

    def validate(self, model: nn.Module, stopped: Callable[[], bool]) -> dict[str, float] | None:
        """Mean loss over all held-out targets, in nats per base; None when ``stopped`` said so on the way."""
        total, held = 0.0, self.held_out
        for start in range(0, len(held.tokens), self.section.batch_size):
            if stopped():
                return None
            rows = slice(start, start + self.section.batch_size)
            part = Batch(held.input_ids[rows], held.tokens[rows], held.targets[rows], held.soft_mask[rows])
            total += float(target_losses(model, part, self.device).double().sum())
        return {"valid_loss": total / int(held.targets.sum())}

    def describe(self, step: int) -> str:
        """The windows of batch ``step``, the first few of them."""
        places = self.places(step)
        names = [f"{self.tokens.contigs[c].name}:{start + 1}-{end}" for c, start, end in places[:4]]
        return "windows " + ", ".join(names) + (f" ... of {len(places)}" if len(places) > 4 else "")
