"""genossm import and genossm.load: what is imported computes the same everywhere, and every misfit is one line."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import genossm
from genossm import cli, vocab
from genossm.config import FinetuneSection
from genossm.errors import GenoSSMError
from genossm.files import sha256_of
from genossm.models import LanguageModel, SequenceClassifier
from genossm.models.embeddings import average_strands, embed, mean_pool
from genossm.models.likelihood import Reading, log_likelihood
from genossm.stages.export import export_checkpoint
from genossm.stages.finetune import finetune
from genossm.stages.import_checkpoint import import_checkpoint
from genossm.stages.labelled import Tables
from genossm.stages.loading import load_model
from genossm.stages.pretrain import pretrain
from genossm.stages.score import score
from genossm.train.checkpoint import export_model, load_weights, verify
from tests.stages.pretraining import section, tokens_file
from tests.stages.published import MODELS, write_published


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Checkpoints of every architecture."""
    root = tmp_path_factory.mktemp("imported")
    for name in MODELS:
        import_checkpoint(str(write_published(root / f"{name}-hub", name)), root / name)
    return {name: root / name for name in MODELS}


@pytest.mark.parametrize("name", MODELS)
def test_commands_and_python_give_the_same_numbers(imported: dict[str, Path], name: str) -> None:
    verify(imported[name])
    api, (model, config) = genossm.load(imported[name]), load_model(imported[name])
    assert isinstance(model, LanguageModel)
    assert config["model"]["architecture"] == MODELS[name]["architecture"]
    house = torch.randint(7, 11, (2, 40))
    text = ["".join(vocab.TOKENS[i] for i in row) for row in house.tolist()]
    own = api.tokenizer(text, add_sep=False)
    with torch.no_grad():
        by_name = api(own, output_hidden_states=True)
        commands = model(house)
    letters = [api.tokenizer.ids(base, add_sep=False)[0] for base in "ACGT"]
    assert torch.equal(by_name.logits[..., letters], commands.logits[..., list(vocab.BASES)])
    assert commands.logits.shape == (2, 40, 16)
    assert by_name.logits.shape == (2, 40, MODELS[name]["vocab_size"])
    assert by_name.hidden_states[-1].shape == by_name.last_hidden_state.shape


@pytest.mark.parametrize("name", MODELS)
def test_a_mask_makes_padding_nothing_and_no_mask_makes_it_a_token(imported: dict[str, Path], name: str) -> None:
    model = genossm.load(imported[name])
    ids = torch.randint(3, 7, (2, 30))
    pad = model.tokenizer.vocabulary["[PAD]"]
    padded = torch.full((2, 41), pad)
    padded[:, 7:37] = ids
    mask = torch.zeros(2, 41, dtype=torch.int64)
    mask[:, 7:37] = 1
    with torch.no_grad():
        alone, masked, plain = model(ids).logits, model(padded, mask).logits, model(padded).logits
    assert torch.allclose(masked[:, 7:37], alone, atol=1e-6)
    assert not torch.allclose(plain[:, 7:37], alone, atol=1e-6)


@pytest.mark.parametrize("name", MODELS)
def test_score(imported: dict[str, Path], name: str, tmp_path: Path) -> None:
    """Long records too: chunks with the state carried, or pieces where the model keeps none or reads no further."""
    bases = "".join(np.random.default_rng(0).choice(list("ACGT"), 700))
    (tmp_path / "x.fa").write_text(f">short\n{bases[:50]}\n>one\nA\n>long\n{bases}\n")
    summary = score(imported[name], tmp_path / "x.fa", tmp_path / "x.tsv", window=400)
    assert summary.statuses == {"ok": 3}
    assert summary.cut == (0 if name in ("mamba", "mamba2") else 1)
    rows = [line.split("\t") for line in (tmp_path / "x.tsv").read_text().splitlines()]
    per_base = [float(row[rows[0].index("per_base")]) for row in rows[1:]]
    assert all(abs(value + math.log(4)) < 0.3 for value in per_base)


