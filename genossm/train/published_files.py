"""Model files of other projects, read as data: nothing in a file is ever executed.

Read are a folder or a single weights file with ``config.json`` beside it:

* ``model.safetensors``, or ``model.safetensors.index.json`` with its shards;
* ``pytorch_model.bin``, or ``pytorch_model.bin.index.json`` with its shards;
* a Lightning checkpoint (``*.ckpt``), whose weights are under ``state_dict``.

The last two are pickles. They go through torch's weights-only reader, which calls nothing but tensor constructors. A
Lightning checkpoint also holds the settings of its run as objects of the training framework: those become inert
placeholders. A name of any other kind (``os.system``, say) is a reason to refuse the file, before it is read.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from genossm.errors import ExitCode, GenoSSMError
from genossm.files import sha256_of

CONFIG = "config.json"
CONFIG_NAMES = (CONFIG, "model_config.json")
WEIGHTS_NAMES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
VOCABULARY_NAMES = ("tokenizer.json", "vocab.json")
PICKLES = (".bin", ".ckpt", ".pt", ".pth")
_MAX_JSON = 1 << 28

_HARMLESS = (
    "argparse.Namespace", "builtins.", "collections.", "datetime.", "functools.partial", "lightning.",
    "lightning_fabric.", "numpy.", "omegaconf.", "pathlib.", "pytorch_lightning.", "torch.", "typing.",
)  # fmt: skip
_HARMFUL = (
    "builtins.eval",
    "builtins.exec",
    "builtins.getattr",
    "builtins.compile",
    "builtins.open",
    "builtins.__import__",
)
"""Of names that begin as _HARMLESS does; as placeholders they do nothing either, but no honest file has them."""


@dataclass(frozen=True)
class PublishedFiles:
    """What a published model consists of.

    Attributes:
        path: what was given.
        config: the content of its config.json.
        tensors: by their names in the file, on the CPU.
        vocabulary: token to id, where a tokenizer lies beside the weights.
        weights: the file whose names the tensors have, for messages.
        sha256: checksum of every file read, by name.
    """

    path: Path
    config: dict[str, Any]
    tensors: dict[str, Tensor]
    vocabulary: dict[str, int] | None
    weights: Path
    sha256: dict[str, str]


def read_published(path: Path) -> PublishedFiles:
    """A published model from its folder or from its weights file.

    Raises:
        GenoSSMError: a file that is missing, damaged, or holds more than data; the message names it.
    """
    if not path.exists():
        raise GenoSSMError("no such file or folder", path=path)
    weights = _find_weights(path) if path.is_dir() else path
    folder = weights.parent
    config_path = next((folder / name for name in CONFIG_NAMES if (folder / name).is_file()), folder / CONFIG)
    config = read_json(config_path)
    files = {config_path.name: config_path}
    tensors: dict[str, Tensor] = {}
    if weights.name.endswith(".index.json"):
        for shard, names in _shards(weights).items():
            found = read_tensors(folder / shard)
            for name in names:
                if name not in found:
                    raise GenoSSMError(f"has no tensor {name}, which {weights.name} places there", path=folder / shard)
                tensors[name] = found[name]
            files[shard] = folder / shard
    else:
        tensors = read_tensors(weights)
    files[weights.name] = weights
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise GenoSSMError(f"tensor {name} holds values that are no numbers: the file is damaged", path=weights)
    vocabulary = _vocabulary(folder)
    return PublishedFiles(path, config, tensors, vocabulary, weights, {n: sha256_of(p) for n, p in files.items()})


def _find_weights(folder: Path) -> Path:
    for name in WEIGHTS_NAMES:
        if (folder / name).is_file():
            return folder / name
    present = sorted(p for p in folder.iterdir() if p.is_file())
    others = [p for p in present if p.suffix in PICKLES] or [p for p in present if p.suffix == ".safetensors"]
    if len(others) == 1:
        return others[0]
    if others:
        raise GenoSSMError(
            f"several weights files ({', '.join(p.name for p in others)}); give the path of one", path=folder
        )
    raise GenoSSMError(f"no weights file: none of {', '.join(WEIGHTS_NAMES)}, *.ckpt", path=folder)


def _shards(index: Path) -> dict[str, list[str]]:
    """Shard name: the tensors in it."""
    placed = read_json(index).get("weight_map")
    if not isinstance(placed, dict) or not placed:
        raise GenoSSMError("damaged: it has no weight_map", path=index)
    shards: dict[str, list[str]] = {}
    for tensor, shard in placed.items():
        if not isinstance(shard, str) or Path(shard).name != shard:
            raise GenoSSMError(f"{tensor} lies in {shard!r}, which is no file of this folder", path=index)
        shards.setdefault(shard, []).append(tensor)
    return shards


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; ``Infinity`` as transformers 4 and as transformers 5 writes it becomes a float.

    Raises:
        GenoSSMError: not there, too large, or not a JSON object.
    """
    try:
        content = _bytes(path)
        if len(content) > _MAX_JSON:
            raise ValueError("too large")
        parsed = json.loads(content, object_hook=_float)
    except (ValueError, RecursionError) as error:
        raise GenoSSMError(f"damaged: not valid JSON ({type(error).__name__})", path=path) from None
    if not isinstance(parsed, dict):
        raise GenoSSMError("damaged: not a JSON object", path=path)
    return parsed


