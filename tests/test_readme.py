"""What the documents promise is there."""

from __future__ import annotations

import hashlib
import re

import pytest

from genossm.cli import STAGES

DOCUMENTS = ("README.md", "config/README.md", "workflow/resources/README.md")


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_link_leads_somewhere(repository, name):
    path = repository / name
    for target in re.findall(r"\]\(([^)#]+)\)", path.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (path.parent / target).exists(), target


def test_every_command_of_the_readme_is_a_stage(repository):
    text = (repository / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"genossm ([a-z][a-z-]*)", text))
    assert named - STAGES.keys() == set()
    assert STAGES.keys() - named == set()


def test_the_two_commands_stand_near_the_top_and_ci_runs_the_second(repository):
    lines = (repository / "README.md").read_text(encoding="utf-8").splitlines()[:40]
    install = "python3 -m venv .venv && .venv/bin/pip install -e '.[test]' && "
    assert f"{install}.venv/bin/snakemake --workflow-profile workflow/profiles/default" in lines
    assert f"{install}.venv/bin/pytest" in lines
    script = (repository / ".ci" / "run").read_text(encoding="utf-8")
    assert "pip\" install --quiet --disable-pip-version-check -e '.[test]'" in script
    assert 'bin/pytest"\n' in script


def test_the_embedded_files_are_those_of_their_provenance_note(repository):
    folder = repository / "workflow" / "resources"
    note = (folder / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([^`]+)` \|.*\| ([\d,]+) \| `([0-9a-f]{64})` \|$", note, re.MULTILINE)
    assert {name for name, _, _ in rows} == {path.name for path in folder.glob("*.gz")}
    for name, size, sha256 in rows:
        content = (folder / name).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (int(size.replace(",", "")), sha256)
        assert sha256 in (repository / "config" / "config.yaml").read_text(encoding="utf-8")
