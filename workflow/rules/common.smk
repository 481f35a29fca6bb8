"""What the rules share: the checked configuration, paths, options of the genossm command, and the workflow's lock."""

import fcntl
import json
import shlex
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.logging import logger
from snakemake.settings.types import DeploymentMethod
from snakemake.utils import validate

from genossm import __version__
from genossm.config import FILE_NAME, SplitSection, merged_config
from genossm.errors import GenoSSMError

# --- configuration ---------------------------------------------------------------------------------------------------

CONFIG_FILES = [
    Path(file)
    for file in dict.fromkeys([*workflow.configfiles, *workflow.overwrite_configfiles])
]

try:
    SETTINGS = merged_config(dict(config), CONFIG_FILES)
except GenoSSMError as error:
    raise WorkflowError(str(error)) from None

config.clear()
config.update(SETTINGS.model_dump(mode="json"))
validate(config, "../schemas/config.schema.json")

RESULTS = SETTINGS.results.rstrip("/")


def located(path: str) -> str:
    """A path of the configuration: as seen from the working directory, else from the folder of the Snakefile.

    Results are made in the working directory: those that an earlier run left beside the Snakefile are other data.
    """
    beside = Path(workflow.basedir, path)
    made_here = Path(path).is_relative_to(SETTINGS.results)
    return (
        path if made_here or Path(path).exists() or not beside.exists() else str(beside)
    )


def remote(source: str) -> bool:
    """Whether a source is a URL or an accession, and no file of this machine."""
    return "://" in source or source.startswith("ncbi:")


def local_source(source: str) -> list[str]:
    """The input files of a fetch: the source where it is a file, so that a changed file is fetched anew."""
    return [] if remote(source) else [located(source)]


def model_file(name: str) -> str:
    """The YAML file of a model: the name itself, or the preset of that name."""
    path = located(
        name if name.endswith((".yaml", ".yml")) else f"config/model/{name}.yaml"
    )
    if not FILE_NAME.fullmatch(Path(path).stem):
        raise WorkflowError(
            f"model: {Path(path).stem!r} becomes a folder's name: use ASCII letters, digits, '_' and '-'"
        )
    return path


MODEL = Path(model_file(SETTINGS.model)).stem
MODEL_FILES = {
    Path(path).stem: path
    for path in map(model_file, [SETTINGS.model, *SETTINGS.compare])
}
"""Every model that is pretrained, by the name of its folder; ``model`` itself is the first."""
if len(MODEL_FILES) <= len(SETTINGS.compare):
    raise WorkflowError("compare: a model is named twice, or is that of `model`")

GENOME = SETTINGS.pretrain.genome
TASKS = SETTINGS.finetune.tasks
CODING_TASKS = [name for name in TASKS if SETTINGS.derive.tasks[name].kind == "coding"]
INTERVAL_TASKS = [
    name for name in TASKS if SETTINGS.derive.tasks[name].kind == "intervals"
]


wildcard_constraints:
    genome=FILE_NAME.pattern,
    annotation=FILE_NAME.pattern,
    intervals=FILE_NAME.pattern,
    model=FILE_NAME.pattern,
    task=FILE_NAME.pattern,
    name=FILE_NAME.pattern,


# --- options of the genossm command -----------------------------------------------------------------------------------


def options(**values: object) -> str:
    """Command line options: None is left out, a switch is --name or --no-name, a list repeats its option."""
    words: list[str] = []
    for key, value in values.items():
        flag = f"--{key.replace('_', '-')}"
        if isinstance(value, bool):
            words.append(flag if value else f"--no-{flag[2:]}")
        elif value is not None:
            for item in value if isinstance(value, list) else [value]:
                words += [flag, str(item)]
    return shlex.join(words)


def fetch_options(kind: str, source) -> str:
    """The options of `genossm fetch` for a source of the configuration."""
    return options(kind=kind, sha256=source.sha256)


def fetch_source(source) -> str:
    """The source as a word of a shell command."""
    return shlex.quote(
        source.source if remote(source.source) else located(source.source)
    )


def tokenize_options(genome: str) -> str:
    """The options of `genossm tokenize` for a genome; without a split of its own it has the default split."""
    section = SETTINGS.tokenize
    split = section.splits.get(genome, SplitSection())
    common = section.model_dump(exclude={"splits"})
    return options(
        seed=SETTINGS.seed,
        **common,
        split_by=split.by,
        **split.model_dump(exclude={"by"}),
    )


def any_of(names: list[str]) -> str:
    """The wildcard constraint that takes these names and no other."""
    return "|".join(names) or "(?!)"


def coding_options(task: str) -> str:
    """The options of `genossm derive coding` for a task."""
    section = SETTINGS.derive.tasks[task]
    return options(
        seed=SETTINGS.seed,
        **section.model_dump(exclude={"kind", "genome", "annotation", "train", "test"}),
    )


