"""Explicit SIMD for the CPU kernels: a numba type that is an LLVM vector of float32, one lane a channel.

No compiler is needed on the user's machine and nothing is left to an auto-vectoriser. The width follows the host:
16 lanes with AVX-512, 8 with AVX2, else 4. Arithmetic is written with ``+ - *``, ``fma`` and the functions below.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic, lower_builtin, models, register_model, type_callable

_FEATURES = llvm.get_host_cpu_features()
LANES = 16 if _FEATURES.get("avx512f") else 8 if _FEATURES.get("avx2") else 4

LINE = 16
"""Numbers of a cache line."""

_F32 = ir.FloatType()
_I32 = ir.IntType(32)
_VF = ir.VectorType(_F32, LANES)
_VI = ir.VectorType(_I32, LANES)


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function`` compiled by numba at its first call and kept on disk; it runs without the interpreter's lock."""
    return njit(nogil=True, cache=True, error_model="numpy", boundscheck=False)(function)


class _Vector(types.Type):
    def __init__(self) -> None:
        super().__init__(name=f"float32x{LANES}")


vector = _Vector()


@register_model(_Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, fe_type: Any) -> None:
        super().__init__(manager, fe_type, _VF)


def _constant(value: float) -> ir.Constant:
    return ir.Constant(_VF, [float(np.float32(value))] * LANES)


def _int_constant(value: int) -> ir.Constant:
    return ir.Constant(_VI, [value] * LANES)


def _splat(builder: ir.IRBuilder, scalar: ir.Value) -> ir.Value:
    undefined = ir.Constant(_VF, ir.Undefined)
    first = builder.insert_element(undefined, scalar, ir.Constant(_I32, 0))
    return builder.shuffle_vector(first, undefined, ir.Constant(_VI, [0] * LANES))


def _call(builder: ir.IRBuilder, name: str, *args: ir.Value) -> ir.Value:
    kind = ir.FunctionType(_VF, [_VF] * len(args))
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, f"llvm.{name}.v{LANES}f32"), args)


def _fma(builder: ir.IRBuilder, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
    # fmuladd, not fma: on a CPU without FMA the latter becomes a library call a lane
    return _call(builder, "fmuladd", a, b, c)


def _address(
    context: Any, builder: ir.IRBuilder, kind: Any, array: ir.Value, offset: ir.Value, to: ir.Type
) -> ir.Value:
    data = context.make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [offset]), to.as_pointer())


@intrinsic
def load(typing: Any, array: Any, offset: Any) -> Any:
    """LANES consecutive numbers of a float32 array, from ``offset`` on; no bounds check, no alignment."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        value = builder.load(_address(context, builder, signature.args[0], args[0], args[1], _VF))
        value.align = 4
        return value

    return vector(array, types.intp), generate


@intrinsic
def store(typing: Any, array: Any, offset: Any, value: Any) -> Any:
    """Write LANES consecutive numbers of a float32 array, from ``offset`` on."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        builder.store(args[2], _address(context, builder, signature.args[0], args[0], args[1], _VF)).align = 4
        return context.get_dummy_value()

    return types.void(array, types.intp, vector), generate


@intrinsic
def prefetch(typing: Any, array: Any, offset: Any) -> Any:
    """Ask for the cache line at ``offset`` of a float32 array, which may lie outside it."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        pointer = _address(context, builder, signature.args[0], args[0], args[1], ir.IntType(8))
        kind = ir.FunctionType(ir.VoidType(), [pointer.type, _I32, _I32, _I32])
        name = "llvm.prefetch.p0" if getattr(pointer.type, "is_opaque", False) else "llvm.prefetch.p0i8"
        function = cgutils.get_or_insert_function(builder.module, kind, name)
        builder.call(function, [pointer, _I32(0), _I32(2), _I32(1)])
        return context.get_dummy_value()

    return types.void(array, types.intp), generate


@intrinsic
def load_splat(typing: Any, array: Any, offset: Any) -> Any:
    """One number of a float32 array in every lane."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        return _splat(builder, builder.load(_address(context, builder, signature.args[0], args[0], args[1], _F32)))

    return vector(array, types.intp), generate


@intrinsic
def splat(typing: Any, scalar: Any) -> Any:
    """A float32 in every lane."""
    return vector(types.float32), lambda context, builder, signature, args: _splat(builder, args[0])


