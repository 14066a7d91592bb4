"""Decompose a HyperSpy signal in place, and turn cubes and results into HyperSpy signals.

The words are HyperSpy's, so that a notebook goes on with its own plots, models and clustering.
"""

from __future__ import annotations

import numbers
from typing import Any, Final

import numpy as np
import xarray as xr

from scalehsi.arrays import Float
from scalehsi.checks import is_hyperspy, is_number, require
from scalehsi.cube import check_cube
from scalehsi.fitting.fit import fit
from scalehsi.io.hyperspy import cube_and_roles, fill_learning_results, navigation_rows, signal_of
from scalehsi.io.vendor_signal import AxisRoles
from scalehsi.models.apply import project, reconstruct
from scalehsi.models.catalogue import model_class
from scalehsi.result import KEPT_ATTRS, check_result, model_spectra
from scalehsi.schema import ABUNDANCES, COMPONENT, ENERGY, MASK, InputError

HYPERSPY_COMPONENT: Final = "hyperspy_component"
"""Coordinate of the components of a result: their numbers in HyperSpy's figures."""
_INSTEAD: Final = {
    "svd": "signal.decomposition()",
    "pca": "signal.decomposition()",
    "mlpca": 'signal.decomposition(algorithm="MLPCA", ...)',
    "ica": "signal.decomposition() and signal.blind_source_separation(...)",
}
"""Methods whose result is no product of maps and spectra alone, and what to type in HyperSpy."""
_LOSSES: Final = {"frobenius": "frobenius", 2: "frobenius", "kullback-leibler": "poisson", 1: "poisson"}
_FIT_WORDS: Final = ("device", "checkpoint", "checkpoint_every", "checkpoint_minutes", "resume", "progress")
_NO_EFFECT: Final = ("print_info", "return_info", "copy", "svd_solver")
"""Words of HyperSpy's ``decomposition`` that do not change a result."""


def decompose(
    signal: Any,
    normalize_poissonian_noise: bool | None = None,  # noqa: FBT001 (the order is HyperSpy's)
    algorithm: str = "NMF",
    output_dimension: int | None = None,
    *,
    navigation_mask: Any = None,
    signal_mask: Any = None,
    reproject: str | None = None,
    random_state: int | None = 0,
    beta_loss: str | int | None = None,
    **settings: Any,
) -> xr.Dataset:
    """Unmix a HyperSpy signal and fill its ``learning_results``, as ``signal.decomposition`` does.

    The arguments have the names and the order of those of ``signal.decomposition``.

    Parameters
    ----------
    signal : hyperspy.signals.BaseSignal
        With at least one navigation axis. A lazy signal is read block by block and never computed whole.
    normalize_poissonian_noise : bool, optional
        True: least squares weighted by the noise of counts; False: plain least squares. Default: the data decide.
    algorithm : str, default "NMF"
        A method of scalehsi whose model is maps times spectra: "NMF", "PSNMF", "VCA", "NFINDR", "SSS", "BLU",
        "BackgroundNMF", "DAEU" and others. What each costs is in its own docstring.
    output_dimension : int
        Number of components.
    navigation_mask : BaseSignal, DataArray or array of bool, optional
        Navigation positions to leave out, **True = left out**, as in HyperSpy. A signal and a DataArray are taken by
        their axes, an array by its shape, which is that of ``signal.axes_manager.navigation_shape`` (x, y) or of the
        array (y, x). A square array is refused.
    signal_mask : BaseSignal, DataArray or array of bool, optional
        Channels to leave out, True = left out.
    reproject : {None, "navigation"}
        "navigation" also computes the maps in the masked pixels, for one more reading.
    random_state : int, default 0
        The seed of the fit.
    beta_loss : {"frobenius", "kullback-leibler"}, optional
        The loss of NMF; "kullback-leibler" is ``loss="poisson"``. Default: the data decide.
    **settings
        Settings of the method (``max_iter``, ``tol``, ...), and of `fit` (``progress``, ``checkpoint``, ``device``).

    Returns
    -------
    xarray.Dataset
        The result of `fit`, with the coordinate ``hyperspy_component`` (component): the number of each component in
        HyperSpy's figures, which count from 0 in the order of ``explained_variance_ratio``.

    Raises
    ------
    InputError
        For a signal without navigation axes, masks that leave nothing or have another shape, methods that HyperSpy
        itself has ("SVD"), and settings that the method does not have.

    Notes
    -----
    ``factors`` (channels, K) and ``loadings`` (positions, K) are NumPy arrays of float64, for lazy signals too, as
    HyperSpy's own; masked positions and channels are NaN. ``explained_variance_ratio`` is the share of each component
    in the sum of squares of the model. After a fit with masks give them again: ``mask=`` to
    ``blind_source_separation``, ``navigation_mask=`` to ``cluster_analysis``.

    Examples
    --------
    >>> import scalehsi as hsi
    >>> cube, truth = hsi.simulate.chequerboard((16, 16), n_channels=64)
    >>> signal = hsi.to_hyperspy(cube)
    >>> result = hsi.decompose(signal, algorithm="NMF", output_dimension=4, max_iter=20)
    >>> signal.learning_results.factors.shape, signal.learning_results.loadings.shape
    ((64, 4), (256, 4))
    """
    cube, roles = cube_and_roles(signal)
    if not signal.axes_manager.navigation_dimension:
        raise InputError("this signal has no navigation axes; a single spectrum cannot be decomposed")
    require(reproject in (None, "navigation"), f"reproject={reproject!r} is not known; it is None or 'navigation'")
    options = {word: settings.pop(word) for word in _FIT_WORDS if word in settings}
    model = _model(algorithm, output_dimension, beta_loss, normalize_poissonian_noise, settings)
    left_out = _navigation_mask(signal, navigation_mask, cube, roles)
    channels = _signal_mask(signal, signal_mask)
    chosen = cube if channels is None else cube.isel({ENERGY: ~channels.reshape(-1)})
    used = chosen if left_out is None else chosen.assign_coords({MASK: _as_cube_mask(cube, roles, ~left_out)})
    seed = 0 if random_state is None else random_state
    require(is_number(seed, numbers.Integral), f"random_state is a whole number, got {type(seed).__name__}")
    result = fit(used, model, seed=seed, **options)
    spectra = _spectra(result)
    maps = navigation_rows(result[ABUNDANCES], roles)
    if left_out is not None and reproject == "navigation":
        everywhere = navigation_rows(project(result, chosen), roles)
        maps = np.where(left_out.reshape(-1, 1), everywhere, maps)
    if channels is not None:
        whole = np.full((len(spectra), channels.size), np.nan)
        whole[:, ~channels.reshape(-1)] = spectra
        spectra = whole
    order = fill_learning_results(
        signal,
        spectra,
        maps,
        algorithm=str(result.attrs["model"]),
        navigation_mask=None if reproject == "navigation" else left_out,
        signal_mask=channels,
    )
    return _numbered(result, order)


