"""The long convolution by FFT against its sum."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor

from genossm.kernels.long_conv import long_conv, long_conv_fft, long_conv_ref
from genossm.kernels.long_conv.fft import fast_length

from .conftest import LAYOUTS, Layout, outputs_and_gradients, relative_errors


def make_inputs(batch: int, seqlen: int, dim: int, taps: int) -> dict[str, Tensor]:
    return {"u": torch.randn(batch, seqlen, dim), "k": torch.randn(dim, taps), "D": torch.randn(dim)}


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda v: v.name)
@pytest.mark.parametrize("size", [(2, 1, 3, 1), (2, 64, 5, 100), (3, 131, 4, 20)], ids=str)
def test_fft_equals_the_sum(size: tuple[int, ...], layout: Layout, reverse: bool) -> None:
    torch.manual_seed(0)
    mask, segments = layout.make(*size[:2])
    inputs = make_inputs(*size)
    options = {"mask": mask, "segments": segments, "reverse": reverse}

    def with_state(run, **leaves: Tensor) -> tuple[Tensor, Tensor]:
        return run(**leaves, **options), torch.zeros(1)

    truth = outputs_and_gradients(partial(with_state, long_conv_ref), inputs, torch.float64, mask)
    for dtype, bound in ((torch.float64, 1e-12), (torch.float32, 2e-6)):
        got = outputs_and_gradients(partial(with_state, long_conv_fft), inputs, dtype, mask)
        assert max(relative_errors(truth, got).values()) < bound


def test_lengths_for_the_fft_are_the_next_smooth_ones() -> None:
    assert [fast_length(n) for n in (1, 2, 3, 5, 7, 9, 11, 13, 17, 21, 1000)] == [
        1, 2, 3, 5, 8, 10, 12, 16, 20, 24, 1024
    ]  # fmt: skip


def test_wrong_shapes_are_named() -> None:
    with pytest.raises(ValueError, match=r"k must be \(3, 4\), is \(2, 4\)"):
        long_conv(torch.randn(1, 5, 3), torch.randn(2, 4))
