"""One signal as RosettaSciIO hands it over (a dictionary of data, axes and metadata), turned into a cube.

Everything here is metadata: which axis is the energy, which are y and x, what the units are, what the file knew.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import dask.array as da
import numpy as np
import xarray as xr

from scalehsi.cube import check_cube, length_factor
from scalehsi.schema import ENERGY, ENERGY_UNITS, InputError, X, Y

PIXELS: Final = "px"
"""Units of a pixel axis that the file does not calibrate; its coordinate counts pixels."""
CHANNELS: Final = "channel"
UNKNOWN: Final = "unknown"
"""Units of an energy axis that the file calibrates without saying in what."""
_NAMES: Final = {"y": Y, "height": Y, "x": X, "width": X}
_TIMES: Final = {"time", "frame", "frames", "sweep", "tilt", "angle", "z", "stack"}
_TIME_UNITS: Final = {"s", "ms", "µs", "us", "ns", "min", "h", "°", "deg", "degree"}
_RECIPROCAL: Final = re.compile(r"^(1/.+|.+\^-1|.+-1|m?rad)$")
_UNDEFINED: Final = {"", "none", "<undefined>", "undefined", "t.undefined"}
_HIGHEST_BEAM_KEV: Final = 1e4

_FACTS: Final = {
    "date": "General.date",
    "time": "General.time",
    "sample": "Sample.name",
    "microscope": "*.microscope",
    "acquisition_mode": "*.acquisition_mode",
    "magnification": "*.magnification",
    "beam_current_nA": "*.beam_current",
    "convergence_angle_mrad": "*.convergence_angle",
    "tilt_alpha_deg": "*.Stage.tilt_alpha",
    "live_time_s": "*.Detector.EDS.live_time",
    "real_time_s": "*.Detector.EDS.real_time",
    "azimuth_angle_deg": "*.Detector.EDS.azimuth_angle",
    "elevation_angle_deg": "*.Detector.EDS.elevation_angle",
    "energy_resolution_MnKa_eV": "*.Detector.EDS.energy_resolution_MnKa",
    "detector": "*.Detector.EDS.detector_type",
    "spectrometer": "*.Detector.EELS.spectrometer",
    "collection_angle_mrad": "*.Detector.EELS.collection_angle",
    "aperture_mm": "*.Detector.EELS.aperture_size",
    "dwell_time_s": "*.Detector.EELS.dwell_time",
    "exposure_s": "*.Detector.EELS.exposure",
}
"""Attribute of the cube, and where HyperSpy's metadata tree has it; * stands for the instrument (TEM or SEM)."""
_NUMBERS: Final = {"magnification"} | {
    f for f in _FACTS if f.rsplit("_", 1)[-1] in ("nA", "mrad", "deg", "s", "eV", "mm")
}


@dataclass(frozen=True)
class Axis:
    """One axis of a signal, its units as text that we know."""

    name: str
    size: int
    values: np.ndarray[Any, Any]
    units: str
    is_signal: bool


@dataclass(frozen=True)
class Plan:
    """Which axis of the array becomes which dim.

    Attributes
    ----------
    spectral : tuple of int
        The energy axis, or the two detector axes of 4D-STEM, which are stacked.
    y, x : int or None
        None where the signal has no such axis; the cube gets one of size 1.
    leading : tuple of int
        Navigation axes before y and x.
    """

    spectral: tuple[int, ...]
    y: int | None
    x: int | None
    leading: tuple[int, ...]

    @property
    def order(self) -> tuple[int, ...]:
        plane = [a for a in (self.y, self.x) if a is not None]
        return (*self.leading, *plane, *self.spectral)


def axes_of(signal: Mapping[str, Any]) -> list[Axis]:
    """The axes of a signal in the order of its array.

    Raises
    ------
    InputError
        When the file describes other axes than its data have.
    """
    shape = tuple(signal["data"].shape)
    found = list(signal["axes"])
    if [int(a.get("size", 0) or len(a.get("axis", ()))) for a in found] != list(shape):
        found.sort(key=lambda a: a.get("index_in_array", 0))
    axes = [_axis(a, n) for a, n in zip(found, shape, strict=False)]
    if len(axes) != len(shape) or len(found) != len(shape):
        raise InputError(f"the data have the shape {shape}, the file describes {len(found)} axes")
    return axes


def _axis(entry: Mapping[str, Any], size: int) -> Axis:
    name = str(entry.get("name") or "").strip()
    units = _units(entry.get("units"))
    values: np.ndarray[Any, Any]
    if entry.get("axis") is not None:
        values = np.asarray(entry["axis"], dtype=np.float64)
    else:
        # Adding zero turns -0.0 into 0.0.
        values = float(entry.get("offset", 0.0)) + 0.0 + float(entry.get("scale", 1.0)) * np.arange(size)
    return Axis("" if name.lower() in _UNDEFINED else name, size, values, units, not entry.get("navigate", False))


