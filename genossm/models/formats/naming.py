"""Between the names of a published file and our own: one table a format, read in both directions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genossm.errors import GenoSSMError
from genossm.models.formats.shapes import PublishedShape

REQUIRED: Any = object()


@dataclass(frozen=True)
class Name:
    """One tensor.

    Attributes:
        ours: its name in the state dict of our model.
        theirs: every name that the official state dict gives it; more than one where it is shared. A file may hold
            one of them or all.
        spellings: further names that some writers give it.
        lead: axes of length 1 that the official tensor has and ours has not (a depthwise convolution's).
    """

    ours: str
    theirs: tuple[str, ...]
    spellings: tuple[str, ...] = ()
    lead: int | None = None

    def to_ours(self, tensor: Tensor) -> Tensor:
        """The tensor without its extra axis, in float32 where it is stored with fewer bits."""
        if self.lead is not None and tensor.dim() > self.lead and tensor.shape[self.lead] == 1:
            tensor = tensor.squeeze(self.lead)
        return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor

    def to_theirs(self, tensor: Tensor) -> Tensor:
        """The tensor with its extra axis."""
        return tensor if self.lead is None else tensor.unsqueeze(self.lead)


def _listed(names: Iterable[str], limit: int = 12) -> str:
    found = sorted(names)
    return ", ".join(found[:limit]) + (f" and {len(found) - limit} more" if len(found) > limit else "")


def to_ours(
    names: Iterable[Name], tensors: Mapping[str, Tensor], expected: Mapping[str, torch.Size], path: Path
) -> dict[str, Tensor]:
    """The tensors of a published file under our names.

    Args:
        names: the table of the format.
        tensors: by official name.
        expected: shape of every tensor of our model. path: the file, for messages.

    Raises:
        GenoSSMError: tensors that are missing, are not part of the model, have another shape, or are shared by the
            model and differ in the file; every one is named.
    """
    result: dict[str, Tensor] = {}
    missing, used = [], set()
    for name in names:
        present = [n for n in (*name.theirs, *name.spellings) if n in tensors]
        used.update(present)
        if not present:
            missing.append(name.theirs[0])
            continue
        tensor, wanted = tensors[present[0]], expected[name.ours]
        for other in present[1:]:
            if not torch.equal(tensors[other], tensor):
                raise GenoSSMError(f"{present[0]} and {other} are one tensor in this model, but differ here", path=path)
        if name.to_ours(tensor).shape != wanted:
            shown = tuple(name.to_theirs(torch.empty(wanted)).shape)
            raise GenoSSMError(
                f"{present[0]} has shape {tuple(tensor.shape)}, the configuration asks {shown}", path=path
            )
        result[name.ours] = name.to_ours(tensor)
    if missing:
        raise GenoSSMError(f"has no tensor {_listed(missing)}", path=path)
    if unexpected := tensors.keys() - used:
        raise GenoSSMError(
            f"holds tensors that are no part of the model in its configuration: {_listed(unexpected)}", path=path
        )
    return result


def to_theirs(names: Iterable[Name], weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our tensors under their official names; a shared one under every name, so that no reader loses the tie."""
    return {
        official: name.to_theirs(weights[name.ours]).contiguous().clone() for name in names for official in name.theirs
    }


def strip_prefixes(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names without what wrappers put in front: ``model.`` (Lightning), ``module.``, ``_orig_mod.``."""
    result = dict(tensors)
    while result:
        prefix = next((p for p in ("model.", "module.", "_orig_mod.") if all(n.startswith(p) for n in result)), None)
        if prefix is None:
            break
        result = {name.removeprefix(prefix): tensor for name, tensor in result.items()}
    return result


@dataclass(frozen=True)
class ConfigReader:
    """Reads an official configuration key by key; every fault names the file and the key."""

    content: Mapping[str, Any]
    path: Path
    section: str = ""

    def get(self, key: str, kind: type | tuple[type, ...], default: Any = REQUIRED) -> Any:
        """The value of ``key``, of one of the types ``kind``; ``default`` where it is absent or null."""
        value = self.content.get(key)
        if value is None:
            if default is REQUIRED:
                raise GenoSSMError(f"{self.section}{key} is missing", path=self.path)
            return default
        kinds = kind if isinstance(kind, tuple) else (kind,)
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            names = " or ".join(k.__name__ for k in kinds)
            raise GenoSSMError(f"{self.section}{key} is {value!r}, not of type {names}", path=self.path)
        return value

    def whole(self, key: str, default: Any = REQUIRED) -> int:
        """A whole number."""
        return int(self.get(key, int, default))

    def flag(self, key: str, default: Any = REQUIRED) -> bool:
        """A switch."""
        return bool(self.get(key, bool, default))

    def below(self, key: str) -> ConfigReader:
        """A section of its own; empty where it is absent."""
        return ConfigReader(self.get(key, dict, {}), self.path, f"{self.section}{key}.")

    def one_of(self, key: str, supported: Iterable[Any], default: Any = REQUIRED) -> Any:
        """The value of ``key``, which must be one of ``supported``: any other changes what the model computes."""
        value, known = self.content.get(key, default), list(supported)
        if value is REQUIRED or value not in known:
            shown = "missing" if value is REQUIRED else repr(value)
            raise GenoSSMError(
                f"{self.section}{key} is {shown}; this GenoSSM can run {' or '.join(map(repr, known))}", path=self.path
            )
        return value

    def only(self, known: Iterable[str]) -> None:
        """Refuse keys that this version does not know, in a section where every key shapes the computation."""
        if unknown := sorted(self.content.keys() - set(known)):
            raise GenoSSMError(
                f"{self.section}{unknown[0]} is not known to this GenoSSM; the checkpoint may need a newer one",
                path=self.path,
            )


class Format(ABC):
    """A published format: which configurations are of it, and both tables, configuration and names, in and out."""

    @abstractmethod
    def matches(self, config: Mapping[str, Any]) -> bool:
        """Whether a configuration is of this format."""

    @abstractmethod
    def read_shape(
        self,
        reader: ConfigReader,
        tensors: Mapping[str, Tensor],
        vocabulary: Mapping[str, int] | None,
        notes: list[str],
    ) -> dict[str, Any]:
        """The fields of the shape; what a user should know is added to ``notes``.

        Raises:
            GenoSSMError: a key that is missing, of the wrong type, or asks for what cannot be run.
        """

    @abstractmethod
    def names(self, shape: PublishedShape, labels: list[str] | None) -> list[Name]:
        """The table of names of a language model, or with ``labels`` of a classifier."""

    @abstractmethod
    def write_config(self, shape: PublishedShape, labels: list[str] | None) -> dict[str, Any]:
        """config.json as the official code writes it.

        Raises:
            GenoSSMError: the format has no word for this shape.
        """

    def tidy(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Official names without the peculiarities of one way of saving."""
        return dict(tensors)

    def drop_buffers(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors without those that the shape already holds."""
        return dict(tensors)

    def write_buffers(self, shape: PublishedShape, labels: list[str] | None) -> dict[str, Tensor]:
        """The buffers of the official state dict."""
        return {}
