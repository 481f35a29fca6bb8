"""A long causal convolution by FFT, any device and dtype: O(L log L) in time, O(L) in memory."""

from __future__ import annotations

import torch
from torch import Tensor

from genossm.kernels.rows import unpack


def long_conv_fft(
    u: Tensor,
    k: Tensor,
    D: Tensor | None = None,
    *,
    mask: Tensor | None = None,
    segments: Tensor | None = None,
    reverse: bool = False,
) -> Tensor:
    """Arguments and result as :func:`genossm.kernels.long_conv.long_conv`."""
    x = u
    if reverse:
        x = u.flip(1)
        mask = None if mask is None else mask.flip(1)
        segments = None if segments is None else segments.flip(1)
    if mask is None and segments is None:
        y = _convolve(x, k)
    else:
        batch, seqlen = x.shape[:2]
        rows = unpack(batch, seqlen, mask, segments, x.device)
        y = rows.scatter(_convolve(rows.gather(x), k), batch, seqlen)
    y = y.flip(1) if reverse else y
    return y if D is None else y + D * u


def fast_length(n: int) -> int:
    """The smallest 2^a, 3 * 2^a or 5 * 2^a that is at least n: lengths that every FFT library does quickly."""
    return min(m << max(-(-n // m) - 1, 0).bit_length() for m in (1, 3, 5))


def _convolve(u: Tensor, k: Tensor) -> Tensor:
    """The first seqlen values of the full convolution; u (rows, seqlen, dim), k (dim, taps).

    In float32 at least: there is no FFT of 16 bits on a CPU.
    """
    seqlen = u.shape[1]
    wide = torch.promote_types(torch.promote_types(u.dtype, k.dtype), torch.float32)
    taps = k[:, :seqlen]
    n = fast_length(seqlen + taps.shape[1])
    product = torch.fft.rfft(u.mT.to(wide), n=n) * torch.fft.rfft(taps.to(wide), n=n)
    return torch.fft.irfft(product, n=n)[..., :seqlen].mT.to(u.dtype)