@intrinsic
def fma(typing: Any, a: Any, b: Any, c: Any) -> Any:
    """a * b + c."""
    return vector(vector, vector, vector), lambda context, builder, signature, args: _fma(builder, *args)


def _operator(symbol: Callable[..., Any], name: str) -> None:
    @type_callable(symbol)
    def _type(context: Any) -> Any:
        return lambda a, b: vector if a == vector and b == vector else None

    @lower_builtin(symbol, vector, vector)
    def _lower(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        return getattr(builder, name)(*args)


_operator(operator.add, "fadd")
_operator(operator.sub, "fsub")
_operator(operator.mul, "fmul")
_operator(operator.truediv, "fdiv")

# 2**x on [-1/2, 1/2], exactly 1 at 0, least maximal relative error (9e-8). Nearest rounding of the argument and the
# exact 1 keep a decay close to 1 unbiased, which the gradient of A feels.
_EXP2 = (6.931469776e-01, 2.402224208e-01, 5.550733746e-02, 9.671512862e-03, 1.326472709e-03)


def _exp2(builder: ir.IRBuilder, x: ir.Value) -> ir.Value:
    low = _constant(-126.0)
    x = builder.select(builder.fcmp_ordered(">", x, low), x, low)
    whole = _call(builder, "rint", x)
    rest = builder.fsub(x, whole)
    value = _constant(_EXP2[-1])
    for coefficient in (*_EXP2[-2::-1], 1.0):
        value = _fma(builder, value, rest, _constant(coefficient))
    exponent = builder.shl(builder.fptosi(whole, _VI), _int_constant(23))
    return builder.bitcast(builder.add(builder.bitcast(value, _VI), exponent), _VF)


@intrinsic
def decay(typing: Any, x: Any) -> Any:
    """2**x for x <= 0; results below 2**-126 are 2**-126."""
    return vector(vector), lambda context, builder, signature, args: _exp2(builder, args[0])


_LOG2E = 1.4426950408889634


@intrinsic
def sigmoid(typing: Any, x: Any) -> Any:
    """1 / (1 + exp(-x))."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        x, high = builder.fmul(args[0], _constant(-_LOG2E)), _constant(127.0)
        e = _exp2(builder, builder.select(builder.fcmp_ordered("<", x, high), x, high))
        return builder.fdiv(_constant(1.0), builder.fadd(_constant(1.0), e))

    return vector(vector), generate


@intrinsic
def softplus(typing: Any, x: Any) -> Any:
    """log(1 + exp(x)) = max(x, 0) + 2 artanh(s), s = e / (2 + e), e = exp(-|x|): a series in s**2 <= 1/9."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        x = args[0]
        e = _exp2(builder, builder.fmul(_call(builder, "fabs", x), _constant(-_LOG2E)))
        s = builder.fdiv(e, builder.fadd(_constant(2.0), e))
        square = builder.fmul(s, s)
        series = _constant(2 / 15)
        for odd in (13, 11, 9, 7, 5, 3, 1):
            series = _fma(builder, series, square, _constant(2 / odd))
        positive = builder.select(builder.fcmp_ordered(">", x, _constant(0.0)), x, _constant(0.0))
        return _fma(builder, s, series, positive)

    return vector(vector), generate


@intrinsic
def total(typing: Any, x: Any) -> Any:
    """The sum of the lanes, as float32, pairwise."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        value, width = args[0], LANES
        while width > 1:
            width //= 2
            undefined = ir.Constant(value.type, ir.Undefined)
            half = ir.VectorType(_I32, width)
            low = builder.shuffle_vector(value, undefined, ir.Constant(half, list(range(width))))
            high = builder.shuffle_vector(value, undefined, ir.Constant(half, list(range(width, 2 * width))))
            value = builder.fadd(low, high)
        return builder.extract_element(value, ir.Constant(_I32, 0))

    return types.float32(vector), generate


@compiled
def scratch(count):  # type: ignore[no-untyped-def]  # compiled from the types of its arguments
    """``count`` float32 of memory, not set, from a cache line's start: vectors that cross a line load at half speed."""
    memory = np.empty(count + LINE, np.float32)
    skip = -(memory.ctypes.data // 4) % LINE
    return memory[skip : skip + count]
