"""Exactness with the official code: every case of shared/golden (INDEX.md there), in float32 and in float64."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from genossm.models import build_model
from genossm.models.formats.registry import Converted, convert, export
from genossm.models.formats.registry import names as official_names
from genossm.models.formats.tokenizers import read_tokenizer
from genossm.models.formats.vocabularies import HOUSE, PLANT, Tokenizer
from genossm.models.pretrained import Pretrained
from genossm.train.published_files import read_published

CASES = [
    "c01_caduceus_ps_fused", "c02_caduceus_ps_unfused", "c03_caduceus_ph_add_tied", "c04_caduceus_ph_mul_untied",
    "c05_caduceus_uni", "c06_caduceus_ps_lightning", "c07_caduceus_ps_layernorm_oddcfg", "c08_caduceus_seqcls_ps",
    "c09_caduceus_seqcls_ph", "c10_plantcaduceus", "c11_hyenadna_hf", "c12_hyenadna_repo_ckpt",
    "c13_mamba_statespaces", "c14_mamba_hf", "c15_mamba2_hf", "c16_mamba2_statespaces",
]  # fmt: skip
OFFICIAL = {
    "caduceus": "kuleshov-group/caduceus@0060a6d",
    "hyenadna_hf": "modeling_hyena.py of the hub",
    "hyenadna_repo": "HazyResearch/hyena-dna@d553021",
    "statespaces": "state-spaces/mamba@e9594ce",
    "_hf": "transformers 5.23.0",
}
"""Whose outputs a case holds, by a part of its name."""
CLASSIFIERS = [case for case in CASES if "seqcls" in case]
DTYPES = [torch.float32, torch.float64]


@pytest.fixture
def golden(shared: Path) -> Path:
    return shared / "golden"


@cache
def converted(folder: Path) -> Converted:
    files = read_published(folder)
    return convert(
        files.config, files.tensors, config_path=folder / "config.json", weights_path=files.weights, vocabulary=None
    )


def build(folder: Path, dtype: torch.dtype = torch.float64, **changes: object) -> Pretrained:
    found = converted(folder)
    shape = found.shape.model_copy(update=changes)
    model = build_model(shape, len(found.labels)) if found.labels else build_model(shape)
    model.load_state_dict(found.weights)
    return Pretrained(model, {}).to(dtype).eval()


@cache
def expected(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "io.safetensors")


def tolerance(case: str, dtype: torch.dtype) -> float:
    if dtype == torch.float64:
        return 1e-12
    return 1e-4 if "hyena" in case else 2e-5


def close(a: Tensor, b: Tensor, case: str, dtype: torch.dtype) -> bool:
    return a.shape == b.shape and (a.double() - b.double()).abs().max().item() <= tolerance(case, dtype)


def official_loss(case: str, logits: Tensor, io: dict[str, Tensor]) -> Tensor:
    if case in CLASSIFIERS:
        return F.cross_entropy(logits, io["labels"])
    if "labels" in io:
        ignore = 0 if case == "c10_plantcaduceus" else 4
        return F.cross_entropy(logits.flatten(0, 1), io["labels"].flatten(), ignore_index=ignore)
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), io["input_ids"][:, 1:].flatten())


@pytest.mark.parametrize("dtype", DTYPES, ids=["float32", "float64"])
@pytest.mark.parametrize("case", CASES)
def test_logits_hidden_states_and_loss(golden: Path, case: str, dtype: torch.dtype) -> None:
    io, model = expected(golden / case), build(golden / case, dtype)
    end = "_f64" if dtype == torch.float64 else ""
    with torch.no_grad():
        output = model(io["input_ids"], output_hidden_states=True)
        plain = model(io["input_ids"])
        loss = official_loss(case, output.logits, io)
    assert plain.hidden_states is None
    assert torch.equal(plain.logits, output.logits)
    assert close(output.logits, io[f"logits{end}"], case, dtype)
    assert close(output.last_hidden_state, io[f"last_hidden_state{end}"], case, dtype)
    assert close(loss[None], io[f"loss{end}"], case, dtype)
    stored = [name for name in io if name.startswith("hidden_states.")]
    assert all(close(output.hidden_states[int(n.split(".")[1])], io[n], case, torch.float32) for n in stored)
    assert output.hidden_states[-1] is output.last_hidden_state
    if stored:
        assert len(output.hidden_states) == len(stored) + 1
    if "short.input_ids" in io:
        with torch.no_grad():
            assert close(model(io["short.input_ids"]).logits, io[f"short.logits{end}"], case, dtype)


def test_the_table_of_errors(golden: Path) -> None:
    """Printed by ``pytest tests/models/formats/test_golden.py -k table -n 0 -s``: largest absolute error (relative)."""
    print("\n| case | official code | logits f32 | hidden f32 | logits f64 | hidden f64 |\n|---|---|---|---|---|---|")
    for case in CASES:
        io, row = expected(golden / case), []
        for dtype, end in zip(DTYPES, ("", "_f64"), strict=True):
            with torch.no_grad():
                output = build(golden / case, dtype)(io["input_ids"])
            for found, name in ((output.logits, "logits"), (output.last_hidden_state, "last_hidden_state")):
                wanted = io[f"{name}{end}"]
                error = (found - wanted).abs().max().item()
                row.append(f"{error:.1e} ({error / wanted.abs().max().item():.1e})")
                assert error <= tolerance(case, dtype)
        official = next(code for part, code in OFFICIAL.items() if part in case)
        print(f"| {case.replace('_', ' ')} | {official} | {' | '.join(row)} |")


@pytest.mark.parametrize("case", CASES)
def test_gradients_of_every_parameter(golden: Path, case: str) -> None:
    """Sum, norm and largest entry in float64; a tied tensor has the gradient of all its uses."""
    io, model = expected(golden / case), build(golden / case)
    official_loss(case, model(io["input_ids"]).logits, io).backward()
    found = converted(golden / case)
    ours = dict(model.model.named_parameters())
    seen = {}
    for name in official_names(found.shape, found.labels):
        for official in name.theirs:
            if name.ours in ours:
                seen[official.removeprefix("hyena.") if "c12" in case else official] = ours[name.ours].grad
    wanted = json.loads((golden / case / "grads.json").read_text())["grad"]
    spelled = {k.replace("embedding.weight", "embeddings.weight") if "statespaces" in case else k: k for k in wanted}
    assert len(wanted) > 10
    for ours_name, official in spelled.items():
        grad, (total, norm, largest) = seen[ours_name], wanted[official]
        figures = (grad.sum().item(), grad.norm().item(), grad.abs().max().item())
        assert figures == pytest.approx((total, norm, largest), rel=0, abs=1e-11 * norm), official


@pytest.mark.parametrize(
    "case", [c for c in CASES if c.startswith(("c01", "c02", "c03", "c04", "c05", "c06", "c07", "c10"))]
)
def test_the_weighted_loss(golden: Path, case: str) -> None:
    io, model = expected(golden / case), build(golden / case)
    with torch.no_grad():
        logits = model(io["input_ids"]).logits.flatten(0, 1)
    labels, weights = io["labels"].flatten(), io["loss_weights"].flatten().double()
    weights[labels == (0 if case == "c10_plantcaduceus" else 4)] = 0
    losses = F.cross_entropy(logits, labels, reduction="none")
    assert abs((losses * weights / weights.sum()).sum() - io["loss_weighted_f64"]) < 1e-12


@pytest.mark.parametrize("case", CLASSIFIERS)
def test_classifiers(golden: Path, case: str) -> None:
    """Largest value in place of the mean, the other strand, and both strands conjoined."""
    io = expected(golden / case)
    with torch.no_grad():
        largest = build(golden / case, pooling="max")(io["input_ids"]).logits
        model = build(golden / case)
        given, other = model(io["input_ids"]).logits, model(io["input_ids_rc"]).logits
    assert close(largest, io["logits_maxpool_f64"], case, torch.float64)
    if "logits_conjoin_f64" in io:
        assert close((given + other) / 2, io["logits_conjoin_f64"], case, torch.float64)
    else:
        assert close(other, io["logits_of_rc_f64"], case, torch.float64)
        assert close(given, other, case, torch.float64)


@pytest.mark.parametrize("case", ["c11_hyenadna_hf", "c12_hyenadna_repo_ckpt"])
def test_implicit_filters(golden: Path, case: str) -> None:
    io, model = expected(golden / case), build(golden / case)
    with torch.no_grad():
        found = model.model.backbone.blocks[0].mixer.core.filter(io["input_ids"].shape[1])
    assert close(found[0].T[None], io["filter.layer0_f64"], case, torch.float64)


@pytest.mark.parametrize("case", CASES)
def test_a_round_trip_keeps_every_bit(golden: Path, case: str) -> None:
    found = converted(golden / case)
    official = export(found.shape, found.labels, found.weights)
    tensors = official.tensors
    original = read_published(golden / case).tensors
    spelled = {
        (n if "seqcls" in case or not n.startswith("model.") else n.removeprefix("model.")): t
        for n, t in original.items()
    }
    if case == "c12_hyenadna_repo_ckpt":
        spelled = {f"hyena.{n}" if n.startswith("backbone") else n: t for n, t in spelled.items()}
    if "statespaces" in case:
        spelled = {n.replace("backbone.embedding.", "backbone.embeddings."): t for n, t in spelled.items()}
    assert spelled.keys() <= tensors.keys()
    assert all(
        torch.equal(tensors[name], tensor) and tensors[name].dtype == tensor.dtype for name, tensor in spelled.items()
    )
    again = convert(
        official.config,
        tensors,
        config_path=Path("config.json"),
        weights_path=Path("w"),
        vocabulary=read_tokenizer(official.tokenizer["tokenizer.json"], Path("tokenizer.json")),
    )
    given = {} if case in ("c12_hyenadna_repo_ckpt", "c13_mamba_statespaces", "c16_mamba2_statespaces") else None
    assert found.shape.official == given or given is None
    assert again.shape.model_copy(update={"official": found.shape.official}) == found.shape
    if given is None:  # it came in the form that is written: every entry is there again
        before = json.loads((golden / case / "config.json").read_text())
        after = json.loads(json.dumps(official.config))
        for key in ("time_step_limit", "bidirectional_strategy", "time_step_rank", "complement_map", "ssm_cfg"):
            before.pop(key, None)  # the same in other words
        before = {key: value for key, value in before.items() if key != "ssm_cfg"}
        assert {key: after.get(key) for key in before} == before
    assert again.labels == found.labels
    assert again.weights.keys() == found.weights.keys()
    assert all(torch.equal(again.weights[name], tensor) for name, tensor in found.weights.items())


@pytest.mark.parametrize("case", ["c01_caduceus_ps_fused", "c02_caduceus_ps_unfused", "c10_plantcaduceus"])
def test_the_quirks_are_seen(golden: Path, case: str) -> None:
    """The swap of the strands' channels and the complement map each change the outputs, so the cases guard them."""
    io, found = expected(golden / case), converted(golden / case)
    with torch.no_grad():
        exact = build(golden / case)(io["input_ids"]).logits
        swapped = build(golden / case, fused_add_norm=not found.shape.fused_add_norm)(io["input_ids"]).logits
        identity = build(golden / case, complement=list(range(found.shape.vocab_size)))(io["input_ids"]).logits
    assert (swapped - exact).abs().max() > 0.01
    assert (identity - exact).abs().max() > 0.01


