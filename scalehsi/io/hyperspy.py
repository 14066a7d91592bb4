"""Turn HyperSpy signals into cubes and cubes into HyperSpy signals, and fill in what a decomposition leaves there.

HyperSpy and eXSpy (extra ``hyperspy``) are imported only inside the functions. Lazy data stay lazy in both directions.
"""

from __future__ import annotations

import importlib
import warnings
from types import ModuleType
from typing import Any, Final

import dask.array as da
import numpy as np
import xarray as xr
from toolz import assoc_in

from scalehsi.arrays import Float
from scalehsi.checks import is_hyperspy
from scalehsi.cube import check_cube, with_history
from scalehsi.io.open import join_energy_chunks, warn_of_large_blocks
from scalehsi.io.vendor_signal import (
    CHANNEL_UNITS,
    METADATA_PATHS,
    PIXEL_UNITS,
    UNKNOWN_UNITS,
    AxisRoles,
    axis_roles,
    to_cube,
)
from scalehsi.physics.line_names import split_symbols
from scalehsi.schema import ENERGY, InputError, X, Y

_NO_UNITS: Final = {"", "index", PIXEL_UNITS, CHANNEL_UNITS, UNKNOWN_UNITS}
"""Units of axes that have none in HyperSpy."""
_UNIFORM: Final = 1e-6
"""Largest deviation of a uniform axis from equal steps, in steps."""
_SEM_BELOW_KEV: Final = 40.0
"""EDS at a beam energy below this is taken as that of an SEM."""
_SCALEHSI_TYPES: Final = {"EDS", "EELS"}
_PREFERENCES: Final = {
    "elevation_angle_deg": "eds_detector_elevation",
    "azimuth_angle_deg": "eds_detector_azimuth",
    "energy_resolution_MnKa_eV": "eds_mn_ka",
}
"""Attributes that eXSpy fills in where a file has none, and the names of its preferences."""


def from_hyperspy(signal: Any) -> xr.DataArray:
    """Turn a HyperSpy signal into a cube, without a copy of its data.

    Parameters
    ----------
    signal : hyperspy.signals.BaseSignal
        A spectrum, line scan or spectrum image of any number of navigation axes (signal dimension 1), or a 4D-STEM scan
        (signal dimension 2). A lazy signal gives a lazy cube.

    Returns
    -------
    xarray.DataArray
        Dims ``(..., "y", "x", "energy")``, as `open_cube` gives them: y and x in nm, energy in eV or keV, each with
        ``attrs["units"]``; a line scan has one row, a single spectrum one pixel. The metadata become attributes: title,
        beam energy, elements, live time and others. ``attrs["history"]`` names detector angles and resolutions that
        equal eXSpy's preferences, because eXSpy fills them in where a file has none.

    Raises
    ------
    InputError
        For what is no HyperSpy signal, an image or a stack of images, complex or ragged data, and a signal axis that is
        not the energy.

    Notes
    -----
    The cube shares the memory of the signal. Chunks of a lazy signal that divide the energy axis are joined.

    Examples
    --------
    >>> import hyperspy.api as hs
    >>> cube = from_hyperspy(hs.signals.Signal1D(np.ones((2, 3, 8))))
    >>> dict(cube.sizes)
    {'y': 2, 'x': 3, 'energy': 8}
    """
    return cube_and_roles(signal)[0]


def cube_and_roles(signal: Any) -> tuple[xr.DataArray, AxisRoles]:
    """The cube of a HyperSpy signal, and which axis of the signal's array became which dim; see `from_hyperspy`."""
    if not is_hyperspy(signal):
        raise InputError(
            f"a HyperSpy signal is expected, got {type(signal).__name__}; open a file with scalehsi.open_cube(path)"
        )
    data, name = signal.data, type(signal).__name__
    if data.dtype.kind not in "uifb":
        what = {"c": "complex", "O": "ragged (object)"}.get(data.dtype.kind, str(data.dtype))
        raise InputError(f"this {name} holds {what} data, real numbers are expected; type signal.real for real parts")
    axes = sorted(_axes(signal), key=lambda axis: axis.index_in_array)
    described = {
        "data": data,
        "axes": [{"name": a.name, "units": a.units, "axis": a.axis, "navigate": a.navigate} for a in axes],
        "metadata": signal.metadata.as_dictionary(),
    }
    spectral = tuple(a.index_in_array for a in axes if not a.navigate)
    roles = axis_roles(described)
    if roles is None or roles.spectral != spectral:
        raise InputError(_no_spectra(signal, axes, roles))
    title = str(signal.metadata.get_item("General.title", "") or "")
    file = str(signal.metadata.get_item("General.original_filename", "") or "")
    shape = " x ".join(map(str, data.shape))
    history = [f"from_hyperspy: {name}, {shape} {data.dtype}"]
    cube = to_cube(described, roles, attrs={"history": history, **({"source": file} if file else {})})
    if assumed := _assumed(signal, cube.attrs):
        cube = with_history(cube, f"from_hyperspy: {assumed} equal eXSpy's preferences, and may not be measured")
    cube = join_energy_chunks(cube)
    warn_of_large_blocks(cube, title or name)
    return cube, roles


