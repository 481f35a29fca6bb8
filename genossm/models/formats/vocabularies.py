"""The token ids of published models, and the way from ours to theirs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

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


@dataclass(frozen=True)
class Vocabulary:
    """What a tokenizer says: token to id, and whether it puts [BOS] before a text. ``path``: its file, for messages."""

    ids: Mapping[str, int]
    bos: bool = False
    path: Path | None = field(default=None, compare=False)


def folded(vocabulary: Mapping[str, int]) -> dict[str, int]:
    """Letters in upper case, specials in brackets: ``<pad>`` is ``[PAD]``; of a letter in both cases, the upper."""
    result: dict[str, int] = {}
    for token, number in sorted(vocabulary.items(), key=lambda entry: entry[0] != entry[0].upper()):
        word = token.upper()
        result.setdefault(f"[{word[1:-1]}]" if word[:1] + word[-1:] == "<>" else word, number)
    return result


def why_unreadable(vocabulary: Mapping[str, int] | None) -> str | None:
    """Why no command can read DNA with a vocabulary; None where each can."""
    if vocabulary is None:
        return "nobody knows the tokens of this checkpoint"
    known = folded(vocabulary)
    if not set("ACGT") <= known.keys():
        return "the vocabulary has no tokens A, C, G and T"
    if not {"[PAD]", "[UNK]", "N"} & known.keys():
        return "the vocabulary has no token for unknown letters and for padding: none of N, [UNK] and [PAD]"
    return None


def find(token: str, known: Mapping[str, int]) -> int:
    """The id of a token in a folded vocabulary that commands can read, or of what stands for it there."""
    return next(known[name] for name in (token, *_INSTEAD.get(token, ()), "[PAD]", "[UNK]", "N") if name in known)


def own_ids(vocabulary: Mapping[str, int] | None) -> list[int] | None:
    """The id in ``vocabulary`` of each of GenoSSM's sixteen ids; None where they are the same.

    Raises:
        GenoSSMError: no command can read DNA with it.
    """
    if reason := why_unreadable(vocabulary):
        raise GenoSSMError(
            f"{reason}: import it again with --vocabulary, or use genossm.load(DIR) with the checkpoint's own ids"
        )
    known = folded(vocabulary or {})
    if all(known.get(token) == i for token, i in HOUSE.items()):
        return None
    padding = [find("[PAD]", known)] * (vocab.VOCAB_SIZE - len(vocab.TOKENS))
    return [find(token, known) for token in vocab.TOKENS] + padding


@dataclass(frozen=True)
class Tokenizer:
    """Text to the ids of a published model, as its official tokenizer gives them.

    Every letter is a token, in a case that the vocabulary has; whatever it does not have, blanks and line ends
    included, is [UNK]. Specials may be written out (``[MASK]``). [SEP] is appended where the vocabulary has it, and
    shorter texts are padded on the left with [PAD].
    """

    vocabulary: Mapping[str, int]

    @cached_property
    def _known(self) -> dict[str, int]:
        return folded(self.vocabulary)

    def ids(self, text: str, *, add_sep: bool = True) -> list[int]:
        """The ids of one text."""
        upper, unknown = "A" in self.vocabulary, find("[UNK]", self._known)
        result: list[int] = []
        for piece in re.split(r"(\[[A-Z]+\])", text):
            if len(piece) > 1 and piece in self._known:
                result.append(self._known[piece])
            else:
                for c in piece:
                    spelled = c if c in self.vocabulary else c.upper() if upper else c.lower()
                    result += [self.vocabulary.get(letter, unknown) for letter in spelled]
        return [*result, self._known["[SEP]"]] if add_sep and "[SEP]" in self._known else result

    def __call__(self, texts: str | Sequence[str], *, add_sep: bool = True) -> Tensor:
        """input_ids, int64 (batch, seqlen); one text is a batch of one."""
        rows = [self.ids(t, add_sep=add_sep) for t in ([texts] if isinstance(texts, str) else texts)]
        longest, pad = max(map(len, rows), default=0), find("[PAD]", self._known)
        return torch.tensor([[pad] * (longest - len(row)) + row for row in rows], dtype=torch.int64)

    def decode(self, ids: Sequence[int], *, skip_special: bool = False) -> str:
        """The text of ids; specials are written out, or left out."""
        words = {i: token for token, i in self.vocabulary.items()}
        found = [words.get(int(i), "[UNK]") for i in ids]
        return "".join(word for word in found if not (skip_special and len(word) > 1))
