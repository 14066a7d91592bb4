"""Turn one signal of RosettaSciIO (a dictionary of data, axes and metadata) into a cube.

Only metadata are read: which axis is the energy, which are y and x, their units, and the acquisition parameters.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import dask.array as da
import numpy as np
import xarray as xr
from toolz import assoc_in, get_in

from scalehsi.cube import check_cube, length_factor
from scalehsi.io.repairs import NOTHING, Repairs, repaired
from scalehsi.schema import ENERGY, ENERGY_UNITS, InputError, X, Y, usual_unit

logger = logging.getLogger("scalehsi")

PIXEL_UNITS: Final = "px"
"""Units of a pixel axis that the file does not calibrate; its coordinate counts pixels."""
CHANNEL_UNITS: Final = "channel"
UNKNOWN_UNITS: Final = "unknown"
"""Units of an energy axis that the file calibrates without naming the unit."""
_PIXEL_AXIS_NAMES: Final = {"y": Y, "height": Y, "x": X, "width": X}
_SERIES_NAMES: Final = {"time", "frame", "frames", "sweep", "tilt", "angle", "z", "stack"}
_SERIES_UNITS: Final = {"s", "ms", "µs", "us", "ns", "min", "h", "°", "deg", "degree"}
_RECIPROCAL_UNITS: Final = re.compile(r"^(1/.+|.+\^-1|.+-1|m?rad)$")
_UNDEFINED: Final = {"", "none", "<undefined>", "undefined", "t.undefined"}
_HIGHEST_BEAM_KEV: Final = 1e4

METADATA_PATHS: Final = {
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
"""Attribute of the cube, and its path in HyperSpy's metadata tree; * is the instrument (TEM or SEM)."""
_NUMERIC_ATTRS: Final = {"magnification"} | {
    f for f in METADATA_PATHS if f.rsplit("_", 1)[-1] in ("nA", "mrad", "deg", "s", "eV", "mm")
}


@dataclass(frozen=True)
class Axis:
    """One axis of a signal, with normalised units."""

    name: str
    size: int
    values: np.ndarray[Any, Any]
    units: str
    is_signal: bool


