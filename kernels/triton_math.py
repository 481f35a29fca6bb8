"""Elementwise functions of the Triton kernels, in float32, from operations that every target has."""

from __future__ import annotations

import triton
import triton.language as tl

LOG2E = 1.4426950408889634
LN2 = 0.6931471805599453


@triton.jit
def sigmoid(x):
    """1 / (1 + exp(-x)); exp overflows to infinity for x below -88, and the quotient is then 0 as it should be."""
    return 1.0 / (1.0 + tl.exp2(-1.4426950408889634 * x))


@triton.jit
def softplus(x):
    """log(1 + exp(x)) with a small relative error also where it is tiny, as a time step is.

    max(x, 0) + log1p(e), e = exp(-|x|) in (0, 1], and log1p(e) = 2 artanh(s), s = e / (2 + e) <= 1/3, by its series:
    the first term left out is below 6e-9 of the sum. A hardware logarithm of 1 + e would lose the digits of e.
    """
    e = tl.exp2(-1.4426950408889634 * tl.abs(x))
    s = e / (2.0 + e)
    q = s * s
    series = 1.0 / 15.0
    series = series * q + 1.0 / 13.0
    series = series * q + 1.0 / 11.0
    series = series * q + 1.0 / 9.0
    series = series * q + 1.0 / 7.0
    series = series * q + 1.0 / 5.0
    series = series * q + 1.0 / 3.0
    series = series * q + 1.0
    return tl.maximum(x, 0.0) + 2.0 * s * series


@triton.jit
def time_step(x, SOFTPLUS: tl.constexpr):
    """The time step from dt + bias."""
    if SOFTPLUS:
        x = softplus(x)
    return x


@triton.jit
def lanes_if(lane, lanes, condition):
    """Which lanes are below ``lanes``, if the scalar ``condition`` holds; else none."""
    return lane < tl.where(condition, lanes, 0)
