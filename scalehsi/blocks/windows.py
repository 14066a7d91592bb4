"""Bin a lazy array: sums over windows of neighbouring pixels and channels, without moving the array between workers.

This is done by hand because `dask.array.coarsen` first moves the borders of chunks to borders of windows. That moves
data between workers, at two and a half times the cost of reading them. Here each chunk adds up its own part of each
window, and only these partial sums, smaller by the size of a window, are moved.
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
    """A chunk along one dim: where it begins, the windows that it touches, and those that begin in it."""

    start: int
    touched: range
    owned: range


def add_up_windows(data: da.Array, used: da.Array | None, *, factors: Sequence[int], dtype: Any) -> da.Array:
    """Add up windows of neighbours along every dim; an incomplete last window is left out.

    Parameters
    ----------
    data : dask array, shape (..., E)
        Counts.
    used : dask array of bool, shape (...), optional
        True for the pixels to add, in the chunks of ``data``. By default all pixels are added.
    factors : sequence of int
        Length of a window along each dim.
    dtype : dtype
        Of the sums.

    Returns
    -------
    dask array
        Each of its chunks has the windows that begin in one chunk of ``data``.

    Examples
    --------
    >>> sums = add_up_windows(da.ones((7, 2), chunks=(2, 2), dtype="u1"), None, factors=(3, 1), dtype="u1")
    >>> sums.chunks, sums.compute().tolist()
    (((1, 1), (2,)), [[3, 3], [3, 3]])
    """
    data = graph.rechunked(data, {data.ndim - 1: _whole_windows(data.chunks[-1], factors[-1])})
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
    joined: dict[Any, graph.Call] = {}
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
        joined[(name, *place)] = (partial(_add_parts, tuple(map(len, here)), offsets), [sums[cell] for cell in cells])
    chunks = tuple(tuple(len(own[i].owned) for i in some) for own, some in zip(spans, owners, strict=True))
    return da.Array(graph.layer_of_tasks(name, joined), name, chunks=chunks, dtype=dtype)


def _spans(chunks: Sequence[int], factor: int, stop: int) -> list[_Span]:
    """Describe the chunks along one dim, for windows of ``factor`` pixels that end before pixel ``stop``.

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


def _whole_windows(chunks: Sequence[int], factor: int) -> tuple[int, ...]:
    """Move the borders of chunks to ends of windows of ``factor`` channels; the last chunk takes the remainder.

    Examples
    --------
    >>> _whole_windows((5, 5, 1), 3), _whole_windows((2, 2, 2), 6), _whole_windows((4, 4), 2)
    ((3, 8), (6,), (4, 4))
    """
    edges = sorted({end // factor * factor for end in itertools.accumulate(chunks)} - {0})
    return tuple(int(n) for n in np.diff([0, *edges[:-1], sum(chunks)]))


def _add_up(x: Any, used: Any = None, **where: Any) -> Any:
    """Add up the parts of windows in one chunk."""
    return window_sums(x, used, **where)


def _add_parts(shape: tuple[int, ...], offsets: Sequence[tuple[int, ...]], *parts: Any) -> Any:
    """Add up the windows of a chunk, of ``shape``, from the partial sums of all chunks that touch them.

    ``offsets`` are the positions where each part begins.
    """
    if len(parts) == 1 and parts[0].shape == shape and not any(offsets[0]):
        return parts[0]
    out = np.zeros(shape, dtype=parts[0].dtype)
    for part, offset in zip(parts, offsets, strict=True):
        # An offset below zero belongs to windows that begin in an earlier chunk.
        target = tuple(
            slice(max(0, o), max(0, min(n, o + m))) for o, n, m in zip(offset, shape, part.shape, strict=True)
        )
        source = tuple(slice(t.start - o, t.stop - o) for t, o in zip(target, offset, strict=True))
        out[target] += part[source]
    return out
