"""Where the tiles of a bundle come from: held by a worker, read from the cube now, or derived from either.

A feed is what a task needs to get at its tiles one after another: a callable that gives an iterator, and the delayed
values that it takes. It is the same for a bundle that is kept and for one that is read in every pass.
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
from scalehsi.blocks.reading import Piece, ahead
from scalehsi.blocks.tile import Place, Tile
from scalehsi.schema import InputError

T = TypeVar("T")

log = logging.getLogger("scalehsi")


class Feed(NamedTuple):
    """``make(*takes)`` gives the tiles of a bundle, one after another."""

    make: Callable[..., Iterator[Tile]]
    takes: tuple[Delayed, ...]


def from_held(bundle: Delayed) -> Feed:
    """The tiles of a bundle that a worker holds."""
    return Feed(_all, (bundle,))


def one_of_held(bundle: Delayed, position: int) -> Feed:
    """One tile of a bundle that a worker holds."""
    return Feed(partial(_one, position), (bundle,))


def from_cube(
    places: Sequence[Place], raws: Sequence[Piece], masks: Sequence[Piece | None], device: arrays.Device, *, tries: int
) -> Feed:
    """Tiles that are read when it is their turn, each while the one before is worked on."""
    loads, takes = [], []
    for place, raw, mask in zip(places, raws, masks, strict=True):
        loads.append(_Load(place, device, raw.read, len(raw.takes), None if mask is None else mask.read, tries))
        takes.append((*raw.takes, *(() if mask is None else mask.takes)))
    flat = tuple(value for given in takes for value in given)
    return Feed(_Reader(tuple(loads), tuple(len(given) for given in takes)), flat)


def derived(feed: Feed, fn: Callable[..., Any], shared: Mapping[str, Any], device: arrays.Device) -> Feed:
    """The tiles of another feed with ``fn(x, **shared)`` in place of ``x``."""
    return Feed(partial(_converted, feed.make, fn, dict(shared), device), feed.takes)


def attempt(tries: int, call: Callable[[], T]) -> T:
    """Call again where it raises, as a cluster repeats a task; but an input that is wrong stays wrong."""
    for left in reversed(range(tries)):
        try:
            return call()
        except InputError:
            raise
        except Exception as error:
            if not left:
                raise
            log.info("a block failed and is tried again: %r", error)
    raise AssertionError("tries is at least 1")


def to_device(shared: Mapping[str, Any], device: arrays.Device) -> dict[str, Any]:
    """What is shared, with its numpy arrays where the kernels run."""
    return {k: arrays.to_device(v, device) if isinstance(v, np.ndarray) else v for k, v in shared.items()}


# What runs inside the tasks.


def gather(make: Callable[..., Iterator[Any]], *given: Any) -> Bundle:
    """All values of a bundle, to be kept."""
    return Bundle(tuple(make(*given)))


def pack(*values: Any) -> Bundle:
    return Bundle(values)


def pack_rows(read: Callable[..., Any], masked: int | None, *given: Any) -> Bundle:
    """Rows of the maps of some blocks; with ``masked`` blocks the masks come after the maps."""
    if masked is None:
        return Bundle(tuple(map(read, given)))
    return Bundle(tuple(map(read, given[:masked], given[masked:])))


def pick(position: int, bundle: Bundle) -> Any:
    return bundle.values[position]


def _all(bundle: Bundle) -> Iterator[Any]:
    return iter(bundle.values)


def _one(position: int, bundle: Bundle) -> Iterator[Any]:
    return iter((bundle.values[position],))


@dataclass(frozen=True)
class _Load:
    """Reads one block and makes its tile."""

    place: Place
    device: arrays.Device
    read: Callable[..., Any]
    takes: int
    mask: Callable[..., Any] | None
    tries: int

    def __call__(self, given: Sequence[Any]) -> Tile:
        return attempt(self.tries, partial(self._once, given))

    def _once(self, given: Sequence[Any]) -> Tile:
        mask = None if self.mask is None else self.mask(*given[self.takes :])
        return tiles.load(self.place, self.device, self.read(*given[: self.takes]), mask)


@dataclass(frozen=True)
class _Reader:
    loads: tuple[_Load, ...]
    counts: tuple[int, ...]

    def __call__(self, *given: Any) -> Iterator[Tile]:
        values = iter(given)
        calls = [
            partial(load, [next(values) for _ in range(count)])
            for load, count in zip(self.loads, self.counts, strict=True)
        ]
        return ahead(calls)


def _converted(
    make: Callable[..., Iterator[Tile]],
    fn: Callable[..., Any],
    shared: Mapping[str, Any],
    device: arrays.Device,
    *given: Any,
) -> Iterator[Tile]:
    here = to_device(shared, device)
    for part in make(*given):
        if not part.core.any():
            yield part
            continue
        with one_blas_thread():
            x = fn(part.x, **here)
        if x.shape[0] != len(part.index):
            raise InputError(f"a derived block has {len(part.index)} rows, one for each pixel; got {x.shape[0]}")
        yield replace(part, x=x)
