"""Sums over windows of pixels of a lazy array: each chunk adds up what it has, and chunks that share a window meet.

To put chunks together first, so that no window crosses a border, would move data between workers: two and a half times
the cost of reading them. What a chunk adds up is smaller by the size of a window, and only that is moved.
"""

from __future__ import annotations

import itertools
import math
import uuid
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import dask.array as da
import numpy as np

from scalehsi.blocks import graph
from scalehsi.kernels.resampling.pixel_windows import window_sums


class _Span(NamedTuple):
    """Along one dim: where a chunk begins, the windows that it touches, and those that begin in it."""

    start: int
    touched: range
    owned: range


def add_up_windows(data: da.Array, used: da.Array | None, *, factors: Sequence[int], dtype: Any) -> da.Array:
    """Sums over windows of neighbours along every dim; what does not fill a last window is left out.

    Parameters
    ----------
    data : dask array, shape (..., E)
    used : dask array of bool, shape (...), optional
        Pixels that count, in the chunks of ``data``; by default all.
    factors : sequence of int
        Length of a window along each dim.
    dtype : dtype
        Of the sums.

    Returns
    -------
    dask array
        With the windows that begin in a chunk as a chunk.

    Examples
    --------
    >>> sums = add_up_windows(da.ones((7, 2), chunks=(2, 2), dtype="u1"), None, factors=(3, 1), dtype="u1")
    >>> sums.chunks, sums.compute().tolist()
    (((1, 1), (2,)), [[3, 3], [3, 3]])
    """
    data = data.rechunk({data.ndim - 1: _whole(data.chunks[-1], factors[-1])})
    stop = tuple(n // f * f for n, f in zip(data.shape, factors, strict=True))
    spans = [_spans(own, f, n) for own, f, n in zip(data.chunks, factors, stop, strict=True)]
    token = uuid.uuid4().hex[:8]
    parts = data.to_delayed()
    masks = None if used is None else used.to_delayed()
    calls: dict[Any, graph.Call] = {}
    for cell in itertools.product(*map(range, parts.shape)):
        start = tuple(spans[axis][i].start for axis, i in enumerate(cell))
        call = partial(_add_up, factors=tuple(factors), dtype=dtype, start=start, stop=stop)
        calls[cell] = (call, (parts[cell],) if masks is None else (parts[cell], masks[cell[:-1]]))
    sums = dict(zip(calls, graph.tasks(f"bin-part-{token}", calls.values()), strict=True))
    owners = [[i for i, span in enumerate(own) if len(span.owned)] for own in spans]
    name = f"bin-{token}"
    whole: dict[Any, graph.Call] = {}
    for place in itertools.product(*(range(len(own)) for own in owners)):
        here = [spans[axis][owners[axis][i]].owned for axis, i in enumerate(place)]
        near = [
            [i for i, span in enumerate(own) if span.touched.start < want.stop and want.start < span.touched.stop]
            for own, want in zip(spans, here, strict=True)
        ]
        cells = list(itertools.product(*near))
        offsets = [
            tuple(spans[axis][i].touched.start - here[axis].start for axis, i in enumerate(cell)) for cell in cells
        ]
        whole[(name, *place)] = (partial(_meet, tuple(map(len, here)), offsets), [sums[cell] for cell in cells])
    chunks = tuple(tuple(len(own[i].owned) for i in some) for own, some in zip(spans, owners, strict=True))
    return da.Array(graph.layer_of_tasks(name, whole), name, chunks=chunks, dtype=dtype)


def _spans(chunks: Sequence[int], factor: int, stop: int) -> list[_Span]:
    """The chunks along one dim.

    Examples
    --------
    >>> [(s.touched, s.owned) for s in _spans((4, 1, 5), 3, 9)]
    [(range(0, 2), range(0, 2)), (range(1, 2), range(2, 2)), (range(1, 3), range(2, 3))]
    """
    found = []
    for start, end in itertools.pairwise([0, *itertools.accumulate(chunks)]):
        low, high = min(start, stop), min(end, stop)
        touched = range(low // factor, max(low // factor, math.ceil(high / factor)))
        found.append(_Span(start, touched if high > low else range(0), range(-(-low // factor), -(-high // factor))))
    return found


def _whole(chunks: Sequence[int], factor: int) -> tuple[int, ...]:
    """Chunks moved to where windows end, the last one with what is left over.

    Examples
    --------
    >>> _whole((5, 5, 1), 3), _whole((2, 2, 2), 6), _whole((4, 4), 2)
    ((3, 8), (6,), (4, 4))
    """
    edges = sorted({end // factor * factor for end in itertools.accumulate(chunks)} - {0})
    return tuple(int(n) for n in np.diff([0, *edges[:-1], sum(chunks)]))


def _add_up(x: Any, used: Any = None, **where: Any) -> Any:
    return window_sums(x, used, **where)


def _meet(shape: tuple[int, ...], offsets: Sequence[tuple[int, ...]], *parts: Any) -> Any:
    """The windows of a chunk from all the parts that touch them; offsets are where each part begins."""
    if len(parts) == 1 and parts[0].shape == shape and not any(offsets[0]):
        return parts[0]
    out = np.zeros(shape, dtype=parts[0].dtype)
    for part, offset in zip(parts, offsets, strict=True):
        # An offset below zero: windows that begin in a chunk before.
        target = tuple(
            slice(max(0, o), max(0, min(n, o + m))) for o, n, m in zip(offset, shape, part.shape, strict=True)
        )
        source = tuple(slice(t.start - o, t.stop - o) for t, o in zip(target, offset, strict=True))
        out[target] += part[source]
    return out
