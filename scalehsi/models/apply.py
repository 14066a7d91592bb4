"""Use a fitted result: abundances of another acquisition, and the denoised cube. Both are lazy."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import xarray as xr

from scalehsi.blocks import map_pixels, open_blocks, open_surrounded
from scalehsi.checks import check_weighting
from scalehsi.chunks import work_chunks
from scalehsi.cube import check_cube, history_of, same_axis, with_history
from scalehsi.models.catalogue import model_class
from scalehsi.models.references import channel_weights, on_axis, solver, spectra_of
from scalehsi.result import (
    advice_alone,
    check_result,
    map_dims,
    model_spectra,
    plain_attrs,
    result_warnings,
    settings_of,
    warnings_text,
)
from scalehsi.schema import ABUNDANCES, COMPONENT, ENDMEMBERS, ENERGY, MEAN_SPECTRUM, InputError, X, Y

log = logging.getLogger("scalehsi")


def project(
    result: Any,
    cube: xr.DataArray,
    *,
    constraint: str | None = None,
    weighting: str | None = "poisson",
    resample: bool = False,
) -> xr.DataArray:
    """Compute the abundances of a cube for the endmembers of a result, or for any spectra.

    Parameters
    ----------
    result : xarray.Dataset, xarray.DataArray, array, path, or list of paths
        A result of any model; it *is* the fitted state. Or spectra: a DataArray (component, energy), an array (K, E) on
        the channels of the cube, or files of references: ``.msa`` and others through RosettaSciIO, ``.csv`` with a
        header such as ``energy (eV),Cu,Zn``.
    cube : xarray.DataArray, shape (..., y, x, E)
        Cube with the same energy axis; eV and keV may differ. Its mask is honoured: masked pixels are NaN.
    constraint : {None, "nnls", "fcls", "poisson", "ls"}, optional
        How each pixel is solved.

        - None: by the method of the model; for spectra as "nnls".
        - "nnls": not negative, least squares, exact.
        - "fcls": not negative and of sum one, least squares, exact. For spectra in the counts of a whole pixel; where
          the thickness varies, use "nnls" and divide by the sum.
        - "poisson": not negative, by the likelihood of counts. Up to ten times the time of "nnls".
        - "ls": plain least squares, of either sign. The fastest.
    weighting : {"poisson", None}, default "poisson"
        With a constraint by least squares: weigh channels by one over their mean, as the noise of counts wants it. The
        mean is that of the fitted cube, or of the given spectra. None for data with uniform noise.
    resample : bool, default False
        Spectra on another energy axis are refused; True distributes their counts into the channels of the cube.

    Returns
    -------
    xarray.DataArray, dims (component, ..., y, x)
        Lazy, chunked like the blocks of the cube; with ``constraint=None`` solved by the method of the model (NMF:
        exactly, pixel by pixel), so that the maps of the fitted cube are those of the fit. Not so where the fit knew
        more than the pixel, as NMF with ``smoothness`` or fixed maps and PanSharpen do: then ``attrs["difference"]``
        and the log say it.

    Raises
    ------
    InputError
        When the energy axes differ, or what is given is neither a result nor spectra.

    References
    ----------
    Heinz and Chang 2001, doi:10.1109/36.911111 (fully constrained least squares). Kim and Park 2011,
    doi:10.1137/110821172 (the exact solver).

    Examples
    --------
    >>> import scalehsi as hsi
    >>> cube, truth = hsi.simulate.chequerboard((16, 16), n_channels=64)
    >>> result = hsi.fit(cube, hsi.NMF(4, max_iter=10), seed=0)
    >>> maps = hsi.project(result, cube)
    >>> bool(abs(maps - result["abundances"]).max() < 1e-5)
    True
    >>> fractions = hsi.project(truth.endmembers, cube, constraint="fcls")
    >>> bool(abs(fractions.sum("component") - 1).max() < 1e-6)
    True
    """
    check_cube(cube)
    own = isinstance(result, xr.Dataset) and constraint is None and not resample
    if isinstance(result, xr.DataArray) and {Y, X} & {*map(str, result.dims)}:
        check_result(result)
    if not own:
        return _project_spectra(result, cube, constraint or "nnls", weighting=weighting, resample=resample)
    check_result(result)
    _same_axis(result, cube)
    model = model_class(str(result.attrs["model"])).from_settings(settings_of(result))
    fn, shared = model.projector(result)
    cube = model.rows_of(cube, result)
    view = open_surrounded(cube, packed=model.takes_sparse_counts) if model.halo else open_blocks(cube, resident=False)
    handle = map_pixels(
        fn,
        view,
        shared={**shared, "residual": False},
        keep=[ABUNDANCES],
        halo=model.halo,
        tile=model.halo > 0,
        name=f"{model.name.lower()}-project",
    )[ABUNDANCES]
    maps = handle.to_dataarray({COMPONENT: result.sizes[COMPONENT]})
    maps = maps.assign_coords({COMPONENT: result[COMPONENT]}).rename(ABUNDANCES)
    maps.attrs = {
        **result[ABUNDANCES].attrs,
        **{k: result.attrs[k] for k in ("model", "components") if k in result.attrs},
    }
    if note := model.projection_note(result):
        log.warning("maps of the fitted cube differ from those of its fit: %s", note)
        maps.attrs["difference"] = note
    return maps


def _project_spectra(
    given: Any, cube: xr.DataArray, constraint: str, *, weighting: str | None, resample: bool
) -> xr.DataArray:
    """The abundances of a cube for given spectra; arguments as in `project`."""
    check_weighting(weighting)
    spectra = spectra_of(given)
    s = on_axis(spectra, cube, resample=resample)
    fitted = isinstance(given, xr.Dataset) and MEAN_SPECTRUM in given and not resample
    mean = given[MEAN_SPECTRUM].values if fitted else s.mean(axis=0)
    fn, shared = solver(s, constraint, channel_weights(mean) if weighting else None)
    handle = map_pixels(
        fn, open_blocks(cube, resident=False), shared={**shared, "residual": False}, keep=[ABUNDANCES], name="project"
    )[ABUNDANCES]
    names = spectra.coords.get(COMPONENT, np.arange(1, len(s) + 1))
    maps = handle.to_dataarray({COMPONENT: len(s)}).assign_coords({COMPONENT: np.asarray(names)}).rename(ABUNDANCES)
    maps.attrs = {"long_name": "abundance", "constraint": constraint}
    if isinstance(given, xr.Dataset) and "components" in given.attrs:
        maps.attrs["components"] = given.attrs["components"]
    return maps


def projected_result(fitted: xr.Dataset, maps: xr.DataArray, cube: xr.DataArray, *, origin: str) -> xr.Dataset:
    """A result with the spectra of one acquisition and the maps of another.

    Parameters
    ----------
    fitted : Dataset
        The result with the spectra.
    maps : DataArray
        Their maps in the cube, dims (component, ..., y, x).
    cube : DataArray
    origin : str
        Name of the result, for the history.
    """
    known = [
        name for name, v in fitted.data_vars.items() if name == ENDMEMBERS or not set(map_dims(fitted)) & {*v.dims}
    ]
    # What describes the data of the fit does not describe this cube.
    kept = [name for name in known if name not in ("objective", "residual_spectrum", "mean_spectrum")]
    made = fitted[kept].drop_vars(map_dims(fitted), errors="ignore")
    made[ABUNDANCES] = maps
    line = f"project: spectra of {origin} ({fitted.attrs['model']}), maps of {cube.attrs.get('source') or 'this cube'}"
    carried = {k: cube.attrs[k] for k in ("title", "source") if k in cube.attrs}
    made.attrs = plain_attrs({**fitted.attrs, **carried, "history": [*history_of(cube.attrs), line]})
    # The spectra are those of the fit, and so are its warnings; their pixels are not those of this cube.
    earlier = [each._replace(text=f"When the spectra were fitted: {each.text}") for each in result_warnings(fitted)]
    made.attrs |= {"advice": advice_alone(fitted), "warnings": warnings_text(earlier)}
    return made


def reconstruct(result: xr.Dataset, *, dtype: Any = np.float32) -> xr.DataArray:
    """Compute the denoised cube, maps times spectra, lazily.

    Parameters
    ----------
    result : xarray.Dataset
        Result of any model.
    dtype : dtype, default float32
        A floating-point type, so that masked pixels can be NaN.

    Returns
    -------
    xarray.DataArray, dims (..., y, x, energy)
        Lazy, in blocks of some 64 MiB. It is as large as the original cube: save it with `scalehsi.save`, or compute
        only the windows of interest (``reconstruct(result).sel(energy=slice(5.1, 5.4)).sum("energy")``).

    Raises
    ------
    InputError
        When the result has no maps or spectra, and for a dtype that is not floating-point.

    Examples
    --------
    >>> import scalehsi as hsi
    >>> cube, _ = hsi.simulate.chequerboard((16, 16), n_channels=64)
    >>> result = hsi.fit(cube, hsi.NMF(4, max_iter=10), seed=0)
    >>> hsi.reconstruct(result).sizes == cube.sizes
    True
    """
    check_result(result)
    if np.dtype(dtype).kind != "f":
        raise InputError(f"dtype={np.dtype(dtype)}: a cube of floats is expected; type dtype='float32'")
    dims = map_dims(result)
    maps = result[ABUNDANCES].transpose(*dims, COMPONENT)
    spectra = model_spectra(result)
    s = np.asarray(spectra.values, dtype=dtype)
    offset = np.asarray(result["offset"].values, dtype=dtype) if "offset" in result else np.zeros(s.shape[-1], dtype)
    # Spectra need E / K times the memory of maps, so chunks of the maps would be too large.
    storage = None if maps.chunks is None else maps.chunks[:-1]
    grid = work_chunks((*maps.shape[:-1], s[0].size), s.dtype.itemsize, storage=storage)
    maps = maps.chunk({**dict(zip(dims, grid, strict=True)), COMPONENT: -1})
    cube = xr.apply_ufunc(
        _product,
        maps,
        kwargs={"s": s, "offset": offset, "dtype": s.dtype},
        input_core_dims=[[COMPONENT]],
        output_core_dims=[list(spectra.dims[1:])],
        dask="parallelized",
        output_dtypes=[s.dtype],
        dask_gufunc_kwargs={"output_sizes": {d: spectra.sizes[d] for d in spectra.dims[1:]}},
    )
    modes = spectra.dims[1:-1]
    cube = cube.transpose(*modes, *dims, ENERGY).assign_coords(
        {d: result[d] for d in (*modes, ENERGY) if d in result.coords}
    )
    cube = cube.rename("reconstruction")
    cube.attrs = {
        k: v for k, v in result.attrs.items() if k in ("signal", "title", "elements", "components", "history")
    }
    return with_history(cube, f"reconstruct from {result.attrs['model']}, {result.sizes[COMPONENT]} components")


def _product(maps: Any, *, s: Any, offset: Any, dtype: Any) -> Any:
    """Maps times spectra of a block. maps (..., K). s (K, ..., E). offset (E,). dtype: of the cube."""
    return (np.tensordot(maps, s, axes=1) + offset).astype(dtype, copy=False)


def _same_axis(result: xr.Dataset, cube: xr.DataArray) -> None:
    then, now = np.asarray(result[ENERGY].values, dtype=float), np.asarray(cube[ENERGY].values, dtype=float)
    if not same_axis(now, then):
        raise InputError(
            f"the energy axis of the result has {then.size} channels, {then[0]:g} to {then[-1]:g}, that of the cube "
            f"{now.size}, {now[0]:g} to {now[-1]:g}; "
            "bring the cube onto it with cube.sel(energy=...) or cube.interp(energy=...)"
        )
