"""What a model of a task looks at, in a few of the judged rows: gradient times input, and in-silico mutagenesis."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from genossm import vocab
from genossm.models.motif import one_hot
from genossm.models.task import TaskModel
from genossm.stages.labelled import Split
from genossm.stages.task_fit import Outputs

LONGEST = 300
"""bp that are shown, from the middle of a longer sequence."""
BATCH = 64
Tokens = npt.NDArray[np.uint8]


def examples(model: TaskModel, split: Split, probabilities: Outputs, count: int = 4) -> list[dict[str, Any]]:
    """The attributions of the surest right rows of different classes, and of the surest wrong one; JSON.

    Returns:
        A mapping a row: line, label, predicted, probability, sequence and start of what is shown, ``gradient`` and
        ``mutagenesis`` (a number a base, both for the logit of the predicted class).
    """
    said = probabilities.argmax(axis=1)
    sure = probabilities.max(axis=1)
    right = said == split.labels
    chosen: list[int] = []
    for label in range(split.outputs):
        rows = np.flatnonzero(right & (said == label))
        if len(rows) and len(chosen) < count - 1:
            chosen.append(int(rows[sure[rows].argmax()]))
    wrong = np.flatnonzero(~right)
    if len(wrong):
        chosen.append(int(wrong[sure[wrong].argmax()]))
    found = []
    for row in chosen:
        tokens, output = split.sequences[row], int(said[row])
        start = max(0, (len(tokens) - LONGEST) // 2)
        shown = slice(start, min(len(tokens), start + LONGEST))
        found.append(
            {
                "line": split.lines[row],
                "label": split.names[split.labels[row]],
                "predicted": split.names[output],
                "probability": float(sure[row]),
                "start": start,
                "sequence": vocab.decode(tokens[shown]),
                "gradient": _rounded(gradient_times_input(model, tokens, output)[shown]),
                "mutagenesis": _rounded(mutagenesis(model, tokens, output, shown)),
            }
        )
    return found


def _rounded(values: npt.NDArray[np.float64]) -> list[float]:
    """Four significant digits: the file is read by people and browsers."""
    return [float(f"{value:.4g}") for value in values]


def gradient_times_input(model: TaskModel, tokens: Tokens, output: int) -> npt.NDArray[np.float64]:
    """The gradient of a centred logit of the networks at the base that is there, shape (len(tokens),).

    The mean over the four bases is taken off the gradient first (Majdandzic et al. 2023): the inputs are one-hot, so a
    constant over the bases says nothing. With both strands read, the sum over the strands. The gapped k-mer machine and
    a language model's embedding have no gradient in the bases; mutagenesis covers them.
    """
    ids = torch.from_numpy(tokens.astype(np.int64))[None]
    total = np.zeros(len(tokens))
    if model.config.head.motif is None and not model.config.head.length:
        return total  # nothing reads the one-hot bases
    for scale, network in zip(model.scales, model.networks, strict=True):
        strands = [False, True] if model.config.head.both_strands else [False]
        for flip in strands:
            read = torch.from_numpy(vocab.reverse_complement(tokens).astype(np.int64))[None] if flip else ids
            bases = one_hot(read).requires_grad_(True)
            logit = model.centred(network.read(read, bases))[0, output] * scale / len(strands)
            slope = torch.autograd.grad(logit, bases)[0]
            at = ((slope - slope.mean(1, keepdim=True)) * bases).sum(1)[0].detach().double().numpy()
            total += at[::-1] if flip else at
    return total


@torch.inference_mode()
def mutagenesis(model: TaskModel, tokens: Tokens, output: int, places: slice) -> npt.NDArray[np.float64]:
    """How much a logit falls when a base becomes another one, the mean over the three others; a number a place."""
    at = np.arange(len(tokens))[places]
    variants = np.repeat(tokens[None], 4 * len(at), axis=0)
    variants[np.arange(4 * len(at)), np.repeat(at, 4)] = np.tile(np.array(vocab.BASES, dtype=np.uint8), len(at))
    logits = torch.cat([_logit(model, variants[i : i + BATCH], output) for i in range(0, len(variants), BATCH)])
    there = float(_logit(model, tokens[None], output)[0])
    by_base = logits.double().numpy().reshape(len(at), 4)
    # the base itself is among the four and falls by nothing, so the sum is that of the three others
    return (there - by_base).sum(axis=1) / 3


def _logit(model: TaskModel, tokens: npt.NDArray[np.uint8], output: int) -> Tensor:
    return model(torch.from_numpy(tokens.astype(np.int64))).logits[:, output]
