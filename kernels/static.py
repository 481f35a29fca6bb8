"""What the Triton kernels cost, read from their machine code: no GPU is needed, and none is used.

Every launcher is run on tensors without memory; what it would launch is compiled ahead of time for each target, and
registers, spills, shared memory and the instructions of the loops are read from the result. Bytes a token count every
tensor that a kernel is given once, against the same sum over the operator's own inputs and outputs.

    python -m genossm.kernels.static [--operator selective_scan] [--target sm_90] [--json FILE]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction

from genossm.kernels import targets
from genossm.kernels.static_cases import CASES

TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "sm_100": GPUTarget("cuda", 100, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}
TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
DTYPES = {
    torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16", torch.uint8: "u8", torch.int8: "i8",
    torch.int32: "i32", torch.int64: "i64", torch.bool: "i1",
}  # fmt: skip


@dataclass(frozen=True)
class Launch:
    """One kernel launch: what the compiler needs to know, and the bytes of the tensors it is given."""

    kernel: JITFunction
    signature: dict[str, str]
    constants: dict[str, Any]
    divisible: tuple[int, ...]
    options: dict[str, Any]
    grid: tuple[int, ...]
    bytes: int

    def key(self, target: str) -> str:
        """Changes with the source, the constants, the target and the version of Triton."""
        parts = (self.kernel.cache_key, self.signature, self.constants, self.divisible, self.options)
        return hashlib.sha256(repr((triton.__version__, target, *parts)).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Figures:
    """What the compiler made of a launch; ``loops`` holds instruction counts, outermost first."""

    registers: int
    spilled: int
    shared: int
    loops: list[dict[str, int]]


@contextmanager
def recorded(target: str) -> Iterator[list[Launch]]:
    """Inside, launches for ``target`` are noted and not run."""
    launches: list[Launch] = []

    def run(kernel: JITFunction, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> None:
        names = {p.name for p in kernel.params}
        bound = kernel.signature.bind(*args, **{k: v for k, v in kwargs.items() if k in names})
        options = {k: v for k, v in kwargs.items() if k not in names}
        launches.append(_launch(kernel, dict(bound.arguments), options, tuple(grid)))

    with mock.patch.object(JITFunction, "run", run), mock.patch.object(targets, "target", return_value=target):
        yield launches


def _launch(kernel: JITFunction, arguments: dict[str, Any], options: dict[str, Any], grid: tuple[int, ...]) -> Launch:
    """Types and specialisation as Triton's own launcher derives them: None and 1 are constants, so is alignment."""
    signature, constants, divisible, size = {}, {}, [], 0
    for position, parameter in enumerate(kernel.params):
        value = arguments[parameter.name]
        if isinstance(value, Tensor):
            signature[parameter.name] = "*" + DTYPES[value.dtype]
            divisible.append(position)
            size += value.numel() * value.element_size()
        elif parameter.is_constexpr or value is None or (type(value) is int and value == 1):
            signature[parameter.name] = "constexpr"
            constants[parameter.name] = value
        elif isinstance(value, float):
            signature[parameter.name] = "fp32"
        else:
            signature[parameter.name] = "i32" if -(2**31) <= value < 2**31 else "i64"
            if value % 16 == 0:
                divisible.append(position)
    return Launch(kernel, signature, constants, tuple(divisible), options, grid, size)


def launches_of(case: Callable[[], Any], target: str) -> list[Launch]:
    """What one call of an operator launches on ``target``."""
    with recorded(target) as launches:
        case()
    return launches


def measure(launch: Launch, target: str) -> Figures:
    """Compile a launch and read the machine code."""
    source = ASTSource(
        fn=launch.kernel,
        signature=launch.signature,
        constexprs=launch.constants,
        attrs={(i,): [["tt.divisibility", 16]] for i in launch.divisible},
    )
    compiled = triton.compile(source, target=TARGETS[target], options=launch.options)
    if "cubin" not in compiled.asm:
        return _amd(compiled.asm["amdgcn"])
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        usage = dict(re.findall(r"(REG|STACK|LOCAL):(\d+)", _tool("cuobjdump", "-res-usage", file.name)))
        loops = _loops(_tool("nvdisasm", "-c", file.name))
    return Figures(int(usage["REG"]), int(usage["STACK"]) + int(usage["LOCAL"]), compiled.metadata.shared, loops)


