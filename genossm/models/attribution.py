"""What every base of a window contributes to what a language model says of a stretch of it: gradients.

The stretch is scored as in :mod:`genossm.models.likelihood` (masked models: in interleaved passes), and the score is
differentiated by the one-hot encoding of the bases, at the places where a base is in view. The four numbers at a base
are taken relative to their mean: only differences between bases mean anything, for a base is always one of four
(Majdandzic et al. 2023). So ``gradient[i, b] - gradient[i, base]`` is the first-order estimate of what replacing the
base at i by b does to the score, to be held against in-silico mutagenesis.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from genossm import vocab
from genossm.models.heads import LanguageModel, base_log_probs
from genossm.models.likelihood import is_base
from genossm.models.streaming import strand_backbone

Tokens = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]


def gradients(
    model: LanguageModel, tokens: Tokens, start: int, end: int, *, passes: int = 8, both_strands: bool = True
) -> Floats:
    """Gradients of the log-likelihood of bases [start, end), float64 (length, 4), for A, C, G, T; zero at N.

    Args:
        model: in eval mode.
        tokens: uint8, shape (length,), the window.
        passes: of a masked model.
        both_strands: the mean of the two strands' gradients; an equivariant model has one all the same.
    """
    found = _strand(model, tokens, start, end, passes)
    if both_strands and not model.config.rc_equivariant:
        length = len(tokens)
        other = _strand(model, vocab.reverse_complement(tokens), length - end, length - start, passes)
        found = (found + other[::-1, ::-1]) / 2  # A, C, G, T backwards is T, G, C, A
    centred = found - found.mean(1, keepdims=True)
    return np.where(is_base(tokens)[:, None], centred, 0.0)


def _strand(model: LanguageModel, tokens: Tokens, start: int, end: int, passes: int) -> Floats:
    places = np.arange(len(tokens))
    wanted = is_base(tokens) & (places >= start) & (places < end)
    total = np.zeros((len(tokens), 4))
    if model.config.objective == "causal":
        head = np.full(int(model.bos), vocab.BOS, dtype=np.uint8)
        inputs = np.concatenate([head, tokens])
        scored = np.flatnonzero(wanted)
        scored = scored[scored + len(head) > 0]
        return _gradient(model, inputs, scored + len(head) - 1, tokens[scored])[len(head) :]
    for turn in range(passes):
        hidden = is_base(tokens) & (places % passes == turn)
        scored = np.flatnonzero(hidden & wanted)
        if len(scored):
            total += _gradient(model, np.where(hidden, np.uint8(vocab.MASK), tokens), scored, tokens[scored])
    return total


def _gradient(model: LanguageModel, inputs: Tokens, at: npt.NDArray[np.intp], bases: Tokens) -> Floats:
    """Gradient of the summed log P of ``bases`` at the outputs ``at`` by the one-hot inputs, (length, 4)."""
    device = next(model.parameters()).device
    ids = torch.from_numpy(inputs.astype(np.int64))[None].to(device)
    with torch.enable_grad(), _one_hot(model, torch.from_numpy(is_base(inputs)).to(device)) as one_hot:
        log_probs = base_log_probs(model(ids).logits[0])[torch.from_numpy(at).to(device)]
        target = torch.from_numpy(bases.astype(np.int64) - vocab.FIRST_BASE).to(device)
        (gradient,) = torch.autograd.grad(log_probs.gather(1, target[:, None]).sum(), one_hot)
    return gradient.double().cpu().numpy()


@contextmanager
def _one_hot(model: LanguageModel, in_view: Tensor) -> Iterator[Tensor]:
    """Zeros (length, 4) that are added to the one-hot inputs, wherever the embedding is asked for them."""
    embedding = strand_backbone(model).embedding
    assert isinstance(embedding, torch.nn.Embedding)
    bases = torch.tensor([list(vocab.BASES)], device=in_view.device)
    rows = embedding.weight.detach()[model.translate(bases)[0]]
    one_hot = torch.zeros(len(in_view), 4, dtype=rows.dtype, device=in_view.device, requires_grad=True)
    asked = 0

    def add(_: torch.nn.Module, __: object, embedded: Tensor) -> Tensor:
        nonlocal asked
        mine = one_hot * in_view[:, None]
        if asked % 2 and model.config.rc_equivariant:  # the other strand, in its own reading order
            mine = mine.flip(0, 1)
        asked += 1
        return embedded + mine @ rows

    hook = embedding.register_forward_hook(add)
    try:
        yield one_hot
    finally:
        hook.remove()
