"""Registration of two rasters, against a known placement."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from scipy.ndimage import gaussian_filter

from scalehsi.registration.images import Images, averaged
from scalehsi.registration.rasters import Placement, Raster, check_overlap, rasters
from scalehsi.registration.register import MIN_COVERED, predictor, register
from scalehsi.registration.shift_search import refine, search_grids
from scalehsi.schema import InputError

FINE = Raster((0.0, 0.0), (1.0, 1.0), (72, 66))
COARSE = Raster((2.5, 2.5), (6.0, 6.0), (12, 11))
WHITE = np.eye(2)


def scene(seed: int = 0, size: int = 132) -> np.ndarray:
    """Smooth random maps of two components on half pixels of the fine raster, with a wide margin."""
    noise = np.random.default_rng(seed).normal(size=(size * 2, size * 2, 2))
    return gaussian_filter(noise, 5.0, axes=(0, 1)) * 20 + 3


def seen(
    maps: np.ndarray, raster: Raster, placement: Placement, noise: float, seed: int = 1, blur: float = 0.0
) -> Images:
    """Maps as measured on a raster of square pixels with this placement on the fine one."""
    fine = gaussian_filter(maps, blur * 2, axes=(0, 1)) if blur else maps
    n = max(2, round(2 * abs(raster.step[0] * placement.scale)))
    inner = (np.arange(n) + 0.5) / n - 0.5
    at = []
    for axis in (0, 1):
        centres = placement.place(raster, raster.centres(axis), axis)
        points = centres[:, None] + inner * abs(raster.step[axis]) * placement.scale
        at.append(np.rint(2 * (points.ravel() + 33)).astype(int))
    values = fine[np.ix_(*at)].reshape(raster.shape[0], n, raster.shape[1], n, 2).mean(axis=(1, 3))
    values += np.random.default_rng(seed).normal(0, noise, values.shape)
    return Images(values, np.ones(raster.shape), raster)


@pytest.mark.parametrize(
    "placement",
    [
        Placement((0.0, 0.0)),
        Placement((1.3, -0.9)),
        Placement((-7.4, 11.2)),
        Placement((2.0, -3.0), 1.03),
    ],
    ids=str,
)
def test_shift_and_scale_are_found(placement):
    maps = scene()
    found = register(seen(maps, FINE, Placement((0.0, 0.0)), 0.3), seen(maps, COARSE, placement, 0.01), whitening=WHITE)
    np.testing.assert_allclose(found.placement.shift, placement.shift, atol=0.15)
    assert found.placement.scale == pytest.approx(placement.scale, abs=0.004)
    assert found.residual < 0.15
    assert max(found.error) < 0.1


def test_the_order_of_an_axis_and_its_origin_do_not_matter():
    maps = scene(2)
    placement = Placement((1.6, -2.2))
    fine, coarse = seen(maps, FINE, Placement((0.0, 0.0)), 0.1), seen(maps, COARSE, placement, 0.01)
    turned = coarse._replace(
        values=coarse.values[::-1], raster=Raster((COARSE.origin[0] + 66.0, 2.5), (-6.0, 6.0), COARSE.shape)
    )
    a, b = (register(fine, each, whitening=WHITE).placement for each in (coarse, turned))
    np.testing.assert_allclose(a.shift, b.shift, atol=2e-2)


def test_the_width_of_the_probe_is_estimated():
    maps = scene(3)
    fine = seen(maps, FINE, Placement((0.0, 0.0)), 0.1)
    sharp, wide = (
        register(fine, seen(maps, COARSE, Placement((0.5, 0.5)), 0.005, blur=b), whitening=WHITE).blur for b in (0, 4.0)
    )
    assert wide == pytest.approx(4.0, rel=0.2)
    assert sharp < 1.5


def test_a_given_placement_is_assessed():
    maps = scene()
    fine, coarse = seen(maps, FINE, Placement((0.0, 0.0)), 0.1), seen(maps, COARSE, Placement((4.0, 0.0)), 0.01)
    places = (Placement((4.0, 0.0)), Placement((0.0, 0.0)))
    right, wrong = (register(fine, coarse, whitening=WHITE, given=place) for place in places)
    assert right.placement.shift == (4.0, 0.0)
    assert right.residual < 0.1 < wrong.residual


def test_maps_without_contrast_give_no_error():
    flat = Images(np.ones((*FINE.shape, 2)), np.ones(FINE.shape), FINE)
    coarse = Images(np.ones((*COARSE.shape, 2)), np.ones(COARSE.shape), COARSE)
    found = register(flat, coarse, whitening=WHITE)
    assert found.residual == 1.0
    assert np.isnan(found.error).all()
    assert found.placement.shift == pytest.approx((0.0, 0.0), abs=1.0)


def test_pixels_that_were_not_measured_are_left_out():
    maps = scene(4)
    placement = Placement((1.0, 2.0))
    fine, coarse = seen(maps, FINE, Placement((0.0, 0.0)), 0.1), seen(maps, COARSE, placement, 0.01)
    fine.filled[:, :15] = 0
    fine.values[:, :15] = 100.0
    coarse.filled[2:4] = 0
    coarse.values[2:4] = -50.0
    found = register(fine, coarse, whitening=WHITE)
    np.testing.assert_allclose(found.placement.shift, placement.shift, atol=0.15)


def test_means_over_footprints_are_those_of_the_pixels():
    values = np.random.default_rng(0).random((*FINE.shape, 1))
    values = gaussian_filter(values, 4, axes=(0, 1))
    means, use = predictor(Images(values, np.ones(FINE.shape), FINE))(COARSE, Placement((0.0, 0.0)))
    want = values.reshape(12, 6, 11, 6, 1).mean(axis=(1, 3))
    assert use.all()
    np.testing.assert_allclose(means[1:-1, 1:-1], want[1:-1, 1:-1], atol=2e-3)
    _, far = predictor(Images(values, np.ones(FINE.shape), FINE))(COARSE, Placement((6 * (1 - MIN_COVERED) + 0.5, 0.0)))
    assert far[:-1].all()
    assert not far[-1].any()


def test_averages_are_weighted_with_the_measured_fraction():
    filled = np.array([[1.0, 0.5, 1.0]])
    images = Images(np.array([[[1.0], [4.0], [5.0]]]), filled, Raster((0.0, 0.0), (2.0, 2.0), (1, 3)))
    found = averaged(images, 2)
    np.testing.assert_allclose(found.values[..., 0], [[2.0, 5.0]])
    np.testing.assert_allclose(found.filled, [[0.375, 0.25]])
    assert found.raster == Raster((1.0, 1.0), (4.0, 4.0), (1, 2))


def test_of_equally_good_shifts_the_smallest_is_found():
    def periodic(shift):
        return np.cos(shift[0] * np.pi / 2) + np.cos(shift[1] * np.pi / 2)

    assert search_grids([(periodic, (0.5, 0.5))], reach=(5.0, 5.0)) == (0.0, 0.0)
    np.testing.assert_allclose(refine(periodic, np.array([0.4, -0.3]), [0.2, 0.2]), [0.0, 0.0], atol=1e-3)


def image(y: np.ndarray, x: np.ndarray, units: str = "nm") -> xr.DataArray:
    axes = {d: (d, v, {"units": units} if units else {}) for d, v in (("y", y), ("x", x))}
    return xr.DataArray(np.zeros((len(y), len(x))), dims=("y", "x"), coords=axes)


def test_rasters_are_in_one_unit():
    found = rasters({"a": image(np.arange(3) * 2e-3, np.arange(4.0) * 1e-3, "um"), "b": image(np.arange(5.0), [7.0])})
    assert found["a"].step == pytest.approx((2.0, 1.0))
    assert found["b"] == Raster((0.0, 7.0), (1.0, 1.0), (5, 1))
    assert found["b"].centre == (2.0, 7.0)
    assert found["b"].size == (5.0, 1.0)


@pytest.mark.parametrize(
    ("others", "words"),
    [
        (image(np.arange(3.0), np.arange(3.0), "px"), r"'nm' \(a\), 'px' \(b\): lengths of one kind are needed; type"),
        (image(np.array([0.0, 1.0, 3.0]), np.arange(3.0)), "'b': the steps of y are uneven"),
        (image(np.array([2.0, 2.0, 2.0]), np.arange(3.0)), "'b': the steps of y are uneven"),
    ],
)
def test_uneven_or_uncalibrated_axes_are_refused(others, words):
    with pytest.raises(InputError, match=words):
        rasters({"a": image(np.arange(3.0), np.arange(3.0)), "b": others})


def test_fields_apart_are_refused():
    beyond = FINE._replace(origin=(0.0, 66.0))
    check_overlap(FINE, beyond._replace(origin=(0.0, 65.0)), ("a", "b"))
    with pytest.raises(InputError, match=r"x of 'a' runs from -0.5 to 65.5, of 'b' from 65.5 to 131.5; put both"):
        check_overlap(FINE, beyond, ("a", "b"))
    check_overlap(FINE, beyond, ("a", "b"), (0.0, -10.0))


def test_pixels_of_one_raster_in_another():
    placement = Placement((1.5, -2.0), 1.02)
    for (a, b), axis in zip(placement.pixel_transform(COARSE, FINE), (0, 1), strict=True):
        number = a + b * np.arange(FINE.shape[axis])
        there = placement.place(COARSE, COARSE.origin[axis] + COARSE.step[axis] * number, axis)
        np.testing.assert_allclose(there, FINE.centres(axis))