def interval_files(task: str) -> list[str]:
    """The lists of intervals that a task needs."""
    section = SETTINGS.derive.tasks[task]
    return [
        f"{RESULTS}/intervals/{name}.csv.gz"
        for part in (section.train, section.test)
        for name in part.values()
    ]


def interval_options(task: str) -> str:
    """The options of `genossm derive intervals` for a task."""
    section = SETTINGS.derive.tasks[task]
    lists = {
        part: [
            f"{label}={RESULTS}/intervals/{name}.csv.gz"
            for label, name in getattr(section, part).items()
        ]
        for part in ("train", "test")
    }
    return options(seed=SETTINGS.seed, max_per_class=section.max_per_class, **lists)


def report_options(files) -> str:
    """The options of `genossm report`: each named input of the rule is an option, given once a file."""
    return options(
        **{
            name: [paths] if isinstance(paths, str) else list(paths)
            for name, paths in files.items()
        }
    )


# --- what the report is made of ---------------------------------------------------------------------------------------

USED_GENOMES = list(
    dict.fromkeys([GENOME, *(SETTINGS.derive.tasks[task].genome for task in TASKS)])
)
USED_ANNOTATIONS = list(
    dict.fromkeys(SETTINGS.derive.tasks[task].annotation for task in CODING_TASKS)
)
USED_INTERVALS = list(
    dict.fromkeys(
        name
        for task in INTERVAL_TASKS
        for part in (
            SETTINGS.derive.tasks[task].train,
            SETTINGS.derive.tasks[task].test,
        )
        for name in part.values()
    )
)
FETCHED = [
    *(f"genomes/{name}.fa.gz" for name in USED_GENOMES),
    *(f"annotations/{name}.gff3.gz" for name in USED_ANNOTATIONS),
    *(f"intervals/{name}.csv.gz" for name in USED_INTERVALS),
]
BENCHMARKS = [
    *(f"fetch.genome.{name}" for name in USED_GENOMES),
    *(f"fetch.annotation.{name}" for name in USED_ANNOTATIONS),
    *(f"fetch.intervals.{name}" for name in USED_INTERVALS),
    f"tokenize.{GENOME}",
    *(f"pretrain.{model}" for model in MODEL_FILES),
    *(f"{stage}.{task}" for task in TASKS for stage in ("derive", "finetune")),
    *(f"score.{name}" for name in SETTINGS.score.inputs),
    *(f"score.{name}.{task}" for name in SETTINGS.score.inputs for task in TASKS),
]


# --- the genossm command in jobs, and the workflow's lock -----------------------------------------------------------------

RUN_LOCK = Path(".snakemake/genossm.run.lock")
JOBS_LOCK = Path(".snakemake/genossm.jobs.lock")


def shell_prefix(conda: bool) -> str:
    """What every job's shell does first.

    It finds the genossm command without an activated environment (with --sdm conda: the environment's Python and
    this checkout), and it holds a shared lock that its children inherit, so that a later run sees that jobs of a run
    that was killed are still at work.
    """
    if conda:
        find = (
            f"export PYTHONPATH={shlex.quote(workflow.basedir)}; "
            'genossm() {{ python -m genossm.cli "$@"; }}; export -f genossm; '
        )
    else:
        find = f"export PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH; "
    hold = f"mkdir -p {JOBS_LOCK.parent}; exec 9>>{JOBS_LOCK}; flock -s 9 2>/dev/null || true; "
    return f"set -euo pipefail; {find}{hold}"


shell.prefix(
    shell_prefix(
        DeploymentMethod.CONDA in workflow.deployment_settings.deployment_method
    )
)


def hold_workflow() -> None:
    """Let one workflow run in this directory at a time, and only when the jobs of a killed one have ended.

    Snakemake's own lock is a file that stays behind after kill -9 and has to be removed by hand; these are locks
    of the kernel, which go with the process.
    """
    RUN_LOCK.parent.mkdir(exist_ok=True)
    # Kept open by the module: the lock lasts as long as this process.
    global run_lock
    run_lock = open(RUN_LOCK, "w")
    try:
        fcntl.flock(run_lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise WorkflowError(
            "another snakemake is at work in this directory: wait for it, or stop it first"
        ) from None
    except OSError as error:
        logger.warning(
            f"this file system has no locks ({error.strerror}): run one snakemake at a time here"
        )
        return
    with open(JOBS_LOCK, "w") as jobs:
        try:
            fcntl.flock(jobs, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logger.warning(
                "jobs of an earlier run, which was killed, are still at work: waiting until they have ended"
            )
            fcntl.flock(jobs, fcntl.LOCK_EX)