def to_hyperspy(data: xr.DataArray | xr.Dataset) -> Any:
    """Turn a cube or a result into a HyperSpy signal, which ``.save("name.hspy")`` writes.

    Parameters
    ----------
    data : xarray.DataArray or xarray.Dataset
        A cube, or a result whose model is maps times spectra.

    Returns
    -------
    hyperspy.signals.BaseSignal
        Of the class for EDS or EELS where the cube names its signal, lazy where the cube is. A result becomes the
        signal of its model (`reconstruct`), with its components as ``learning_results``: all of HyperSpy that follows
        a decomposition works on it. Axes keep their values, names and units; axes without equal steps become
        ``DataAxis``. Attributes become metadata.

    Raises
    ------
    InputError
        When ``data`` is neither a cube nor a result, HyperSpy is not installed, or eXSpy is not for EDS and EELS.

    Notes
    -----
    A mask of the cube is not part of a signal: give ``~cube["mask"]`` as ``navigation_mask``. eXSpy fills in detector
    angles and the energy resolution where the cube has none. HyperSpy writes no ``.zspy`` with Zarr 3.

    Examples
    --------
    >>> import scalehsi as hsi
    >>> cube, truth = hsi.simulate.chequerboard((16, 8), n_channels=64)
    >>> hsi.to_hyperspy(cube.assign_attrs(title="carbides"))
    <LazyEELSSpectrum, title: carbides, dimensions: (8, 16|64)>
    """
    if not isinstance(data, xr.Dataset):
        return signal_of(check_cube(data))
    check_result(data)
    spectra = _spectra(data)
    model = reconstruct(data)
    model.attrs |= {name: data.attrs[name] for name in KEPT_ATTRS if name in data.attrs}
    signal = signal_of(model)
    maps = data[ABUNDANCES].transpose(..., COMPONENT).values
    left_out = np.isnan(maps).all(axis=-1)
    shape = signal.data.shape[:-1]
    fill_learning_results(
        signal,
        spectra,
        maps.reshape(-1, len(spectra)),
        algorithm=str(data.attrs["model"]),
        navigation_mask=left_out.reshape(shape) if left_out.any() else None,
    )
    return signal


def _model(algorithm: Any, output_dimension: Any, beta_loss: Any, normalise: Any, settings: dict[str, Any]) -> Any:
    """The model of HyperSpy's words; ``settings`` are those of the method, and words without an effect on it."""
    wrong = f"normalize_poissonian_noise={normalise!r} is no boolean; type algorithm=... for the method"
    require(normalise in (None, True, False), wrong)
    require(isinstance(algorithm, str), f"algorithm is a name such as 'NMF', got {algorithm!r}")
    instead = _INSTEAD.get(algorithm.lower())
    if instead:
        raise InputError(f"algorithm={algorithm!r} is HyperSpy's own; type {instead}")
    require(output_dimension is not None, "output_dimension is missing, the number of components; type for example 4")
    require(settings.pop("centre", None) is None, "centre: the model has no mean, leave it out")
    given = {name: value for name, value in settings.items() if name not in _NO_EFFECT}
    if normalise is not None:
        given |= {"loss": "frobenius", "weighting": "poisson" if normalise else None}
    if beta_loss is not None:
        require(beta_loss in _LOSSES, f"beta_loss={beta_loss!r} is not known; it is 'frobenius' or 'kullback-leibler'")
        given["loss"] = _LOSSES[beta_loss]
    return model_class(algorithm).from_settings({"n_components": output_dimension, **given})