def _units(given: Any) -> str:
    text = "" if given is None else str(given).strip()
    if text.lower() in _UNDEFINED:
        return ""
    by_lower = {u.lower(): u for u in ("eV", "keV")}
    return by_lower.get(text.lower(), text)


def plan_of(signal: Mapping[str, Any]) -> Plan | None:
    """Say which axis is which, or None when the signal is no spectrum, line scan, spectrum image or 4D-STEM set."""
    data = signal["data"]
    if data.dtype.kind not in "uifb" or not data.ndim or 0 in data.shape:
        return None
    axes = axes_of(signal)
    spectral = _spectral(axes)
    if spectral is None:
        return None
    rest = [i for i in range(len(axes)) if i not in spectral]
    named = {_NAMES[axes[i].name.lower()]: i for i in rest if axes[i].name.lower() in _NAMES}
    free = [i for i in rest if i not in named.values()]
    plane = [i for i in free if not _is_series(axes[i])]
    # Names first; what has no name fills the places from the last axis backwards.
    for dim in (X, Y):
        if dim not in named and plane:
            named[dim] = plane.pop()
    taken = {*spectral, *named.values()}
    return Plan(spectral, named.get(Y), named.get(X), tuple(i for i in rest if i not in taken))


def _is_series(axis: Axis) -> bool:
    return axis.name.lower() in _TIMES or axis.units in _TIME_UNITS


def _spectral(axes: list[Axis]) -> tuple[int, ...] | None:
    """The energy axis by its units, then by its name, then by the reader's word for it (which DigitalMicrograph files,
    stored energy first, get wrong)."""
    for found in (
        [i for i, a in enumerate(axes) if a.units in ENERGY_UNITS],
        [i for i, a in enumerate(axes) if "energy" in a.name.lower()],
    ):
        if found:
            return (max(found, key=lambda i: (axes[i].is_signal, i)),)
    signal = [i for i, a in enumerate(axes) if a.is_signal]
    if len(signal) == 1 and axes[signal[0]].name.lower() not in _NAMES:
        return (signal[0],)
    # Two detector axes behind each scan position; a stack of images has none but a series before its own y and x.
    scan = sum(not (a.is_signal or _is_series(a)) for a in axes)
    if len(signal) == 2 and (scan >= 2 or (scan == 1 and all(_RECIPROCAL.match(axes[i].units) for i in signal))):
        return (signal[0], signal[1])
    if len(axes) in (1, 3) and not any(a.name or a.units for a in axes):
        return (len(axes) - 1,)  # an array that nothing is known of: channels last, as everybody stores them
    return None


def to_cube(signal: Mapping[str, Any], plan: Plan, *, attrs: dict[str, Any]) -> xr.DataArray:
    """Give the signal as a cube; its data may be lazy and stay so.

    Parameters
    ----------
    signal : mapping
        As RosettaSciIO gives it.
    plan : Plan
    attrs : dict
        What the reader knows beyond the signal (source, history).
    """
    axes = axes_of(signal)
    data = signal["data"].transpose(plan.order)
    if data.dtype.kind == "b":
        data = data.astype(np.uint8)
    if not data.dtype.isnative:
        data = data.astype(data.dtype.newbyteorder("="))
    stacked = {}
    if len(plan.spectral) > 1:
        stacked = {"detector_shape": [axes[i].size for i in plan.spectral]}
        if isinstance(data, da.Array):
            data = data.rechunk({data.ndim - 2: -1, data.ndim - 1: -1})
        data = data.reshape((*data.shape[:-2], -1))
    # The file may have no axis for y or x.
    place = tuple(slice(None) if i is not None else None for i in (plan.y, plan.x))
    data = data[(..., *place, slice(None))]
    names = _leading_names([axes[i] for i in plan.leading])
    leading = [axes[i] for i in plan.leading]
    coords: dict[str, Any] = {
        **{n: (n, a.values, {"units": a.units or "index"}) for n, a in zip(names, leading, strict=True)},
        Y: _length(Y, None if plan.y is None else axes[plan.y]),
        X: _length(X, None if plan.x is None else axes[plan.x]),
        ENERGY: _energy([axes[i] for i in plan.spectral]),
    }
    merged = {**facts_of(signal), **stacked, **attrs}
    return check_cube(xr.DataArray(data, dims=(*names, Y, X, ENERGY), coords=coords, attrs=merged, name="counts"))


def image_axes(signal: Mapping[str, Any]) -> tuple[int, int] | None:
    """The axes y and x of an image, in this order, or None when the signal is none."""
    data = signal["data"]
    if data.dtype.kind not in "uif" or data.ndim != 2 or 0 in data.shape or plan_of(signal) is not None:
        return None
    names = [_NAMES.get(axis.name.lower()) for axis in axes_of(signal)]
    return (1, 0) if names == [X, Y] else (0, 1)


