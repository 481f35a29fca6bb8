"""Triton's interpreter, watched: every access stays inside the tensors given, and no two programs meet at an address.

The interpreter runs the programs of a launch one after another, so a race would go unseen; here the addresses that
each program reads and writes are noted, and a launch fails if one program wrote where another read or wrote.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from torch import Tensor


def span(tensor: Tensor) -> int:
    """Bytes from the first element of a tensor to the end of its last."""
    if tensor.numel() == 0:
        return 0
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return (last + 1) * tensor.element_size()


class Watch:
    """What the programs of one launch touch."""

    def __init__(self) -> None:
        self.launches = 0
        self.patched: set[str] = set()
        self.spans: list[tuple[int, int]] = []
        self.touched: dict[bool, list[tuple[int, np.ndarray]]] = {False: [], True: []}

    def begin(self, arguments: tuple[Any, ...]) -> None:
        self.spans = [(v.data_ptr(), v.data_ptr() + span(v)) for v in arguments if isinstance(v, Tensor)]
        self.touched = {False: [], True: []}
        self.launches += 1

    def note(self, pointers: np.ndarray, mask: np.ndarray, program: tuple[int, int, int], writes: bool) -> None:
        addresses = np.broadcast_to(pointers, np.broadcast(pointers, mask).shape)[np.broadcast_to(mask, pointers.shape)]
        inside = np.zeros(addresses.shape, bool)
        for begin, end in self.spans:
            inside |= (addresses >= begin) & (addresses < end)
        assert inside.all(), f"{(~inside).sum()} element(s) {'written' if writes else 'read'} outside every tensor"
        x, y, z = program
        self.touched[writes].append(((x << 40) + (y << 20) + z, addresses))

    def finish(self, name: str) -> None:
        """One writer an address, and no reader beside it."""
        owner: dict[int, int] = {}
        for program, addresses in self.touched[True]:
            for address in addresses.tolist():
                assert owner.setdefault(address, program) == program, f"{name}: two programs write one address"
        for program, addresses in self.touched[False]:
            for address in addresses.tolist():
                assert owner.get(address, program) == program, f"{name}: a program reads what another writes"


@pytest.fixture(autouse=True)
def watch(monkeypatch: pytest.MonkeyPatch) -> Iterator[Watch]:
    """Every launch of a test is watched; a test that launches nothing fails."""
    assert os.environ.get("TRITON_INTERPRET") == "1", "tests/kernels/triton/test_interpreter.py runs these"
    from triton.runtime import interpreter

    seen = Watch()
    builder, executor = interpreter.InterpreterBuilder, interpreter.GridExecutor
    load, store, call = builder.create_masked_load, builder.create_masked_store, executor.__call__
    patch_lang = interpreter._patch_lang

    def watched_load(self: Any, ptrs: Any, mask: Any, *rest: Any) -> Any:
        seen.note(ptrs.data, mask.data, self.grid_idx, writes=False)
        return load(self, ptrs, mask, *rest)

    def watched_store(self: Any, ptrs: Any, value: Any, mask: Any, *rest: Any) -> Any:
        seen.note(ptrs.data, mask.data, self.grid_idx, writes=True)
        return store(self, ptrs, value, mask, *rest)

    def watched_call(self: Any, *args: Any, **kwargs: Any) -> None:
        seen.begin(args)
        seen.patched.clear()
        call(self, *args, **kwargs)
        seen.finish(self.fn.__name__)

    class Done:
        def restore(self) -> None:
            """Nothing was changed."""

    def patch_once(fn: Any) -> Any:
        """Patched once a launch and module; the interpreter would do it again at every call of a helper."""
        if fn.__module__ in seen.patched:
            return Done()
        seen.patched.add(fn.__module__)
        return patch_lang(fn)

    monkeypatch.setattr(builder, "create_masked_load", watched_load)
    monkeypatch.setattr(builder, "create_masked_store", watched_store)
    monkeypatch.setattr(executor, "__call__", watched_call)
    monkeypatch.setattr(interpreter, "_patch_lang", patch_once)
    yield seen
    assert seen.launches > 0