def _float(content: dict[str, Any]) -> Any:
    return float(content["__float__"]) if content.keys() == {"__float__"} else content


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise GenoSSMError("no such file", path=path) from None
    except OSError as error:
        raise GenoSSMError(f"cannot be read: {error.strerror}", path=path, exit_code=ExitCode.IO) from None


def _vocabulary(folder: Path) -> dict[str, int] | None:
    """Token to id from a tokenizer file of the folder, if there is one with a plain table."""
    for name in VOCABULARY_NAMES:
        if (folder / name).is_file():
            content: Any = read_json(folder / name)
            added = content.get("added_tokens", []) if name == "tokenizer.json" else []
            table = content.get("model", {}).get("vocab") if name == "tokenizer.json" else content
            if isinstance(table, dict) and all(isinstance(i, int) for i in table.values()):
                return {**table, **{t["content"]: t["id"] for t in added if {"content", "id"} <= t.keys()}}
    return None


# --------------------------------------------------------------------------------------------------------- tensors


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of one weights file by name, on the CPU; by content, whatever its name says.

    Raises:
        GenoSSMError: not there, cut, damaged, or more than data.
    """
    if not path.is_file():
        raise GenoSSMError("no such file", path=path)
    if path.suffix not in PICKLES:
        try:
            return safetensors.torch.load_file(path)
        except (safetensors.SafetensorError, ValueError, KeyError, OSError) as error:
            raise GenoSSMError(f"not a valid safetensors file, or damaged: {error}", path=path) from None
    content = _unpickled(path)
    state = content.get("state_dict", content) if isinstance(content, Mapping) else None
    if not isinstance(state, Mapping):
        raise GenoSSMError("holds no table of tensors", path=path)
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise GenoSSMError(f"entry {name!r} is no tensor but {type(value).__name__}", path=path)
    return {name: tensor.detach() for name, tensor in state.items()}


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """A safetensors file as transformers writes it, with the permissions of any other file (save_file's are 0600)."""
    path.write_bytes(safetensors.torch.save(dict(sorted(tensors.items())), metadata={"format": "pt"}))


class _Placeholder:
    """Stands for an object of a training framework; takes whatever it is given and does nothing with it."""

    def __new__(cls, *_: object, **__: object) -> _Placeholder:
        return object.__new__(cls)

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __setstate__(self, _: object) -> None:
        pass


class _DictPlaceholder:
    """Stands for a kind of dictionary: a plain one, the only kind that the weights-only reader fills."""

    def __new__(cls, *_: object, **__: object) -> dict[Any, Any]:  # type: ignore[misc]
        return {}


def _stand_in(name: str) -> tuple[type, str]:
    """A class of its own for each name: the reader looks classes up by identity."""
    kind = _DictPlaceholder if name.endswith((".defaultdict", ".AttributeDict")) else _Placeholder
    return type("Placeholder", (kind,), {}), name


def _code(path: Path, name: str) -> GenoSSMError:
    text = f"holds {name}, which is code and not weights: the file is refused, and nothing of it was run"
    return GenoSSMError(text, path=path)


def _fault(path: Path, error: Exception) -> GenoSSMError:
    """What the weights-only reader stumbled over, without its advice to read the file as code."""
    if named := re.search(r"GLOBAL ([\w.]+\w)", str(error)):
        return _code(path, named[1])
    reason = str(error).split("WeightsUnpickler error:")[-1].strip().splitlines() or [type(error).__name__]
    return GenoSSMError(f"cannot be read as plain weights, and nothing of it was run: {reason[0][:200]}", path=path)


def _unpickled(path: Path) -> Any:
    with open(path, "rb") as handle:
        start = handle.read(4)
    zipped = start[:2] == b"PK"
    stand_ins: list[Any] = []
    try:
        if zipped:
            with zipfile.ZipFile(path) as archive:
                if bad := archive.testzip():
                    raise GenoSSMError(
                        f"damaged: the checksum of {bad} does not match; fetch the file again", path=path
                    )
            for name in sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path)):
                if not name.startswith(_HARMLESS) or name in _HARMFUL:
                    raise _code(path, name)
                stand_ins.append(_stand_in(name))
        with torch.serialization.safe_globals(stand_ins):
            return torch.load(path, map_location="cpu", weights_only=True)
    except (GenoSSMError, MemoryError):
        raise
    except zipfile.BadZipFile as error:
        raise GenoSSMError(f"cut or damaged: {error}", path=path) from None
    except Exception as error:  # a damaged pickle can raise anything
        if not zipped and start[:1] != b"\x80":
            raise GenoSSMError("cut or damaged: neither a torch file nor a pickle", path=path) from None
        raise _fault(path, error) from None
