"""The watch itself: it must see what the other checks rely on it to see."""

from __future__ import annotations

import pytest
import torch
import triton
import triton.language as tl
from triton.runtime.errors import InterpreterError


@triton.jit
def copy_without_mask(x_ptr, y_ptr, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y_ptr + i, tl.load(x_ptr + i))


@triton.jit
def everyone_writes_the_same_place(y_ptr):
    tl.store(y_ptr, 1.0)


@triton.jit
def reads_what_the_neighbour_writes(y_ptr):
    i = tl.program_id(0)
    tl.store(y_ptr + i + 1, tl.load(y_ptr + i) + 1.0)


def test_accesses_outside() -> None:
    memory = torch.zeros(32)
    with pytest.raises(InterpreterError, match="read outside every tensor"):
        copy_without_mask[(1,)](memory[:11], memory[16:32], BLOCK=16)
    with pytest.raises(InterpreterError, match="written outside every tensor"):
        copy_without_mask[(1,)](memory[:16], memory[16:30], BLOCK=16)


def test_races() -> None:
    with pytest.raises(AssertionError, match="two programs write one address"):
        everyone_writes_the_same_place[(2,)](torch.zeros(1))
    with pytest.raises(AssertionError, match="a program reads what another writes"):
        reads_what_the_neighbour_writes[(2,)](torch.zeros(4))


def test_a_clean_launch_passes() -> None:
    x, y = torch.randn(32), torch.empty(32)
    copy_without_mask[(2,)](x, y, BLOCK=16)
    assert torch.equal(x, y)