@dataclass(frozen=True)
class AxisRoles:
    """Which axis of the array becomes which dim.

    Attributes
    ----------
    spectral : tuple of int
        The energy axis, or the two detector axes of 4D-STEM, which are stacked.
    y, x : int or None
        None when the signal has no such axis; the cube then has one of size 1.
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
        When the number of axes in the file is not that of its data.
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
        offset, scale = float(entry.get("offset", 0.0)), float(entry.get("scale", 1.0))
        if not (np.isfinite(offset) and np.isfinite(scale) and scale):
            logger.warning("axis %r has the offset %g and the scale %g, so its points are counted", name, offset, scale)
            offset, scale, units = 0.0, 1.0, ""
        # Adding zero turns -0.0 into 0.0.
        values = offset + 0.0 + scale * np.arange(size)
    return Axis("" if name.lower() in _UNDEFINED else name, size, values, units, not entry.get("navigate", False))


def _units(given: Any) -> str:
    text = "" if given is None else str(given).strip()
    if text.lower() in _UNDEFINED:
        return ""
    return usual_unit(text)


def axis_roles(signal: Mapping[str, Any]) -> AxisRoles | None:
    """Find the role of each axis; None for a signal that is no spectrum, line scan, spectrum image or 4D-STEM."""
    data = signal["data"]
    if data.dtype.kind not in "uifb" or not data.ndim or 0 in data.shape:
        return None
    try:
        axes = axes_of(signal)
    except InputError as error:
        logger.info("%s", error)
        return None
    spectral = _spectral(axes)
    if spectral is None:
        return None
    rest = [i for i in range(len(axes)) if i not in spectral]
    named = {_PIXEL_AXIS_NAMES[axes[i].name.lower()]: i for i in rest if axes[i].name.lower() in _PIXEL_AXIS_NAMES}
    free = [i for i in rest if i not in named.values()]
    plane = [i for i in free if not _is_series(axes[i])]
    # Named axes first; then the unnamed ones become x and y, from the last axis backwards.
    for dim in (X, Y):
        if dim not in named and plane:
            named[dim] = plane.pop()
    taken = {*spectral, *named.values()}
    return AxisRoles(spectral, named.get(Y), named.get(X), tuple(i for i in rest if i not in taken))


def _is_series(axis: Axis) -> bool:
    return axis.name.lower() in _SERIES_NAMES or axis.units in _SERIES_UNITS


def _spectral(axes: list[Axis]) -> tuple[int, ...] | None:
    """Find the energy axis by its units, then its name, then the reader's signal axis.

    The reader's is wrong for DigitalMicrograph files that store the energy first.
    """
    for found in (
        [i for i, a in enumerate(axes) if a.units in ENERGY_UNITS],
        [i for i, a in enumerate(axes) if "energy" in a.name.lower()],
    ):
        if found:
            return (max(found, key=lambda i: (axes[i].is_signal, i)),)
    signal = [i for i, a in enumerate(axes) if a.is_signal]
    if len(signal) == 1 and axes[signal[0]].name.lower() not in _PIXEL_AXIS_NAMES:
        return (signal[0],)
    # 4D-STEM has two detector axes at each scan position; a stack of images has only a series before its y and x.
    scan = sum(not (a.is_signal or _is_series(a)) for a in axes)
    if len(signal) == 2 and (scan >= 2 or (scan == 1 and all(_RECIPROCAL_UNITS.match(axes[i].units) for i in signal))):
        return (signal[0], signal[1])
    if len(axes) in (1, 3) and not any(a.name or a.units for a in axes):
        return (len(axes) - 1,)  # an array without metadata: channels are last by convention
    return None


def to_cube(
    signal: Mapping[str, Any], roles: AxisRoles, *, attrs: dict[str, Any], repairs: Repairs = NOTHING
) -> xr.DataArray:
    """Return the signal as a cube; lazy data stay lazy.

    Parameters
    ----------
    signal : mapping
        From RosettaSciIO.
    roles : AxisRoles
    attrs : dict
        Further attributes (source, history).
    repairs : Repairs, optional
        What the user says about its calibration.
    """
    axes = axes_of(signal)
    data = signal["data"].transpose(roles.order)
    if data.dtype.kind == "b":
        data = data.astype(np.uint8)
    if not data.dtype.isnative:
        data = data.astype(data.dtype.newbyteorder("="))
    stacked = {}
    if len(roles.spectral) > 1:
        stacked = {"detector_shape": [axes[i].size for i in roles.spectral]}
        if isinstance(data, da.Array):
            data = data.rechunk({data.ndim - 2: -1, data.ndim - 1: -1})
        data = data.reshape((*data.shape[:-2], -1))
    # The file may have no axis for y or x.
    place = tuple(slice(None) if i is not None else None for i in (roles.y, roles.x))
    data = data[(..., *place, slice(None))]
    names = _leading_names([axes[i] for i in roles.leading])
    leading = [axes[i] for i in roles.leading]
    coords: dict[str, Any] = {
        **{n: (n, a.values, {"units": a.units or "index"}) for n, a in zip(names, leading, strict=True)},
        Y: _length(Y, None if roles.y is None else axes[roles.y]),
        X: _length(X, None if roles.x is None else axes[roles.x]),
        ENERGY: _energy([axes[i] for i in roles.spectral]),
    }
    merged = {**metadata_attrs(signal), **stacked, **attrs}
    cube = xr.DataArray(data, dims=(*names, Y, X, ENERGY), coords=coords, attrs=merged, name="counts")
    return check_cube(repaired(cube, repairs))


def image_axes(signal: Mapping[str, Any]) -> tuple[int, int] | None:
    """The axes y and x of an image, in this order; None when the signal is no image."""
    data = signal["data"]
    if data.dtype.kind not in "uif" or data.ndim != 2 or 0 in data.shape or axis_roles(signal) is not None:
        return None
    names = [_PIXEL_AXIS_NAMES.get(axis.name.lower()) for axis in axes_of(signal)]
    return (1, 0) if names == [X, Y] else (0, 1)


def to_image(signal: Mapping[str, Any], order: tuple[int, int], *, attrs: dict[str, Any]) -> xr.DataArray:
    """Return an image as a DataArray of dims (y, x); lazy data stay lazy. ``order`` is from `image_axes`."""
    axes, data = axes_of(signal), signal["data"].transpose(order)
    if not data.dtype.isnative:
        data = data.astype(data.dtype.newbyteorder("="))
    coords = {dim: _length(dim, axes[i]) for dim, i in zip((Y, X), order, strict=True)}
    return xr.DataArray(data, dims=(Y, X), coords=coords, attrs={**metadata_attrs(signal), **attrs}, name="image")


def _leading_names(axes: list[Axis]) -> list[str]:
    names: list[str] = []
    for i, axis in enumerate(axes):
        name = re.sub(r"\W+", "_", axis.name.lower()).strip("_") or "frame"
        names.append(f"{name}_{i}" if name in (*names, Y, X, ENERGY) else name)
    return names


def _length(dim: str, axis: Axis | None) -> tuple[str, np.ndarray[Any, Any], dict[str, str]]:
    """A pixel axis in nanometres, or in pixels when the file names no unit; ``axis`` None is an axis of size 1."""
    if axis is None or not axis.units:
        return dim, np.arange(1 if axis is None else axis.size, dtype=np.float64), {"units": PIXEL_UNITS}
    factor = length_factor(axis.units)
    return (dim, axis.values, {"units": axis.units}) if factor is None else (dim, axis.values * factor, {"units": "nm"})


def _energy(axes: list[Axis]) -> tuple[str, np.ndarray[Any, Any], dict[str, str]]:
    if len(axes) > 1:
        channels = int(np.prod([a.size for a in axes]))
        return ENERGY, np.arange(channels, dtype=np.float64), {"units": CHANNEL_UNITS}
    (axis,) = axes
    counted = np.array_equal(axis.values, np.arange(axis.size))
    return ENERGY, axis.values, {"units": axis.units or (CHANNEL_UNITS if counted else UNKNOWN_UNITS)}


# Acquisition parameters ----------------------------------------------------------------------------------------------


def merge_mapping(signal: Mapping[str, Any]) -> dict[str, Any]:
    """The metadata, completed from the vendor's own metadata by the reader's ``mapping``."""
    tree: dict[str, Any] = dict(signal.get("metadata", {}))
    for source, (target, convert) in (signal.get("mapping") or {}).items():
        value = _get(signal.get("original_metadata", {}), source)
        if value is None:
            continue
        try:
            value = value if convert is None else convert(value)
        except (TypeError, ValueError, KeyError, IndexError, AttributeError, ZeroDivisionError):
            continue  # this file fills the tag in another way; no part of a cube depends on it
        if value is not None:
            tree = assoc_in(tree, target.split("."), value)
    return tree


def signal_type(signal: Mapping[str, Any]) -> str:
    """The signal type: "EDS", "EELS", another one as the file names it, or an empty text."""
    return _signal_type(merge_mapping(signal))


def _signal_type(tree: Mapping[str, Any]) -> str:
    given = str(_get(tree, "Signal.signal_type") or "")
    return "EDS" if given.upper().startswith(("EDS", "EDX")) else given


def metadata_attrs(signal: Mapping[str, Any]) -> dict[str, Any]:
    """Acquisition parameters as attributes of a cube: text, numbers and lists of text."""
    tree = merge_mapping(signal)
    instrument = next(iter(_get(tree, "Acquisition_instrument") or {}), "TEM")
    attrs: dict[str, Any] = {"signal": _signal_type(tree), "title": str(_get(tree, "General.title") or "")}
    if _get(tree, "Signal.signal_type"):
        attrs["signal_type"] = str(_get(tree, "Signal.signal_type"))
    beam = _number(_get(tree, f"Acquisition_instrument.{instrument}.beam_energy"))
    if beam:
        # Some .msa files give volts where the format asks for kilovolts; no microscope reaches 10 MeV.
        attrs["beam_energy_keV"] = beam / 1e3 if beam > _HIGHEST_BEAM_KEV else beam
    elements = _get(tree, "Sample.elements")
    if elements is not None and len(elements):
        # Files written by some versions of HyperSpy hold the list as one printed text.
        listed = re.findall(r"[A-Z][a-z]?", elements) if isinstance(elements, str) else [str(e) for e in elements]
        attrs["elements"] = listed
    for name, where in METADATA_PATHS.items():
        value = _get(tree, where.replace("*", f"Acquisition_instrument.{instrument}"))
        number = _number(value) if name in _NUMERIC_ATTRS else None
        # Programs write zero for a beam current or an angle that was not entered.
        if number is not None and not (number == 0 and name in ("beam_current_nA", "convergence_angle_mrad")):
            attrs[name] = number
        elif name not in _NUMERIC_ATTRS and value not in (None, ""):
            attrs[name] = str(value)
    return attrs


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _get(tree: Any, path: str) -> Any:
    """The value at a dotted path of nested dicts, or None."""
    return get_in(path.split("."), tree)
