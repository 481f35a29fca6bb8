"""genossm import at the command line: whatever is wrong with a file is one line on stderr, and exit code 2."""

from __future__ import annotations

import json
import pickle
import warnings
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from genossm import cli
from genossm.models.formats.tokenizers import write_tokenizer
from genossm.models.formats.vocabularies import HOUSE
from tests.stages.published import mutated, write_published


def run(capsys: pytest.CaptureFixture[str], hub: Path, *options: str) -> tuple[int, list[str], list[str]]:
    """Exit code and lines of stdout and stderr of an import."""
    code = cli.run(["import", str(hub), "--output", str(hub.parent / "out"), *options])
    captured = capsys.readouterr()
    return code, captured.out.splitlines(), captured.err.splitlines()


def refused(capsys: pytest.CaptureFixture[str], hub: Path, text: str, *options: str) -> None:
    code, out, err = run(capsys, hub, *options)
    assert (code, len(err), out) == (2, 1, []), err
    assert err[0].startswith("genossm: ")
    assert text in err[0]
    assert not (hub.parent / "out").exists()


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"norm_epsilon": {"__float__": None}}, "config.json: norm_epsilon: Input should be a valid number"),
        ({"complement_map": {"a": 1}}, "config.json: complement_map.a"),
        ({"id2label": {"a": "x"}}, "config.json: id2label.a"),
        ({"pad_vocab_size_multiple": 0}, "config.json: pad_vocab_size_multiple: Input should be greater than 0"),
        ({"model_type": ["caduceus"]}, "unknown architecture: model_type is ['caduceus']"),
    ],
)
def test_broken_configurations(
    tmp_path: Path, changes: dict[str, Any], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    hub = write_published(tmp_path / "hub", "caduceus-ps")
    config = json.loads((hub / "config.json").read_text())
    (hub / "config.json").write_text(json.dumps(config | changes))
    refused(capsys, hub, text)


@pytest.mark.parametrize("limit", [[], [1], [1, 0], ["a", 1], 3, {"__float__": None}, [0.0, float("nan")]])
def test_broken_time_steps(tmp_path: Path, limit: Any, capsys: pytest.CaptureFixture[str]) -> None:
    hub = write_published(tmp_path / "hub", "mamba2")
    config = json.loads((hub / "config.json").read_text())
    (hub / "config.json").write_text(json.dumps(config | {"time_step_limit": limit}))
    refused(capsys, hub, "config.json: time_step_limit")
    (hub / "config.json").write_text(json.dumps(config | {"head_dim": 0}))
    refused(capsys, hub, "config.json: head_dim: Input should be greater than 0")


def test_mutated_tokenizers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Never an internal error: taken, or one line that names the file."""
    hub = write_published(tmp_path / "hub", "mamba")
    whole = write_tokenizer(HOUSE, bos=True)["tokenizer.json"]
    small = {"added_tokens": whole["added_tokens"][:1], "post_processor": whole["post_processor"]}
    small["model"] = {"type": "WordLevel", "vocab": {"[PAD]": 0, "A": 1, "C": 2}, "unk_token": "[UNK]"}
    outcomes = set()
    for number, (key, content) in enumerate(mutated(small)):
        if number % 13:  # each takes a whole import
            continue
        (hub / "tokenizer.json").write_text(json.dumps(content))
        code, _, err = run(capsys, hub)
        assert code == 0 or (code == 2 and len(err) == 1 and f"{hub}/tokenizer.json: " in err[0]), (key, err)
        outcomes.add(code)
    assert outcomes == {0, 2}


def test_a_pickle_of_any_protocol_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hub = write_published(tmp_path / "hub", "mamba")
    tensors = load_file(hub / "model.safetensors")
    (hub / "model.safetensors").unlink()
    for protocol in range(6):
        (hub / "pytorch_model.bin").write_bytes(pickle.dumps(tensors, protocol=protocol))
        refused(capsys, hub, "pytorch_model.bin: ")


def test_what_a_pickle_asks_for_beside_the_weights_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hub = write_published(tmp_path / "hub", "mamba")
    tensors = load_file(hub / "model.safetensors")
    (hub / "model.safetensors").unlink()

    class Calls:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return torch.hub.load, (str(tmp_path / "nothing"),)

    state = {"state_dict": tensors, "optimizer_states": [Calls()], "seed": np.float64(1.5), "hyper": OrderedDict()}
    torch.save(state, hub / "last.ckpt")
    code, out, err = run(capsys, hub)
    assert (code, err) == (0, [])
    (line,) = [line for line in out if "asks for" in line]
    assert line.startswith("note: last.ckpt also asks for ")
    assert "torch.hub.load" in line
    assert line.endswith("; none of it was made or run")


@pytest.mark.parametrize("name", ["sparse", "meta", "float8"])
def test_weights_that_are_no_dense_numbers(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    hub = write_published(tmp_path / "hub", "mamba")
    tensors = load_file(hub / "model.safetensors")
    (hub / "model.safetensors").unlink()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch, on the state of its sparse tensors
        odd = {"sparse": lambda t: t.to_sparse(), "meta": lambda t: t.to("meta")}.get(
            name, lambda t: t.to(torch.float8_e4m3fn)
        )
        torch.save(tensors | {"lm_head.weight": odd(tensors["lm_head.weight"])}, hub / "pytorch_model.bin")
    refused(capsys, hub, "pytorch_model.bin: tensor lm_head.weight is ")


def test_folders_and_files_in_each_others_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hub = write_published(tmp_path / "hub", "mamba")
    refused(capsys, hub, "hub: cannot be read: Is a directory", "--vocabulary", str(hub))
    refused(capsys, tmp_path / "hub" / "config.json", "not a valid safetensors file, or damaged")
    (hub / "config.json").rename(hub / "x.json")
    (hub / "config.json").mkdir()
    refused(capsys, hub, "config.json: cannot be read: Is a directory")
    (tmp_path / "no" / "model.safetensors").mkdir(parents=True)
    refused(capsys, tmp_path / "no", "no weights file")


def test_a_refused_model_shows_its_card_first(
    tmp_path: Path, repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub = write_published(tmp_path / "hub", "caduceus-ph")
    tensors = load_file(hub / "model.safetensors")
    louder = {n: t * 60 if n.endswith(("embeddings.weight", "lm_head.weight")) else t for n, t in tensors.items()}
    save_file(louder, hub / "model.safetensors")
    code, out, err = run(capsys, hub, "--verify")
    assert (code, len(err)) == (2, 1)
    assert "not imported, for it does not hold what it should: loss: " in err[0]
    assert out[0].startswith("architecture: caduceus-ph")
    assert any(line.startswith("loss: ") and line.endswith("[FAILED]") for line in out)
    assert not (tmp_path / "out").exists()
