"""Tokenizer files of published models: tokenizer.json (the tokenizers library's form) and vocab.json, in and out.

Read is what the ids depend on: the table of tokens, and whether a text begins with [BOS].
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from genossm.config import validate
from genossm.config.official import TokenizerFile, TokenTable
from genossm.models.formats.vocabularies import Vocabulary, find, folded, why_unreadable

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.json")
_SPECIALS = {
    "bos_token": "[BOS]", "cls_token": "[CLS]", "mask_token": "[MASK]", "pad_token": "[PAD]", "sep_token": "[SEP]",
    "unk_token": "[UNK]",
}  # fmt: skip


def read_tokenizer(content: Mapping[str, Any], path: Path) -> Vocabulary:
    """The vocabulary of a tokenizer.json, or of a JSON object of tokens and ids (vocab.json).

    Raises:
        GenoSSMError: not of that form.
    """
    if "model" in content and not isinstance(content["model"], int):
        file = validate(TokenizerFile, {k: v for k, v in content.items() if v is not None}, [(path, {})])
        ids = {**file.model.vocab, **{token.content: token.id for token in file.added_tokens}}
        first = next(_first_tokens(content.get("post_processor")), None)
        bos = first is not None and folded({first: 0}).keys() == {"[BOS]"} and first in ids
        return Vocabulary(ids, bos, path)
    return Vocabulary(validate(TokenTable, {"vocab": dict(content)}, [(path, {})]).vocab, path=path)


def _first_tokens(processor: Any) -> Iterator[str]:
    """The special token that a post-processor puts before a text, for each of its parts that puts one."""
    if not isinstance(processor, dict):
        return
    parts = processor.get("processors")
    for part in parts if isinstance(parts, list) else ():
        yield from _first_tokens(part)
    pieces = processor.get("single")
    first = pieces[0] if isinstance(pieces, list) and pieces else None
    special = first.get("SpecialToken") if isinstance(first, dict) else None
    if isinstance(special, dict) and isinstance(special.get("id"), str):
        yield special["id"]


def write_tokenizer(vocabulary: Mapping[str, int], *, bos: bool) -> dict[str, dict[str, Any]]:
    """The tokenizer files, by name, that give a text these ids: letter by letter, [SEP] at the end or [BOS] before it.

    Where the tokens are no letters of DNA, only the table is known: vocab.json.
    """
    ordered = dict(sorted(vocabulary.items(), key=lambda entry: entry[1]))
    if why_unreadable(vocabulary):
        return {"vocab.json": ordered}
    named = {key: token for key, word in _SPECIALS.items() for token in ordered if folded({token: 0}).keys() == {word}}
    unknown = find("[UNK]", folded(vocabulary))
    tokens = {number: token for token, number in ordered.items()}
    specials = [token for token in ordered if len(token) > 1]
    upper = "A" in vocabulary
    other = {(t.lower() if upper else t.upper()): t for t in ordered if len(t) == 1}
    other = {written: meant for written, meant in other.items() if written not in vocabulary}
    sequence = {"Sequence": {"id": "A", "type_id": 0}}
    edge = named.get("bos_token") if bos else named.get("sep_token")
    pieces = [sequence]
    if edge is not None:
        piece = {"SpecialToken": {"id": edge, "type_id": 0}}
        pieces = [piece, sequence] if bos else [sequence, piece]
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": ordered[token], "content": token, "single_word": False, "lstrip": False, "rstrip": False,
                "normalized": False, "special": True,
            }
            for token in specials
        ],
        "normalizer": {
            "type": "Sequence",
            "normalizers": [
                {"type": "Replace", "pattern": {"String": written}, "content": meant}
                for written, meant in other.items()
            ],
        },
        "pre_tokenizer": {
            "type": "Split", "pattern": {"Regex": r"[\s\S]"}, "behavior": "Isolated", "invert": False,
        },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": pieces,
            "pair": [*pieces, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {} if edge is None else {edge: {"id": edge, "ids": [ordered[edge]], "tokens": [edge]}},
        },
        "decoder": {"type": "Fuse"},
        "model": {"type": "WordLevel", "vocab": ordered, "unk_token": tokens[unknown]},
    }  # fmt: skip
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "padding_side": "left", **named}
    return {"tokenizer.json": tokenizer, "tokenizer_config.json": settings}
