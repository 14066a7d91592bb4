"""Memory in which the blocks of a lazy cube are read: its stored chunks, which are decoded whole, and what joins them.

A stored chunk is decoded whole even where a block needs a small part of it, and stays in memory until the last block
that needs a part of it is made. The figures come from the graph of the cube and from the metadata of the arrays that it
reads; no value is read.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import dask.array as da

from scalehsi.blocks.graph import rechunked

MAX_CHUNKS: Final = 4096
"""Of a cube with more stored chunks only the first rows of blocks are looked at."""
DECODED_AT_ONCE: Final = 10
"""Chunks of one task that Zarr decodes at the same time."""


class Reading(NamedTuple):
    """Bytes of a worker while it reads blocks.

    Attributes
    ----------
    block : int
        Of one thread that reads one block, the block included.
    shared : int
        Of stored chunks that wait for further blocks that need a part of them.
    """

    block: int
    shared: int


class _Leaf(NamedTuple):
    """A task that reads from a store: bytes of what it returns, and bytes that it fills beside that to decode it."""

    bytes: int
    beside: int


def reading(data: Any, grid: Sequence[Sequence[int]], *, file_bytes: int) -> Reading:
    """Memory that reading takes.

    Parameters
    ----------
    data : dask array, shape (..., E), or an array in memory
    grid : sequence of sequences of int
        Sizes of the blocks along each pixel dim.
    file_bytes : int
        Largest file behind the cube; 0 where none is known, and a compressed chunk is then taken to be as large as a
        decoded one.

    Examples
    --------
    >>> import zarr
    >>> stored = da.from_zarr(zarr.zeros((4, 4, 8), chunks=(4, 4, 2), dtype="u1"))
    >>> reading(stored, ((2, 2), (4,)), file_bytes=0)
    Reading(block=64, shared=128)
    """
    if not isinstance(data, da.Array):
        return Reading(0, 0)
    whole = [*grid, (data.shape[-1],)]
    shown = _first_rows(data, whole)
    window = tuple(slice(0, sum(sizes)) for sizes in shown)
    # Without Dask's optimisation every stored chunk is a task of its own, whose arguments say its size.
    joined = rechunked(data if shown == whole else data[window], tuple(map(tuple, shown)))
    keys = [(joined.name, *cell) for cell in itertools.product(*(range(len(sizes)) for sizes in shown))]
    graph = dict(joined.dask.cull(set(keys)))
    sizes = [math.prod(cell) * data.dtype.itemsize for cell in itertools.product(*shown)]
    return _reading([_leaves(graph, key) for key in keys], graph, sizes, file_bytes)


def _first_rows(data: da.Array, grid: Sequence[Sequence[int]]) -> list[Sequence[int]]:
    """The grid, cut to its first rows where the cube has many stored chunks."""
    shown = list(grid)
    chunks = data.npartitions
    for axis in range(len(shown) - 1):
        if chunks > MAX_CHUNKS:
            kept = max(1, len(shown[axis]) * MAX_CHUNKS // chunks)
            chunks = chunks * kept // len(shown[axis])
            shown[axis] = shown[axis][:kept]
    return shown


def _reading(
    needed: Sequence[set[Hashable]], graph: Mapping[Any, Any], sizes: Sequence[int], file_bytes: int
) -> Reading:
    """The figures of all blocks. needed: leaves of each block. graph: with the leaves. sizes: bytes of each block."""
    leaves: dict[Hashable, _Leaf] = {}
    first: dict[Hashable, int] = {}
    last: dict[Hashable, int] = {}
    for i, keys in enumerate(needed):
        for key in keys:
            if key not in leaves:
                leaves[key] = _leaf(graph, key, file_bytes)
            first.setdefault(key, i)
            last[key] = i
    waiting = [0] * (len(needed) + 1)
    for key, leaf in leaves.items():
        if last[key] > first[key]:
            waiting[first[key]] += leaf.bytes
            waiting[last[key] + 1] -= leaf.bytes
    shared = max(itertools.accumulate(waiting), default=0)
    block = 0
    for size, keys in zip(sizes, needed, strict=True):
        own = [leaves[key] for key in keys if last[key] == first[key]]
        beside = max((leaves[key].beside for key in keys), default=0)
        pieces = sum(leaf.bytes for leaf in own)
        # A block that is one stored chunk is what the task returns; all others are joined from pieces.
        joined = 0 if len(keys) == 1 and pieces == size else size
        block = max(block, size, pieces + max(joined, beside))
    return Reading(block, shared)


def _leaves(graph: Mapping[Any, Any], key: Hashable) -> set[Hashable]:
    """The tasks that read from stores for the block ``key``."""
    found: set[Hashable] = set()
    seen = {key}
    stack = [key]
    while stack:
        here = stack.pop()
        inputs = getattr(graph.get(here), "dependencies", ())
        if any(_is_source(need) for need in inputs):
            found.add(here)
        new = {need for need in inputs if need not in seen and not _is_source(need)}
        seen |= new
        stack.extend(new)
    return found


def _is_source(key: Hashable) -> bool:
    """Whether a key is that of an array from which others read, as `dask.array.from_array` names it."""
    return isinstance(key, str) and key.startswith("original-")


def _leaf(graph: Mapping[Any, Any], key: Hashable, file_bytes: int) -> _Leaf:
    """Sizes of a task that reads from a store; nothing where its arguments do not say what it reads."""
    task = graph[key]
    source = next(graph[need] for need in task.dependencies if _is_source(need))
    array = getattr(source, "value", source)
    window = next((tuple(arg) for arg in _arguments(task) if _is_window(arg)), None)
    shape, dtype = getattr(array, "shape", None), getattr(array, "dtype", None)
    if window is None or shape is None or dtype is None or len(window) != len(shape):
        return _Leaf(0, 0)
    spans = [s.indices(n)[:2] for s, n in zip(window, shape, strict=True)]
    read = math.prod(stop - start for start, stop in spans) * dtype.itemsize
    stored = getattr(innermost(array), "chunks", None)
    if not stored or len(stored) != len(shape):
        return _Leaf(read, 0)
    chunk = math.prod(stored) * dtype.itemsize
    touched = math.prod(-(-stop // n) - start // n for (start, stop), n in zip(spans, stored, strict=True))
    together = min(touched, DECODED_AT_ONCE)
    return _Leaf(read, together * (chunk + min(chunk, file_bytes or chunk)))


def _arguments(task: Any) -> Iterator[Any]:
    """The arguments of a task, without Dask's wrappers."""
    for arg in getattr(task, "args", ()):
        yield arg.value if hasattr(arg, "value") else getattr(arg, "args", arg)


def _is_window(arg: Any) -> bool:
    return isinstance(arg, tuple | list) and bool(arg) and all(isinstance(part, slice) for part in arg)


_WRAPPED: Final = ("array", "_array")
"""Attributes under which xarray's and dask's wrappers keep the array that they wrap."""


def innermost(array: Any) -> Any:
    """The array of Zarr, HDF5 or numpy inside the wrappers of xarray and dask."""
    for _ in range(16):
        inside = next((getattr(array, name) for name in _WRAPPED if getattr(array, name, None) is not None), None)
        if inside is None or hasattr(array, "store_path"):
            break
        array = inside
    return array
