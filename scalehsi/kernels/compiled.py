"""Numba helpers for functions called once per pixel: no reference counting, and SIMD addition of short rows.

Two costs are negligible for a function that runs for a millisecond, but dominate one that runs for 50 ns. Numba counts
references to every array of a call with an atomic instruction; a function that allocates no array does not need this
(`lean`). The compiler does not recognise that rows of 8 or 16 numbers fit into SIMD registers; `add_row` states it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar, cast

import numba
import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.core.options import DefaultOptions
from numba.extending import intrinsic
from numba.np.numpy_support import carray

Function = TypeVar("Function", bound=Callable[..., Any])

# Sums may be reordered, so that the compiler can use SIMD registers; NaN and Inf keep their meaning.
FAST_SUMS: Final = {"reassoc", "contract", "nsz", "arcp"}
LANES: Final = 8
"""float64 numbers in the widest SIMD register; where registers are narrower, the compiler uses several."""
NO_REFERENCE_COUNTS: Final[dict[str, Any]] = {"_nrt": False} if hasattr(DefaultOptions, "_nrt") else {}
"""A private option of numba; in a version of numba without it, results are the same but slower."""
LEAN_OPTIONS: Final[dict[str, Any]] = {"cache": True, "nogil": True, "error_model": "numpy", **NO_REFERENCE_COUNTS}


def lean(function: Function) -> Function:
    """Compile a function that allocates no arrays, without reference counts; division by zero returns Inf."""
    return cast(Function, numba.njit(**LEAN_OPTIONS)(function))


def lean_sums(function: Function) -> Function:
    """Compile as `lean` does, and allow sums to be reordered."""
    return cast(Function, numba.njit(fastmath=FAST_SUMS, **LEAN_OPTIONS)(function))


def inlined(function: Function) -> Function:
    """Compile as `lean` does, and inline: for functions of many arrays, where a call costs more than the work."""
    return cast(Function, numba.njit(forceinline=True, **LEAN_OPTIONS)(function))


def inlined_sums(function: Function) -> Function:
    """Compile as `inlined` does, and allow sums to be reordered."""
    return cast(Function, numba.njit(fastmath=FAST_SUMS, forceinline=True, **LEAN_OPTIONS)(function))


def padded_width(n: int, lanes: int = LANES) -> int:
    """Round a row length up to a multiple of the lanes of a SIMD register.

    Examples
    --------
    >>> padded_width(1), padded_width(8), padded_width(10)
    (8, 8, 16)
    """
    return -(-n // lanes) * lanes


def aligned_zeros(rows: int, width: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Allocate zeros (rows, width) at a cache-line boundary: no SIMD load crosses two lines, which halves the time."""
    line = 64 // 8
    buffer = np.zeros(rows * width + line)
    first = -(buffer.ctypes.data // 8) % line
    return buffer[first : first + rows * width].reshape(rows, width)


def _add_row(_: Any, table: Any, row: Any, factor: Any, values: Any) -> Any:
    """Add in place, ``table[row] += factor * values``: table (rows, width), values (width,), C-contiguous float64.

    The width must be a multiple of LANES; neither the width nor the row number is checked.
    """
    number = ir.DoubleType()
    vector = ir.VectorType(number, LANES)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        target = context.make_array(signature.args[0])(context, builder, args[0])
        source = context.make_array(signature.args[3])(context, builder, args[3])
        width = builder.extract_value(target.shape, 1)
        first = builder.gep(target.data, [builder.mul(args[1], width)])
        factors = builder.insert_element(ir.Constant(vector, ir.Undefined), args[2], ir.Constant(ir.IntType(32), 0))
        lanes = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
        factors = builder.shuffle_vector(factors, ir.Constant(vector, ir.Undefined), lanes)
        with cgutils.for_range(builder, builder.udiv(width, width.type(LANES))) as loop:
            offset = builder.mul(loop.index, width.type(LANES))
            in_target = builder.bitcast(builder.gep(first, [offset]), vector.as_pointer())
            in_source = builder.bitcast(builder.gep(source.data, [offset]), vector.as_pointer())
            part = builder.fmul(builder.load(in_source, align=8), factors, flags=("contract",))
            builder.store(builder.fadd(builder.load(in_target, align=8), part, flags=("contract",)), in_target, align=8)
        return context.get_dummy_value()

    return types.void(table, types.intp, types.float64, values), generate


add_row: Any = intrinsic(_add_row)


KINDS: Final = {"u1": 0, "u2": 1, "f4": 2, "f8": 3}
"""Numbers of the data types that `read_tile` reads."""


def placed(x: np.ndarray[Any, Any]) -> tuple[int, int, int]:
    """Address, bytes from row to row, and data type of the rows of ``x`` (P, E), whose values lie side by side.

    A compiled function that takes these in place of the array is compiled once for all data types, for arrays that may
    be written and those that may not. The caller must hold a reference to ``x`` until it returns.
    """
    return x.ctypes.data, x.strides[0], KINDS[x.dtype.str[1:]]


def _pointer(_: Any, address: Any) -> Any:
    """The pointer of an address."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], ir.IntType(8).as_pointer())

    return types.voidptr(types.intp), generate


pointer: Any = intrinsic(_pointer)


@numba.njit(cache=True, nogil=True)
def read_tile(address: int, row_bytes: int, kind: int, first: int, rows: int, tile: Any) -> None:
    """Copy and convert ``rows`` pixels of the data at an address (see `placed`) to ``tile`` (T, E); pad it with zeros.

    first: the first of these pixels.
    """
    channels = (tile.shape[1],)
    for p in range(tile.shape[0]):
        at = address + (first + p) * row_bytes
        if p >= rows:
            tile[p, :] = 0
        elif kind == 0:
            bytes_ = carray(pointer(at), channels, np.uint8)
            for e in range(channels[0]):
                tile[p, e] = bytes_[e]
        elif kind == 1:
            words = carray(pointer(at), channels, np.uint16)
            for e in range(channels[0]):
                tile[p, e] = words[e]
        elif kind == 2:
            singles = carray(pointer(at), channels, np.float32)
            for e in range(channels[0]):
                tile[p, e] = singles[e]
        else:
            doubles = carray(pointer(at), channels, np.float64)
            for e in range(channels[0]):
                tile[p, e] = doubles[e]
