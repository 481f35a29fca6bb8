"""Tensors in a file: what was written comes back, and nothing else does."""

from __future__ import annotations

import errno
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from genossm.train.tensors import load_tensors, save_tensors

TENSORS = {
    "a": torch.arange(6.0).reshape(2, 3).T,  # not contiguous
    "b/c": torch.tensor([1.5, -2.25], dtype=torch.bfloat16),
    "none": torch.empty(0, 4, dtype=torch.float64),
}


def test_what_was_written_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    assert load_tensors(path) is None
    save_tensors(path, TENSORS, {"of": "x", "total": (0.1).hex()})
    found = load_tensors(path, about={"of": "x"})
    assert found is not None
    tensors, about = found
    assert about == {"of": "x", "total": (0.1).hex()}
    assert tensors.keys() == TENSORS.keys()
    for name, value in TENSORS.items():
        assert tensors[name].dtype == value.dtype
        assert torch.equal(tensors[name], value)
    assert load_tensors(path, about={"of": "y"}) is None
    assert load_tensors(path, about={"more": "x"}) is None
    assert [file.name for file in tmp_path.iterdir()] == ["x.safetensors"]


@pytest.mark.parametrize("left", [0, 5, 60])
def test_a_damaged_file_is_none(tmp_path: Path, left: int) -> None:
    path = tmp_path / "x.safetensors"
    save_tensors(path, TENSORS, {})
    path.write_bytes(path.read_bytes()[:left])
    assert load_tensors(path) is None


def test_a_full_disk_names_the_file(tmp_path: Path) -> None:
    code = (
        "import sys, torch, signal\n"
        "from pathlib import Path\n"
        "from genossm.train.tensors import save_tensors\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "try:\n"
        "    save_tensors(Path(sys.argv[1]), {'a': torch.zeros(100_000)}, {})\n"
        "except OSError as error:\n"
        "    print(error.errno, error.filename)\n"
    )

    def small() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))

    path = tmp_path / "x.safetensors"
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], preexec_fn=small, capture_output=True, text=True, check=True
    )
    assert done.stdout == f"{errno.EFBIG} {path}\n"
    assert not list(tmp_path.iterdir())
