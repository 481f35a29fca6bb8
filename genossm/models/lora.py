"""Low-rank adapters (LoRA, arXiv:2106.09685) of every projection of a backbone, those of its state spaces included.

The fused operators of the mixers read the weights of their projections as tensors, never through ``Linear.forward``,
so an adapter that wraps the layer would not be reached. Here it is a parametrization of the weight itself: whoever
reads ``layer.weight`` gets W + (alpha / rank) B A, and gradients reach A and B through it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

ALPHA = 16.0


class LowRank(nn.Module):
    """W to W + (alpha / rank) B A, for W (out, in); B begins at zero, so at first nothing changes."""

    def __init__(self, weight: Tensor, rank: int) -> None:
        super().__init__()
        rank = min(rank, *weight.shape)
        self.A = nn.Parameter(torch.empty(rank, weight.shape[1], dtype=weight.dtype, device=weight.device))
        self.B = nn.Parameter(torch.zeros(weight.shape[0], rank, dtype=weight.dtype, device=weight.device))
        nn.init.kaiming_uniform_(self.A, a=math.sqrt(5))
        self.scale = ALPHA / rank

    def forward(self, weight: Tensor) -> Tensor:
        """The adapted weight."""
        return weight + self.scale * (self.B @ self.A)


def projections(network: nn.Module) -> dict[str, nn.Linear]:
    """The linear layers of the backbone ``network.base``, by name."""
    base = network.base
    assert isinstance(base, nn.Module)
    return {name: module for name, module in base.named_modules() if isinstance(module, nn.Linear)}


def add_adapters(network: nn.Module, rank: int) -> list[LowRank]:
    """Freeze ``network.base`` and give each of its projections an adapter; returns them.

    Raises:
        ValueError: the backbone has no projections.
    """
    layers = projections(network)
    if not layers:
        raise ValueError("the backbone has no linear layers to adapt")
    assert isinstance(network.base, nn.Module)
    network.base.requires_grad_(False)
    adapters = []
    for layer in layers.values():
        adapter = LowRank(layer.weight, rank)
        parametrize.register_parametrization(layer, "weight", adapter)
        adapters.append(adapter)
    return adapters


def merge_adapters(network: nn.Module) -> None:
    """Put the adapted weights in the place of the original ones; the outputs stay as they are."""
    for layer in projections(network).values():
        if parametrize.is_parametrized(layer, "weight"):
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)
