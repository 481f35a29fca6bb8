"""Published files are data: whole ones are read, and of any other not a byte is executed."""

from __future__ import annotations

import collections
import json
import os
import pickle
import random
import re
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from genossm.errors import GenoSSMError
from genossm.train.published_files import read_published, read_tensors

TENSORS = {"a.weight": torch.arange(12.0).view(3, 4), "b.bias": torch.ones(5)}


def equal(found: dict[str, Tensor]) -> bool:
    return found.keys() == TENSORS.keys() and all(torch.equal(found[name], TENSORS[name]) for name in TENSORS)


def write(path: Path, content: Any = None) -> Path:
    """A weights file beside a config.json."""
    path.parent.mkdir(parents=True, exist_ok=True)
    (path.parent / "config.json").write_text('{"model_type": "caduceus"}')
    content = TENSORS if content is None else content
    if path.suffix == ".safetensors":
        save_file(content, path)
    else:
        torch.save(content, path)
    return path


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "last.ckpt"])
def test_each_form_is_read_from_its_folder_and_by_its_path(tmp_path: Path, name: str) -> None:
    content = {"state_dict": TENSORS, "epoch": 3} if name.endswith(".ckpt") else TENSORS
    path = write(tmp_path / name, content)
    for given in (tmp_path, path):
        files = read_published(given)
        assert equal(files.tensors)
        assert files.config == {"model_type": "caduceus"}
        assert files.sha256.keys() == {"config.json", name}


def test_safetensors_are_taken_before_pickles(tmp_path: Path) -> None:
    write(tmp_path / "pytorch_model.bin", {"other": torch.zeros(1)})
    write(tmp_path / "model.safetensors")
    assert equal(read_published(tmp_path).tensors)


def sharded(folder: Path, suffix: str) -> Path:
    for number, name in enumerate(TENSORS):
        write(folder / f"shard-{number}{suffix}", {name: TENSORS[name]})
    placed = {name: f"shard-{number}{suffix}" for number, name in enumerate(TENSORS)}
    index = folder / ("model.safetensors.index.json" if suffix == ".safetensors" else "pytorch_model.bin.index.json")
    index.write_text(json.dumps({"metadata": {}, "weight_map": placed}))
    return index


@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
def test_shards(tmp_path: Path, suffix: str) -> None:
    index = sharded(tmp_path, suffix)
    files = read_published(tmp_path)
    assert equal(files.tensors)
    assert len(files.sha256) == 4
    (tmp_path / f"shard-1{suffix}").rename(tmp_path / "elsewhere")
    with pytest.raises(GenoSSMError, match=rf"shard-1\{suffix}: no such file"):
        read_published(tmp_path)
    (tmp_path / "elsewhere").rename(tmp_path / f"shard-1{suffix}")
    write(tmp_path / f"shard-1{suffix}", {"b.bias": TENSORS["b.bias"], "extra": torch.zeros(1)})
    with pytest.raises(GenoSSMError, match=rf"shard-1\{suffix}: holds extra, which {index.name} does not place there"):
        read_published(tmp_path)
    index.write_text(index.read_text().replace("a.weight", "c.weight"))
    with pytest.raises(GenoSSMError, match=r"shard-0\S+: has no tensor c\.weight"):
        read_published(tmp_path)
    for outside in ("../secret.bin", "/etc/passwd", 3):
        index.write_text(json.dumps({"weight_map": {"a.weight": outside}}))
        with pytest.raises(GenoSSMError, match="which is no file of this folder"):
            read_published(tmp_path)


class Payload:
    """Runs a command when it is unpickled without care."""

    def __init__(self, marker: Path, call: Any = os.system) -> None:
        self.marker, self.call = marker, call

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        if self.call is os.system:
            return os.system, (f"touch {self.marker}",)
        return self.call, (f"open({str(self.marker)!r}, 'w')",)


@pytest.mark.parametrize("call", [os.system, eval, exec], ids=["system", "eval", "exec"])
@pytest.mark.parametrize("place", ["pytorch_model.bin", "last.ckpt", "legacy.bin", "plain.ckpt"])
def test_a_payload_is_named_and_not_run(tmp_path: Path, place: str, call: Any) -> None:
    marker, path = tmp_path / "executed", tmp_path / place
    content = {"state_dict": TENSORS, "hyper_parameters": Payload(marker, call)}
    write(path)
    if place == "plain.ckpt":
        path.write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=place != "legacy.bin")
    with pytest.raises(GenoSSMError, match=r"refused, and nothing of it was run") as fault:
        read_published(path)
    assert not marker.exists()
    assert str(fault.value).count("\n") == 0
    assert re.search(
        r"holds (posix\.system|(builtins\.)?(eval|exec)|torch\.storage\._load_from_bytes), which", str(fault.value)
    )


