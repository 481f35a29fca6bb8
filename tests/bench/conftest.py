"""Small cases for the harness: real computations, some of them wrong."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from genossm.bench.race import Settings
from genossm.kernels.benchmark import Case, Entrant, Outputs, Problem, Work, noise, same_inputs


def inputs(seqlen: int) -> dict[str, Tensor]:
    """x (1, seqlen, 4)."""
    return {"x": noise(1, seqlen, 4, seed=1)}


def square(x: Tensor) -> Outputs:
    """The definition of the cases here."""
    return x * x


def one_each(seqlen: int) -> Work:
    """A multiplication a number, read and written."""
    return Work(4 * seqlen, 0, 32 * seqlen)


@pytest.fixture
def make_case() -> Callable[..., Case]:
    """A case of the name ``square`` whose implementation is given."""

    def make(run: Callable[..., Outputs] = square, **rest: object) -> Case:
        return Case("square", inputs, run, square, one_each, one_each, **rest)  # type: ignore[arg-type]

    return make


@pytest.fixture
def settings() -> Iterator[Settings]:
    """Two lengths, three rounds, one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield Settings((300, 900), torch.device("cpu"), repeats=3, limit=5.0, peers=True, threads=1)
    torch.set_num_threads(threads)


@pytest.fixture
def sleeper() -> Callable[..., Entrant]:
    """A contestant that takes ``seconds(seqlen)``, and can say that it ran."""

    def make(name: str, seconds: Callable[[int], float], seen: list[int]) -> Entrant:
        def prepare(seqlen: int, device: torch.device) -> Problem:
            problem = same_inputs(inputs, square)(seqlen, device)

            def run() -> Outputs:
                seen.append(seqlen)
                time.sleep(seconds(seqlen))
                return problem.run()

            return Problem(run, problem.leaves)

        return Entrant(name, prepare, passes=("forward",))

    return make
