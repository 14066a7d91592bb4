"""The first reading: what it refuses, and that its sample finds the pixels wherever they are."""

from __future__ import annotations

from typing import Any

import dask
import numpy as np
import pytest
import xarray as xr
from numpy.testing import assert_allclose, assert_array_equal

import scalehsi as hsi
from scalehsi.blocks import open_blocks
from scalehsi.cube import make_cube
from scalehsi.fitting import survey as module
from scalehsi.fitting.survey import survey
from scalehsi.schema import InputError
from tests.helpers import counts_cube, random_mask


def look(cube: xr.DataArray, **kwargs: Any) -> module.Survey:
    return survey(open_blocks(cube, block_bytes=3000), **{"seed": 0, "counts": False, **kwargs})


def test_it_tells_what_numpy_tells_of_the_used_pixels() -> None:
    cube = counts_cube((9, 8, 6), mask=random_mask((9, 8)))
    x = cube.values[cube.mask.values].astype(float)
    seen = look(cube, counts=True)
    assert seen.pixels == len(x)
    assert_array_equal(seen.spectrum, x.sum(axis=0))
    assert_allclose(seen.norm, (x**2).sum())
    assert_allclose(seen.entropy, (x * np.log(np.where(x > 0, x, 1)) - x).sum(), rtol=1e-6)
    assert_array_equal(seen.sample, x[x.any(axis=1)])  # so few pixels are all in the sample
    assert look(cube).entropy == 0.0  # its logarithms are for those who count


@pytest.mark.parametrize("scheduler", ["synchronous", "threads"])
def test_the_sample_is_the_same_for_any_cut(scheduler: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SAMPLE_PIXELS", 20)
    cube = counts_cube((24, 10, 6))
    want = look(cube).sample
    assert 15 <= len(want) <= 25
    with dask.config.set(scheduler=scheduler):
        for chunks in ({"y": 24}, {"y": 5, "x": 3}, {"y": 1}):
            assert_array_equal(look(cube.chunk(chunks)).sample, want)
    assert not np.array_equal(look(cube, seed=1).sample, want)


@pytest.mark.parametrize("emptied_by", ["mask", "vacuum"])
def test_a_few_pixels_of_very_many_are_found(emptied_by: str) -> None:
    # One pixel in 40 is looked at first, and here only a corner of 3 x 3 counts.
    cube = counts_cube((600, 600, 2))
    few = np.zeros((600, 600), bool)
    few[:3, :3] = True
    if emptied_by == "mask":
        cube = cube.assign_coords(mask=(("y", "x"), few))
    else:
        cube = cube.copy(data=np.where(few[..., None], cube.values, 0).astype("u1"))
    corner = cube.values[:3, :3].reshape(9, 2)
    assert_array_equal(look(cube).sample, corner[corner.any(axis=1)])
    result = hsi.fit(cube, hsi.NMF(2, max_iter=3))
    assert result.attrs["status"] in ("converged", "max_iter")


def test_a_sample_that_will_do_is_not_taken_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SAMPLE_PIXELS", 64)
    cube = counts_cube((64, 64, 3), mask=random_mask((64, 64), share=0.5))
    passes: list[int] = []
    view = open_blocks(cube, block_bytes=10**9)
    view.report = lambda done, total: passes.append(done)
    assert 16 <= len(survey(view, seed=0, counts=True).sample) <= 48
    assert passes == [1]


@pytest.mark.parametrize(
    ("cube", "kwargs", "message"),
    [
        (np.nan, {}, "1 values are NaN or Inf, the first at y=1, x=2, energy=1 keV"),
        (np.inf, {}, "1 values are NaN or Inf"),
        (-3.0, {"counts": True}, "1 values are negative, which counts never are; fit with loss='frobenius'"),
        ("zeros", {}, "every value of the cube is zero; is it the right file"),
    ],
)
def test_what_no_fit_can_use_is_refused(cube: Any, kwargs: dict[str, Any], message: str) -> None:
    values = np.ones((3, 4, 2), "f4")
    if cube == "zeros":
        values[:] = 0
    else:
        values[1, 2, 1] = cube
    with pytest.raises(InputError, match=message):
        look(make_cube(values, energy=[0.0, 1.0], energy_units="keV"), **kwargs)


@pytest.mark.parametrize("model", [hsi.NMF(2), hsi.NMF(2, loss="frobenius"), hsi.PCA(2, weighting=None)])
@pytest.mark.parametrize(
    ("scale", "dtype", "message"),
    [
        (1e20, "f4", "too large: their squares add up to inf, at most 1e.37"),
        (1e100, "f8", "too large: their squares add up to .*e.20"),
        (1e300, "f8", "too large: their squares add up to inf"),
        (1e-30, "f4", "too small"),
    ],
)
def test_values_whose_squares_are_no_numbers_are_refused(model: Any, scale: float, dtype: str, message: str) -> None:
    cube = counts_cube((4, 4, 6))
    with pytest.raises(InputError, match=message):
        hsi.fit((cube.astype("f8") * scale).astype(dtype), model, seed=0)


def test_a_lazy_mask_that_leaves_nothing_is_refused() -> None:
    cube = counts_cube((4, 4, 3)).chunk({"y": 2})
    with pytest.raises(InputError, match="the mask leaves no pixel"):
        look(hsi.prepare.mask(cube, min_counts=1e9))


def test_values_that_add_up_to_nothing_are_no_cube_of_zeros() -> None:
    values = np.ones((2, 2, 3), "f4")
    values[0] = -1
    assert look(make_cube(values, energy=np.arange(3.0), energy_units="eV")).norm == 12.0


def test_negative_values_are_fine_where_no_counts_are_needed() -> None:
    values = -np.random.default_rng(0).random((20, 20, 6))
    cube = make_cube(values, energy=np.arange(6.0), energy_units="eV")
    assert len(look(cube).sample) == 400
    result = hsi.fit(cube, hsi.NMF(2, max_iter=3))  # nothing positive to explain: abundances of zero, not an error
    assert not result.abundances.any()
