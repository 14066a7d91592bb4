"""Give a task its tiles one after another: from a worker's memory, read from the cube, or derived from either.

A feed is a callable that returns an iterator over the tiles of a bundle, and the delayed values that the callable
takes. A pass uses it in the same way for a bundle that is kept in memory and for one that is read in every pass.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple, TypeVar

import numpy as np
from dask.delayed import Delayed

from scalehsi import arrays
from scalehsi.blocks import tile as tiles
from scalehsi.blocks.blas import one_blas_thread
from scalehsi.blocks.bundle import Bundle
from scalehsi.blocks.reading import Reader, prefetched
from scalehsi.blocks.tile import Place, Tile
from scalehsi.schema import InputError

T = TypeVar("T")

log = logging.getLogger("scalehsi")


class Feed(NamedTuple):
    """A callable and its arguments: ``make(*takes)`` returns an iterator over the tiles of a bundle."""

    make: Callable[..., Iterator[Tile]]
    takes: tuple[Delayed, ...]


def from_bundle(bundle: Delayed) -> Feed:
    """Return the feed of all tiles of a bundle in a worker's memory."""
    return Feed(_all, (bundle,))


def one_of_bundle(bundle: Delayed, position: int) -> Feed:
    """Return the feed of one tile of a bundle in a worker's memory."""
    return Feed(partial(_one, position), (bundle,))


def from_cube(
    places: Sequence[Place],
    data: Sequence[Reader],
    masks: Sequence[Reader | None],
    device: arrays.Device,
    *,
    tries: int,
    beside: Sequence[Sequence[Reader]] = (),
) -> Feed:
    """Return a feed that reads each tile while the one before is computed.

    ``places``, ``data`` and ``masks`` have one entry for each block of the bundle: where it lies, how its values are
    read, and how its mask is read (None without one). ``device`` is where the kernels run, ``tries`` the number of
    attempts to read a block, ``beside`` how the values of each cube beside the first one are read.
    """
    loads, takes = [], []
    for place, values, mask, *others in zip(places, data, masks, *beside, strict=True):
        readers = (values, *others, *(() if mask is None else (mask,)))
        loads.append(_Load(place, device, readers, tries, masked=mask is not None))
        takes.append(tuple(value for reader in readers for value in reader.takes))
    flat = tuple(value for given in takes for value in given)
    return Feed(TileReader(tuple(loads), tuple(len(given) for given in takes)), flat)


def derived(feed: Feed, fn: Callable[..., Any], shared: Mapping[str, Any], device: arrays.Device) -> Feed:
    """Return the tiles of another feed with ``fn(x, *beside, **shared)`` in place of ``x``, computed on ``device``.

    Where it returns a tuple, this has ``x`` and what lies beside it.
    """
    return Feed(partial(_converted, feed.make, fn, dict(shared), device), feed.takes)


def call_with_retries(tries: int, call: Callable[[], T]) -> T:
    """Call up to ``tries`` times until no error is raised, as a cluster repeats a task; an InputError is final."""
    for remaining in reversed(range(tries)):
        try:
            return call()
        except InputError:
            raise
        except Exception as error:
            if not remaining:
                raise
            log.info("a block failed and is tried again: %r", error)
    raise AssertionError("tries is at least 1")


def to_device(shared: Mapping[str, Any], device: arrays.Device) -> dict[str, Any]:
    """Return the shared values with their numpy arrays moved to ``device``."""
    return {k: arrays.to_device(v, device) if isinstance(v, np.ndarray) else v for k, v in shared.items()}


# Functions that run inside the tasks.


def load_bundle(make: Callable[..., Iterator[Any]], *given: Any) -> Bundle:
    """Return all tiles of the feed ``make(*given)``, to be kept in memory."""
    return Bundle(tuple(make(*given)))


def bundle_of(*values: Any) -> Bundle:
    """Return a bundle of the values of single blocks."""
    return Bundle(values)


def bundle_rows(read: Callable[..., Any], n_masks: int | None, *given: Any) -> Bundle:
    """Convert the maps of some blocks to rows by ``read``; where the cube has a mask, ``given`` ends in ``n_masks``."""
    if n_masks is None:
        return Bundle(tuple(map(read, given)))
    return Bundle(tuple(map(read, given[:n_masks], given[n_masks:])))


def value_at(position: int, bundle: Bundle) -> Any:
    """Return the value of one block of a bundle."""
    return bundle.values[position]


def _all(bundle: Bundle) -> Iterator[Any]:
    return iter(bundle.values)


def _one(position: int, bundle: Bundle) -> Iterator[Any]:
    return iter((bundle.values[position],))


@dataclass(frozen=True)
class _Load:
    """Read one block and make its tile: by the first reader its values, then those beside it, last its mask."""

    place: Place
    device: arrays.Device
    readers: tuple[Reader, ...]
    tries: int
    masked: bool

    def __call__(self, given: Sequence[Any]) -> Tile:
        return call_with_retries(self.tries, partial(self._once, given))

    def _once(self, given: Sequence[Any]) -> Tile:
        rest, values = iter(given), []
        for read, takes in self.readers:
            values.append(read(*(next(rest) for _ in takes)))
        mask = values.pop() if self.masked else None
        return tiles.make_tile(self.place, self.device, values[0], mask, values[1:])


@dataclass(frozen=True)
class TileReader:
    """Read the blocks of a bundle one after another; ``counts`` is the number of arguments of each."""

    loads: tuple[_Load, ...]
    counts: tuple[int, ...]

    def __call__(self, *given: Any) -> Iterator[Tile]:
        values = iter(given)
        calls = [
            partial(load, [next(values) for _ in range(count)])
            for load, count in zip(self.loads, self.counts, strict=True)
        ]
        return prefetched(calls)


def _converted(
    make: Callable[..., Iterator[Tile]],
    fn: Callable[..., Any],
    shared: Mapping[str, Any],
    device: arrays.Device,
    *given: Any,
) -> Iterator[Tile]:
    """Iterate over the tiles of ``make(*given)`` with ``fn(x, **shared)`` in place of ``x``."""
    shared = to_device(shared, device)
    for part in make(*given):
        if not part.core.any():
            yield part
            continue
        with one_blas_thread():
            made = fn(part.x, *part.beside, **shared)
        x, *beside = made if isinstance(made, tuple) else (made,)
        for each in (x, *beside):
            if each.shape[0] != len(part.index):
                raise InputError(f"a derived block has {len(part.index)} rows, one for each pixel; got {each.shape[0]}")
        yield replace(part, x=x, beside=tuple(beside))


def columns(make: Callable[..., Any], *given: Any) -> int | None:
    """Return the number of columns of the first tile with a used pixel; None where there is none."""
    return next((int(tile.x.shape[-1]) for tile in make(*given) if tile.core.any()), None)
