"""genossm pretrain: a language model from tokens.h5, resumable at any moment, beside its count baseline."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from pydantic import ValidationError

from genossm.config import ModelConfig, PretrainSection, load_config, load_model_config
from genossm.data.tokens_h5 import TokensFile, open_tokens
from genossm.errors import GenoSSMError
from genossm.files import atomic_write, locked, sha256_of
from genossm.models import LanguageModel, build_model, no_decay
from genossm.stages.count_baseline import count_baseline
from genossm.stages.language_modelling import LanguageModelling
from genossm.stages.loading import load_model, pick_device
from genossm.train.checkpoint import WEIGHTS, checkpoint_config, export_model, is_good, newest_checkpoint
from genossm.train.checkpoint import load_config as load_checkpoint_config
from genossm.train.log import warn
from genossm.train.loop import LoopSettings, Trainer
from genossm.train.signals import StopRequest

METRICS = "metrics.json"
_FREE = {"genome", "keep", "checkpoint_every", "baseline_max_k", "device"}
"""Settings that no weight and no line of the log depends on: a resumed run may change them."""


def pretrain(
    tokens: Path,
    output: Path,
    model: ModelConfig | Path,
    section: PretrainSection,
    seed: int = 1,
    *,
    restart: bool = False,
) -> dict[str, Any]:
    """Train a language model in the folder ``output``, or go on with the run that was interrupted there.

    The folder then holds ``config.json``, ``model.safetensors`` and ``MANIFEST.json`` (the model), ``metrics.jsonl``,
    ``tensorboard/``, ``checkpoints/``, ``baselines.json`` and, written last, ``metrics.json``.

    Args:
        tokens: a tokens file with windows for train and valid.
        model: shape and objective, to begin from random weights; or the folder of a language model, trained here or
            imported, to go on from its weights.
        section: how to train; its ``genome`` is not looked at. seed: of all random choices.
        restart: where ``output`` holds a run with other settings, remove it and begin anew; else it is refused.

    Returns:
        The content of ``metrics.json``.

    Raises:
        GenoSSMError: a fault of the input or the settings; another run works in ``output`` (exit code 75); a loss that
            is no number (2); stopped by SIGTERM (143) or SIGINT (130), the state saved.
    """
    device = pick_device(section.device)
    with locked(output / ".lock", "the run"), StopRequest() as stop, open_tokens(tokens) as opened:
        _check_fit(opened, section)
        torch.manual_seed(seed)
        seqlen = section.seqlen or opened.window
        network, origin = _network(model, seqlen)
        training = {
            **section.model_dump(exclude=_FREE),
            "seqlen": seqlen,
            "seed": seed,
            "tokens_sha256": opened.sha256,
            **origin,
        }
        _check_reach(network, seqlen)
        config = checkpoint_config("language_model", network.config.model_dump(mode="json"), training)
        finished = _finished(output, config)
        if finished is not None:
            return finished
        (output / METRICS).unlink(missing_ok=True)
        if restart:
            _remove_other_run(output, config)
        network.to(device)
        task = LanguageModelling(opened, network.config.objective, section, seed, device, bos=network.bos)
        if not task.held_out.targets.any():
            raise GenoSSMError("the validation windows hold no base to predict", path=tokens)
        trainer = Trainer(
            network,
            task,
            _loop_settings(section, seed),
            run_dir=output,
            config=config,
            no_decay=no_decay,
            stop=stop,
        )
        baseline = count_baseline(task, network.config, output / "baselines.json")
        stop.hold()
        records = trainer.run()
        export_model(output, config, network.state_dict())
        facts = {"parameters": network.num_parameters(), "device": str(device), **_trainer_figures(trainer, task)}
        metrics = _metrics(records, baseline, training, facts)
        atomic_write(output / METRICS, json.dumps(metrics, indent=2) + "\n")
        return metrics


def _network(model: ModelConfig | Path, seqlen: int) -> tuple[LanguageModel, dict[str, str]]:
    """The model to train, on the CPU, and what its provenance says of where it began."""
    if not isinstance(model, Path):
        return build_model(model.for_window(seqlen)), {}
    network, _ = load_model(model)
    if not isinstance(network, LanguageModel):
        raise GenoSSMError("a classifier; pretraining goes on from a language model", path=model)
    return network, {"checkpoint_sha256": sha256_of(model / WEIGHTS)}


def _check_reach(network: LanguageModel, seqlen: int) -> None:
    if network.max_seqlen is not None and seqlen > network.max_seqlen:
        raise GenoSSMError(f"--seqlen: this model reads at most {network.max_seqlen:,} bp, not {seqlen:,}")


def _check_fit(tokens: TokensFile, section: PretrainSection) -> None:
    """Whether the tokens file has what the settings ask for."""
    if section.seqlen is not None and section.seqlen > tokens.window:
        raise GenoSSMError(
            f"seqlen {section.seqlen:,} is longer than the windows of {tokens.window:,} bp; use a smaller --seqlen, or "
            "tokenize with a larger --window",
            path=tokens.path,
        )
    for split in ("train", "valid"):
        if not len(tokens.windows(split)):
            raise GenoSSMError(
                f"there is no window for {split}; tokenize with a smaller --window or another split", path=tokens.path
            )


def _finished(output: Path, config: dict[str, Any]) -> dict[str, Any] | None:
    """The metrics of a run that is complete in ``output`` with this very configuration, else None."""
    path = output / METRICS
    files = (path, output / "metrics.jsonl", output / "baselines.json")
    if not (all(file.is_file() for file in files) and is_good(output)) or load_checkpoint_config(output) != config:
        return None
    metrics: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return metrics


def _remove_other_run(output: Path, config: dict[str, Any]) -> None:
    """Remove the checkpoints and event files of a run with other settings; one with these settings stays."""
    newest, _ = newest_checkpoint(output)
    if newest is None or load_checkpoint_config(newest) == config:
        return
    warn(f"{output} holds a run with other settings: it is removed, and training begins anew")
    for name in ("checkpoints", "tensorboard"):
        shutil.rmtree(output / name, ignore_errors=True)


def _loop_settings(section: PretrainSection, seed: int) -> LoopSettings:
    names = ("steps", "lr", "warmup_steps", "weight_decay", "grad_clip", "valid_every", "checkpoint_every", "keep")
    return LoopSettings(**{name: getattr(section, name) for name in names}, seed=seed)


def _trainer_figures(trainer: Trainer, task: LanguageModelling) -> dict[str, Any]:
    """How long the training took and how fast it was, over all the processes that had a part in it."""
    bases = trainer.step * task.bases_per_step
    return {
        "bases_seen": bases,
        "seconds": round(trainer.seconds, 1),
        "tokens_per_second": round(bases / trainer.seconds, 1) if trainer.seconds else 0.0,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def _metrics(
    records: list[dict[str, Any]], baseline: dict[str, Any], training: dict[str, Any], facts: dict[str, Any]
) -> dict[str, Any]:
    """What metrics.json holds; a gap is what the model is better by, in nats per base."""
    validations = [record for record in records if "valid_loss" in record]
    loss, by_k = validations[-1]["valid_loss"], baseline["by_k"]
    return {
        "valid_loss": loss,
        "uniform": baseline["uniform"],
        "baseline": {key: value for key, value in baseline.items() if key not in ("identity", "uniform")},
        "gap": {
            "uniform": baseline["uniform"] - loss,
            "k_up_to_3": min(value for k, value in by_k.items() if int(k) <= 3) - loss,
            "best_k": baseline["best"] - loss,
        },
        "valid_targets": baseline["targets"],
        **facts,
        "training": training,
    }


# ------------------------------------------------------------------------------------------------------ command line


def _key(name: str) -> Any:
    """The option of a key of the configuration section: its help and default stand there, once."""
    field = PretrainSection.model_fields[name]
    default = "" if field.default is None else f" [default: {field.default}]"
    return typer.Option(help=f"{field.description}{default}", show_default=False)


def command(
    tokens: Annotated[Path, typer.Argument(help="tokens.h5, from genossm tokenize.")],
    output: Annotated[Path, typer.Option(help="Folder of the run; an interrupted run in it goes on.")],
    model: Annotated[
        str | None,
        typer.Option(help="The model's shape: a YAML file, or a preset as tiny, small, base [default: tiny]"),
    ] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(help="In place of --model: go on from this language model, trained here or imported."),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="A config.yaml: its pretrain section, model and seed, where not given here.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Seed of every random choice [default: 1]", show_default=False)
    ] = None,
    steps: Annotated[int | None, _key("steps")] = None,
    batch_size: Annotated[int | None, _key("batch_size")] = None,
    seqlen: Annotated[int | None, _key("seqlen")] = None,
    lr: Annotated[float | None, _key("lr")] = None,
    warmup_steps: Annotated[int | None, _key("warmup_steps")] = None,
    weight_decay: Annotated[float | None, _key("weight_decay")] = None,
    grad_clip: Annotated[float | None, _key("grad_clip")] = None,
    mask_fraction: Annotated[float | None, _key("mask_fraction")] = None,
    soft_mask_weight: Annotated[float | None, _key("soft_mask_weight")] = None,
    rc_augment: Annotated[bool | None, _key("rc_augment")] = None,
    valid_every: Annotated[int | None, _key("valid_every")] = None,
    valid_tokens: Annotated[int | None, _key("valid_tokens")] = None,
    checkpoint_every: Annotated[int | None, _key("checkpoint_every")] = None,
    keep: Annotated[int | None, _key("keep")] = None,
    baseline_max_k: Annotated[int | None, _key("baseline_max_k")] = None,
    device: Annotated[str | None, _key("device")] = None,
    restart: Annotated[
        bool, typer.Option("--restart", help="Where the folder holds a run with other settings: begin anew.")
    ] = False,
) -> None:
    """Train a DNA language model on tokens.h5, and hold it against count tables.

    Run the same command again after any interruption: it goes on from the last checkpoint, to the same bits. SIGTERM
    and SIGINT save and exit with 143 and 130; a second signal ends at once. A loss that is no number exits with 2.

    Example: genossm pretrain tokens/yeast.h5 --output pretrain/tiny --model tiny --steps 600 --seqlen 2048
    """
    given = {name: value for name, value in locals().items() if name in PretrainSection.model_fields}
    given_model = model is not None
    base: dict[str, Any] = {"genome": tokens.stem}
    if config is not None:
        whole = load_config(config)
        base, model = whole.pretrain.model_dump(), model or whole.model
        seed = whole.seed if seed is None else seed
    section = _section(base, {name: value for name, value in given.items() if value is not None})
    if checkpoint is not None and given_model:
        raise GenoSSMError("--model and --checkpoint: give one of them")
    start = checkpoint or find_model(model or "tiny", config)
    metrics = pretrain(tokens, output, start, section, 1 if seed is None else seed, restart=restart)
    baseline = metrics["baseline"]
    print(f"model: {output} ({metrics['parameters']:,} parameters)")
    print(f"validation loss: {metrics['valid_loss']:.4f} nats per base (uniform {metrics['uniform']:.4f})")
    for name, loss, gap in (
        (
            f"k up to {min(3, section.baseline_max_k)}",
            metrics["valid_loss"] + metrics["gap"]["k_up_to_3"],
            metrics["gap"]["k_up_to_3"],
        ),
        (f"best k = {baseline['best_k']}", baseline["best"], metrics["gap"]["best_k"]),
    ):
        print(f"count table, {name}: {loss:.4f}; the model is {abs(gap):.4f} {'better' if gap > 0 else 'worse'}")
    print(f"speed: {metrics['tokens_per_second']:,.0f} bp/s, {metrics['seconds']:.0f} s in all")


def _section(base: dict[str, Any], given: dict[str, Any]) -> PretrainSection:
    try:
        return PretrainSection.model_validate({**base, **given})
    except ValidationError as error:
        fault = error.errors()[0]
        option = "--" + ".".join(str(part) for part in fault["loc"]).replace("_", "-")
        raise GenoSSMError(f"{option}: {fault['msg']}, not {fault['input']!r}") from None


def find_model(name: str, config: Path | None = None) -> ModelConfig:
    """The model's shape from a YAML file, or from a preset: beside ``config``, in ./config/model, or in the checkout.

    Raises:
        GenoSSMError: neither is there; the message lists the presets that are.
    """
    if Path(name).suffix in (".yaml", ".yml"):
        return load_model_config(Path(name))
    checkout = Path(__file__).resolve().parents[2] / "config" / "model"
    folders = [*([config.parent / "model"] if config else []), Path("config/model"), checkout]
    for folder in folders:
        if (folder / f"{name}.yaml").is_file():
            return load_model_config(folder / f"{name}.yaml")
    known = sorted({path.stem for folder in folders for path in folder.glob("*.yaml")})
    raise GenoSSMError(
        f"model: there is no preset {name!r} in {' or '.join(map(str, folders))}"
        + (f"; there are {', '.join(known)}" if known else "; give the path of a YAML file")
    )