def test_the_first_base_of_a_causal_model_without_bos(imported: dict[str, Path]) -> None:
    """It has no context, and a quarter for a probability; all others are told from those before."""
    model, _ = load_model(imported["hyenadna"])
    assert isinstance(model, LanguageModel)
    tokens = vocab.encode("ACGTTNGA")
    value = log_likelihood(model, tokens, Reading(passes=1, window=100, both_strands=False))
    with torch.no_grad():
        logits = model(torch.from_numpy(tokens.astype(np.int64))[None]).logits[0, :-1, 7:11]
    terms = [torch.log_softmax(row, -1)[t - 7] for row, t in zip(logits, tokens[1:], strict=True) if t != vocab.N]
    assert value.item() == pytest.approx(-math.log(4) + sum(term.item() for term in terms), abs=1e-5)


@pytest.mark.parametrize("name", ["caduceus-ps", "caduceus-ph", "plantcaduceus"])
def test_embeddings(imported: dict[str, Path], name: str) -> None:
    api, (model, _) = genossm.load(imported[name]), load_model(imported[name])
    house = torch.randint(7, 11, (2, 25))
    complement = torch.from_numpy(vocab.COMPLEMENT).long()
    own = api.tokenizer(["".join(vocab.TOKENS[i] for i in row) for row in house.tolist()], add_sep=False)
    mask = torch.ones(2, 25, dtype=torch.bool)
    mask[1, 20:] = False
    with torch.no_grad():
        both, pooled = embed(model, house), embed(model, house, mask, pool=True)
        assert torch.equal(api.embed(own), both)
        assert torch.equal(api.embed(own, mask, pool=True), pooled)
        assert both.shape == (2, 25, 12)
        # either strand gives the same, read from the other end
        assert torch.allclose(embed(model, complement[house].flip(1)).flip(1), both, atol=1e-6)
        hidden = model(house).hidden_states
        official = api(own).last_hidden_state
    assert torch.equal(mean_pool(both), both.mean(1))
    if name != "caduceus-ph":
        assert torch.equal(average_strands(hidden), both)
        first, second = official.chunk(2, dim=-1)  # as PlantCaduceus's users do it
        assert torch.equal((first + second.flip(-1)) / 2, both)
    with torch.no_grad():
        assert torch.equal(embed(model, house, strands="given"), hidden)
        assert torch.equal(api.embed(own, strands="given"), official)
        with pytest.raises(ValueError, match="strands is 'one'; it is 'both' or 'given'"):
            api.embed(own, strands="one")


def test_classifiers_keep_their_labels_and_take_padding(tmp_path: Path) -> None:
    hub = write_published(tmp_path / "hub", "caduceus-ps", ["no", "yes", "perhaps"])
    import_checkpoint(str(hub), tmp_path / "model", verify=True)
    model, config = load_model(tmp_path / "model")
    assert isinstance(model, SequenceClassifier)
    assert config["labels"] == ["no", "yes", "perhaps"]
    (tmp_path / "x.fa").write_text(">a\nACGTACGGT\n>b\nAC\n")
    score(tmp_path / "model", tmp_path / "x.fa", tmp_path / "x.tsv")
    assert (tmp_path / "x.tsv").read_text().startswith("record\tlength\tlabel\tp_no\tp_yes\tp_perhaps\tstatus\n")


@pytest.mark.parametrize("name", ["caduceus-ps", "caduceus-ph", "mamba", "hyenadna"])
def test_verify_prints_a_card(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    hub = write_published(tmp_path / "hub", name)
    (hub / "README.md").write_text("---\nlicense: apache-2.0\n---\nA card.\n")
    assert cli.run(["import", str(hub), "--output", str(tmp_path / "out"), "--verify"]) == 0
    lines = dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines())
    assert lines["licence"] == "apache-2.0"
    assert lines["source"] == str(hub)
    assert lines["padding"].endswith("[ok]")
    assert lines["loss"].endswith("[ok]")
    assert "1.38" in lines["loss"]
    assert lines["reverse complement"].endswith("[ok]" if name == "caduceus-ps" else "[-]")
    assert lines["window"].startswith("at most 300" if name == "hyenadna" else "any length")


