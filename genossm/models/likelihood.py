"""What a model says of one sequence: its log-likelihood, or its class.

The unit of computation is one record: the shape of every product follows from its length alone, so a result has the
same bits whatever was scored before or beside it. Results stay on the model's device, unread, so several records can
be on their way at once.

Log-likelihoods are natural, over the four bases, summed over the bases of the record; N is context, never scored.

* Causal models: log P(bases), exact. The sequence follows [BOS]; models that were trained without it (published ones)
  are given no token before the first, whose probability is then 1/4. A record longer than ``window`` goes through in
  chunks with the state carried, which changes nothing but the memory; a model without a state scores it in pieces of
  nearly equal length, each by itself.
* Masked models: the pseudo-log-likelihood, sum of log P(base | all unmasked bases), in ``passes`` interleaved passes:
  pass p hides the bases at i with i mod passes = p, so each base is scored once, with 1 - 1/passes of the others in
  view. A record longer than ``window`` is cut into pieces of nearly equal length, each scored by itself.
* Both strands: the mean of the two strands' values. A reverse-complement equivariant model gives one value for
  both (its passes hide the same bases on either strand), so it reads one.
"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from genossm import vocab
from genossm.models.heads import LanguageModel, SequenceClassifier, base_log_probs

Tokens = npt.NDArray[np.uint8]

ROW_TOKENS = 1 << 16
"""Tokens of one forward pass over several rows of a record; a longer row goes alone."""


def is_base(tokens: Tokens) -> npt.NDArray[np.bool_]:
    """True where a token is A, C, G or T."""
    return (tokens >= vocab.FIRST_BASE) & (tokens < vocab.FIRST_BASE + 4)


def _strands(tokens: Tokens, both: bool) -> list[Tokens]:
    return [tokens, vocab.reverse_complement(tokens)] if both else [tokens]


def _device(model: torch.nn.Module) -> torch.device:
    return next(model.parameters()).device


def _summed(logits: Tensor, at: npt.NDArray[np.integer], bases: Tokens) -> Tensor:
    """Log-probabilities of ``bases`` at the flat positions ``at`` of logits (batch, seqlen, 16), summed in float64."""
    where = torch.from_numpy(at).to(logits.device)
    target = torch.from_numpy(bases.astype(np.int64) - vocab.FIRST_BASE).to(logits.device)
    log_probs = base_log_probs(logits.flatten(0, 1)[where])
    return log_probs.gather(1, target[:, None]).double().sum()


def _masked_piece(model: LanguageModel, tokens: Tokens, passes: int, both_strands: bool) -> Tensor:
    """The pseudo-log-likelihood of one piece, summed over its strands."""
    length = len(tokens)
    views = np.repeat(np.stack(_strands(tokens, both_strands)), passes, axis=0)
    turn = np.tile(np.arange(passes), len(views) // passes)[:, None]
    hidden = is_base(views) & (np.arange(length) % passes == turn)
    total = torch.zeros((), dtype=torch.float64, device=_device(model))
    size = max(1, ROW_TOKENS // length)
    for start in range(0, len(views), size):
        chosen, rows = hidden[start : start + size], views[start : start + size]
        input_ids = torch.from_numpy(np.where(chosen, vocab.MASK, rows).astype(np.int64)).to(total.device)
        total += _summed(model(input_ids).logits, np.flatnonzero(chosen), rows[chosen])
    return total


def _causal_strand(model: LanguageModel, tokens: Tokens, window: int) -> Tensor:
    """The exact log-likelihood of one strand."""
    total = torch.zeros((), dtype=torch.float64, device=_device(model))
    if model.bos:
        shifted = np.concatenate([[np.uint8(vocab.BOS)], tokens[:-1]]).astype(np.int64)
    else:
        total -= math.log(4) * int(is_base(tokens[:1]).sum())
        shifted, tokens = tokens[:-1].astype(np.int64), tokens[1:]
    state = None
    for start in range(0, len(tokens), window):
        output = model(torch.from_numpy(shifted[start : start + window])[None].to(total.device), state=state)
        state = output.state
        piece = tokens[start : start + window]
        at = np.flatnonzero(is_base(piece))
        total += _summed(output.logits, at, piece[at])
    return total


def in_pieces(model: LanguageModel, length: int, window: int) -> bool:
    """Whether a record of ``length`` tokens is scored in pieces that do not see one another."""
    return length > min(window, model.max_seqlen or window) and not model.stateful


@torch.inference_mode()
def log_likelihood(model: LanguageModel, tokens: Tokens, *, passes: int, window: int, both_strands: bool) -> Tensor:
    """The (pseudo-)log-likelihood of one record in nats.

    Args:
        model: in eval mode.
        tokens: uint8, shape (length,), at least one base among them.
        passes: of a masked model, at least 1; a causal model needs none.
        window: bp, see above.
        both_strands: the mean of both strands; an equivariant model reads one all the same.

    Returns:
        float64, shape (), on the model's device.
    """
    both_strands = both_strands and not model.config.rc_equivariant
    strands = 2 if both_strands else 1
    window = min(window, model.max_seqlen or window)
    pieces = -(-len(tokens) // window) if in_pieces(model, len(tokens), window) else 1
    edges = [len(tokens) * i // pieces for i in range(pieces + 1)]
    cut = [tokens[start:end] for start, end in pairwise(edges)]
    if model.config.objective == "causal":
        views = [strand for piece in cut for strand in _strands(piece, both_strands)]
        return torch.stack([_causal_strand(model, view, window) for view in views]).sum() / strands
    values = [_masked_piece(model, piece, passes, both_strands) for piece in cut if is_base(piece).any()]
    return torch.stack(values).sum() / strands


@torch.inference_mode()
def class_probabilities(model: SequenceClassifier, tokens: Tokens, *, both_strands: bool) -> Tensor:
    """The probability of every class, float64, shape (num_labels,): softmax of the strands' mean logits.

    Args:
        model: in eval mode.
        tokens: uint8, shape (length,), not empty.
        both_strands: read both; an equivariant model reads one all the same.
    """
    views = np.stack(_strands(tokens, both_strands and not model.config.rc_equivariant))
    logits = model(torch.from_numpy(views.astype(np.int64)).to(_device(model))).logits
    return torch.softmax(logits.double().mean(0), dim=0)
