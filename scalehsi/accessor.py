"""``cube.hsi``: the functions of the package as methods of a DataArray. It has no state and no logic of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import xarray as xr

import scalehsi as hsi


@xr.register_dataarray_accessor("hsi")
class CubeAccessor:
    """The functions of `scalehsi` on a cube: ``cube.hsi.fit(model)`` is ``scalehsi.fit(cube, model)``.

    It exists once `scalehsi` is imported, or xarray has opened any file. The arguments are those of the functions.

    Parameters
    ----------
    cube : xarray.DataArray
        A cube of dims ``(..., "y", "x", "energy")``; for `fit` and `save` also maps.

    Examples
    --------
    >>> cube = hsi.simulate.chequerboard((16, 16), n_channels=64).cube
    >>> cube.hsi.bin(y=2, x=2).hsi.fit(hsi.NMF(4, max_iter=5))["abundances"].shape
    (4, 8, 8)
    """

    def __init__(self, cube: xr.DataArray) -> None:
        self._cube = cube

    def check(self) -> xr.DataArray:
        """The cube, if its metadata are right; see `scalehsi.check_cube`."""
        return hsi.check_cube(self._cube)

    def crop(self, **ranges: Any) -> xr.DataArray:
        """A range of one or more axes; see `scalehsi.prepare.crop`."""
        return hsi.prepare.crop(self._cube, **ranges)

    def bin(self, **factors: int) -> xr.DataArray:
        """Sums of neighbouring pixels or channels; see `scalehsi.prepare.bin`."""
        return hsi.prepare.bin(self._cube, **factors)

    def mask(self, *given: Any, **options: Any) -> xr.DataArray:
        """The cube with pixels left out; see `scalehsi.prepare.mask`."""
        return hsi.prepare.mask(self._cube, *given, **options)

    def select_rank(self, *ranks: Any, **options: Any) -> Any:
        """How many components there are; see `scalehsi.select_rank`."""
        return hsi.select_rank(self._cube, *ranks, **options)

    def plan(self, model: Any) -> Any:
        """Memory, blocks and passes of a fit; see `scalehsi.plan`."""
        return hsi.plan(self._cube, model)

    def fit(self, model: Any, **options: Any) -> xr.Dataset:
        """The result of a model; see `scalehsi.fit`."""
        return hsi.fit(self._cube, model, **options)

    def project(self, result: Any, **options: Any) -> xr.DataArray:
        """The abundances for a result or spectra; see `scalehsi.project`."""
        return hsi.project(result, self._cube, **options)

    def quantify(self, *given: Any, **options: Any) -> xr.Dataset:
        """The composition of an EDX cube; see `scalehsi.quantify`."""
        return hsi.quantify(self._cube, *given, **options)

    def edge_maps(self, *given: Any, **options: Any) -> xr.Dataset:
        """Maps of EELS edges; see `scalehsi.quantify.edge_maps`."""
        return hsi.quantify.edge_maps(self._cube, *given, **options)

    def save(self, path: Any, **options: Any) -> Path:
        """Write a Zarr store; see `scalehsi.save`."""
        return hsi.save(self._cube, path, **options)

    def to_hyperspy(self) -> Any:
        """A HyperSpy signal; see `scalehsi.to_hyperspy`."""
        return hsi.to_hyperspy(self._cube)
