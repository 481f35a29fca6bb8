"""genossm bench finetune: what an epoch of fine-tuning takes, beside the benchmark's CNN and `transformers`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from torch import Tensor, nn

from genossm.baselines.gapped_kmer import View
from genossm.bench.clock import seconds_of
from genossm.bench.finetune import Runner, TransformersClassifier, race_epochs
from genossm.bench.scoring import random_bases
from genossm.config import FinetuneSection, ModelConfig
from genossm.errors import GenoSSMError
from genossm.files import atomic_write
from genossm.models import SequenceClassifier, no_decay
from genossm.models.cnn import BenchmarkCNN, flattened
from genossm.models.task import TaskNetwork
from genossm.progress import progress
from genossm.report.figures import plain
from genossm.report.plots import Plot
from genossm.stages.bench_models import to_csv, to_markdown
from genossm.stages.finetune import read_base
from genossm.stages.finetune_command import Data, LabelColumn, Reference, SequenceColumn, Train, sources
from genossm.stages.labelled import Split, Splits, Tables, named, training_steps
from genossm.stages.loading import pick_device
from genossm.stages.pretrain import find_model
from genossm.stages.task_baselines import CNN_LR
from genossm.stages.task_design import design
from genossm.stages.task_fit import Base, Job, fit_options
from genossm.train.classification import Batch, FitOptions, updates

COLUMNS = ("network", "parameters", "seconds", "low", "high", "times", "measured", "of", "seconds_are")
OURS = "genossm finetune --checkpoint"
Step = list[Batch]


class _Linear(nn.Module):
    """The backbone alone with mean pooling and a linear layer: what the peer computes, and no more."""

    def __init__(self, config: ModelConfig, outputs: int) -> None:
        super().__init__()
        self.classifier = SequenceClassifier(config, outputs)

    def forward(self, input_ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """Logits (batch, outputs)."""
        logits: Tensor = self.classifier(input_ids, mask=mask).logits
        return logits


@dataclass(frozen=True)
class _Entry:
    """A network to train; ``build`` raises ImportError where a package is absent."""

    name: str
    build: Callable[[], nn.Module]
    options: FitOptions


def random_splits(count: int, length: int, seed: int) -> Splits:
    """Two classes of random sequences, a tenth of them to choose by."""
    rng = np.random.default_rng(seed)
    sequences = [random_bases(length, rng) for _ in range(count)]
    split = Split(sequences, rng.integers(0, 2, count), list(range(2, count + 2)), ["0", "1"], "")
    held = max(1, count // 10)
    rows = np.arange(count)
    return Splits(split.take(rows[held:]), split.take(rows[:held]), None)


def entries(job: Job, base: Base, seed: int) -> tuple[list[_Entry], list[str]]:
    """Who takes part, ours first; and who cannot, each with the reason."""
    train, head = job.splits.train, job.design.head
    outputs, longest, shape = train.outputs, int(train.lengths.max()), base.shape
    tuned, fresh = (fit_options(job, seed, pretrained=pretrained) for pretrained in (True, False))

    def pretrained() -> nn.Module:
        network = TaskNetwork(shape, head, outputs)
        network.load_state_dict(base.weights, strict=False)
        return network

    found = [_Entry(OURS, pretrained, tuned)]
    absent = []
    found.append(_Entry("genossm finetune, no checkpoint", lambda: TaskNetwork(None, head, outputs), fresh))
    if flattened(longest):
        cnn = FitOptions(epochs=1, lr=CNN_LR, kind=fresh.kind, seed=seed, grad_clip=1e9)
        found.append(_Entry("CNN of the Genomic Benchmarks", lambda: BenchmarkCNN(longest, outputs), cnn))
    else:
        absent.append(f"CNN of the Genomic Benchmarks: {longest} bp are too short for it")
    if isinstance(shape, ModelConfig) and shape.mixer == "mamba" and not (shape.pattern or shape.mlp_expand):
        found.append(_Entry("genossm Mamba, mean and linear", lambda: _Linear(shape, outputs), fresh))
        for name, mambapy in (("transformers Mamba", False), ("transformers Mamba, mambapy", True)):
            found.append(
                _Entry(name, lambda m=mambapy: TransformersClassifier(shape, outputs, mambapy=m), fresh)  # type: ignore[misc]
            )
    else:
        absent.append("transformers Mamba: the checkpoint is no Mamba of ours")
    return found, absent


def measure(
    job: Job, base: Base, *, limit: float, rounds: int, seed: int
) -> tuple[list[Runner[Step]], list[int], float, list[str]]:
    """The runners with their times, ours first; tokens of every batch; seconds that the batches take; who is absent."""
    plan = job.design

    def batches() -> Iterator[Step]:
        return training_steps(
            job.splits.train, plan.batch_size, seed=seed, epoch=0, augmentation=plan.augmentation, device=job.device
        )

    sizes: list[int] = []
    made = seconds_of(lambda: sizes.extend(sum(ids.numel() for ids, _, _ in parts) for parts in batches()), job.device)
    wanted, absent = entries(job, base, seed)
    runners: list[Runner[Step]] = []
    for entry in wanted:
        torch.manual_seed(seed)
        try:
            network = entry.build().to(job.device)
        except ImportError as error:
            absent.append(f"{entry.name}: {error.name or error} is not installed (pip install 'genossm[bench]')")
            continue
        count = sum(p.numel() for p in network.parameters())
        runners.append(Runner(entry.name, count, updates(network, entry.options, no_decay=no_decay)))
    with progress("epochs of training", None, "updates") as advance:
        race_epochs(
            runners, lambda n: list(islice(batches(), n)), sizes,
            limit=limit, rounds=rounds, device=job.device, advance=advance,
        )  # fmt: skip
    return runners, sizes, made, absent


def rows(runners: Sequence[Runner[Step]], steps: int) -> list[list[str]]:
    """The table, ``COLUMNS``."""
    return [
        [
            runner.name, str(runner.parameters), f"{runner.median:.4g}", f"{min(runner.seconds):.4g}",
            f"{max(runner.seconds):.4g}", f"{runner.times(runners[0]):.3g}", str(runner.steps), str(steps),
            "measured" if runner.steps == steps else "scaled to the epoch",
        ]
        for runner in runners
    ]  # fmt: skip


def finetune(
    output: Annotated[Path, typer.Option(help="Folder for finetune.csv and finetune.svg.")] = Path("finetuning"),
    checkpoint: Annotated[Path | None, typer.Option(help="Folder of a pretrained model.")] = None,
    model: Annotated[str, typer.Option(help="Without one: a preset or YAML file, with random weights.")] = "tiny",
    train: Train = None,
    data: Data = None,
    sequence_column: SequenceColumn = None,
    label_column: LabelColumn = None,
    reference: Reference = None,
    count: Annotated[int, typer.Option(min=20, help="Without a table: random sequences.")] = 4000,
    length: Annotated[int, typer.Option(min=16, help="Without a table: bp of each.")] = 500,
    repeats: Annotated[int, typer.Option(min=1, help="Rounds, in which all take turns.")] = 5,
    limit: Annotated[
        float, typer.Option(min=0, help="Seconds a network may take in a round; the rest of its epoch is foretold.")
    ] = 20.0,
    threads: Annotated[int, typer.Option(min=0, help="Threads; 0: every core.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:0 ...")] = "cpu",
    seed: Annotated[int, typer.Option(min=0, help="Of weights, batches and random sequences.")] = 1,
) -> None:
    """Seconds of an epoch of fine-tuning, forward, backward and optimizer, all networks on the same batches in turns.

    What genossm finetune trains with and without a checkpoint, in its default design; the CNN of the Genomic
    Benchmarks; the backbone with mean pooling and a linear layer, ours and of transformers (its own scan, and mambapy).

    Example: genossm bench finetune --checkpoint results/pretrain/tiny --train results/tasks/coding/train.csv
    """
    if output.exists() and not output.is_dir():
        raise GenoSSMError("is a file; --output names a folder", path=output)
    torch.set_num_threads(threads or torch.get_num_threads())
    where = pick_device(device)
    base = read_base(checkpoint, where) if checkpoint else _unlearned(find_model(model))
    if train or data:
        first, valid, _ = sources(data, train, None, None)
        tables = Tables(first, valid, None, 0.1, sequence_column, tuple(label_column or ()), None, reference)
        job = _job(tables.read(seed), where, output, seed)
        if job.splits.train.kind == "tokens":
            raise GenoSSMError("labels every base; give a table whose labels are of sequences", path=named(first))
    else:
        job = _job(random_splits(count, length, seed), where, output, seed, View(both_strands=True))
    runners, sizes, made, absent = measure(job, base, limit=limit, rounds=repeats, seed=seed)
    table = rows(runners, len(sizes))
    print(to_markdown(COLUMNS, [[row[0], f"{int(row[1]):,}", *row[2:]] for row in table]))
    about = job.splits.train
    print(
        f"\nSeconds of an epoch of {len(about.sequences):,} rows of up to {int(about.lengths.max()):,} bp, batch "
        f"{job.design.batch_size}, {where}, {torch.get_num_threads()} threads: median, lowest and highest of {repeats} "
        f"rounds in turns; times: as long as the first. Making the batches, for any of them: {made:.2g} s. genossm "
        f"finetune trains {job.design.members} of its networks on rows as these."
    )
    print("".join(f"left out: {reason}\n" for reason in absent), file=sys.stderr, end="")
    atomic_write(output / "finetune.csv", to_csv(COLUMNS, table))
    bars = {runner.name: runner.median for runner in runners}
    atomic_write(output / "finetune.svg", plain(Plot("An epoch of fine-tuning", "", "seconds", bars=bars, logy=True)))


def _job(splits: Splits, device: torch.device, output: Path, seed: int, view: View | None = None) -> Job:
    """The task with the settings and the design that ``genossm finetune`` has by default; nothing is written."""
    settings = FinetuneSection()
    return Job(splits, settings, design(splits, settings, seed, view), device, output, "")


def _unlearned(config: ModelConfig) -> Base:
    """A backbone without weights: the network keeps its random ones."""
    return Base(config, config.model_dump(mode="json"), {})