def _axes(signal: Any) -> list[Any]:
    return [*signal.axes_manager.navigation_axes, *signal.axes_manager.signal_axes]


def _no_spectra(signal: Any, axes: list[Any], roles: AxisRoles | None) -> str:
    """Why a signal is no cube. roles: None, or another energy axis than the signal's."""
    manager = signal.axes_manager
    what = f"a signal of {manager.signal_dimension} signal and {manager.navigation_dimension} navigation axes"
    if roles is not None and len(roles.spectral) == 1 and axes[roles.spectral[0]].navigate:
        axis = axes[roles.spectral[0]].index_in_axes_manager
        return f"the energies of this signal are a navigation axis; type signal.as_signal1D({axis})"
    wanted = "spectra (signal dimension 1) or 4D-STEM (signal dimension 2 at two scan axes) are expected"
    return f"{what} holds no spectra: {wanted}; type signal.as_signal1D(axis) to choose the energy axis"


def _assumed(signal: Any, attrs: dict[str, Any]) -> str:
    """The attributes that equal the preferences of eXSpy, as text."""
    if not any(kind.__module__.startswith("exspy.") for kind in type(signal).__mro__):
        return ""
    wanted = importlib.import_module("exspy").preferences.EDS
    found = [name for name, own in _PREFERENCES.items() if attrs.get(name) == getattr(wanted, own, None)]
    return ", ".join(f"{name} {attrs[name]:g}" for name in found if name in attrs)


# To HyperSpy ---------------------------------------------------------------------------------------------------------


def signal_of(cube: xr.DataArray) -> Any:
    """The cube as a HyperSpy signal; see `scalehsi.to_hyperspy`."""
    check_cube(cube)
    kind = _signal_type(cube.attrs)
    cube = cube.isel(dict.fromkeys(_added_dims(cube), 0))
    axes = [_axis(cube, str(dim)) for dim in cube.dims]
    with warnings.catch_warnings():
        # HyperSpy 2.5 and eXSpy 0.3 warn about imports of their own, also in as_lazy and set_signal_type.
        warnings.filterwarnings("ignore", "Importing `.*` from `hyperspy")
        hs = _installed("hyperspy.api")
        if kind:
            _installed("exspy")
        signal = hs.signals.Signal1D(cube.data, axes=axes, metadata=_metadata(cube.attrs, kind))
        if isinstance(cube.data, da.Array):
            signal = signal.as_lazy()
        if kind:
            signal.set_signal_type(kind)
    return signal


