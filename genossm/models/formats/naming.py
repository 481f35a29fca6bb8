"""Between the names of a published file and our own: one table a format, read in both directions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from genossm.config.official import Whole
from genossm.errors import GenoSSMError
from genossm.models.formats.shapes import PublishedShape


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
        """The tensor without its extra axis."""
        if self.lead is not None and tensor.dim() > self.lead and tensor.shape[self.lead] == 1:
            return tensor.squeeze(self.lead)
        return tensor

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


class Format(ABC):
    """A published format: which configurations are of it, and both tables, configuration and names, in and out.

    Attributes:
        written: the kinds of configuration that ``write_config`` writes.
    """

    written: ClassVar[tuple[type[Whole], ...]]

    @abstractmethod
    def kind(self, content: Mapping[str, Any]) -> type[Whole] | None:
        """The kind of the configuration whose content is given, None where it is not of this format."""

    @abstractmethod
    def read_shape(
        self,
        config: Any,
        tensors: Mapping[str, Tensor],
        vocabulary: Mapping[str, int] | None,
        notes: list[str],
        weights_path: Path,
    ) -> dict[str, Any]:
        """The fields of the shape, of a configuration of :meth:`kind`; what a user should know is added to ``notes``.

        Raises:
            GenoSSMError: the weights do not hold what the shape is read from.
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