def test_equal_imports_are_equal_and_nothing_is_overwritten(tmp_path: Path) -> None:
    hub = write_published(tmp_path / "hub", "mamba")
    before = {path.name: path.read_bytes() for path in hub.iterdir()}
    for folder in ("1", "2"):
        import_checkpoint(str(hub), tmp_path / folder)
    assert all((tmp_path / "1" / p.name).read_bytes() == p.read_bytes() for p in (tmp_path / "2").iterdir())
    with pytest.raises(GenoSSMError, match="is the folder of the published model"):
        import_checkpoint(str(hub), hub)
    other = write_published(tmp_path / "other", "mamba")
    with pytest.raises(GenoSSMError, match=r"holds a config\.json of something else"):
        import_checkpoint(str(hub), other)
    (other / "config.json").unlink()
    with pytest.raises(GenoSSMError, match=r"holds a model\.safetensors of something else"):
        import_checkpoint(str(hub), other)
    config, weights = load_weights(tmp_path / "1")
    export_model(tmp_path / "trained", {**config, "training": {"stage": "pretrain"}}, weights)
    with pytest.raises(GenoSSMError, match="holds a model that was trained here"):
        import_checkpoint(str(hub), tmp_path / "trained")
    (tmp_path / "file").touch()
    with pytest.raises(GenoSSMError, match="is a file; --output is a folder"):
        import_checkpoint(str(hub), tmp_path / "file")
    assert {path.name: path.read_bytes() for path in hub.iterdir()} == before


def changed(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    config = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in config.items() if value != "absent"}))


