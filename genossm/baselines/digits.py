"""Handwritten digits read pixel by pixel, and a linear readout: a long sequence that needs no network to fetch."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.ndimage import zoom
from sklearn.datasets import load_digits
from sklearn.linear_model import RidgeClassifierCV
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

Array = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]


def digit_sequences(side: int, seed: int, limit: int | None = None) -> tuple[Array, Array, Labels, Labels]:
    """The 1,797 digits of scikit-learn (8 x 8), enlarged to side x side, row by row, in 0..1.

    Args:
        side: pixels a side; the sequences have side * side steps.
        seed: of the split, a quarter for testing, the classes in proportion.
        limit: images used, the first ones; None for all.

    Returns:
        Training and test sequences (images, side * side), training and test labels.
    """
    data = load_digits()
    images, labels = data.images[:limit] / 16, data.target[:limit]
    large = zoom(images, (1, side / 8, side / 8), order=1).reshape(len(images), side * side)
    return tuple(train_test_split(large, labels, test_size=0.25, random_state=seed, stratify=labels))


def ridge_accuracy(train: Array, train_labels: Labels, test: Array, test_labels: Labels) -> float:
    """Test accuracy of a ridge classifier on standardised features (records, features), its penalty chosen inside."""
    readout = make_pipeline(StandardScaler(), RidgeClassifierCV(alphas=np.logspace(-4, 4, 9)))
    return float(readout.fit(train, train_labels).score(test, test_labels))
