"""What a state still knows: a linear readout of the last state after a whole image, pixel by pixel."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from genossm.baselines.digits import digit_sequences, ridge_accuracy
from genossm.models.ssm.hippo import Measure, transition
from genossm.report.plots import Plot
from genossm.science.memory_capacity import impulse_states, random_dense, random_diagonal
from genossm.science.result import Claim, Figure, Setting

STATES = 64
HIPPO: tuple[Measure, ...] = ("legs", "legt", "fout", "lagt")
SCALES = (0.5, 1.0, 2.0, 4.0)
"""Time steps tried for a random start, over 1 / length; the best on the test images is taken, in its favour."""


def last_states(A: Tensor, B: Tensor, dt: float, sequences: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """x_L of every sequence (records, L), (records, n): one product with the impulse states, the last input first."""
    response = impulse_states(A, B, dt, sequences.shape[1]).flip(0)
    return np.asarray(sequences @ response.numpy())


def check(setting: Setting) -> Claim:
    """Ridge accuracies on the last state of 784 steps, HiPPO against random."""
    side, limit = (16, 600) if setting.quick else (28, None)
    train, test, train_labels, test_labels = digit_sequences(side, setting.seed, limit)
    length = side * side
    generator = torch.Generator().manual_seed(setting.seed)

    def accuracy(A: Tensor, B: Tensor, dt: float) -> float:
        features = [last_states(A, B, dt, part) for part in (train, test)]
        return ridge_accuracy(features[0], train_labels, features[1], test_labels)

    found: dict[str, float] = {}
    for measure, scale in zip(HIPPO, (1.0, 2.0, 1.0, 32.0), strict=True):
        found[measure] = accuracy(*transition(measure, STATES), scale / length)
        setting.advance(measure)
    for name, start in (("random dense", random_dense), ("random diagonal", random_diagonal)):
        system = start(STATES, generator)
        found[name] = max(accuracy(*system, scale / length) for scale in SCALES)
        setting.advance(name)
    pixels = ridge_accuracy(train, train_labels, test, test_labels)
    best_random = max(found["random dense"], found["random diagonal"])
    figures = [
        Figure("LegS, test accuracy", found["legs"], low=0.9),
        Figure("LegT", found["legt"], low=0.9),
        Figure("FouT", found["fout"], low=0.9),
        Figure("LagT", found["lagt"], low=0.75),
        Figure("best random start", best_random, high=0.8),
        Figure("all pixels, no state", pixels),
    ]
    plot = Plot(f"Ridge on the last state, {length} steps", "start", "test accuracy", bars=found, levels={
        "all pixels": pixels, "chance": 0.1,
    })  # fmt: skip
    return Claim(
        "After a long sequence the last HiPPO state still tells what was read; a random one much less.",
        f"{len(train) + len(test)} digits of {length} steps, {STATES} states, a ridge readout; random starts have the "
        f"best of {len(SCALES)} time steps, chosen on the test images in their favour",
        figures,
        [plot],
    )
