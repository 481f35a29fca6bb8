"""The gapped k-mer machine: its features against a count by hand, its choice of a view, its kinds of targets."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from genossm import vocab
from genossm.baselines.gapped_kmer import GROUPS, POSITION_KS, View, choose_view, features, fit_machine, score
from genossm.baselines.linear import fit_linear, gc_features, onehot_features


def by_hand(sequence: str, view: View) -> dict[int, float]:
    strands = [sequence]
    if view.both_strands:
        strands.append(vocab.decode(vocab.reverse_complement(vocab.encode(sequence))))
    found: dict[int, float] = {}
    start = 0
    for group in GROUPS:
        counts: Counter[int] = Counter()
        for pattern in group:
            for text in strands:
                for i in range(len(text) - max(pattern)):
                    letters = [text[i + o] for o in pattern]
                    if "N" not in letters:
                        counts[start + int("".join(str("ACGT".index(x)) for x in letters), 4)] += 1
            start += 4 ** len(pattern)
        norm = sum(counts.values()) ** 0.5
        found |= {column: count**0.5 / norm for column, count in counts.items()}
    places: list[int] = []
    for k in POSITION_KS if view.length else ():
        for i in range(view.length - k + 1):
            letters = sequence[i : i + k]
            if len(letters) == k and "N" not in letters:
                places.append(start + i * 4**k + int("".join(str("ACGT".index(x)) for x in letters), 4))
        start += (view.length - k + 1) * 4**k
    return found | {place: len(places) ** -0.5 for place in places}


@pytest.mark.parametrize("view", [View(True), View(False), View(False, 12)])
def test_features_are_those_of_a_count_by_hand(view: View) -> None:
    sequences = ["ACGTACGTNACC", "AAAAAAAAAAAA", "ACG", "NNNNNNNNNNNN", "ACGTTGCATGCC"]
    matrix = features([vocab.encode(s) for s in sequences], view)
    for row, sequence in zip(matrix, sequences, strict=True):
        wanted = by_hand(sequence, view)
        assert dict(zip(row.indices.tolist(), row.data.tolist(), strict=True)) == pytest.approx(wanted)


def planted(
    motif: str, rows: int, seed: int, *, place: int | None = None, flip: bool = False
) -> tuple[list, np.ndarray]:
    """Random sequences of 40 bp; in every second one a motif, anywhere or at a place, on a random strand on demand."""
    rng = np.random.default_rng(seed)
    sequences = list(rng.integers(7, 11, (rows, 40)).astype(np.uint8))
    labels = np.arange(rows) % 2
    for row in np.flatnonzero(labels):
        word = vocab.encode(motif)
        if flip and rng.random() < 0.5:
            word = vocab.reverse_complement(word)
        at = place if place is not None else rng.integers(0, 40 - len(word))
        sequences[row][at : at + len(word)] = word
    return sequences, labels


@pytest.mark.parametrize(
    ("options", "wanted"),
    [({"flip": True}, View(True)), ({}, View(False)), ({"place": 12}, View(False, 40))],
)
def test_the_view_is_what_the_rows_need(options: dict, wanted: View) -> None:
    # a motif at a place must be too short to be told apart without it
    motif = "GAT" if "place" in options else "GATACCA"
    # either strand's k-mers can be learnt apart, given enough rows
    train, labels = planted(motif, 100 if "flip" in options else 500, 1, **options)
    valid, valid_labels = planted(motif, 300, 2, **options)
    views = [View(True), View(False), View(False, 40)]
    best, scores = choose_view("classes", train, labels, valid, valid_labels, 2, views=views, seed=1)
    assert best == wanted, scores
    assert scores[best.name] > 0.75


def test_three_kinds_of_targets() -> None:
    train, labels = planted("GATACCA", 400, 3)
    valid, valid_labels = planted("GATACCA", 200, 4)
    classes = fit_machine("classes", train, labels, valid, valid_labels, 2, view=View(False))
    margins = classes.margins(valid)
    assert margins.shape == (200, 2)
    np.testing.assert_allclose(margins.sum(axis=1), 0, atol=1e-9)
    assert score("classes", valid_labels, margins) == pytest.approx(classes.valid_score)
    marks, valid_marks = (np.stack([x, 1 - x], axis=1).astype(float) for x in (labels, valid_labels))
    several = fit_machine("multilabel", train, marks, valid, valid_marks, 2, view=View(False))
    numbers = fit_machine("regression", train, marks, valid, valid_marks, 2, view=View(False))
    assert classes.valid_score > 0.85
    assert several.valid_score > 0.85
    assert numbers.valid_score > 0.6
    constant = fit_machine("multilabel", train, np.zeros((400, 1)), valid, np.zeros((200, 1)), 1, view=View(False))
    assert not constant.weight.any()


def test_regressions_on_little() -> None:
    sequences = [vocab.encode(s) for s in ("GGCC", "ATN", "NNN", "ACGTA")]
    np.testing.assert_allclose(gc_features(sequences)[:, 0], [1, 0, 0.5, 0.4])
    matrix = onehot_features(sequences, 4).toarray()
    assert matrix.sum(axis=1).tolist() == [4, 2, 0, 4]
    assert np.flatnonzero(matrix[0]).tolist() == [2, 6, 9, 13]
    train, labels = planted("GATACCA", 400, 5, place=3)
    valid, valid_labels = planted("GATACCA", 200, 6, place=3)
    placed = fit_linear("onehot", "classes", train, labels, valid, valid_labels, 2)
    assert placed.valid_score > 0.95
    np.testing.assert_allclose(placed.predict(valid).sum(axis=1), 1)
    numbers = np.stack([labels, 3.0 - labels], axis=1)
    line = fit_linear(
        "onehot", "regression", train, numbers, valid, np.stack([valid_labels, 3.0 - valid_labels], axis=1), 2
    )
    assert line.predict(valid).shape == (200, 2)
    assert line.valid_score > 0.8
    marks = np.stack([labels, np.ones(400)], axis=1)
    several = fit_linear("onehot", "multilabel", train, marks, valid, np.stack([valid_labels, np.ones(200)], axis=1), 2)
    assert (several.predict(valid)[:, 1] == 1).all()
