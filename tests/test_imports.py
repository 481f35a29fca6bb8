"""Who may import whom, and which room owns which third-party package, read from the source without running it."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

LEAVES = {"config", "errors", "files", "progress", "vocab"}
MAY_IMPORT = {
    "": {"stages"},  # genossm.load, when it is asked for
    "cli": {"errors"},  # stages by name, when one is chosen
    "stages": {
        "stages",
        "data",
        "models",
        "kernels",
        "train",
        "metrics",
        "baselines",
        "report",
        "bench",
        "science",
        *LEAVES,
    },
    "report": {"report", "metrics", *LEAVES},
    "bench": {"bench", "kernels", "models", *LEAVES},
    "science": {"science", "bench", "kernels", "models", "train", "baselines", "report", *LEAVES},
    "data": {"data", *LEAVES},
    "models": {"models", "kernels", *LEAVES},
    "train": {"train", *LEAVES},
    "metrics": LEAVES,
    "baselines": {"baselines", "metrics", *LEAVES},
    "kernels": {"kernels"},
    "config": {"config", "errors"},
    "errors": set(),
    "files": {"errors"},
    "progress": {"errors"},
    "vocab": set(),
}
"""Room: the rooms it may import. Every module of the package belongs to one."""

OWNERS = {
    "Bio": {"data"},
    "h5py": {"data"},
    "pyfaidx": {"data"},
    "huggingface_hub": {"data"},
    "pyarrow": {"data"},
    "optuna": {"stages"},
    "requests": {"data"},
    "sklearn": {"metrics", "baselines"},
    "numba": {"kernels"},
    "llvmlite": {"kernels"},
    "triton": {"kernels"},
    "matplotlib": {"report"},
    "pydantic": {"config", "stages"},
    "yaml": {"config", "report"},
    "safetensors": {"train"},
    "torch": {"kernels", "models", "train", "stages", "bench", "science"},
    "typer": {"cli", "stages"},
    "rich": {"progress", "train", "stages"},
    "snakemake": set(),
    "pickle": set(),
    "dill": set(),
    "cloudpickle": set(),
    "joblib": set(),
}
"""Third-party package (or a module that nobody may use): the rooms that own it."""


RELATIVE = "a module by a relative name"


def room_of(module: str) -> str:
    """genossm.data.fasta -> data; genossm itself -> '' ."""
    return [*module.split("."), ""][1]


def modules(root: Path) -> Iterator[tuple[str, ast.Module]]:
    """Every module of the package, name and syntax tree; kernels through its link."""
    for folder in (root / "genossm", root / "genossm" / "kernels"):
        for path in sorted(folder.rglob("*.py")):
            name = ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
            yield name, ast.parse(path.read_text(encoding="utf-8"))


def imports(name: str, tree: ast.Module) -> Iterator[tuple[int, str]]:
    """(line, absolute name) of every import in a module, those inside functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                yield node.lineno, RELATIVE
            elif node.module == "genossm":
                yield from ((node.lineno, f"genossm.{alias.name}") for alias in node.names)
            else:
                yield node.lineno, str(node.module)


def violations(name: str, tree: ast.Module) -> list[str]:
    """What a module imports against the two tables."""
    room, found = room_of(name), []
    for line, imported in imports(name, tree):
        top = imported.split(".")[0]
        where = f"{name}:{line} imports {imported}"
        if top == "genossm":
            target = room_of(imported)
            if target in MAY_IMPORT and target not in MAY_IMPORT.get(room, set()):
                found.append(where)
        elif imported == RELATIVE or room not in OWNERS.get(top, {room}):
            found.append(where)
    return found


def test_every_module_imports_only_what_its_room_may(repository):
    assert [fault for name, tree in modules(repository) for fault in violations(name, tree)] == []


def test_every_module_belongs_to_a_room(repository):
    rooms = {room_of(name) for name, _ in modules(repository)} - {""}
    assert rooms - MAY_IMPORT.keys() == set()
    assert {"cli", "stages", "data", "models", "train", "kernels"} <= rooms


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("genossm.models.x", "from genossm.data.fasta import read_fasta"),
        ("genossm.train.x", "def f():\n    from genossm import models"),
        ("genossm.kernels.x", "import genossm.vocab"),
        ("genossm.data.x", "import torch.nn"),
        ("genossm.stages.x", "import h5py"),
        ("genossm.stages.x", "from sklearn.metrics import f1_score"),
        ("genossm.train.x", "import pickle"),
        ("genossm.data.x", "from .fasta import read_fasta"),
        ("genossm.config", "import genossm.files"),
    ],
)
def test_a_planted_violation_is_found(name, source):
    assert len(violations(name, ast.parse(source))) == 1


def run(code: str) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_command_line_imports_no_stage_and_nothing_heavy():
    heavy = ["torch", "numpy", "sklearn", "matplotlib", "h5py", "pydantic", "genossm.stages", "genossm.data"]
    # typer itself needs pydantic since it carries its own click.
    code = "import sys, typer; before = set(sys.modules); import genossm.cli; print(*sorted(set(sys.modules) - before))"
    assert set(run(code).split()) & set(heavy) == set()


@pytest.mark.slow
def test_models_kernels_and_training_need_no_genome_packages(repository):
    names = [name for name, _ in modules(repository) if room_of(name) in {"models", "kernels", "train"}]
    blocked = ["pyfaidx", "Bio", "snakemake", "h5py", "sklearn", "typer", "matplotlib", "requests"]
    code = f"""
import importlib, sys
for name in {blocked}:
    sys.modules[name] = None
for name in {names}:
    if "triton" not in name:
        importlib.import_module(name)
print(len({names}))
"""
    assert int(run(code)) > 10


def test_the_bare_name_of_kernels_is_left_to_hugging_face(repository):
    """In a checkout our folder is no regular package, so that theirs comes first, and its absence is seen as such."""
    code = "import sys; sys.path.insert(0, {!r}); import kernels; print(kernels.__file__)"
    assert run(code.format(str(repository))).strip() == "None"
    assert importlib.util.find_spec("genossm.kernels.selective_scan") is not None


def test_transformers_can_be_imported_in_a_checkout(repository):
    pytest.importorskip("transformers")
    code = (
        "import sys; sys.path.insert(0, {!r}); from transformers.models.mamba.modeling_mamba import MambaConfig as C; "
    )
    assert run((code + "print(C.model_type)").format(str(repository))).strip() == "mamba"