@pytest.mark.parametrize(
    ("name", "changes", "text"),
    [
        ("mamba", {"model_type": "mamba3"}, "unknown architecture: model_type is 'mamba3'; this GenoSSM reads cad"),
        ("mamba", {"model_type": "absent"}, "unknown architecture: it names no model_type"),
        ("mamba", {"hidden_size": "absent"}, "hidden_size: Field required"),
        ("mamba", {"hidden_size": "wide"}, "hidden_size: Input should be a valid integer"),
        ("mamba", {"hidden_act": "relu"}, "hidden_act: Input should be 'silu' or 'swish'"),
        ("mamba", {"state_size": -1}, "state_size: Input should be greater than 0"),
        ("mamba", {"num_hidden_layers": 100_000_000}, "num_hidden_layers: Input should be less than or equal to 10000"),
        ("caduceus-ps", {"d_model": 10**9}, "d_model: Input should be less than or equal to 1000000"),
        ("mamba", {"conv_kernel": 99}, "conv_kernel: Input should be less than or equal to 8"),
        ("caduceus-ps", {"ssm_cfg": {"layer": "Mamba3"}}, r"ssm_cfg\.layer: Input should be 'Mamba1'"),
        ("caduceus-ps", {"ssm_cfg": {"gate": 1}}, r"ssm_cfg\.gate: unknown key; .* a newer GenoSSM"),
        (
            "caduceus-ps",
            {"bidirectional_strategy": "max"},
            "bidirectional_strategy: Input should be 'add' or 'ew_multiply'",
        ),
        ("caduceus-ps", {"n_layer": 4}, r"has no tensor caduceus\.backbone\.layers\.3\.\S+, .* and \d+ more"),
        ("caduceus-ps", {"n_layer": 2}, r"holds tensors that are no part .*: caduceus\.backbone\.layers\.2\."),
        ("caduceus-ps", {"d_model": 24}, r"embedding\.weight has shape \(16, 12\), the configuration asks \(16, 24\)"),
        ("mamba2", {"num_heads": 7}, "num_heads: 7 heads of head_dim 8 are not the 24 inside"),
        ("mamba2", {"n_groups": 2}, "24 inner channels do not make heads of 8 in 2 groups"),
        ("hyenadna", {"hyena_order": 3}, "hyena_order: Input should be less than or equal to 2"),
    ],
)
def test_a_configuration_that_does_not_fit_is_one_line(
    tmp_path: Path, name: str, changes: dict[str, Any], text: str
) -> None:
    hub = write_published(tmp_path / "hub", name)
    changed(hub, **changes)
    with pytest.raises(GenoSSMError, match=text) as fault:
        import_checkpoint(str(hub), tmp_path / "out")
    assert str(fault.value).startswith(str(hub))
    assert "\n" not in str(fault.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", MODELS)
def test_inspect_looks_into_imports(imported: dict[str, Path], name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["inspect", str(imported[name])]) == 0
    assert capsys.readouterr().out.startswith("core\tmixer\treach")


def test_a_name_left_empty_is_not_the_current_folder(tmp_path: Path) -> None:
    with pytest.raises(GenoSSMError, match="SOURCE is empty"):
        import_checkpoint("", tmp_path / "out")
    hub = write_published(tmp_path / "hub", "mamba")
    with pytest.raises(GenoSSMError, match="name a folder for the checkpoint, not the current one"):
        import_checkpoint(str(hub), Path())


def test_tensors_that_do_not_fit_are_named(tmp_path: Path) -> None:
    hub = write_published(tmp_path / "hub", "caduceus-ps")
    tensors, path = load_file(hub / "model.safetensors"), hub / "model.safetensors"
    mixer = "caduceus.backbone.layers.0.mixer.submodule."
    a, b = f"{mixer}mamba_fwd.out_proj.weight", f"{mixer}mamba_rev.out_proj.weight"
    for content, text in (
        ({n: t for n, t in tensors.items() if n not in (a, b)}, f"has no tensor {a}"),
        ({**tensors, b: tensors[b] + 1}, f"{a} and {b} are one tensor in this model, but differ here"),
        ({**tensors, f"{mixer}extra": tensors[a].clone()}, f"no part of the model in its configuration: {mixer}extra"),
        ({**tensors, "score.weight": torch.zeros(1, 12)}, "no classifier of two classes or more"),
    ):
        save_file(content, path)
        with pytest.raises(GenoSSMError, match=text):
            import_checkpoint(str(hub), tmp_path / "out")
    for content, text in (
        (tensors[a].to(torch.int8), "is of type int8; weights are floats of 16, 32 or 64 bits"),
        (tensors[a].to(torch.float8_e5m2), "is of type float8_e5m2"),
        (tensors[a].double() * 1e300, "holds a number beyond float32"),
        (tensors[a] * math.nan, "holds values that are no numbers"),
    ):
        save_file({**tensors, a: content}, path)
        with pytest.raises(GenoSSMError, match=f"{a} {text}"):
            import_checkpoint(str(hub), tmp_path / "out")
    for dropped in ((a,), (b,), ("lm_head.lm_head.weight",)):  # one copy of a shared tensor is enough
        save_file({n: t for n, t in tensors.items() if n not in dropped}, path)
        import_checkpoint(str(hub), tmp_path / "out")


def test_a_complement_map_sorted_as_text_is_read_as_numbers(tmp_path: Path) -> None:
    hub = write_published(tmp_path / "hub", "caduceus-ps")
    right = json.loads((hub / "config.json").read_text())["complement_map"]
    tensors = load_file(hub / "model.safetensors")
    changed(hub, complement_map=dict(sorted(right.items())))
    assert import_checkpoint(str(hub), tmp_path / "1").notes == []
    without = {n: t for n, t in tensors.items() if "complement_map" not in n}
    save_file(without, hub / "model.safetensors")  # then the configuration alone says it
    assert import_checkpoint(str(hub), tmp_path / "2").notes == []
    configs = [json.loads((tmp_path / n / "config.json").read_text())["model"] for n in "12"]
    assert configs[0]["complement"] == configs[1]["complement"] == vocab.COMPLEMENT.tolist()
    wrong = torch.tensor([right[key] for key in sorted(right)])  # what a model built from such a file holds
    save_file({**tensors, **{n: wrong.clone() for n in tensors if "complement_map" in n}}, hub / "model.safetensors")
    notes = import_checkpoint(str(hub), tmp_path / "3").notes
    assert len(notes) == 2
    assert "the weights' map is used" in notes[0]
    save_file(without, hub / "model.safetensors")
    cycle = right | {"7": 8, "8": 9, "9": 7, "10": 10}
    for written, text in (
        ({"0": 0, **{key: right[key] for key in list(right)[2:]}}, "complement_map: says nothing of id 1"),
        (cycle, "complement_map: the complement of a complement is not the id itself"),
    ):
        changed(hub, complement_map=written)
        with pytest.raises(GenoSSMError, match=text):
            import_checkpoint(str(hub), tmp_path / "4")
    changed(hub, complement_map="absent")
    with pytest.raises(GenoSSMError, match="complement_map is missing, in the configuration and in the weights"):
        import_checkpoint(str(hub), tmp_path / "4")


def test_vocabularies(tmp_path: Path) -> None:
    hub = write_published(tmp_path / "hub", "mamba")
    assert "no tokenizer lies beside the weights" in import_checkpoint(str(hub), tmp_path / "1").notes[0]
    (hub / "vocab.json").write_text(json.dumps({"hello": 3, "world": 4}))
    notes = import_checkpoint(str(hub), tmp_path / "2", verify=True).notes
    assert "no command can read DNA" in notes[0]
    assert genossm.load(tmp_path / "2")(torch.tensor([[3, 4]])).logits.shape == (1, 2, 16)
    with pytest.raises(GenoSSMError, match=r"the vocabulary has no tokens A, C, G and T: import it again"):
        load_model(tmp_path / "2")
    table = tmp_path / "own.json"
    table.write_text(json.dumps({"<pad>": 0, "<unk>": 1, "T": 2, "G": 3, "C": 4, "A": 15}))
    import_checkpoint(str(hub), tmp_path / "3", vocabulary=str(table))
    model, _ = load_model(tmp_path / "3")
    api = genossm.load(tmp_path / "3")
    with torch.no_grad():
        commands = model(torch.tensor([[7, 8, 9, 10, 11]])).logits
        assert torch.equal(commands[..., 7:11], api(torch.tensor([[15, 4, 3, 2, 1]])).logits[..., [15, 4, 3, 2]])
    narrow = write_published(tmp_path / "narrow", "mamba", vocab_size=12)  # no padding rows
    import_checkpoint(str(narrow), tmp_path / "5", vocabulary="caduceus")
    assert load_model(tmp_path / "5")[0](torch.tensor([[7, 8, 9, 10, 11]])).logits.shape == (1, 5, 16)
    table.write_text(json.dumps({"A": 8, "C": 8, "G": 9, "T": 10, "N": 4}))
    with pytest.raises(GenoSSMError, match="gives one id to two of A, C, G and T"):
        import_checkpoint(str(hub), tmp_path / "4", vocabulary=str(table))
    table.write_text(json.dumps({"A": 1, "C": 2, "G": 3, "T": 99, "N": 4}))
    with pytest.raises(GenoSSMError, match="ids beyond the 16 of the model"):
        import_checkpoint(str(hub), tmp_path / "4", vocabulary=str(table))
    for content, text in (
        ({"A": 0, "C": 1, "G": 2}, r"own\.json: the vocabulary has no tokens A, C, G and T: no command"),
        ({"A": 0, "C": 1, "G": 2, "T": 3}, "no token for unknown letters and for padding: none of N, \\[UNK\\]"),
        ({"A": None, "C": 1}, r"own\.json: vocab\.A: Input should be a valid integer"),
    ):
        table.write_text(json.dumps(content))
        with pytest.raises(GenoSSMError, match=text):
            import_checkpoint(str(hub), tmp_path / "4", vocabulary=str(table))


def test_a_checkpoint_from_the_future(imported: dict[str, Path], tmp_path: Path) -> None:
    config, weights = load_weights(imported["mamba"])
    for changes, text in (
        ({"format_version": 2}, r"format version 2; this GenoSSM \(\S+\) reads 1"),
        (
            {"model": {**config["model"], "architecture": "mamba4"}},
            "model.architecture is 'mamba4'; this GenoSSM can run",
        ),
        ({"model": {**config["model"], "gate": 1}}, "model.gate: Extra inputs are not permitted"),
    ):
        export_model(tmp_path, {**config, **changes}, weights)
        with pytest.raises(GenoSSMError, match=text):
            genossm.load(tmp_path)
    with pytest.raises(GenoSSMError, match="this is a GenoSSM checkpoint already"):
        import_checkpoint(str(imported["mamba"]), tmp_path / "out")


def test_the_package_alone_needs_no_torch(imported: dict[str, Path]) -> None:
    code = "import sys, genossm; assert 'torch' not in sys.modules; print(genossm.load(sys.argv[1]).config['kind'])"
    done = subprocess.run(
        [sys.executable, "-W", "error::DeprecationWarning:genossm", "-c", code, str(imported["mamba"])],
        capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "language_model\n"), done.stderr
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        _ = genossm.lode  # type: ignore[attr-defined]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["caduceus-ps", "plantcaduceus", "hyenadna"])
def test_finetune_and_pretrain_go_on_from_an_import(imported: dict[str, Path], name: str, tmp_path: Path) -> None:
    """Both change the weights they began with, keep the architecture, and leave checkpoints that export."""
    rng = np.random.default_rng(0)
    rows = [("at", [0.4, 0.1, 0.1, 0.4]), ("gc", [0.1, 0.4, 0.4, 0.1])] * 20
    table = tmp_path / "train.csv"
    lines = (f"{''.join(rng.choice(list('ACGT'), 60, p=p))},{label}" for label, p in rows)
    table.write_text("sequence,label\n" + "\n".join(lines) + "\n")
    settings = FinetuneSection(epochs=1, bootstrap=20, from_scratch=False, device="cpu")
    finetune(imported[name], Tables(table, valid_fraction=0.2), tmp_path / "task", settings=settings)
    pretrain(tokens_file(tmp_path), tmp_path / "further", imported[name], section(seqlen=64, steps=2))
    _, before = load_weights(imported[name])
    for folder in ("task", "further"):
        config, after = load_weights(tmp_path / folder)
        shape = config["model"]["backbone"] if folder == "task" else config["model"]
        assert shape == load_weights(imported[name])[0]["model"]
        assert config["training"]["checkpoint_sha256"] == sha256_of(imported[name] / "model.safetensors")
        pairs = [(before[b], after[a]) for b in before for a in after if a.endswith(b)]
        assert any(not torch.equal(*pair) for pair in pairs)
    assert "id2label" not in export_checkpoint(tmp_path / "further", tmp_path / "hub")
    with pytest.raises(GenoSSMError, match="a model of a labelled task has no form in the published code"):
        export_checkpoint(tmp_path / "task", tmp_path / "task-hub")
    if name == "caduceus-ps":  # its tie holds through training
        _, after = load_weights(tmp_path / "further")
        assert torch.equal(after["lm_head.weight"], after["backbone.backbone.embedding.weight"])
    with pytest.raises(GenoSSMError, match="pretraining goes on from a language model"):
        pretrain(tmp_path / "tokens.h5", tmp_path / "x", tmp_path / "task", section())
    if name == "hyenadna":
        with pytest.raises(GenoSSMError, match="--seqlen: this model reads at most 300 bp, not 512"):
            pretrain(tmp_path / "tokens.h5", tmp_path / "x", imported[name], section(seqlen=512))
