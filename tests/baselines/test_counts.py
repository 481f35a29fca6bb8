"""Count tables against a plain dictionary, on sequences whose answer is known, and for what they may not see."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import numpy.typing as npt
import pytest

from genossm import vocab
from genossm.baselines import counts
from genossm.baselines.counts import UNIFORM, CountBaseline, FlankBaseline, MarkovBaseline, Questions, score_baseline

Tokens = npt.NDArray[np.uint8]


def _random(n: int, seed: int, share_n: float = 0.0) -> Tokens:
    rng = np.random.default_rng(seed)
    tokens = rng.choice(np.array(vocab.BASES, dtype=np.uint8), size=n)
    tokens[rng.random(n) < share_n] = vocab.N
    return tokens


def _masked(tokens: Tokens, seed: int, share: float = 0.3) -> tuple[Tokens, npt.NDArray[np.bool_]]:
    """Tokens with some bases behind [MASK], and the bases to predict: those, and a few that are seen."""
    rng = np.random.default_rng(seed)
    is_base = tokens < vocab.N
    hidden = (rng.random(tokens.shape) < share) & is_base
    targets = (hidden | (rng.random(tokens.shape) < 0.1)) & is_base
    return np.where(hidden, vocab.MASK, tokens).astype(np.uint8), targets


def _reference(
    train: list[str], seen: str, position: int, truth: str, k: int, strength: float, right_sided: bool
) -> float:
    """-log p by the formula of the module, with dictionaries and letters."""

    def chain(l: int, r: int) -> list[tuple[int, int]]:
        shapes = [(l, r)]
        while (l, r) != (0, 0):
            if right_sided:
                l, r = (l - 1, r - 1) if l == r else (l - (l > r), r - (r > l))
            else:
                l -= 1
            shapes.append((l, r))
        return shapes[::-1]

    l = r = 0
    while l < k and position > l and seen[position - l - 1] in "ACGT":
        l += 1
    while right_sided and r < k and position + r + 1 < len(seen) and seen[position + r + 1] in "ACGT":
        r += 1
    p = 0.25
    for left, right in chain(l, r):
        found: Counter[str] = Counter()
        for text in train:
            for i in range(left, len(text) - right):
                around = text[i - left : i] + text[i + 1 : i + 1 + right]
                wanted = seen[position - left : position] + seen[position + 1 : position + 1 + right]
                if around == wanted and set(around) <= set("ACGT") and text[i] in "ACGT":
                    found[text[i]] += 1
        p = (found[truth] + strength * p) / (found.total() + strength)
    return -math.log(p)


@pytest.mark.parametrize("kind", [FlankBaseline, MarkovBaseline])
@pytest.mark.parametrize("both_strands", [False, True])
@pytest.mark.parametrize("limits", [(8, 10, 1 << 20), (1, 2, 7)], ids=["dense", "sparse, in small chunks"])
def test_every_loss_is_that_of_the_formula(
    monkeypatch: pytest.MonkeyPatch, kind: type[CountBaseline], both_strands: bool, limits: tuple[int, int, int]
) -> None:
    for name, value in zip(("_DENSE", "_DIRECT", "_CHUNK"), limits, strict=True):
        monkeypatch.setattr(counts, name, value)
    train = [_random(60, 1, 0.05), _random(1, 2), _random(45, 3, 0.02), np.empty(0, dtype=np.uint8)]
    tokens = _random(40, 4, 0.05).reshape(2, 20)
    input_ids, targets = _masked(tokens, 5)
    questions = kind.ask(input_ids, tokens, targets, 4)
    tables = kind(questions)
    for stretch in train:
        tables.add(stretch, both_strands=both_strands)
    texts = [vocab.decode(t) for t in train]
    if both_strands:
        texts += [vocab.decode(vocab.reverse_complement(t)) for t in train]
    losses = tables.losses(3.0)
    assert losses.shape == (5, targets.sum())
    for question, (row, col) in enumerate(np.argwhere(targets)):
        for k in range(5):
            expected = _reference(
                texts, vocab.decode(input_ids[row]), col, vocab.decode(tokens[row])[col], k, 3.0, kind.right_sided
            )
            assert losses[k, question] == pytest.approx(expected, rel=1e-12)


def test_the_probabilities_of_the_four_bases_sum_to_one() -> None:
    tokens = _random(50, 1)[None]
    input_ids, targets = _masked(tokens, 2)
    asked = FlankBaseline.ask(input_ids, tokens, targets, 5)
    total = np.zeros((6, len(asked)))
    for base in range(4):
        tables = FlankBaseline(Questions(asked.left, asked.right, np.full(len(asked), base, dtype=np.uint8)))
        tables.add(_random(3_000, 3), both_strands=True)
        total += np.exp(-tables.losses(4.0))
    np.testing.assert_allclose(total, 1, rtol=1e-12)


def test_tables_without_training_know_nothing() -> None:
    tokens = _random(30, 1)[None]
    tables = MarkovBaseline(MarkovBaseline.ask(tokens, tokens, tokens < vocab.N, 3))
    np.testing.assert_allclose(tables.losses(4.0), UNIFORM)


def test_the_answer_and_hidden_bases_are_never_looked_at() -> None:
    tokens = _random(200, 1)[None]
    input_ids, targets = _masked(tokens, 2)
    asked = FlankBaseline.ask(input_ids, tokens, targets, 6)
    other = np.where(input_ids == vocab.MASK, vocab.A, tokens).astype(np.uint8)
    again = FlankBaseline.ask(input_ids, other, targets, 6)
    np.testing.assert_array_equal(asked.left, again.left)
    np.testing.assert_array_equal(asked.right, again.right)
    markov = MarkovBaseline.ask(tokens, tokens, targets, 6)
    later = tokens.copy()
    later[0, 100:] = vocab.N
    sooner = MarkovBaseline.ask(later, tokens, targets, 6)
    before = np.flatnonzero(targets[0]) <= 100
    np.testing.assert_array_equal(markov.left[before], sooner.left[before])
    assert markov.right.shape == (targets.sum(), 0)


def test_a_markov_chain_of_order_two_is_found() -> None:
    """Bases are a function of the two before, but for noise: k = 2 is best, and near the entropy of the source."""
    rng = np.random.default_rng(0)
    follow = rng.integers(0, 4, size=(4, 4))
    codes = [0, 1]
    noise = rng.random(30_000)
    for i in range(30_000):
        codes.append(int(follow[codes[-2], codes[-1]]) if noise[i] < 0.7 else int(rng.integers(0, 4)))
    tokens = (np.array(codes) + vocab.A).astype(np.uint8)
    held, tune, train = tokens[None, :5_000], tokens[None, 5_000:10_000], tokens[10_000:]
    result = score_baseline(
        MarkovBaseline,
        MarkovBaseline.ask(held, held, held < vocab.N, 5),
        MarkovBaseline.ask(tune, tune, tune < vocab.N, 5),
        [train],
        [tune[0]],
        both_strands=False,
    )
    entropy = -(0.775 * math.log(0.775) + 3 * 0.075 * math.log(0.075))
    assert result.best_k == 2
    assert result.best == pytest.approx(entropy, abs=0.03)
    assert result.by_k[1] > result.best + 0.1
    assert (result.targets, result.tuning_targets) == (5_000, 5_000)


def test_flanks_see_what_a_causal_table_cannot() -> None:
    """Every fourth base is the complement of the one after it, and of nothing before it."""
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 4, size=20_000)
    codes[0::4] = 3 - codes[1::4]
    tokens = (codes + vocab.A).astype(np.uint8)
    held, train = tokens[None, :4_000], tokens[4_000:]
    targets = np.zeros_like(held, dtype=bool)
    targets[:, 0::4] = True
    input_ids = np.where(targets, vocab.MASK, held)
    flank = FlankBaseline(FlankBaseline.ask(input_ids, held, targets, 2))
    markov = MarkovBaseline(MarkovBaseline.ask(input_ids, held, targets, 2))
    for tables in (flank, markov):
        tables.add(train, both_strands=False)
    assert flank.losses(1.0)[1].mean() < 1.2
    assert markov.losses(1.0)[2].mean() > 1.37


def test_both_strands_answer_alike() -> None:
    tokens = _random(4_000, 1)
    train = tokens[1_000:]
    held = tokens[None, :1_000]
    targets = np.zeros_like(held, dtype=bool)
    targets[:, ::7] = True
    losses = []
    for shown, chosen in ((held, targets), (vocab.reverse_complement(held), targets[:, ::-1])):
        tables = FlankBaseline(FlankBaseline.ask(shown, shown, chosen, 3))
        tables.add(train, both_strands=True)
        losses.append(tables.losses(4.0))
    np.testing.assert_allclose(losses[0], losses[1][:, ::-1], rtol=1e-12)


def test_memory_follows_the_questions_not_the_contexts() -> None:
    """k = 12 on either side has 4^24 contexts; a few questions keep a few of them."""
    tokens = _random(3_000, 1)[None]
    targets = np.zeros_like(tokens, dtype=bool)
    targets[:, 50::100] = True
    tables = FlankBaseline(FlankBaseline.ask(tokens, tokens, targets, 12))
    tables.add(tokens[0], both_strands=True)
    assert tables.losses(1.0)[12].mean() < 0.5 < tables.losses(1.0)[2].mean()
    stack, cells = [tables._root], 0
    while stack:
        table = stack.pop()
        cells += table.counts.size
        stack += table.children
    assert cells < 30 * 4 * 4**8
