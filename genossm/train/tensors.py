"""Tensors by name in one safetensors file, whole or absent, with words about them."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Mapping
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from genossm.files import atomic_path


def save_tensors(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, str]) -> None:
    """Write ``tensors``, from any device, and ``about`` at once.

    Raises:
        OSError: a fault of the disk; it names ``path``.
    """
    ready = {name: value.cpu().contiguous() for name, value in tensors.items()}
    with atomic_path(path) as temporary:
        try:
            safetensors.torch.save_file(ready, temporary, dict(about))
        except safetensors.SafetensorError as error:  # it says the number in words alone
            said = re.search(r"os error (\d+)", str(error))
            code = int(said[1]) if said else errno.EIO
            raise OSError(code, os.strerror(code), str(path)) from None


def load_tensors(
    path: Path, device: torch.device | str = "cpu", *, about: Mapping[str, str] | None = None
) -> tuple[dict[str, Tensor], dict[str, str]] | None:
    """What :func:`save_tensors` wrote; None where there is none, it is damaged, or it is not ``about`` that."""
    try:
        with safetensors.safe_open(path, framework="pt", device=str(device)) as file:
            found = file.metadata() or {}
            if not (about or {}).items() <= found.items():
                return None
            return {name: file.get_tensor(name) for name in file.keys()}, found  # noqa: SIM118 - the file is no mapping
    except (FileNotFoundError, safetensors.SafetensorError):
        return None