def to_image(signal: Mapping[str, Any], order: tuple[int, int], *, attrs: dict[str, Any]) -> xr.DataArray:
    """Give an image as a DataArray of dims (y, x); its data may be lazy and stay so."""
    axes, data = axes_of(signal), signal["data"].transpose(order)
    if not data.dtype.isnative:
        data = data.astype(data.dtype.newbyteorder("="))
    coords = {dim: _length(dim, axes[i]) for dim, i in zip((Y, X), order, strict=True)}
    return xr.DataArray(data, dims=(Y, X), coords=coords, attrs={**facts_of(signal), **attrs}, name="image")


def _leading_names(axes: list[Axis]) -> list[str]:
    names: list[str] = []
    for i, axis in enumerate(axes):
        name = re.sub(r"\W+", "_", axis.name.lower()).strip("_") or "frame"
        names.append(f"{name}_{i}" if name in (*names, Y, X, ENERGY) else name)
    return names


def _length(dim: str, axis: Axis | None) -> tuple[str, np.ndarray[Any, Any], dict[str, str]]:
    """A pixel axis in nanometres; without units it counts pixels, as a step without a unit means nothing."""
    if axis is None or not axis.units:
        return dim, np.arange(1 if axis is None else axis.size, dtype=np.float64), {"units": PIXELS}
    factor = length_factor(axis.units)
    return (dim, axis.values, {"units": axis.units}) if factor is None else (dim, axis.values * factor, {"units": "nm"})


def _energy(axes: list[Axis]) -> tuple[str, np.ndarray[Any, Any], dict[str, str]]:
    if len(axes) > 1:
        channels = int(np.prod([a.size for a in axes]))
        return ENERGY, np.arange(channels, dtype=np.float64), {"units": CHANNELS}
    (axis,) = axes
    counted = np.array_equal(axis.values, np.arange(axis.size))
    return ENERGY, axis.values, {"units": axis.units or (CHANNELS if counted else UNKNOWN)}


# What the file knew --------------------------------------------------------------------------------------------------


def merge_mapping(signal: Mapping[str, Any]) -> dict[str, Any]:
    """The metadata with what a reader left to be looked up in the vendor's own tree (its ``mapping``)."""
    tree: dict[str, Any] = _copy(signal.get("metadata", {}))
    for source, (target, convert) in (signal.get("mapping") or {}).items():
        value = _get(signal.get("original_metadata", {}), source)
        if value is None:
            continue
        try:
            value = value if convert is None else convert(value)
        except (TypeError, ValueError, KeyError, IndexError, AttributeError, ZeroDivisionError):
            continue  # a tag that this file fills in another way; nothing that a cube needs hangs on it
        if value is not None:
            _set(tree, target, value)
    return tree


def signal_of(tree: Mapping[str, Any]) -> str:
    """ "EDS", "EELS", another signal type as the file names it, or an empty text."""
    given = str(_get(tree, "Signal.signal_type") or "")
    return "EDS" if given.upper().startswith(("EDS", "EDX")) else given


def facts_of(signal: Mapping[str, Any]) -> dict[str, Any]:
    """What is known of the measurement, as attributes of a cube: text, numbers and lists of text."""
    tree = merge_mapping(signal)
    instrument = next(iter(_get(tree, "Acquisition_instrument") or {}), "TEM")
    facts: dict[str, Any] = {"signal": signal_of(tree), "title": str(_get(tree, "General.title") or "")}
    if _get(tree, "Signal.signal_type"):
        facts["signal_type"] = str(_get(tree, "Signal.signal_type"))
    beam = _number(_get(tree, f"Acquisition_instrument.{instrument}.beam_energy"))
    if beam:
        # Some .msa files give volts where the format asks for kilovolts; no microscope reaches 10 MeV.
        facts["beam_energy_keV"] = beam / 1e3 if beam > _HIGHEST_BEAM_KEV else beam
    elements = _get(tree, "Sample.elements")
    if elements is not None and len(elements):
        # Files written by some versions of HyperSpy hold the list as one printed text.
        listed = re.findall(r"[A-Z][a-z]?", elements) if isinstance(elements, str) else [str(e) for e in elements]
        facts["elements"] = listed
    for name, where in _FACTS.items():
        value = _get(tree, where.replace("*", f"Acquisition_instrument.{instrument}"))
        number = _number(value) if name in _NUMBERS else None
        # Programs write zero for a beam current or an angle that nobody entered.
        if number is not None and not (number == 0 and name in ("beam_current_nA", "convergence_angle_mrad")):
            facts[name] = number
        elif name not in _NUMBERS and value not in (None, ""):
            facts[name] = str(value)
    return facts


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _get(tree: Any, path: str) -> Any:
    for key in path.split("."):
        if not isinstance(tree, Mapping) or key not in tree:
            return None
        tree = tree[key]
    return tree


def _set(tree: dict[str, Any], path: str, value: Any) -> None:
    *folders, last = path.split(".")
    for key in folders:
        tree = tree.setdefault(key, {})
    tree[last] = value


def _copy(tree: Any) -> Any:
    return {k: _copy(v) for k, v in tree.items()} if isinstance(tree, Mapping) else tree
