"""The token ids of published models, and the way from ours to theirs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

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


@dataclass(frozen=True)
class Tokenizer:
    """Text to the ids of a published model, as its official tokenizer gives them.

    Every letter is a token, in the case that the vocabulary has; whatever it does not have, blanks and line ends
    included, is [UNK]. Specials may be written out (``[MASK]``). [SEP] is appended where the vocabulary has it, and
    shorter texts are padded on the left with [PAD].
    """

    vocabulary: Mapping[str, int]

    def ids(self, text: str, *, add_sep: bool = True) -> list[int]:
        """The ids of one text."""
        upper, unknown = "A" in self.vocabulary, self.vocabulary["[UNK]"]
        result: list[int] = []
        for piece in re.split(r"(\[[A-Z]+\])", text):
            if piece in self.vocabulary and len(piece) > 1:
                result.append(self.vocabulary[piece])
            else:
                result += [self.vocabulary.get(c, unknown) for c in (piece.upper() if upper else piece.lower())]
        return [*result, self.vocabulary["[SEP]"]] if add_sep and "[SEP]" in self.vocabulary else result

    def __call__(self, texts: str | Sequence[str], *, add_sep: bool = True) -> Tensor:
        """input_ids, int64 (batch, seqlen); one text is a batch of one."""
        rows = [self.ids(t, add_sep=add_sep) for t in ([texts] if isinstance(texts, str) else texts)]
        longest, pad = max(map(len, rows), default=0), self.vocabulary["[PAD]"]
        return torch.tensor([[pad] * (longest - len(row)) + row for row in rows], dtype=torch.int64)

    def decode(self, ids: Sequence[int], *, skip_special: bool = False) -> str:
        """The text of ids; specials are written out, or left out."""
        words = {i: token for token, i in self.vocabulary.items()}
        found = [words.get(int(i), "[UNK]") for i in ids]
        return "".join(word for word in found if not (skip_special and len(word) > 1))