def _spectra(result: xr.Dataset) -> Float:
    """The spectra (K, E) that the maps multiply."""
    spectra = model_spectra(result)
    if spectra.dims != (COMPONENT, ENERGY) or "offset" in result:
        raise InputError(
            f"a result of {result.attrs['model']} is more than maps times spectra, which is all that HyperSpy's "
            "learning results hold; type scalehsi.to_hyperspy(scalehsi.reconstruct(result)) for its model"
        )
    return np.asarray(spectra.values, dtype=np.float64)


def _numbered(result: xr.Dataset, order: np.ndarray[Any, Any]) -> xr.Dataset:
    text = {"long_name": "component in HyperSpy's figures"}
    return result.assign_coords({HYPERSPY_COMPONENT: (COMPONENT, np.argsort(order), text)})


# Masks ---------------------------------------------------------------------------------------------------------------


def _navigation_mask(signal: Any, given: Any, cube: xr.DataArray, roles: AxisRoles) -> np.ndarray[Any, Any] | None:
    """The mask in the shape of the array's navigation axes, True = left out."""
    axes = sorted(signal.axes_manager.navigation_axes, key=lambda axis: axis.index_in_array)
    dims = dict(zip((*roles.leading, roles.y, roles.x), map(str, cube.dims), strict=False))
    own = [dims[axis.index_in_array] for axis in axes]
    return _mask("navigation_mask", given, axes, own, kind="navigation position")


def _signal_mask(signal: Any, given: Any) -> np.ndarray[Any, Any] | None:
    """The mask in the shape of the array's signal axes, True = left out."""
    axes = sorted(signal.axes_manager.signal_axes, key=lambda axis: axis.index_in_array)
    return _mask("signal_mask", given, axes, [ENERGY] * len(axes), kind="channel")


def _mask(name: str, given: Any, axes: list[Any], dims: list[str], *, kind: str) -> np.ndarray[Any, Any] | None:
    """A mask in the order of the axes, or None when it leaves out nothing.

    name: of the argument. given: as in `decompose`. axes, dims: of the signal, and their names in the cube.
    kind: what is masked, for messages.
    """
    if given is None:
        return None
    wanted = tuple(axis.size for axis in axes)
    if isinstance(given, xr.DataArray):
        if sorted(map(str, given.dims)) != sorted(dims):
            raise InputError(f"{name} has the dims {given.dims}, {tuple(dims)} are expected; type mask.rename({{...}})")
        found = given.transpose(*dims).values
    elif is_hyperspy(given):
        found = _in_order(given, [str(axis.name) for axis in axes])
    else:
        found = np.asarray(given)
        if len(wanted) > 1 and found.shape == wanted == wanted[::-1]:
            raise InputError(
                f"{name} is a square array of shape {found.shape}, which may be (x, y) or (y, x); "
                f"give a HyperSpy signal or a DataArray of the dims {tuple(dims)}"
            )
        found = found.transpose() if found.shape == wanted[::-1] else found
    if found.shape != wanted or found.dtype.kind != "b":
        raise InputError(f"{name} holds {found.dtype} of shape {found.shape}; booleans of shape {wanted} are expected")
    if found.all():
        raise InputError(f"{name} leaves no {kind}: True leaves out, as in HyperSpy; give ~{name}")
    return found if found.any() else None


def _in_order(mask: Any, names: list[str]) -> np.ndarray[Any, Any]:
    """The values of a mask that is a signal, in the order of named axes; as they are where the names differ."""
    manager, values = mask.axes_manager, np.asarray(mask.data)
    axes = sorted((*manager.navigation_axes, *manager.signal_axes), key=lambda axis: axis.index_in_array)
    own = [str(axis.name) for axis in axes]
    if values.ndim == len(own) and sorted(own) == sorted(names) and len(set(names)) == len(names):
        values = values.transpose([own.index(each) for each in names])
    return values


def _as_cube_mask(
    cube: xr.DataArray, roles: AxisRoles, used: np.ndarray[Any, Any]
) -> tuple[tuple[str, ...], np.ndarray[Any, Any]]:
    """A mask in the order of a signal's array as the coordinate of its cube."""
    cube_axes = [*roles.leading, *(a for a in (roles.y, roles.x) if a is not None)]
    turned = used.transpose([sorted(cube_axes).index(a) for a in cube_axes])
    return tuple(map(str, cube.dims[:-1])), turned.reshape(cube.shape[:-1])
