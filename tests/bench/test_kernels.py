"""The harness: what is wrong is refused before a clock runs, and whoever cannot run is named with the reason."""

from __future__ import annotations

import csv
import math
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from genossm.bench import kernels
from genossm.bench.picture import panels
from genossm.bench.race import Settings, race
from genossm.bench.rows import COLUMNS, Row, from_csv, merged, slopes, table, to_csv
from genossm.errors import GenoSSMError
from genossm.kernels.benchmark import Case, Entrant, Problem, Work, operator_case
from genossm.kernels.peaks import Meter, Peaks
from genossm.report.kernel_figures import kernel_curves


class WrongSlope(torch.autograd.Function):
    """A square whose gradient is off by 1 %."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Tensor:
        return 2.02 * ctx.saved_tensors[0] * dy


def must_not_be_timed(seqlen: int, device: torch.device) -> Problem:
    raise AssertionError("it was timed")


def never_written(x: Tensor) -> Tensor:
    return x * x + torch.where(torch.arange(x.shape[1]) == 100, math.nan, 0.0)[:, None]


@pytest.mark.parametrize(
    ("broken", "quantity"),
    [
        (lambda x: x * x * 1.001, "y"),
        (WrongSlope.apply, "dx"),
        (never_written, "y"),
    ],
    ids=["value", "gradient", "NaN"],
)
def test_a_wrong_operator_is_refused_and_not_timed(make_case, settings: Settings, tmp_path: Path, broken, quantity):
    case = make_case(broken, prepare=must_not_be_timed)
    told: list[str] = []
    report = kernels.run([case], settings, tmp_path, told.append)
    assert list(report.refused) == ["square"]
    assert report.refused["square"].quantity == quantity
    assert report.rows == []
    assert any("refused" in line for line in told)
    with open(tmp_path / "errors.csv", newline="") as handle:
        assert any(not float(row["error"]) < float(row["bound"]) for row in csv.DictReader(handle))


def test_every_variant_counts(make_case, settings: Settings, tmp_path: Path) -> None:
    """Right when it is called plainly, wrong with an option."""

    def shifted(x: Tensor, *, places: int = 0) -> Tensor:
        return x.roll(places, 1) ** 2

    case = make_case(
        lambda x, places=0: x * x, prepare=must_not_be_timed, variants=lambda seqlen: {"moved": {"places": 1}}
    )
    report = kernels.run([replace(case, reference=shifted)], settings, tmp_path, lambda text: None)
    assert report.refused["square"].variant == "moved"


def test_a_refused_operator_loses_its_earlier_rows(make_case, settings: Settings, tmp_path: Path) -> None:
    kernels.run([make_case()], settings, tmp_path, lambda text: None)
    assert len(from_csv(tmp_path / "kernels.csv")) > 0
    kernels.run([make_case(lambda x: x + x)], settings, tmp_path, lambda text: None, append=True)
    assert from_csv(tmp_path / "kernels.csv") == []


def test_rows_hold_time_memory_and_the_roofline(make_case, settings: Settings, sleeper: Callable[..., Entrant]) -> None:
    other = sleeper("slow", lambda seqlen: 0.03, [])
    rows = list(race(make_case(entrants=(other,)), settings, Meter(torch.device("cpu"))))
    assert {(r.contestant, r.pass_, r.length) for r in rows} == {
        *(("genossm", name, length) for name in ("forward", "training", "backward") for length in (300, 900)),
        *(("slow", "forward", length) for length in (300, 900)),
    }
    for row in rows:
        assert row.low <= row.seconds <= row.high
        assert row.ns_per_token == pytest.approx(1e9 * row.seconds / row.length)
        assert row.note == ""
        if row.contestant == "genossm":
            assert row.roofline > 0
            assert row.ratio == 1
        else:
            assert math.isnan(row.roofline)
            assert row.repeats == 3
            assert 0.03 < row.seconds < 1
            assert row.ratio > 10
    forward, training = (
        next(r for r in rows if (r.pass_, r.length) == (name, 900)) for name in ("forward", "training")
    )
    assert (forward.multiply_adds, forward.bytes) == (4, 32)
    assert (training.multiply_adds, training.bytes) == (8, 64)


def test_what_would_take_too_long_is_not_run(make_case, settings: Settings, sleeper: Callable[..., Entrant]) -> None:
    seen: list[int] = []
    slow = sleeper("quadratic", lambda seqlen: (seqlen / 2048) ** 2, seen)
    rows = list(
        race(
            make_case(entrants=(slow,), passes=("forward",)),
            replace(settings, lengths=(32768,), limit=1.0),
            Meter(torch.device("cpu")),
        )
    )
    refused = next(row for row in rows if row.contestant == "quadratic")
    told = re.fullmatch(r"over 1 s \(about (\d+) s\)", refused.note)
    assert told is not None
    assert 100 < int(told[1]) < 400  # 256
    assert max(seen) <= 2048
    assert next(row for row in rows if row.contestant == "genossm").seconds > 0


def test_what_would_take_too_much_memory_is_not_run(make_case, settings: Settings) -> None:
    made: list[int] = []

    def prepare(seqlen: int, device: torch.device) -> Problem:
        made.append(seqlen)
        return Problem(lambda: torch.ones(seqlen, seqlen, 16).sum())

    huge = Entrant("quadratic", prepare, passes=("forward",))
    rows = list(
        race(
            make_case(entrants=(huge,), passes=("forward",)),
            replace(settings, lengths=(8192,), limit=1e6, memory=1e9),
            Meter(torch.device("cpu")),
        )
    )
    assert (
        next(row.note for row in rows if row.contestant == "quadratic")
        == "out of memory (about 4 GB; 1 GB may be taken)"
    )
    assert max(made) <= 2048


def test_an_allocation_that_fails_is_a_row(make_case, settings: Settings) -> None:
    greedy = Entrant(
        "greedy",
        lambda seqlen, device: Problem(lambda: torch.ones(1 << 45 if seqlen > 300 else 1)),
        passes=("forward",),
    )
    rows = list(race(make_case(entrants=(greedy,), passes=("forward",)), settings, Meter(torch.device("cpu"))))
    assert {row.length: row.note for row in rows if row.contestant == "greedy"} == {300: "", 900: "out of memory"}


def test_an_absent_peer_is_named(make_case, settings: Settings) -> None:
    def prepare(seqlen: int, device: torch.device) -> Problem:
        import a_package_that_nobody_has  # type: ignore[import-not-found]

        raise AssertionError(a_package_that_nobody_has)

    rows = list(race(make_case(entrants=(Entrant("x", prepare),)), settings, Meter(torch.device("cpu"))))
    assert {row.note for row in rows if row.contestant == "x"} == {"not installed (a_package_that_nobody_has)"}


def test_a_very_long_sample_is_the_only_one(make_case, settings: Settings, sleeper: Callable[..., Entrant]) -> None:
    seen: list[int] = []
    slow = sleeper("long", lambda seqlen: 2.1 if seqlen == 900 else 0.0, seen)
    case = make_case(entrants=(slow,), passes=("forward", "training"))
    rows = list(race(case, replace(settings, lengths=(900,), passes=("forward",)), Meter(torch.device("cpu"))))
    assert {row.pass_ for row in rows} == {"forward"}
    long = next(row for row in rows if row.contestant == "long")
    assert (long.repeats, seen.count(900)) == (1, 1)
    assert 2.1 <= long.seconds == long.low == long.high < 4


def test_peers_can_be_left_out(make_case, settings: Settings) -> None:
    case = make_case(entrants=(Entrant("x", must_not_be_timed),))
    rows = race(case, replace(settings, peers=False), Meter(torch.device("cpu")))
    assert {row.contestant for row in rows} == {"genossm"}


def some_rows() -> list[Row]:
    timed = [
        Row("op", "genossm", "forward", n, 2, "cpu", 3, 1e-6 * n**1.02, 1e-6 * n, 2e-6 * n, 1000.0, 8.0)
        for n in (16384, 65536, 262144)
    ]
    return [*timed, Row("op", "peer", "forward", 16384, 2, "cpu", note="over 60 s (about 90 s)")]


def test_csv_comes_back_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "kernels.csv"
    path.write_text(to_csv(some_rows()))
    again = from_csv(path)
    assert to_csv(again) == path.read_text()
    assert path.read_text().splitlines()[0].split(",") == COLUMNS
    assert [row.key for row in again] == [row.key for row in some_rows()]


@pytest.mark.parametrize(
    ("change", "where"),
    [(lambda text: "a,b\n1,2\n", "columns"), (lambda text: text.replace("16384", "many", 1), ":2:")],
)
def test_a_foreign_csv_is_named(tmp_path: Path, change, where: str) -> None:
    path = tmp_path / "kernels.csv"
    path.write_text(change(to_csv(some_rows())))
    with pytest.raises(GenoSSMError, match=where):
        from_csv(path)


def test_a_later_measurement_replaces_an_earlier_one() -> None:
    rows = some_rows()
    again = replace(rows[0], seconds=7.0)
    assert merged(rows, [again]) == [rows[3], again, *rows[1:3]]  # by length


def test_the_slope_is_that_of_the_times() -> None:
    assert slopes(some_rows()) == {("op", "forward"): (pytest.approx(1.02), 16384, 262144)}


def test_the_table_shows_the_reason_in_place_of_figures() -> None:
    lines = table(some_rows())
    assert lines[-1].endswith("over 60 s (about 90 s)")
    assert all(len(line.split()) >= 8 for line in lines[:-1])


def test_the_floor_is_arithmetic_or_memory() -> None:
    peaks = Peaks(multiply_adds=100.0, exponentials=10.0, bytes=1000.0)
    assert Work(200, 10, 0).floor(peaks) == pytest.approx(3)
    assert (Work(200, 10, 0) + Work(0, 0, 9000)).floor(peaks) == pytest.approx(9)
    assert (Work(100) * 3).floor(replace(peaks, exponentials=math.nan, multiply_adds=math.nan)) == 0


def test_the_picture_has_a_panel_for_time_and_one_for_memory() -> None:
    shown = panels(some_rows())
    assert {title: set(curves) for title, (_, curves) in shown.items()} == {
        "op, forward": {"genossm"},
        "op, forward: memory": {"genossm"},
    }
    assert kernel_curves(shown).count("<svg") == 1


@pytest.mark.parametrize("name", ["selective_scan", "ssd", "causal_conv1d", "rms_norm", "lti", "cross_entropy"])
def test_every_operator_declares_work_that_grows_with_length(name: str) -> None:
    case: Case = operator_case(name)
    assert case.name == name
    for work in (case.forward, case.backward):
        assert work(200).multiply_adds == pytest.approx(2 * work(100).multiply_adds)
        assert work(200).bytes == pytest.approx(2 * work(100).bytes)


@pytest.mark.slow
def test_a_new_process_tells_its_times(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "genossm.bench.startup", "rms_norm"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert '"first calls"' in done.stdout


@pytest.mark.slow
def test_the_static_table_needs_no_gpu() -> None:
    pytest.importorskip("triton")
    code = (
        "from genossm.bench.static import static_rows, static_csv, static_table;"
        "rows = static_rows(['embedding', 'mamba_block'], ['sm_90']);"
        "print(static_csv(rows)); print(*static_table(rows), sep='\\n')"
    )
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True)
    text, _, shown = done.stdout.partition("\n\n")
    rows = list(csv.DictReader(text.splitlines()))
    assert {(row["operator"], row["target"]) for row in rows} == {("embedding", "sm_90")}
    assert all(int(row["registers"]) > 0 and float(row["over_bound"]) > 0 for row in rows)
    assert len(shown.strip().splitlines()) == 1 + len(rows)
