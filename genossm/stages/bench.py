"""genossm bench: what is fast, and what is right, measured on the user's own machine."""

from __future__ import annotations

import typer

from genossm.stages.bench_finetune import finetune
from genossm.stages.bench_kernels import kernels
from genossm.stages.bench_models import models
from genossm.stages.bench_science import science
from genossm.stages.bench_scoring import scoring

command = typer.Typer(no_args_is_help=True, help="Measure this installation: its kernels, and what it reaches.")
command.command("kernels")(kernels)
command.command("science")(science)
command.command("models")(models)
command.command("scoring")(scoring)
command.command("finetune")(finetune)