def _amd(text: str) -> Figures:
    def value(name: str) -> int:
        found = re.search(rf"\.{name}:\s+(\d+)", text)
        return int(found.group(1)) if found else 0

    spilled = value("vgpr_spill_count")  # scalars that spill go to lanes of vector registers, not to memory
    labels = re.compile(r"^(\.LBB\d+_\d+):")
    code = re.compile(r"^\s+([a-z]\w+)(?:\s+(?:\S*(\.LBB\d+_\d+))?.*)?$")
    return Figures(value("vgpr_count"), spilled, value("group_segment_fixed_size"), _spans(text, labels, code))


def _tool(name: str, *arguments: str) -> str:
    return subprocess.run([str(TOOLS / name), *arguments], capture_output=True, text=True, check=True).stdout


def _loops(sass: str) -> list[dict[str, int]]:
    labels = re.compile(r"^(\.L_x_\d+):")
    code = re.compile(r"^\s+/\*[0-9a-f]{4,5}\*/\s+(?:@!?U?P\d+\s+)?([A-Z]\w*)(?:\S*\s.*?(\.L_x_\d+))?.*$")
    return _spans(sass, labels, code)


def _spans(text: str, label: re.Pattern[str], code: re.Pattern[str]) -> list[dict[str, int]]:
    """Instruction counts of every loop (the span of a backward branch), the longest first."""
    places: dict[str, int] = {}
    operations: list[str] = []
    branches: list[tuple[int, str]] = []
    for line in text.splitlines():
        if found := label.match(line):
            places[found.group(1)] = len(operations)
        elif found := code.match(line):
            operations.append(found.group(1))
            if found.group(2):
                branches.append((len(operations), found.group(2)))
    spans = {(places[name], end) for end, name in branches if name in places and places[name] < end - 1}
    loops = []
    for begin, end in sorted(spans, key=lambda span: span[0] - span[1]):
        counts: dict[str, int] = {"all": end - begin}
        for operation in operations[begin:end]:
            counts[operation] = counts.get(operation, 0) + 1
        loops.append(counts)
    return loops


def table(operators: list[str], names: list[str], known: dict[str, Any] | None = None) -> dict[str, Any]:
    """Figures by launch key; those in ``known`` are not compiled again."""
    known = known or {}
    rows: dict[str, Any] = {}
    for operator in operators:
        for case_name, case in CASES[operator].items():
            for name in names:
                for launch in launches_of(case.call, name):
                    key = launch.key(name)
                    figures = known[key]["figures"] if key in known else asdict(measure(launch, name))
                    rows[key] = {
                        "operator": operator, "case": case_name, "kernel": launch.kernel.__name__, "target": name,
                        "warps": launch.options["num_warps"], "constants": launch.constants, "figures": figures,
                        "bytes_per_token": round(launch.bytes / case.tokens, 1),
                        "bound_bytes_per_token": round(case.bytes / case.tokens, 1),
                    }  # fmt: skip
    return rows


def main(arguments: list[str] | None = None) -> int:
    """Print the table; with ``--json`` also write it, compiling only what the file does not have yet."""
    parser = argparse.ArgumentParser(prog="python -m genossm.kernels.static", description=__doc__.split("\n")[0])
    parser.add_argument("--operator", action="append", choices=list(CASES))
    parser.add_argument("--target", action="append", choices=list(TARGETS))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    known = json.loads(options.json.read_text()) if options.json and options.json.exists() else {}
    rows = table(options.operator or list(CASES), options.target or list(TARGETS), known)
    if options.json:
        kept = known if options.operator or options.target else {}  # a full table forgets what is no longer launched
        options.json.write_text(json.dumps({**kept, **rows}, indent=0) + "\n")
    print("\n".join(map(describe, rows.values())))
    return 0


def describe(row: dict[str, Any]) -> str:
    """One line of the table."""
    figures = row["figures"]
    loops = ", ".join(str(loop["all"]) for loop in figures["loops"][:3]) or "-"
    return (
        f"{row['target']:7} {row['operator']:14} {row['case']:15} {row['kernel']:18} {row['warps']} warps"
        f" {figures['registers']:4} registers"
        f" {figures['spilled']} spilled {figures['shared']:6} B shared; loops of {loops} instructions;"
        f" {row['bytes_per_token']:g} B a token (operator: {row['bound_bytes_per_token']:g})"
    )


if __name__ == "__main__":
    if os.environ.get("TRITON_INTERPRET") == "1":
        sys.exit("unset TRITON_INTERPRET: the interpreter has no machine code")
    sys.exit(main())
