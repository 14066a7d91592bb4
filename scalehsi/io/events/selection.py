"""What is taken from a file of events: frames, detectors, a range of energies, and how pixels and channels are joined.

The choice becomes a table, channel of the file to channel of the cube or -1, and two bins, so that it costs nothing
while the events are added up.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import xarray as xr

from scalehsi.io.events.file import LONGEST_SIDE, EventFile
from scalehsi.io.repairs import NOTHING, Repairs
from scalehsi.io.vendor_signal import axis_roles, signal_type, to_cube
from scalehsi.schema import ENERGY, InputError, X, Y, suggest

FRAME: Final = "frame"
DETECTOR: Final = "detector"

Frames = str | tuple[Any, ...]
Range = tuple[float, float]


@dataclass(frozen=True)
class Selection:
    """What the user asks for; the settings of `scalehsi.convert`."""

    frames: Frames = "sum"
    energy: Range | None = None
    bin: Mapping[str, int] | None = None
    detectors: str | Sequence[int] = "sum"


@dataclass(frozen=True)
class Plan:
    """A selection that fits a file.

    Attributes
    ----------
    frames : range
    detectors : tuple of tuple of int
        The detectors that are added up, for each entry of the dim "detector".
    keep_frames, keep_detectors : bool
        Whether the cube has these dims.
    tables : tuple
        Bins of y and x, and the table of channels.
    cube : xarray.DataArray
        Shape, axes and attributes of the cube; its values are not to be read.
    """

    frames: range
    detectors: tuple[tuple[int, ...], ...]
    keep_frames: bool
    keep_detectors: bool
    tables: tuple[int, int, np.ndarray[Any, Any]]
    cube: xr.DataArray

    @property
    def size(self) -> tuple[int, int, int, int, int]:
        """Detectors, frames, y, x and channels of the cube, 1 where a dim is not kept."""
        rows, columns, channels = self.cube.shape[-3:]
        return len(self.detectors), len(self.frames) if self.keep_frames else 1, rows, columns, channels


def plan_of(events: EventFile, selection: Selection, *, signal: str | None = None, repairs: Repairs = NOTHING) -> Plan:
    """Check a selection against a file.

    Raises
    ------
    InputError
        When the file has no such frames, detectors or energies, or a bin is too large.
    """
    frames, keep_frames = _frames(events, selection.frames)
    detectors, keep_detectors = _detectors(events, selection.detectors)
    cube = _described(events, signal, repairs)
    lines = []
    if keep_frames or len(frames) < events.frames:
        lines.append(f"frames {frames.start}:{frames.stop} of {events.frames}, {'kept' if keep_frames else 'summed'}")
    if keep_detectors or sum(map(len, detectors)) < events.detectors:
        numbers_ = ", ".join(str(d) for group in detectors for d in group)
        lines.append(f"detectors {numbers_} of {events.detectors}, {'kept' if keep_detectors else 'summed'}")
    first, stop = _channels(cube[ENERGY], selection.energy)
    if selection.energy is not None:
        low, high = selection.energy
        lines.append(f"energy {low:g}:{high:g} {cube[ENERGY].attrs['units']}, channels {first}:{stop}")
    cube = cube.isel({ENERGY: slice(first, stop)})
    factors = _factors(cube, selection.bin)
    for dim, factor in factors.items():
        rest = cube.sizes[dim] % factor
        lines.append(f"{dim} joined by {factor}" + (f", the last {rest} left out" if rest else ""))
    cube = _joined(cube, factors)
    table = np.full(LONGEST_SIDE, -1, np.int32)
    joined = factors.get(ENERGY, 1)
    used = cube.sizes[ENERGY] * joined
    table[first : first + used] = np.arange(used) // joined
    for keep, name, values in (
        (keep_frames, FRAME, list(frames)),
        (keep_detectors, DETECTOR, [d[0] for d in detectors]),
    ):
        if keep:
            axis = xr.DataArray(np.array(values, float), dims=name, attrs={"units": "index"})
            cube = cube.expand_dims({name: axis})
    cube.attrs = {**cube.attrs, "history": [*cube.attrs["history"], *(f"convert: {line}" for line in lines)]}
    return Plan(frames, detectors, keep_frames, keep_detectors, (factors.get(Y, 1), factors.get(X, 1), table), cube)


def _described(events: EventFile, signal: str | None, repairs: Repairs) -> xr.DataArray:
    """The cube of the whole file, without values."""
    roles = axis_roles(events.signal)
    if roles is None or roles.leading or len(roles.spectral) != 1:
        raise InputError(f"{events.path.name!r} is damaged: its axes are not those of a map; copy it again")
    size = " x ".join(map(str, (events.rows, events.columns, events.channels)))
    what = "file" if events.kind == "Oxford" else "event stream"
    parts = [f"{events.kind} {what}", f"{events.frames} frames of {size}" if events.has_frames else size]
    if events.detectors > 1:
        parts.append(f"{events.detectors} detectors")
    attrs: dict[str, Any] = {
        "source": events.path.name,
        "history": [f"open: {events.path.name}, {', '.join(parts)}"],
    }
    if signal and signal_type(events.signal) != signal:
        attrs["signal"] = signal
    return to_cube(events.signal, roles, attrs=attrs, repairs=repairs)


def _frames(events: EventFile, given: Any) -> tuple[range, bool]:
    example = f"'sum', 'keep', (a, b) to sum a range, or ('keep', a, b); there are {events.frames} frames"
    if given in ("sum", "keep"):
        if given == "keep" and not events.has_frames:
            raise InputError(f"frames='keep': {events.kind} files have no frames; leave it out")
        return range(events.frames), given == "keep"
    keep = isinstance(given, (tuple, list)) and len(given) == 3 and given[0] == "keep"
    limits = given[1:] if keep else given
    if not isinstance(limits, (tuple, list)) or len(limits) != 2 or not all(_whole(n) for n in limits):
        raise InputError(f"frames={given!r} is no choice of frames; it is {example}")
    if not events.has_frames:
        raise InputError(f"frames={given!r}: {events.kind} files have no frames; leave it out")
    first, stop = int(limits[0]), int(limits[1])
    if not 0 <= first < stop <= events.frames:
        raise InputError(f"frames={given!r} is outside the file; it is {example}, counted from 0, b not included")
    return range(first, stop), keep


def _detectors(events: EventFile, given: Any) -> tuple[tuple[tuple[int, ...], ...], bool]:
    everything = tuple(range(events.detectors))
    if isinstance(given, str) and given in ("sum", "keep"):
        return (tuple((d,) for d in everything), True) if given == "keep" else ((everything,), False)
    known = f"'sum', 'keep', or a list of numbers from 0 to {events.detectors - 1} to sum"
    chosen = [given] if _whole(given) else given
    if isinstance(chosen, str) or not isinstance(chosen, Sequence) or not chosen or not all(map(_whole, chosen)):
        raise InputError(f"detectors={given!r} is no choice of detectors; it is {known}")
    if len(set(chosen)) < len(chosen) or not set(map(int, chosen)) <= set(everything):
        raise InputError(f"detectors={given!r} names a detector that is not there, or one twice; it is {known}")
    return (tuple(sorted(map(int, chosen))),), False


def _channels(axis: xr.DataArray, given: Range | None) -> tuple[int, int]:
    """First channel in a range of energies, and the one after the last; both ends of the range are included."""
    values = np.asarray(axis.values, float)
    if given is None:
        return 0, values.size
    unit = axis.attrs["units"]
    try:
        low, high = map(float, given)
    except (TypeError, ValueError):
        low = high = math.nan
    if not low < high:
        raise InputError(f"energy={given!r} is no range; (low, high) in {unit} is expected, such as (0.1, 20.0)")
    slack = 1e-3 * abs(values[-1] - values[0]) / max(1, values.size - 1)
    inside = np.flatnonzero((values >= low - slack) & (values <= high + slack))
    if not inside.size:
        raise InputError(f"energy={given!r} leaves nothing; the axis runs from {values[0]:g} to {values[-1]:g} {unit}")
    return int(inside[0]), int(inside[-1]) + 1


def _factors(cube: xr.DataArray, given: Mapping[str, int] | None) -> dict[str, int]:
    if given is not None and not isinstance(given, Mapping):
        raise InputError(f"bin={given!r}; a dict is expected, such as {{'y': 2, 'x': 2, 'energy': 4}}")
    for dim, factor in (given or {}).items():
        if dim not in (Y, X, ENERGY):
            raise InputError(f"bin: the map has no axis {dim!r}; {suggest(str(dim), (Y, X, ENERGY))}")
        if not _whole(factor) or not 1 <= factor <= cube.sizes[dim]:
            raise InputError(f"bin: {dim}={factor!r}; a whole number from 1 to {cube.sizes[dim]} is expected")
    return {dim: int(given[dim]) for dim in (Y, X, ENERGY) if given and given.get(dim, 1) > 1}


def _joined(cube: xr.DataArray, factors: Mapping[str, int]) -> xr.DataArray:
    """The cube with the axes of joined pixels and channels, each value the centre of its bin."""
    for dim, factor in factors.items():
        axis = cube[dim]
        size = axis.size // factor
        centres = axis.values[: size * factor].reshape(size, factor).mean(axis=1)
        cube = cube.isel({dim: slice(0, size)}).assign_coords({dim: (dim, centres, axis.attrs)})
    return cube


def _whole(value: Any) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)
