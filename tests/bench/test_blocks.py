"""The blocks as cases: their products are counted as they are, and the block equals its float64 definition."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from genossm.bench.blocks import BLOCKS, MORE, config, mamba_work, ssd_work
from genossm.bench.verify import errors
from genossm.kernels.benchmark import DIM, Work
from genossm.kernels.causal_conv1d import bench as conv
from genossm.kernels.selective_scan import bench as scan
from genossm.kernels.ssd import bench as ssd
from genossm.models.bidirectional import both_directions
from genossm.models.mixers import build_mixer


def products(module: nn.Module) -> int:
    return sum(m.weight.numel() for m in module.modules() if isinstance(m, nn.Linear))


def test_the_products_of_the_blocks_are_all_counted() -> None:
    one = build_mixer(config("mamba"))
    gate = Work(4 * DIM, DIM)
    core = conv.forward_work(1) + scan.forward_work(1, gate=False)
    assert mamba_work(1, backward=False).multiply_adds == products(one) + (core + gate).multiply_adds
    both = both_directions(build_mixer(config("mamba")))
    wanted = products(both) + (core * 2 + gate).multiply_adds
    assert mamba_work(1, backward=False, cores=2).multiply_adds == wanted
    assert mamba_work(1, backward=False, cores=2, strands=2).multiply_adds == 2 * wanted
    mamba2 = build_mixer(config("ssd"))
    core = conv.forward_work(1, DIM + 32) + ssd.forward_work(1)
    assert ssd_work(1, backward=False).multiply_adds == products(mamba2) + (core + gate * 2).multiply_adds


@pytest.mark.parametrize("name", ["mamba_block", "rc_block", "conv_block"])
def test_a_block_equals_its_definition(name: str) -> None:
    case = replace({**BLOCKS, **MORE}[name], probe=37)
    found = errors(case, torch.device("cpu"))
    assert {error.quantity for error in found} > {"y"}
    assert not [error for error in found if error.failed]
