"""k-mer regression: counts by hand, strands, borders between sequences, and what it can and cannot learn."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from genossm import vocab
from genossm.baselines import kmer


def random_sequences(rng: np.random.Generator, count: int, low: int, high: int) -> list[np.ndarray]:
    return [rng.integers(vocab.A, vocab.T + 1, rng.integers(low, high)).astype(np.uint8) for _ in range(count)]


def counted(sequence: str, k: int, both_strands: bool) -> Counter[str]:
    """The counts as one would write them down."""
    found: Counter[str] = Counter()
    for i in range(len(sequence) - k + 1):
        word = sequence[i : i + k]
        if "N" in word:
            continue
        other = vocab.decode(vocab.reverse_complement(vocab.encode(word)))
        found[min(word, other) if both_strands else word] += 1
    return found


def column(word: str) -> int:
    return int("".join(str("ACGT".index(letter)) for letter in word), 4)


@pytest.mark.parametrize("both_strands", [False, True])
@pytest.mark.parametrize("k", [1, 2, 5])
def test_counts_equal_counting_words(k: int, both_strands: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(k)
    sequences = [*random_sequences(rng, 12, 0, 40), vocab.encode("ACGTNNACGTACGNT"), vocab.encode("NNN")]
    for size in (1, 17, 1 << 21):
        monkeypatch.setattr(kmer, "_CHUNK", size)
        counts = kmer.kmer_counts(sequences, k, both_strands=both_strands)
        assert counts.shape == (len(sequences), 4**k)
        for row, sequence in zip(counts.toarray(), sequences, strict=True):
            want = np.zeros(4**k)
            for word, count in counted(vocab.decode(sequence), k, both_strands).items():
                want[column(word)] = count
            np.testing.assert_array_equal(row, want)


def test_no_sequences_no_rows() -> None:
    assert kmer.kmer_counts([], 3, both_strands=True).shape == (0, 64)


def test_both_strands_give_the_same_features() -> None:
    sequences = random_sequences(np.random.default_rng(1), 20, 30, 60)
    others = [vocab.reverse_complement(s) for s in sequences]
    ours = kmer.kmer_features(sequences, 4, both_strands=True)
    assert abs(ours - kmer.kmer_features(others, 4, both_strands=True)).max() < 1e-15
    assert abs(kmer.kmer_features(sequences, 4, both_strands=False) - ours).max() > 0.1


def test_features_have_length_one_or_zero() -> None:
    sequences = [*random_sequences(np.random.default_rng(2), 5, 10, 500), vocab.encode("AC"), vocab.encode("NNNNNNN")]
    norms = np.sqrt((kmer.kmer_features(sequences, 3, both_strands=True).toarray() ** 2).sum(axis=1))
    np.testing.assert_allclose(norms, [1] * 5 + [0, 0], rtol=1e-12)


def planted(rng: np.random.Generator, count: int, motifs: list[str]) -> tuple[list[np.ndarray], np.ndarray]:
    """Random sequences; those of class i carry motif i twice, on a random strand."""
    labels = rng.integers(0, len(motifs), count)
    sequences = random_sequences(rng, count, 80, 120)
    for sequence, label in zip(sequences, labels, strict=True):
        for at in (10, 50):
            word = vocab.encode(motifs[label])
            sequence[at : at + len(word)] = vocab.reverse_complement(word) if rng.random() < 0.5 else word
    return sequences, labels


@pytest.mark.parametrize("motifs", [["GATAAG", "CAGGTG"], ["GATAAG", "CAGGTG", "TTACCC"]])
def test_it_learns_planted_words_and_picks_k_on_the_validation_split(motifs: list[str]) -> None:
    rng = np.random.default_rng(3)
    train, valid, test = (planted(rng, n, motifs) for n in (400, 200, 200))
    model = kmer.fit_kmer_regression(*train, *valid, both_strands=True)
    assert model.k >= 4  # a planted 6-mer is lost in the counts of short words
    alone = [kmer.fit_kmer_regression(*train, *valid, both_strands=True, ks=[k]).valid_mcc for k in kmer.K_GRID]
    assert model.valid_mcc == max(alone)
    probabilities = model.probabilities(test[0])
    assert probabilities.shape == (200, len(motifs))
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    assert kmer.metrics.mcc(test[1], probabilities) > 0.8


def test_the_same_data_give_the_same_bits() -> None:
    rng = np.random.default_rng(4)
    train, valid = (planted(rng, n, ["GATAAG", "CAGGTG"]) for n in (200, 100))
    first, second = (kmer.fit_kmer_regression(*train, *valid, both_strands=True) for _ in range(2))
    assert (first.k, first.C, first.valid_mcc) == (second.k, second.C, second.valid_mcc)
    np.testing.assert_array_equal(first.probabilities(valid[0]), second.probabilities(valid[0]))


def test_a_missing_class_is_refused() -> None:
    sequences = random_sequences(np.random.default_rng(5), 4, 10, 20)
    with pytest.raises(ValueError, match="every class present"):
        kmer.fit_kmer_regression(sequences, np.array([0, 2, 2, 0]), [], np.array([]), both_strands=True)
