"""What compiled functions that are called by the million need: no bookkeeping, and registers used for short rows.

Two costs vanish here that are nothing for a function that runs for a millisecond, and most of one that runs for 50 ns.
Numba counts references to the arrays of a call by an atomic instruction each; functions that borrow their arrays and
make none can do without (`lean`). And rows of 8 or 16 numbers are too short for the compiler to see that they fit a
register, so `add_row` says so.
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

Function = TypeVar("Function", bound=Callable[..., Any])

# Sums may be reordered, which is what lets them run in vector registers; NaN and Inf keep their meaning.
FAST: Final = {"reassoc", "contract", "nsz", "arcp"}
LANES: Final = 8
"""Numbers of float64 in the widest register; where registers are narrower the compiler takes several."""
UNCOUNTED: Final[dict[str, Any]] = {"_nrt": False} if hasattr(DefaultOptions, "_nrt") else {}
"""Numba's own name for a function without counted references; should it go, all is the same but slower."""
LEAN: Final[dict[str, Any]] = {"cache": True, "nogil": True, "error_model": "numpy", **UNCOUNTED}


def lean(function: Function) -> Function:
    """Compile a function that makes no arrays: no counted references, and division by zero gives Inf."""
    return cast(Function, numba.njit(**LEAN)(function))


def lean_sums(function: Function) -> Function:
    """The same, and sums may be reordered."""
    return cast(Function, numba.njit(fastmath=FAST, **LEAN)(function))


def inlined(function: Function) -> Function:
    """As `lean`, for a function of many arrays that is called in one or two places: it costs more to call than to
    run."""
    return cast(Function, numba.njit(forceinline=True, **LEAN)(function))


def inlined_sums(function: Function) -> Function:
    """As `inlined`, and sums may be reordered."""
    return cast(Function, numba.njit(fastmath=FAST, forceinline=True, **LEAN)(function))


def whole_rows(n: int, lanes: int = LANES) -> int:
    """The next multiple of the lanes of a register.

    Examples
    --------
    >>> whole_rows(1), whole_rows(8), whole_rows(10)
    (8, 8, 16)
    """
    return -(-n // lanes) * lanes


def aligned_zeros(rows: int, width: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """A matrix of zeros that begins where a register's load does not cross a line of the cache: half the time."""
    line = 64 // 8
    room = np.zeros(rows * width + line)
    first = -(room.ctypes.data // 8) % line
    return room[first : first + rows * width].reshape(rows, width)


def _add_row(_: Any, table: Any, row: Any, factor: Any, shares: Any) -> Any:
    """``table[row] += factor * shares``: table (rows, width), shares (width,), both C-contiguous float64.

    The width must be a multiple of LANES; neither it nor the row is checked.
    """
    number = ir.DoubleType()
    vector = ir.VectorType(number, LANES)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        target = context.make_array(signature.args[0])(context, builder, args[0])
        source = context.make_array(signature.args[3])(context, builder, args[3])
        width = builder.extract_value(target.shape, 1)
        first = builder.gep(target.data, [builder.mul(args[1], width)])
        spread = builder.insert_element(ir.Constant(vector, ir.Undefined), args[2], ir.Constant(ir.IntType(32), 0))
        lanes = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
        spread = builder.shuffle_vector(spread, ir.Constant(vector, ir.Undefined), lanes)
        with cgutils.for_range(builder, builder.udiv(width, width.type(LANES))) as loop:
            offset = builder.mul(loop.index, width.type(LANES))
            there = builder.bitcast(builder.gep(first, [offset]), vector.as_pointer())
            here = builder.bitcast(builder.gep(source.data, [offset]), vector.as_pointer())
            part = builder.fmul(builder.load(here, align=8), spread, flags=("contract",))
            builder.store(builder.fadd(builder.load(there, align=8), part, flags=("contract",)), there, align=8)
        return context.get_dummy_value()

    return types.void(table, types.intp, types.float64, shares), generate


add_row: Any = intrinsic(_add_row)