def test_settings_of_a_training_framework_are_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lightning keeps objects of OmegaConf and its own beside the weights; they are stood for, not made."""
    made: list[str] = []

    def init(self: Any, *args: Any) -> None:
        made.append(type(self).__name__)

    module = type(os)("omegaconf")
    setting = type(
        "DictConfig", (), {"__module__": "omegaconf", "__init__": init, "__reduce__": lambda s: (type(s), (1,))}
    )
    built = type("ListConfig", (), {"__module__": "omegaconf", "__setstate__": lambda s, _: made.append("state")})
    module.DictConfig, module.ListConfig = setting, built  # type: ignore[attr-defined]
    monkeypatch.setitem(__import__("sys").modules, "omegaconf", module)
    second = built()
    second.value = 3
    content = {
        "state_dict": collections.OrderedDict(TENSORS), "hyper_parameters": setting(), "more": [second, Path("x")],
        "loops": collections.defaultdict(int, {"a": 1}),
    }  # fmt: skip
    path = write(tmp_path / "last.ckpt", content)
    made.clear()
    tensors, passed_over = read_tensors(path)
    assert equal(tensors)
    assert made == []
    assert {"omegaconf.DictConfig", "omegaconf.ListConfig", "collections.defaultdict"} <= set(passed_over)


UNUSUAL = {
    "is sparse_coo; weights are dense tensors": lambda: torch.eye(3).to_sparse(),
    "is sparse_csr; weights are dense tensors": lambda: torch.eye(3).to_sparse_csr(),
    "is without values": lambda: torch.ones(3, device="meta"),
    "is of type float8_e4m3fn; weights are floats": lambda: torch.ones(3).to(torch.float8_e4m3fn),
    "is of type float8_e5m2;": lambda: torch.ones(3).to(torch.float8_e5m2),
    "is of type complex64;": lambda: torch.ones(3, dtype=torch.complex64),
    "is of type uint16;": lambda: torch.ones(3, dtype=torch.uint16),
    "is not stored in full": lambda: torch.ones(1).expand(1 << 40),
}


@pytest.mark.parametrize("text", UNUSUAL)
def test_tensors_that_are_no_dense_numbers(tmp_path: Path, text: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch, on the state of its sparse tensors
        path = write(tmp_path / "pytorch_model.bin", {"a.weight": UNUSUAL[text]()})
    with pytest.raises(GenoSSMError, match=text) as fault:
        read_published(tmp_path)
    assert str(path) in str(fault.value)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "last.ckpt"])
def test_a_cut_file_is_one_line_wherever_it_is_cut(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name)
    whole = path.read_bytes()
    for size in {0, 1, 2, 7, 8, 9, 30, len(whole) // 2, len(whole) - 30, len(whole) - 1}:
        path.write_bytes(whole[:size])
        with pytest.raises(GenoSSMError, match=re.escape(str(path))) as fault:
            read_published(path)
        assert str(fault.value).count("\n") == 0


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_a_flipped_bit_is_a_fault_or_does_no_harm(tmp_path: Path, name: str) -> None:
    """A zip has a checksum for every tensor. Safetensors has none for the values, so there only the head is certain."""
    path = write(tmp_path / name)
    whole = path.read_bytes()
    end = len(whole) if name.endswith(".bin") else int.from_bytes(whole[:8], "little") + 8
    chosen, caught = random.Random(0), 0
    for _ in range(60):
        flipped = bytearray(whole)
        flipped[chosen.randrange(end)] ^= 1 << chosen.randrange(8)
        path.write_bytes(flipped)
        try:
            found, _ = read_tensors(path)
        except GenoSSMError:
            caught += 1
        else:
            assert equal(found) or found.keys() != TENSORS.keys() or name == "model.safetensors"
    assert caught > 20


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("model.safetensors", {"a": torch.tensor([1.0, torch.nan])}, "tensor a holds values that are no numbers"),
        ("pytorch_model.bin", {"a": [1, 2]}, "entry 'a' is no tensor but list"),
        ("pytorch_model.bin", [torch.ones(1)], "holds no table of tensors"),
        ("last.ckpt", {"state_dict": 3}, "holds no table of tensors"),
    ],
)
def test_what_is_no_table_of_numbers(tmp_path: Path, name: str, content: Any, text: str) -> None:
    with pytest.raises(GenoSSMError, match=text):
        read_published(write(tmp_path / name, content))


def test_folders_that_do_not_say_what_to_read(tmp_path: Path) -> None:
    for folder, text in ((tmp_path / "none", "no such file or folder"), (tmp_path, "no weights file")):
        with pytest.raises(GenoSSMError, match=text):
            read_published(folder)
    write(tmp_path / "one.ckpt", {"state_dict": TENSORS})
    write(tmp_path / "two.ckpt", {"state_dict": TENSORS})
    with pytest.raises(GenoSSMError, match=r"several weights files \(one.ckpt, two.ckpt\); give the path of one"):
        read_published(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(GenoSSMError, match=r"config\.json: no such file"):
        read_published(tmp_path / "one.ckpt")
    for bad in ("{", "[1]", "[" * 100_000, '{"a": {"__float__": "x"}}'):
        (tmp_path / "config.json").write_text(bad)
        with pytest.raises(GenoSSMError, match=r"config\.json: damaged: not "):
            read_published(tmp_path / "one.ckpt")


def test_infinity_of_both_writers_and_the_tokenizer_beside(tmp_path: Path) -> None:
    write(tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"a": [0.0, Infinity], "b": {"__float__": "Infinity"}}')
    added = [{"content": "[PAD]", "id": 0}]
    (tmp_path / "tokenizer.json").write_text(json.dumps({"added_tokens": added, "model": {"vocab": {"a": 3, "c": 4}}}))
    files = read_published(tmp_path)
    assert files.config == {"a": [0.0, float("inf")], "b": float("inf")}
    assert files.tokenizer == (tmp_path / "tokenizer.json", json.loads((tmp_path / "tokenizer.json").read_text()))
    assert "tokenizer.json" in files.sha256
