"""The count tables beside a run: same questions as the model, kept on disk, never another run's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from genossm.config import ModelConfig, SplitSection
from genossm.data.tokens_h5 import open_tokens
from genossm.errors import GenoSSMError
from genossm.stages.count_baseline import count_baseline
from genossm.stages.language_modelling import LanguageModelling
from genossm.stages.tokenize import tokenize
from tests.stages.pretraining import CAUSAL, MODEL, section, tokens_file


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tokens file of the toy genome."""
    return tokens_file(tmp_path_factory.mktemp("tokens"))


def _task(tokens: Path, model: ModelConfig, **changes: object) -> LanguageModelling:
    return LanguageModelling(open_tokens(tokens), model.objective, section(**changes), 1, torch.device("cpu"))


@pytest.mark.parametrize(("model", "kind"), [(MODEL, "flank"), (CAUSAL, "markov")])
def test_the_tables_find_the_structure_on_the_model_s_own_questions(
    tmp_path: Path, tokens: Path, model: ModelConfig, kind: str
) -> None:
    task = _task(tokens, model, rc_augment=False)
    found = count_baseline(task, model, tmp_path / "baselines.json")
    assert found == json.loads((tmp_path / "baselines.json").read_text())
    assert found["kind"] == kind
    assert found["targets"] == task.held_out.targets.sum()
    assert list(found["by_k"]) == ["0", "1", "2", "3", "4"]
    assert found["best_k"] in (1, 2, 3)
    assert found["best"] == found["by_k"][str(found["best_k"])] < found["by_k"]["0"] - 0.2
    assert found["tuning_targets"] > 0


def test_a_table_is_kept_for_the_same_question_only(tmp_path: Path, tokens: Path) -> None:
    path = tmp_path / "baselines.json"
    first = count_baseline(_task(tokens, MODEL), MODEL, path)
    marked = {**first, "marked": True}
    path.write_text(json.dumps(marked))
    assert count_baseline(_task(tokens, MODEL, lr=0.5), MODEL, path) == marked
    other = count_baseline(_task(tokens, MODEL, rc_augment=False), MODEL, path)
    assert "marked" not in other
    assert other["by_k"] != first["by_k"]
    path.write_text("{ not JSON")
    assert count_baseline(_task(tokens, MODEL), MODEL, path) == first


def test_a_share_without_a_base_is_told(tmp_path: Path) -> None:
    fasta = tmp_path / "n.fa"
    fasta.write_text(">I\n" + "N" * 600 + "\n>II\n" + "ACGT" * 150 + "\n")
    tokenize(fasta, tmp_path / "n.h5", window=256, max_n=1.0, split=SplitSection(by="contig", valid=["II"]))
    with pytest.raises(GenoSSMError, match="has no base to predict"):
        count_baseline(_task(tmp_path / "n.h5", MODEL), MODEL, tmp_path / "baselines.json")