def _installed(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        what = {"exspy": "EDS and EELS signals of HyperSpy come from eXSpy"}.get(name, "HyperSpy is needed")
        raise InputError(f'{what}, which is not installed; type pip install "scalehsi[hyperspy]"') from error


def _added_dims(cube: xr.DataArray) -> list[str]:
    """Dims y and x of one pixel without calibration, which a line scan and a single spectrum have only in a cube."""
    return [d for d in (Y, X) if cube.sizes[d] == 1 and _units(cube, d) in _NO_UNITS]


def _units(cube: xr.DataArray, dim: str) -> str:
    return str(cube[dim].attrs.get("units", "")) if dim in cube.coords else ""


def _axis(cube: xr.DataArray, dim: str) -> dict[str, Any]:
    size, units = cube.sizes[dim], _units(cube, dim)
    named = {"name": dim.capitalize() if dim == ENERGY else dim, "size": size, "navigate": dim != ENERGY}
    named |= {} if units in _NO_UNITS else {"units": units}
    if dim not in cube.coords or cube[dim].dtype.kind not in "uif":
        return named
    values = np.asarray(cube[dim].values, dtype=np.float64)
    step = float(values[-1] - values[0]) / (size - 1) if size > 1 else 1.0
    if np.abs(values[0] + step * np.arange(size) - values).max() > _UNIFORM * abs(step) or step == 0:
        return {**named, "axis": values}
    return {**named, "offset": float(values[0]), "scale": step}


def _signal_type(attrs: Any) -> str:
    """HyperSpy's signal type of a cube; empty for other signals."""
    signal, given = str(attrs.get("signal", "")), str(attrs.get("signal_type", ""))
    if signal not in _SCALEHSI_TYPES:
        return ""
    if signal == "EDS" and not given.startswith("EDS_"):
        return "EDS_SEM" if float(attrs.get("beam_energy_keV", np.inf)) < _SEM_BELOW_KEV else "EDS_TEM"
    return given if signal == "EDS" else signal


def _metadata(attrs: Any, kind: str) -> dict[str, Any]:
    """The attributes of a cube in HyperSpy's metadata tree. kind: the signal type."""
    instrument = f"Acquisition_instrument.{'SEM' if kind == 'EDS_SEM' else 'TEM'}"
    paths = {"title": "General.title", "beam_energy_keV": "*.beam_energy", **METADATA_PATHS}
    tree: dict[str, Any] = {}
    for name, path in paths.items():
        if attrs.get(name) not in (None, ""):
            tree = assoc_in(tree, path.replace("*", instrument).split("."), attrs[name])
    if len(attrs.get("elements", ())):
        tree = assoc_in(tree, ["Sample", "elements"], split_symbols(attrs["elements"]))
    return tree


# What a decomposition leaves -----------------------------------------------------------------------------------------


def fill_learning_results(
    signal: Any,
    spectra: Float,
    maps: Float,
    *,
    algorithm: str,
    navigation_mask: np.ndarray[Any, Any] | None = None,
    signal_mask: np.ndarray[Any, Any] | None = None,
) -> np.ndarray[Any, Any]:
    """Replace the learning results of a signal, so that all of HyperSpy that follows a decomposition works on them.

    Parameters
    ----------
    signal : hyperspy.signals.BaseSignal
    spectra : array, shape (K, S)
        S channels of the signal, in the order of its array; NaN in those that the mask leaves out.
    maps : array, shape (P, K)
        P navigation positions, in the order of its array; NaN in those that the mask leaves out.
    algorithm : str
        Name of the method.
    navigation_mask, signal_mask : array of bool, optional
        In the shape of the array's navigation and signal axes; True = left out.

    Returns
    -------
    array of int, shape (K,)
        The components in HyperSpy's order, which is that of their share in the sum of squares of the model.
    """
    spectra, maps = np.asarray(spectra, dtype=np.float64), np.asarray(maps, dtype=np.float64)
    power = np.nansum(maps**2, axis=0) * np.nansum(spectra**2, axis=1)
    order = np.argsort(-power, kind="stable")
    found = type(signal.learning_results)()  # nothing remains of an earlier decomposition
    found.factors, found.loadings = np.ascontiguousarray(spectra[order].T), np.ascontiguousarray(maps[:, order])
    found.output_dimension = found.number_significant_components = len(order)
    found.decomposition_algorithm = algorithm
    found.explained_variance_ratio = power[order] / (power.sum() or 1.0)
    found.poissonian_noise_normalized = found.unfolded = False
    found.navigation_mask, found.signal_mask = navigation_mask, signal_mask
    signal.learning_results = found
    return order


def navigation_rows(maps: xr.DataArray, roles: AxisRoles) -> Float:
    """Maps of dims (component, ..., y, x) as rows (P, K) in the order of a signal's array, from which roles are."""
    cube_axes = [*roles.leading, *(a for a in (roles.y, roles.x) if a is not None)]
    missing = [dim for dim, axis in ((Y, roles.y), (X, roles.x)) if axis is None]
    values = np.asarray(maps.isel(dict.fromkeys(missing, 0)).values, dtype=np.float64)
    turned = values.transpose(*(1 + cube_axes.index(a) for a in sorted(cube_axes)), 0)
    return turned.reshape(-1, values.shape[0])
