"""The generalised delta rule (RWKV-7): a matrix state that decays, forgets under one key and learns under another."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from genossm.kernels import backend
from genossm.kernels.delta_rule.chunked import delta_rule_chunked
from genossm.kernels.delta_rule.reference import delta_rule_ref

BACKENDS: dict[str, Callable[..., tuple[Tensor, Tensor]]] = {"reference": delta_rule_ref, "torch": delta_rule_chunked}


def delta_rule(
    r: Tensor,
    w: Tensor,
    k: Tensor,
    v: Tensor,
    kappa: Tensor,
    a: Tensor,
    *,
    initial_state: Tensor | None = None,
    mask: Tensor | None = None,
    segments: Tensor | None = None,
    reverse: bool = False,
) -> tuple[Tensor, Tensor]:
    """y_t = S_t^T r_t with S_t as in ``reference.py``, along the sequence, in either direction.

    Args:
        r: (batch, seqlen, heads, keys), the query.
        w: like r, logarithm of the decay, between -5 and 0.
        k: like r. v: (batch, seqlen, heads, values).
        kappa: like r, the key that is taken out; of length 1, or the state may grow.
        a: like r, how much of it, 0 to 1.
        initial_state: (batch, heads, keys, values); it continues into the first segment in reading order.
        mask: bool (batch, seqlen); a False token leaves the state untouched (its own y means nothing).
        segments: int (batch, seqlen); the state is cleared where the number changes.
        reverse: read from the last token to the first.

    Returns:
        y (batch, seqlen, heads, values), and the state after the last token read, (batch, heads, keys, values).

    Raises:
        ValueError: shapes that do not fit together.
    """
    batch, seqlen, heads, keys = r.shape
    like_r = {"w": w, "k": k, "kappa": kappa, "a": a}
    wanted = {
        **{name: (value, (batch, seqlen, heads, keys)) for name, value in like_r.items()},
        "v": (v, (batch, seqlen, heads, v.shape[-1])),
        "initial_state": (initial_state, (batch, heads, keys, v.shape[-1])),
        "mask": (mask, (batch, seqlen)),
        "segments": (segments, (batch, seqlen)),
    }
    for name, (value, shape) in wanted.items():
        if value is not None and tuple(value.shape) != shape:
            raise ValueError(f"{name} must be {shape}, is {tuple(value.shape)}")
    run = backend.pick("delta_rule", BACKENDS, "torch")
    return run(r, w, k, v, kappa, a, initial_state=initial_state, mask=mask, segments=segments, reverse=reverse)
