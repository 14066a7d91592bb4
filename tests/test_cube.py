"""Metadata of a cube: wrong ones are refused with a repair that works, and no value is read."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import xarray as xr

from scalehsi.cube import (
    check_cube,
    check_finite,
    describe,
    energy_factor,
    history_of,
    length_factor,
    make_cube,
    navigation_dims,
    pixel_size_nm,
    same_axis,
    with_history,
)
from scalehsi.schema import InputError
from tests.helpers import counts_cube, raise_if_dask_computes, random_mask

# Making.


@pytest.mark.parametrize(
    ("shape", "dims"),
    [
        ((2, 3, 4), ("y", "x", "energy")),
        ((5, 2, 3, 4), ("frame", "y", "x", "energy")),
        ((6, 5, 2, 3, 4), ("frame_0", "frame_1", "y", "x", "energy")),
    ],
)
def test_a_cube_has_named_axes_with_units(shape: tuple[int, ...], dims: tuple[str, ...]) -> None:
    cube = make_cube(
        np.ones(shape, "u2"),
        energy=[0.1, 0.2, 0.3, 0.4],
        energy_units="keV",
        pixel_size=2.5,
        pixel_units="µm",
        signal="EDS",
        attrs={"beam_energy_keV": 200.0},
    )
    assert cube.dims == dims
    assert cube.dtype == np.uint16
    assert cube.energy.attrs["units"] == "keV"
    assert (cube.x.attrs["units"], cube.y.attrs["units"]) == ("µm", "µm")
    assert cube.x.values.tolist() == [0.0, 2.5, 5.0]
    assert cube.attrs == {"signal": "EDS", "history": [], "beam_energy_keV": 200.0}
    assert navigation_dims(cube) == dims[:-1]
    assert check_cube(cube) is cube


def test_shapes_that_do_not_agree_are_refused() -> None:
    with pytest.raises(InputError, match=r"got an array of shape \(3, 4\)"):
        make_cube(np.ones((3, 4)), energy=range(4), energy_units="eV")
    with pytest.raises(InputError, match=r"the energy axis has shape \(5,\), the data have 4 channels"):
        make_cube(np.ones((2, 3, 4)), energy=range(5), energy_units="eV")
    with pytest.raises(InputError, match=r"the mask has shape \(3, 2\), the pixels have \(2, 3\)"):
        make_cube(np.ones((2, 3, 4)), energy=range(4), energy_units="eV", mask=np.ones((3, 2), dtype=bool))
    with pytest.raises(InputError, match="leaves no pixel"):
        make_cube(np.ones((2, 3, 4)), energy=range(4), energy_units="eV", mask=np.zeros((2, 3), dtype=bool))


# Checking: each message holds the line that repairs the cube.


def good() -> xr.DataArray:
    return counts_cube((3, 4, 5))


def no_coordinate() -> xr.DataArray:
    return good().drop_vars("energy")


def with_energy(values: Any) -> xr.DataArray:
    return good().assign_coords(energy=("energy", np.asarray(values), {"units": "keV"}))


BROKEN: dict[str, tuple[Callable[[], xr.DataArray], str]] = {
    "order": (lambda: good().transpose("energy", "y", "x"), r"ends in the dims \('y', 'x', 'energy'\), got"),
    "energy has another name": (lambda: good().rename(energy="Energy loss"), r"no 'energy' axis, its dims are"),
    "energy has another name and comes first": (
        lambda: good().rename(energy="channel").transpose("channel", "y", "x"),
        "no 'energy' axis",
    ),
    "an image": (lambda: good().isel(energy=0, drop=True), "no 'energy' axis"),
    "all dims have other names": (
        lambda: good().drop_vars(["y", "x"]).rename(y="dim_0", x="dim_1"),
        r"got \('dim_0', 'dim_1', 'energy'\)",
    ),
    "a line scan": (lambda: good().isel(y=0, drop=True), r"got \('x', 'energy'\)"),
    "one spectrum": (lambda: good().isel(y=0, x=0, drop=True), r"got \('energy',\)"),
    "booleans": (lambda: good() > 2, "holds real numbers, got dtype bool"),
    "energies up and down": (lambda: with_energy([1.0, 2, 3, 2.5, 4]), "goes up and down"),
    "energies twice": (lambda: with_energy([1.0, 2, 2, 3, 4]), "repeats itself"),
    "mask of numbers": (
        lambda: good().assign_coords(mask=(("y", "x"), np.ones((3, 4), int))),
        "the mask holds int64, booleans are expected",
    ),
    "mask turned": (
        lambda: good().assign_coords(mask=(("x", "y"), np.ones((4, 3), bool))),
        r"the mask has dims \('x', 'y'\)",
    ),
    "mask of one dim": (lambda: good().assign_coords(mask=("y", np.array([True, False, True]))), r"dims \('y',\)"),
    "mask that leaves nothing": (
        lambda: good().assign_coords(mask=(("y", "x"), np.zeros((3, 4), bool))),
        "leaves no pixel",
    ),
}


@pytest.mark.parametrize(("make", "match"), BROKEN.values(), ids=BROKEN)
def test_the_repair_in_the_message_repairs_the_cube(make: Callable[[], xr.DataArray], match: str) -> None:
    cube = make()
    with pytest.raises(InputError, match=match) as caught:
        check_cube(cube)
    for _ in range(3):
        line = re.search(r"cube\..*$", str(caught.value))
        assert line, str(caught.value)
        cube = eval(line.group(), {"cube": cube})
        try:
            check_cube(cube)
            break
        except InputError as error:
            caught.value.args = error.args
    assert check_cube(cube) is cube
    assert cube.dims[-3:] == ("y", "x", "energy")


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: good().to_dataset(name="counts"), r"got a Dataset; pick one of its variables \('counts'\) with ds"),
        (lambda: good().values, r"got ndarray; .*scalehsi\.open_cube\(path\)"),
        (lambda: "map.zarr", r"got str; .*scalehsi\.open_cube\(path\)"),
        (no_coordinate, r"no coordinate values; type cube\.assign_coords\(energy="),
        (lambda: with_energy(list("abcde")), r"holds <U1, numbers are expected"),
        (lambda: with_energy([1.0, 2, np.nan, 4, 5]), "holds NaN or Inf"),
        (lambda: good().isel(y=slice(0, 0)), r"empty along \['y'\]: its shape is \(0, 4, 5\)"),
        (lambda: good() * 1j, "got dtype complex128"),
    ],
)
def test_other_things_are_refused(make: Callable[[], Any], match: str) -> None:
    with pytest.raises(InputError, match=match):
        check_cube(make())


def test_decreasing_energies_and_a_single_channel_are_in_order() -> None:
    check_cube(with_energy([5.0, 4, 3, 2, 1]))
    check_cube(good().isel(energy=[0]))


def test_checking_and_describing_read_nothing() -> None:
    cube = counts_cube((6, 4, 5), mask=random_mask((6, 4))).chunk(y=2)
    cube = cube.assign_coords(mask=cube["mask"].chunk())
    with raise_if_dask_computes(0):
        check_cube(cube)
        assert describe(cube)["chunks"] == [2, 4, 5]
        assert check_finite(cube) is cube


# Values.


def test_bad_values_are_counted_and_the_first_is_named() -> None:
    values = np.ones((3, 4, 5))
    values[1, 2, 3] = np.nan
    values[2, 0, 0] = -np.inf
    cube = make_cube(values, energy=np.arange(5) * 0.5, energy_units="keV")
    for bad in (cube, cube.chunk(y=1, energy=2)):
        with pytest.raises(InputError, match=r"2 values are NaN or Inf, the first at y=1, x=2, energy=1\.5 keV"):
            check_finite(bad)


@pytest.mark.parametrize("repair", [r"cube\.where\(.*?, 0\)", r"cube\.assign_coords\(mask=.*\)$"])
def test_both_repairs_of_bad_values_repair(repair: str) -> None:
    values = np.ones((3, 4, 5))
    values[1, 2, 3], values[0, 0, 0] = np.nan, np.inf
    cube = make_cube(values, energy=range(5), energy_units="eV")
    with pytest.raises(InputError) as caught:
        check_finite(cube)
    line = re.search(repair, str(caught.value))
    assert line
    repaired = eval(line.group(), {"cube": cube, "np": np})
    assert check_finite(repaired) is repaired


def test_bad_values_of_masked_pixels_do_not_matter() -> None:
    values = np.ones((3, 4, 5))
    values[1, 2] = np.nan
    mask = np.ones((3, 4), dtype=bool)
    mask[1, 2] = False
    check_finite(make_cube(values, energy=range(5), energy_units="eV", mask=mask))


def test_a_finite_lazy_cube_is_read_once() -> None:
    cube = make_cube(np.ones((3, 4, 5)), energy=range(5), energy_units="eV").chunk(y=1)
    with raise_if_dask_computes(1) as scheduler:
        assert check_finite(cube) is cube
    assert scheduler.computes == 1


# History, units, description.


def test_history_grows_in_a_copy() -> None:
    cube = good()
    longer = with_history(with_history(cube, "crop"), "bin 2x2")
    assert history_of(longer.attrs) == ["crop", "bin 2x2"]
    assert history_of(cube.attrs) == []
    assert np.shares_memory(longer.values, cube.values)
    assert history_of({"history": "one line"}) == ["one line"]
    assert history_of({"history": np.array(["a", "b"])}) == ["a", "b"]
    assert history_of({}) == []


def test_units() -> None:
    assert (energy_factor("eV"), energy_factor("keV"), energy_factor("1/nm")) == (1.0, 1e3, None)
    assert (length_factor("nm"), length_factor("Å"), length_factor("s")) == (1.0, 0.1, None)


@pytest.mark.parametrize(
    ("units", "size", "nm"), [("nm", 0.5, 0.5), ("µm", 0.5, 500.0), ("Å", 2.0, 0.2), ("px", 1.0, None)]
)
def test_pixel_size_in_nanometres(units: str, size: float, nm: float | None) -> None:
    cube = make_cube(np.ones((3, 4, 5)), energy=range(5), energy_units="eV", pixel_size=size, pixel_units=units)
    assert pixel_size_nm(cube) == (None if nm is None else pytest.approx(nm))
    assert pixel_size_nm(cube, "y") == pixel_size_nm(cube, "x")
    assert pixel_size_nm(cube.isel(x=[0])) is None
    assert pixel_size_nm(cube.drop_vars("x")) is None


def test_the_description_agrees_with_the_metadata() -> None:
    cube = counts_cube((2, 3, 4, 5), dtype="u2", mask=random_mask((2, 3, 4)))
    cube = cube.assign_coords(frame=("frame", np.array(["2024-01-01", "2024-01-02"], "M8[ns]")))
    said = describe(with_history(cube, "crop"))
    assert said["shape"] == [2, 3, 4, 5]
    assert (said["dtype"], said["bytes"], said["mask"], said["chunks"]) == ("uint16", 240, True, None)
    assert said["axes"]["frame"] == {"size": 2}
    assert said["axes"]["energy"] == {"size": 5, "first": 0.0, "last": 0.4, "units": "keV", "step": 0.1}
    assert said["history"] == ["crop"]
    assert said["attrs"] == {"signal": "EDS"}


def test_axes_are_compared_in_parts_of_a_channel_of_the_second() -> None:
    axis = 500 + 0.5 * np.arange(5)
    assert same_axis(axis, axis + 0.04)
    assert not same_axis(axis, axis + 0.06)
    assert same_axis(xr.DataArray(axis[::-1] - 0.04), axis[::-1])
    assert not same_axis(axis, axis[:-1])
    assert not same_axis(axis, np.full(5, np.nan))
    assert same_axis([], [])
    assert same_axis(np.float32([500.1]), [500.1])
    assert not same_axis([500.1], [500.2])
