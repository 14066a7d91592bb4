"""A result has all that its use needs, and other objects are refused."""

from __future__ import annotations

import json
from typing import Any

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from numpy.testing import assert_allclose, assert_array_equal

from scalehsi.result import (
    check_result,
    component_share,
    describe_shape,
    make_result,
    map_dims,
    settings_of,
    versions,
)
from scalehsi.schema import ADVICE, InputError
from tests.helpers import counts_cube, raise_if_dask_computes


def cube(shape: tuple[int, ...] = (4, 5, 6)) -> xr.DataArray:
    made = counts_cube(shape)
    made.attrs |= {
        "title": "a title",
        "elements": ["Si", "O"],
        "beam_energy_keV": 200.0,
        "source": "scan.dm4",
        "history": ["bin(y=2)"],
        "camera": "not for results",
    }
    return made


def variables(given: xr.DataArray, *, components: int = 2, lazy: bool = False) -> dict[str, xr.DataArray]:
    rng = np.random.default_rng(0)
    maps = rng.random((components, *given.shape[:-1]))
    return {
        "endmembers": xr.DataArray(rng.random((components, given.sizes["energy"])), dims=("component", "energy")),
        "abundances": xr.DataArray(
            da.from_array(maps, chunks=2) if lazy else maps, dims=("component", *given.dims[:-1])
        ),
    }


def made(given: xr.DataArray | None = None, **kwargs: Any) -> xr.Dataset:
    given = cube() if given is None else given
    settings: dict[str, Any] = {
        "cube": given,
        "model": "NMF",
        "settings": {"n_components": 2, "loss": "poisson"},
        "seed": 7,
        "objective": [3.0, 2.0],
        "status": "converged",
    }
    return make_result(variables(given), **(settings | kwargs))


def test_a_result_has_axes_units_description_and_provenance() -> None:
    result = made()
    assert [result[d].attrs["units"] for d in ("y", "x", "energy")] == ["nm", "nm", "keV"]
    assert_array_equal(result.energy, cube().energy)
    assert result.component.values.tolist() == [1, 2]
    assert result.objective.dims == ("iteration",)
    assert result.objective.values.tolist() == [3.0, 2.0]
    attrs = result.attrs
    assert (attrs["model"], attrs["seed"], attrs["status"], attrs["source"]) == ("NMF", 7, "converged", "scan.dm4")
    assert (attrs["title"], attrs["signal"], attrs["elements"]) == ("a title", "EDS", "Si, O")
    assert attrs["beam_energy_keV"] == 200.0
    assert "camera" not in attrs
    assert attrs["history"] == "bin(y=2)\nfit NMF to y 4, x 5, energy 6, seed 7: converged"
    assert attrs["advice"] == ADVICE["converged"]
    assert settings_of(result) == {"n_components": 2, "loss": "poisson"}
    assert json.loads(attrs["versions"])["numpy"] == np.__version__


def test_the_fitted_cube_is_neither_read_nor_changed() -> None:
    given = cube().chunk({"y": 2})
    before = dict(given.attrs)
    with raise_if_dask_computes(0):
        result = make_result(
            variables(given, lazy=True), cube=given, model="NMF", settings={}, seed=0, objective=[], status="max_iter"
        )
    assert given.attrs == before
    assert isinstance(result.abundances.data, da.Array)
    assert result.sizes["iteration"] == 0


def test_given_advice_and_source_take_precedence() -> None:
    result = made(advice="look at channel 3", source="elsewhere.zarr", status="stagnated")
    assert (result.attrs["advice"], result.attrs["source"]) == ("look at channel 3", "elsewhere.zarr")


def test_a_history_of_one_string_is_one_line() -> None:
    given = cube()
    given.attrs["history"] = "bin(y=2)"
    assert made(given).attrs["history"].splitlines()[0] == "bin(y=2)"


def test_more_dims_and_axes_without_coordinates_are_no_other_case() -> None:
    given = counts_cube((2, 4, 5, 6))  # the leading dim has no coordinate
    result = made(given)
    assert map_dims(result) == ("frame", "y", "x")
    assert set(result.coords) == {"y", "x", "energy", "component"}
    assert describe_shape(given) == "frame 2, y 4, x 5, energy 6"


def test_the_mask_is_no_coordinate_of_the_result() -> None:
    # A lazy mask would be computed again with every look at the result; pixels left out are NaN anyway.
    given = cube().assign_coords(mask=(("y", "x"), np.ones((4, 5), bool)))
    assert "mask" not in made(given).coords


def test_versions_are_those_of_the_libraries() -> None:
    found = versions()
    assert {"python", "scalehsi", "numpy", "dask", "xarray", "zarr"} <= set(found)
    assert all(isinstance(v, str) and v for v in found.values())


def test_other_objects_are_no_result() -> None:
    result = made()
    assert check_result(result) is result
    with pytest.raises(InputError, match=r"a result is an xarray\.Dataset, got a DataArray .*fit it first"):
        check_result(cube())
    with pytest.raises(InputError, match=r"got str; open it with scalehsi\.open_result"):
        check_result("out.zarr")
    with pytest.raises(InputError, match="it lacks endmembers, abundances, model"):
        check_result(xr.Dataset())
    with pytest.raises(InputError, match=r"no result of scalehsi: it lacks abundances$"):
        check_result(result.drop_vars("abundances"))


def test_missing_settings_are_empty() -> None:
    result = made()
    del result.attrs["settings"]
    assert settings_of(result) == {}


@pytest.mark.parametrize("lazy", [False, True])
def test_shares_of_the_signal_weigh_maps_by_their_spectra_without_masked_pixels(lazy: bool) -> None:
    result = made()
    result["abundances"][:, 0, 0] = np.nan
    maps = result.abundances.values
    signal = np.nansum(maps, axis=(1, 2)) * result.endmembers.values.sum(axis=1)
    share = component_share(result.chunk({"y": 2}) if lazy else result)
    assert share.dims == ("component",)
    assert_allclose(share, signal / signal.sum())
    assert_allclose(share.sum(), 1.0)


def test_shares_of_an_empty_model_are_zero() -> None:
    result = made()
    result["abundances"] = 0 * result.abundances
    assert component_share(result).values.tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("components", "one", r"attrs\['components'\] names 1 components, the arrays have 2"),
        ("components", ["a", "b", "c"], "names 3 components"),
        ("components", "Fe oxide, matrix", None),
        ("status", "done", "attrs\\['status'\\] of this result is 'done', expected one of converged"),
        ("versions", "[1]", r"attrs\['versions'\] of this result is no JSON object"),
        ("parent", "{", r"attrs\['parent'\] of this result is no JSON object"),
    ],
)
def test_attributes_that_disagree_with_the_arrays_are_refused(name: str, value: Any, said: str | None) -> None:
    result = made()
    result.attrs[name] = value
    if said is None:
        check_result(result)
        return
    with pytest.raises(InputError, match=said):
        check_result(result)
