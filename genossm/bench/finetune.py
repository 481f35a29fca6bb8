"""An epoch of training, by contestants in turns; and the same Mamba classifier as `transformers` gives it."""

from __future__ import annotations

import importlib
import statistics
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from genossm.bench.clock import seconds_of
from genossm.config import ModelConfig
from genossm.models.heads import mean_pool
from genossm.models.task import unflip

T = TypeVar("T")


class TransformersClassifier(nn.Module):
    """`transformers`' MambaModel in the shape of ``config``, read in both directions, mean pooling, a linear layer.

    Without the CUDA build its scan is a loop over the bases (``mambapy``: the scan of that package). One set of weights
    reads both directions, so a layer does the work of one of ours, which ties the projections of its directions.

    Raises:
        ImportError: transformers, or with ``mambapy`` that package, is not installed.
    """

    def __init__(self, config: ModelConfig, outputs: int, *, mambapy: bool) -> None:
        super().__init__()
        if mambapy:
            importlib.import_module("mambapy.pscan")  # transformers would go on without it, silently
        from transformers import MambaConfig, MambaModel
        from transformers.utils import logging

        logging.set_verbosity_error()  # that the CUDA kernels are absent is known
        shape = MambaConfig(
            vocab_size=config.vocab_size,
            hidden_size=config.d_model,
            state_size=config.d_state,
            num_hidden_layers=config.n_layer,
            expand=config.expand,
            conv_kernel=config.d_conv,
            time_step_rank=config.resolved_dt_rank,
            layer_norm_epsilon=config.norm_eps,
            use_mambapy=mambapy,
            use_cache=False,
        )
        self.bidirectional = config.bidirectional
        self.mamba = MambaModel(shape)
        self.classifier = nn.Linear(config.d_model, outputs)

    def forward(self, input_ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """Logits (batch, outputs) of input_ids int64 (batch, seqlen), padded on the right where ``mask`` is False."""
        hidden = self._read(input_ids)
        if self.bidirectional:
            other = self._read(input_ids.flip(1) if mask is None else unflip(input_ids, mask))
            hidden = hidden + (other.flip(1) if mask is None else unflip(other, mask))
        logits: Tensor = self.classifier(mean_pool(hidden, mask))
        return logits

    def _read(self, input_ids: Tensor) -> Tensor:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # theirs, not ours
            hidden: Tensor = self.mamba(input_ids=input_ids).last_hidden_state
        return hidden


@dataclass
class Runner(Generic[T]):
    """Who trains.

    Attributes:
        name: in the table. parameters: of the network.
        step: one update.
        steps: how many are measured in a round; share: how much of an epoch's tokens they hold.
        seconds: of an epoch, one figure a round: what was measured, over ``share``.
    """

    name: str
    parameters: int
    step: Callable[[T], object]
    steps: int = 0
    share: float = 1.0
    seconds: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """Seconds of an epoch."""
        return statistics.median(self.seconds)

    def times(self, other: Runner[T]) -> float:
        """How many times as long as ``other`` it takes: the median over the rounds."""
        return statistics.median(mine / theirs for mine, theirs in zip(self.seconds, other.seconds, strict=True))


def race_epochs(
    runners: Sequence[Runner[T]],
    batches: Callable[[int], list[T]],
    sizes: Sequence[int],
    *,
    limit: float,
    rounds: int,
    device: torch.device,
    advance: Callable[[int], None],
) -> None:
    """Time an epoch of every runner, round after round in turns, the order moved on by one each time.

    Two updates are made before and not counted; the second foretells how many of an epoch's fit in ``limit`` seconds
    (at least one). Those, the first of the epoch, are timed in every round, and the time is scaled to it by the tokens.

    Args:
        batches: the first n batches of the epoch, which is in random order.
        sizes: tokens of every batch of the epoch, padding included.
        limit: seconds that a runner may take in a round.
        advance: told 1 for every update.
    """
    total = sum(sizes)
    (first,) = batches(1)
    for runner in runners:
        runner.step(first)
        foretold = seconds_of(partial(runner.step, first), device)
        affordable = int(limit / max(foretold, 1e-9) * sizes[0] * len(sizes) / total)
        runner.steps = min(len(sizes), max(1, affordable))
        runner.share = sum(sizes[: runner.steps]) / total
        advance(2)
    held = batches(max(runner.steps for runner in runners))
    for number in range(rounds):
        turn = number % len(runners)
        for runner in (*runners[turn:], *runners[:turn]):
            spent = 0.0
            for batch in held[: runner.steps]:
                spent += seconds_of(partial(runner.step, batch), device)
                advance(1)
            runner.seconds.append(spent / runner.share)
