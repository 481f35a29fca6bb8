"""The token ids of published models, and the way from ours to theirs."""

from __future__ import annotations

from collections.abc import Mapping

from genossm import vocab
from genossm.errors import GenoSSMError

HOUSE = {token: i for i, token in enumerate(vocab.TOKENS)}
"""Caduceus and HyenaDNA, and GenoSSM itself."""
PLANT = {"[PAD]": 0, "[MASK]": 1, "[UNK]": 2, "a": 3, "c": 4, "g": 5, "t": 6}
"""PlantCaduceus and GPN (the tokenizer songlab/tokenizer-dna-mlm); lower case."""

_INSTEAD = {"N": ("[UNK]", "[PAD]"), "[UNK]": ("N", "[PAD]"), "[PAD]": ("[UNK]", "N"), "[MASK]": ("[UNK]", "N")}
"""What stands for a token that a vocabulary does not have; any other becomes [PAD]."""


def _folded(vocabulary: Mapping[str, int]) -> dict[str, int]:
    """Letters in upper case, specials in brackets: ``<pad>`` is ``[PAD]``."""
    result: dict[str, int] = {}
    for token, number in vocabulary.items():
        word = token.upper()
        result.setdefault(f"[{word[1:-1]}]" if word[:1] + word[-1:] == "<>" else word, number)
    return result


def is_dna(vocabulary: Mapping[str, int]) -> bool:
    """Whether A, C, G and T are tokens."""
    return set("ACGT") <= _folded(vocabulary).keys()


def own_ids(vocabulary: Mapping[str, int] | None) -> list[int] | None:
    """The id in ``vocabulary`` of each of GenoSSM's sixteen ids; None where they are the same.

    Raises:
        GenoSSMError: nobody knows which ids are A, C, G and T.
    """
    if vocabulary is None or not is_dna(vocabulary):
        raise GenoSSMError(
            "the vocabulary of this checkpoint does not say which ids are A, C, G and T: import it again with"
            " --vocabulary, or use genossm.load(DIR) with its own ids"
        )
    known = _folded(vocabulary)
    if all(known.get(token) == i for token, i in HOUSE.items()):
        return None

    def find(token: str) -> int:
        for name in (token, *_INSTEAD.get(token, ()), "[PAD]", "[UNK]", "N"):
            if name in known:
                return known[name]
        raise GenoSSMError("the vocabulary of this checkpoint has no token for unknown letters and for padding")

    return [find(token) for token in vocab.TOKENS] + [find("[PAD]")] * (vocab.VOCAB_SIZE - len(vocab.TOKENS))
