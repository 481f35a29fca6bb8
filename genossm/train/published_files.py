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

import contextlib
import errno
import json
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
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
TOKENIZER_NAMES = ("tokenizer.json", "vocab.json")
PICKLES = (".bin", ".ckpt", ".pt", ".pth")
_MAX_JSON = 1 << 28
DTYPES = (
    torch.float16, torch.bfloat16, torch.float32, torch.float64,
    torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64,
)  # fmt: skip

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
        config: the content of its config.json, which lies at ``config_path``.
        tensors: by their names in the file, on the CPU.
        tokenizer: the tokenizer file beside the weights and its content, None where there is none.
        weights: the file whose names the tensors have, for messages.
        sha256: checksum of every file read, by name.
        passed_over: what else a pickle asks for, by name: nothing of it was made or called.
    """

    path: Path
    config: dict[str, Any]
    config_path: Path
    tensors: dict[str, Tensor]
    tokenizer: tuple[Path, dict[str, Any]] | None
    weights: Path
    sha256: dict[str, str]
    passed_over: list[str]


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
    tokenizer_path = next((folder / name for name in TOKENIZER_NAMES if (folder / name).is_file()), None)
    tokenizer = None if tokenizer_path is None else (tokenizer_path, read_json(tokenizer_path))
    tensors, shards, passed_over = _read_all(weights)
    for name, tensor in tensors.items():
        _check_tensor(name, tensor, weights)
    used = [config_path, *([] if tokenizer_path is None else [tokenizer_path]), *shards, weights]
    return PublishedFiles(
        path, config, config_path, tensors, tokenizer, weights, {file.name: sha256_of(file) for file in used},
        passed_over,
    )  # fmt: skip


def _read_all(weights: Path) -> tuple[dict[str, Tensor], list[Path], list[str]]:
    """The tensors of a weights file or of all shards of an index, the shards, and what they ask for beside."""
    if not weights.name.endswith(".index.json"):
        tensors, passed_over = read_tensors(weights)
        return tensors, [], passed_over
    result: dict[str, Tensor] = {}
    beside: set[str] = set()
    shards = _shards(weights)
    for shard, names in shards.items():
        path = weights.parent / shard
        found, passed_over = read_tensors(path)
        for name in names:
            if name not in found:
                raise GenoSSMError(f"has no tensor {name}, which {weights.name} places there", path=path)
        if unlisted := sorted(found.keys() - set(names)):
            raise GenoSSMError(f"holds {unlisted[0]}, which {weights.name} does not place there", path=path)
        result |= found
        beside.update(passed_over)
    return result, [weights.parent / shard for shard in shards], sorted(beside)


def _check_tensor(name: str, tensor: Tensor, path: Path) -> None:
    """A tensor is whole numbers or floats, each stored: not sparse, quantized, nested, meta or one value repeated."""
    kind = str(tensor.dtype).removeprefix("torch.")
    plain = tensor.layout == torch.strided and tensor.device.type == "cpu" and not tensor.is_nested
    if not plain or tensor.is_quantized:
        how = "quantized" if tensor.is_quantized else "nested" if tensor.is_nested else "without values"
        how = how if tensor.layout == torch.strided else str(tensor.layout).removeprefix("torch.")
        raise GenoSSMError(f"tensor {name} is {how}; weights are dense tensors", path=path)
    if tensor.dtype not in DTYPES:
        raise GenoSSMError(f"tensor {name} is of type {kind}; weights are floats of 16, 32 or 64 bits", path=path)
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise GenoSSMError(f"tensor {name} of shape {tuple(tensor.shape)} is not stored in full", path=path)
    if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
        raise GenoSSMError(f"tensor {name} holds values that are no numbers: the file is damaged", path=path)


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
    written = content.get("__float__")
    return float(written) if content.keys() == {"__float__"} and isinstance(written, str) else content


def _bytes(path: Path) -> bytes:
    with _reading(path):
        return path.read_bytes()


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """A file that cannot be read is the user's to mend, but for a fault of the disk."""
    try:
        yield
    except OSError as error:
        users = error.errno in (errno.ENOENT, errno.EISDIR, errno.ENOTDIR, errno.EACCES, errno.EPERM)
        text = "no such file" if error.errno == errno.ENOENT else f"cannot be read: {error.strerror or error}"
        code = ExitCode.BAD_INPUT if users else ExitCode.IO
        raise GenoSSMError(text, path=path, exit_code=code) from None


# --------------------------------------------------------------------------------------------------------- tensors


def read_tensors(path: Path) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors of one weights file by name, on the CPU; and what else a pickle asks for, which is not made.

    Raises:
        GenoSSMError: not there, cut, damaged, or more than data.
    """
    with _reading(path), open(path, "rb"):
        pass
    if path.suffix not in PICKLES:
        try:
            return safetensors.torch.load_file(path), []
        except (safetensors.SafetensorError, ValueError, KeyError, OSError) as error:
            raise GenoSSMError(f"not a valid safetensors file, or damaged: {error}", path=path) from None
    content, passed_over = _unpickled(path)
    state = content.get("state_dict", content) if isinstance(content, Mapping) else None
    if not isinstance(state, Mapping):
        raise GenoSSMError("holds no table of tensors", path=path)
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise GenoSSMError(f"entry {name!r} is no tensor but {type(value).__name__}", path=path)
    return {name: tensor.detach() for name, tensor in state.items()}, passed_over


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


def _unpickled(path: Path) -> tuple[Any, list[str]]:
    with open(path, "rb") as handle:
        start = handle.read(4)
    zipped = start[:2] == b"PK"
    stand_ins: list[Any] = []
    names: list[str] = []
    try:
        if zipped:
            with zipfile.ZipFile(path) as archive:
                if bad := archive.testzip():
                    raise GenoSSMError(
                        f"damaged: the checksum of {bad} does not match; fetch the file again", path=path
                    )
            names = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
            for name in names:
                if not name.startswith(_HARMLESS) or name in _HARMFUL:
                    raise _code(path, name)
                stand_ins.append(_stand_in(name))
        with torch.serialization.safe_globals(stand_ins), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it advises on pickles, of which a user hears in one line or not at all
            return torch.load(path, map_location="cpu", weights_only=True), names
    except (GenoSSMError, MemoryError):
        raise
    except zipfile.BadZipFile as error:
        raise GenoSSMError(f"cut or damaged: {error}", path=path) from None
    except Exception as error:  # a damaged pickle can raise anything
        if not zipped and start[:1] != b"\x80":
            raise GenoSSMError("cut or damaged: neither a torch file nor a pickle", path=path) from None
        raise _fault(path, error) from None