def test_tokenizer(golden: Path) -> None:
    content = json.loads((golden / "t01_caduceus_tokenizer" / "tokens.json").read_text())
    tokenizer = Tokenizer(HOUSE)
    assert content["vocab"] == HOUSE
    for case in content["cases"]:
        assert tokenizer.ids(case["text"]) == case["input_ids"]
        assert tokenizer.ids(case["text"], add_sep=False) == case["input_ids_no_special"]
        assert tokenizer.decode(case["input_ids"]) == case["decoded"]
        assert tokenizer.decode(case["input_ids"], skip_special=True) == case["decoded_skip_special"]
    for batch in content["batches"]:
        assert tokenizer(batch["texts"]).tolist() == batch["input_ids"]
    assert Tokenizer(PLANT)(["ACGTN", "tt"]).tolist() == [[3, 4, 5, 6, 2], [0, 0, 0, 6, 6]]


@pytest.mark.parametrize("wide", [False, True])
def test_the_residual_stream_keeps_its_precision(golden: Path, wide: bool) -> None:
    """In bfloat16 it is float32 where residual_in_fp32 asks for it, else bfloat16 (o12, add_norm_dtypes)."""
    model = build(golden / "c06_caduceus_ps_lightning", torch.bfloat16, residual_in_fp32=wide)
    seen = []
    for block in model.model.backbone.backbone.blocks:
        block.register_forward_hook(lambda _, __, result: seen.append((result[0].dtype, result[1].dtype)))
    with torch.no_grad():
        logits = model(expected(golden / "c06_caduceus_ps_lightning")["input_ids"]).logits
    assert set(seen) == {(torch.float32 if wide else torch.bfloat16, torch.bfloat16)}
    assert (logits.float() - expected(golden / "c06_caduceus_ps_lightning")["logits"]).abs().max() < 0.3


@pytest.mark.parametrize("kind", ["autocast", "bfloat16", "float16"])
@pytest.mark.parametrize(
    "case", ["c01_caduceus_ps_fused", "c03_caduceus_ph_add_tied", "c11_hyenadna_hf", "c14_mamba_hf", "c15_mamba2_hf"]
)
def test_16_bits_on_a_cpu(golden: Path, case: str, kind: str) -> None:
    """As a whole, and where autocast gives some of an operator's inputs 16 bits."""
    ids, wanted = expected(golden / case)["input_ids"], expected(golden / case)["logits"]
    model = build(golden / case, torch.float32 if kind == "autocast" else getattr(torch, kind))
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=kind == "autocast"):
        logits = model(ids).logits
    assert logits.dtype == (torch.float16 if kind == "float16" else torch.bfloat16)
    assert (logits.float() - wanted).abs().max() < 0.15 * wanted.abs().max()
