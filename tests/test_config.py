"""The configuration: every fault is one line with file, line and key; README and schema follow the models."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import get_args

import pytest
import torch
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from genossm import config
from genossm.config import Config, ModelConfig, load_config, load_model_config, merged_config
from genossm.config.model import MixerName
from genossm.errors import GenoSSMError
from genossm.models import build_model
from genossm.vocab import FIRST_BASE
from tests.conftest import ROOT

MINIMAL = """\
fetch:
  genomes:
    yeast: {source: yeast.fa}
pretrain:
  genome: yeast
"""


def write(folder: Path, text: str, name: str = "c.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_defaults_fill_what_is_left_out(tmp_path):
    loaded = load_config(write(tmp_path, MINIMAL))
    assert (loaded.results, loaded.seed, loaded.tokenize.window, loaded.pretrain.seqlen) == ("results", 1, 131072, None)
    assert loaded.finetune.tasks == []


def test_a_number_may_be_written_as_yaml_does_not_know_it(tmp_path):
    assert load_config(write(tmp_path, MINIMAL + "  lr: 1e-4\n")).pretrain.lr == 1e-4


FAULTS = {
    "unknown key": ("zzz: 5\n", "c.yaml:6: zzz: unknown key"),
    "unknown key inside": ("  stepz: 5\n", "c.yaml:6: pretrain.stepz: unknown key"),
    "wrong type": ("  lr: fast\n", "c.yaml:6: pretrain.lr: "),
    "fraction of a step": ("  steps: 1.5\n", "c.yaml:6: pretrain.steps: "),
    "switch for a number": ("  steps: yes\n", "pretrain.steps: true is a switch"),
    "out of range": ("  soft_mask_weight: 2\n", "c.yaml:6: pretrain.soft_mask_weight: "),
    "infinite": ("  lr: .inf\n", "c.yaml:6: pretrain.lr: "),
    "key twice": ("  steps: 1\n  steps: 2\n", "c.yaml:7: not valid YAML: key 'steps' is given twice, first on line 6"),
    "section twice": ("pretrain: {}\n", "key 'pretrain' is given twice, first on line 4"),
    "contig that YAML takes for a switch": (
        "tokenize:\n  splits:\n    yeast: {by: contig, test: [no]}\n",
        "c.yaml:8: tokenize.splits.yeast.test.0: false is not text to YAML: put it in quotes",
    ),
    "contig that YAML takes for a number": (
        "tokenize:\n  splits:\n    yeast:\n      exclude: [20]\n",
        "c.yaml:9: tokenize.splits.yeast.exclude.0: 20 is not text to YAML: put it in quotes",
    ),
    "name that is not defined": (
        "finetune:\n  tasks: [coding]\n",
        "c.yaml:7: finetune.tasks: 'coding' is not defined; there is none",
    ),
    "name that leaves the folder": (
        "score:\n  inputs: {../up: x.fa}\n",
        "c.yaml:7: score.inputs: '../up' becomes a file name",
    ),
    "incomplete task": (
        "derive:\n  tasks:\n    t: {kind: coding, genome: yeast}\n",
        "c.yaml:8: derive.tasks.t.kind: coding needs annotation",
    ),
    "empty section": ("tokenize:\n", "c.yaml:6: tokenize: "),
    "not YAML": ("\t- [\n", "c.yaml:6: not valid YAML: "),
    "key that is no word": ("? [1]\n: x\n", "not valid YAML: a key must be a plain word"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_names_file_line_and_key(tmp_path, fault):
    text, expected = FAULTS[fault]
    with pytest.raises(GenoSSMError) as caught:
        load_config(write(tmp_path, MINIMAL + text))
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"- a\n", b"\xff\xfe\x00", None])
def test_what_is_no_configuration_at_all_is_refused(tmp_path, content):
    path = tmp_path / "c.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(GenoSSMError, match=re.escape(str(path))):
        load_config(path)


def test_merge_keys_work_and_tags_are_never_executed(tmp_path):
    text = MINIMAL + "  <<: {steps: 7, genome: other}\n"
    loaded = load_config(write(tmp_path, text)).pretrain
    assert (loaded.steps, loaded.genome) == (7, "yeast")
    with pytest.raises(GenoSSMError, match="not valid YAML"):
        load_config(write(tmp_path, "!!python/object/apply:os.mkdir [/x]\n"))


def test_of_merged_files_the_one_that_holds_the_key_is_named(tmp_path):
    first, second = write(tmp_path, MINIMAL, "first.yaml"), write(tmp_path, "pretrain:\n  lr: -1\n", "second.yaml")
    content = {"fetch": {"genomes": {"yeast": {"source": "x"}}}, "pretrain": {"genome": "yeast", "lr": -1}}
    with pytest.raises(GenoSSMError, match=r"second\.yaml:2: pretrain\.lr"):
        merged_config(content, [first, second])
    content["pretrain"] = {"genome": "yeest"}
    with pytest.raises(GenoSSMError, match=r"first\.yaml:5: pretrain\.genome: 'yeest' is not defined"):
        merged_config(content, [first, second])


def test_a_causal_model_may_not_read_backwards(tmp_path):
    with pytest.raises(GenoSSMError, match=r"m\.yaml:1: objective: causal needs bidirectional: false"):
        load_model_config(write(tmp_path, "objective: causal\n", "m.yaml"))
    with pytest.raises(GenoSSMError, match=r"m\.yaml: dt_min 0\.5 is above dt_max 0\.1"):
        load_model_config(write(tmp_path, "dt_min: 0.5\n", "m.yaml"))


def test_sizes_that_follow_from_others():
    model = ModelConfig(d_model=100, expand=2)
    assert (model.d_inner, model.resolved_dt_rank) == (200, 7)
    assert ModelConfig(dt_rank=3).resolved_dt_rank == 3


@pytest.mark.parametrize("name", ["config", "human"])
def test_shipped_configurations_are_valid(repository, name):
    loaded = load_config(repository / "config" / f"{name}.yaml")
    assert (repository / "config" / "model" / f"{loaded.model}.yaml").is_file()
    assert loaded.tokenize.window == 131072


def test_the_human_configuration_has_the_shape_of_caduceus(repository):
    loaded = load_config(repository / "config" / "human.yaml")
    model = load_model_config(repository / "config" / "model" / f"{loaded.model}.yaml")
    assert (model.d_model, model.n_layer, model.rc_equivariant, model.mixer) == (256, 16, True, "mamba")
    assert loaded.pretrain.seqlen is None  # the whole window of 131,072 bp
    assert {task.kind for task in loaded.derive.tasks.values()} == {"intervals"}
    assert all(source.sha256 for source in loaded.fetch.intervals.values())


def test_a_long_window_lowers_the_smallest_time_step():
    model = ModelConfig()
    assert model.for_window(1024) is model  # the published range reaches across half of it
    assert model.for_window(131_072).initial_dt_min == 1 / 131_072
    assert ModelConfig(dt_window=5000).for_window(131_072).dt_window == 5000


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mixer": "lssl", "d_state": 3, "lti": {"init": "fout"}}, "d_state: .* come in pairs, 3 is odd"),
        ({"mixer": "s4", "lti": {"gbt_alpha": 0.3}}, "gbt_alpha: only lssl takes it"),
        ({"mixer": "lssl", "lti": {"gbt_alpha": 0.3, "discretization": "zoh"}}, "gbt_alpha: only lssl takes it"),
        ({"mixer": "ssd", "ssd": {"dt_limit": [1.0, 0.1]}}, "dt_limit: .* must be two numbers that rise"),
    ],
)
def test_what_cannot_be_built_or_would_be_ignored_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ModelConfig.model_validate(options)


def test_presets_grow(repository):
    tiny, small, base = (
        load_model_config(repository / "config" / "model" / f"{name}.yaml") for name in ("tiny", "small", "base")
    )
    assert tiny.n_layer * tiny.d_model < small.n_layer * small.d_model < base.n_layer * base.d_model


@pytest.mark.parametrize("mixer", get_args(MixerName))
def test_every_mixer_has_presets_both_ways(repository, mixer):
    """Of about the size of the others, so that config/compare.yaml can put them side by side."""
    name = {"ssd": "mamba2"}.get(mixer, mixer)
    for ending, objective in (("", "masked"), ("-causal", "causal")):
        model = load_model_config(repository / "config" / "model" / f"{name}{ending}.yaml")
        assert (model.mixer, model.objective, model.bidirectional) == (mixer, objective, not ending)


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "config" / "model").glob("*.yaml")))
def test_every_preset_learns(repository, name):
    """The loss falls within five steps on one repeated sequence."""
    model = load_model_config(repository / "config" / "model" / f"{name}.yaml")
    if model.d_model > 128:
        pytest.skip("too large for a quick look")
    torch.manual_seed(0)
    network = build_model(model)
    ids = (torch.arange(65) % 4 + FIRST_BASE)[None]
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    losses = []
    for _ in range(5):
        logits = network(ids[:, :-1]).logits
        losses.append(torch.nn.functional.cross_entropy(logits[0], ids[0, 1:]))
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < losses[0] - 0.05


def test_the_schema_of_the_workflow_is_current(repository):
    written = json.loads((repository / "workflow" / "schemas" / "config.schema.json").read_text())
    assert written == config.json_schema(), (
        "write it anew: python -c 'import json; from genossm.config import json_schema;"
        " print(json.dumps(json_schema(), indent=2))' > workflow/schemas/config.schema.json"
    )


def sections(model: type[BaseModel]) -> dict[str, type[BaseModel]]:
    """A configuration model and all that it is made of, by class name."""
    found = {model.__name__: model}
    for field in model.model_fields.values():
        for part in (field.annotation, *getattr(field.annotation, "__args__", ())):
            if isinstance(part, type) and issubclass(part, BaseModel):
                found |= sections(part)
    return found


def shown(value: object) -> str:
    """A default as YAML has it."""
    if value is None or isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list) and value:
        return ", ".join(map(str, value))
    return "empty" if isinstance(value, (dict, list)) else str(value)


def row(key: str, field: FieldInfo) -> str:
    """The line of config/README.md that explains a key."""
    default = "required" if field.is_required() else shown(field.get_default(call_default_factory=True))
    return f"| `{key}` | {default} | {field.description} |"


@pytest.mark.parametrize("name", [*sections(Config), *sections(ModelConfig)])
def test_the_readme_explains_every_key_with_its_default(repository, name):
    model = (sections(Config) | sections(ModelConfig))[name]
    lines = (repository / "config" / "README.md").read_text(encoding="utf-8").splitlines()
    for key, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            assert f"## `{key}`" in lines
        else:
            assert row(key, field) in lines
