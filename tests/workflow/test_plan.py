"""The plan: lint, format, and dry runs that need no network, of the two configurations that are shipped."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys

import pytest

from genossm.models import build_model
from genossm.stages.pretrain import find_model
from tests.workflow.conftest import CONFIG, snakemake


def jobs(text: str) -> dict[str, int]:
    """The table "Job stats" of a dry run."""
    stats = text.split("Job stats:")[-1]
    return {name: int(count) for name, count in re.findall(r"^(\w+) +(\d+)$", stats, re.MULTILINE)}


def commands(text: str, subcommand: str) -> list[str]:
    """The shell commands of a dry run that call a stage."""
    return re.findall(rf"^Shell command: (genossm {subcommand} .*)$", text, re.MULTILINE)


def test_lint_is_clean(repository):
    done = snakemake(repository, "--lint")
    assert done.returncode == 0, done.stdout
    assert "Congratulations" in done.stdout


def test_format_is_that_of_snakefmt(repository):
    command = [sys.executable, "-m", "snakefmt", "--check", "Snakefile", "workflow"]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_rule_has_a_log_threads_and_resources(repository):
    for path in (repository / "workflow" / "rules").glob("*.smk"):
        for rule in re.split(r"^rule ", path.read_text(), flags=re.MULTILINE)[1:]:
            name = rule.split(":")[0]
            wanted = ["log:", "conda:"]
            if name != "settings":  # a local rule of a moment
                wanted += ["benchmark:", "threads:", "mem_mb=", "runtime=", "retries:", "version=__version__"]
            assert [word for word in wanted if word not in rule] == [], name


def test_plan_of_the_embedded_default(repository, tmp_path):
    (tmp_path / "config").symlink_to(repository / "config")
    done = snakemake(tmp_path, "--dry-run")
    assert done.returncode == 0, done.stdout
    once = [
        "fetch_genome",
        "fetch_annotation",
        "tokenize",
        "pretrain",
        "derive_coding",
        "finetune",
        "score",
        "classify",
    ]
    assert jobs(done.stdout) == {**dict.fromkeys([*once, "settings", "report", "all"], 1), "total": 11}
    assert "--valid XIV --test XVI --exclude Mito" in commands(done.stdout, "tokenize")[0]


def test_plan_of_the_comparison(repository, tmp_path):
    """Every model is pretrained from its own file with the same settings, and each is of the size of the others."""
    (tmp_path / "config").symlink_to(repository / "config")
    done = snakemake(tmp_path, "--dry-run", "--configfile", "config/compare.yaml")
    assert done.returncode == 0, done.stdout
    runs = commands(done.stdout, "pretrain")
    assert jobs(done.stdout)["pretrain"] == len(runs) == 16
    assert jobs(done.stdout)["compare"] == 1
    models = [re.search(r"--model config/model/(\S+)\.yaml", run)[1] for run in runs]
    assert all(f"--output results/compare/pretrain/{model} " in run for model, run in zip(models, runs, strict=True))
    assert {model.removesuffix("-causal") for model in models if "-causal" in model} == {
        model for model in models if "-causal" not in model
    }
    sizes = [build_model(find_model(model)).num_parameters() for model in models]
    assert max(sizes) < 1.12 * min(sizes)


def test_a_model_is_compared_once(repository, tmp_path):
    (tmp_path / "config").symlink_to(repository / "config")
    twice = ("--configfile", "config/compare.yaml", "--config", "compare=[s4, s4]")
    done = snakemake(tmp_path, "--dry-run", *twice)
    assert done.returncode != 0
    assert "compare: a model is named twice" in done.stdout


def test_plan_of_the_human_configuration(repository):
    done = snakemake(repository, "--dry-run", "--configfile", "config/human.yaml")
    assert done.returncode == 0, done.stdout
    expected = {"fetch_genome": 1, "fetch_intervals": 18, "derive_intervals": 4, "finetune": 4, "classify": 4}
    assert expected.items() <= jobs(done.stdout).items()
    assert "fetch_annotation" not in jobs(done.stdout)
    assert "--window 131072" in commands(done.stdout, "tokenize")[0]
    pretrain = commands(done.stdout, "pretrain")[0]
    assert "--model config/model/base.yaml" in pretrain
    assert "--seqlen" not in pretrain  # the whole window
    fetch = next(line for line in commands(done.stdout, "fetch") if "hg38" in line)
    assert "https://hgdownload.soe.ucsc.edu/goldenPath/hg38/bigZips/hg38.fa.gz" in fetch
    regulatory = next(line for line in commands(done.stdout, "derive") if "human_ensembl_regulatory" in line)
    assert regulatory.count("--train ") == regulatory.count("--test ") == 3


def test_a_configuration_takes_the_place_of_the_default_and_several_are_merged(repository, make_project):
    folder = make_project("p")
    (folder / "other.yaml").write_text("pretrain: {steps: 7}\n")
    merged = snakemake(folder, "--dry-run", "--configfile", "config/config.yaml", "other.yaml")
    assert "--steps 7 " in commands(merged.stdout, "pretrain")[0]
    alone = snakemake(folder, "--dry-run", "--configfile", "other.yaml")
    assert alone.returncode == 1
    assert "other.yaml: fetch: Field required" in alone.stdout


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (CONFIG + "finetunes: {}\n", "config/config.yaml:{last}: finetunes: unknown key"),
        (CONFIG.replace("mini.fa.gz", "gone.fa.gz"), "gone.fa.gz"),
    ],
)
def test_a_fault_of_the_configuration_is_told_before_anything_runs(make_project, text, expected):
    folder = make_project("p")
    (folder / "config" / "config.yaml").write_text(text)
    done = snakemake(folder, "--dry-run")
    assert done.returncode == 1
    assert expected.format(last=len(text.splitlines())) in done.stdout
    assert "Traceback" not in done.stdout


def test_numbers_on_the_command_line_arrive_as_numbers(make_project):
    done = snakemake(make_project("p"), "--dry-run", "--config", "pretrain={steps: 60}", "seed=3")
    assert done.returncode == 0, done.stdout
    assert "--seed 3 --steps 60 " in commands(done.stdout, "pretrain")[0]


def test_results_beside_the_snakefile_are_not_those_of_the_working_directory(repository, make_project, tmp_path):
    checkout = tmp_path / "checkout"
    shutil.copytree(repository / "workflow", checkout / "workflow", ignore=shutil.ignore_patterns("resources"))
    shutil.copy(repository / "Snakefile", checkout)
    stale = checkout / "results" / "tasks" / "coding" / "holdout.fa"
    stale.parent.mkdir(parents=True)
    stale.write_text(">another run\nACGT\n")
    done = snakemake(make_project("p"), "--dry-run", "--snakefile", str(checkout / "Snakefile"))
    assert done.returncode == 0, done.stdout
    assert commands(done.stdout, "score")
    assert str(stale) not in done.stdout
