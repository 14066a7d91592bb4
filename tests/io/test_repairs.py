"""Cubes without names, units or a usable mask are repaired as they are opened, at the command line too."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr

import scalehsi as hsi
from scalehsi.cli.app import main
from scalehsi.schema import InputError

pytestmark = pytest.mark.long

COUNTS = np.random.default_rng(0).poisson(5, (4, 5, 16)).astype("u2")


def bare(path: Path, values: np.ndarray = COUNTS) -> Path:
    zarr.create_array(path, data=values, chunks=(2, *values.shape[1:]))
    return path


def named(path: Path, dims: tuple[str, ...], **coords: Any) -> Path:
    data = xr.DataArray(COUNTS.reshape([4, 5, 16][: len(dims)]), dims=dims, coords=coords, name="map")
    data.to_dataset().to_zarr(path, consolidated=False)
    return path


def plain(**coords: Any) -> xr.Dataset:
    return hsi.make_cube(COUNTS, energy=np.arange(16), energy_units="keV").assign_coords(coords).to_dataset()


def test_a_bare_array_opens_with_names_and_energies(tmp_path: Path) -> None:
    path = bare(tmp_path / "b.zarr")
    with pytest.raises(InputError, match=r"bare Zarr array without axes; .*axes='y,x,energy'"):
        hsi.open_cube(path)
    cube = hsi.open_cube(path, axes="y,x,energy", energy="0.1:0.01:keV", pixel="0.5:nm")
    assert cube.dims == ("y", "x", "energy")
    assert cube.energy.attrs["units"] == "keV"
    assert float(cube.energy[-1]) == pytest.approx(0.25)
    assert float(cube.x[-1]) == 2.0
    assert cube.x.attrs["units"] == "nm"
    np.testing.assert_array_equal(cube.values, COUNTS)


def test_axes_in_another_order_are_turned(tmp_path: Path) -> None:
    path = bare(tmp_path / "b.zarr", np.ascontiguousarray(COUNTS.transpose(2, 0, 1)))
    cube = hsi.open_cube(path, axes="energy,y,x", energy="0:10:eV")
    np.testing.assert_array_equal(cube.values, COUNTS)
    np.testing.assert_array_equal(
        hsi.open_cube(hsi.convert(path, tmp_path / "c.zarr", axes="energy,y,x", energy="0:10:eV")), cube
    )


def test_a_group_of_arrays_without_names(tmp_path: Path) -> None:
    group = zarr.open_group(tmp_path / "g.zarr", mode="w")
    group.create_array("image", data=COUNTS[:, :, 0])
    group.create_array("data", data=COUNTS)
    cube = hsi.open_cube(tmp_path / "g.zarr", axes="y,x,energy", energy="0:10:eV")
    np.testing.assert_array_equal(cube.values, COUNTS)
    with pytest.raises(InputError, match=r"no array of 4 dims; it holds 'data' \(4, 5, 16\)"):
        hsi.open_cube(tmp_path / "g.zarr", axes="t,y,x,energy", energy="0:10:eV")


def test_other_names_are_replaced_and_their_coordinates_kept(tmp_path: Path) -> None:
    loss = ("loss", np.arange(16) * 2.0, {"units": "eV"})
    path = named(tmp_path / "n.zarr", ("row", "column", "loss"), loss=loss)
    with pytest.raises(InputError, match=r"no 'energy' axis.*axes='y,x,energy'"):
        hsi.open_cube(path)
    cube = hsi.open_cube(path, axes="y,x,energy")
    assert cube.energy.values.tolist() == loss[1].tolist()
    assert cube.energy.attrs["units"] == "eV"
    assert hsi.open_cube(path, axes="x,y,energy").shape == (5, 4, 16)


def test_a_line_scan_has_one_row(tmp_path: Path) -> None:
    cube = hsi.open_cube(bare(tmp_path / "l.zarr", COUNTS[0]), axes="x,energy", energy="0:1:eV")
    assert cube.shape == (1, 5, 16)


def test_energies_that_go_up_and_down_are_replaced(tmp_path: Path) -> None:
    plain(energy=("energy", np.arange(16) % 3, {"units": "eV"})).to_zarr(tmp_path / "e.zarr", consolidated=False)
    with pytest.raises(InputError, match=r"goes up and down.*energy='0:0\.01:keV'"):
        hsi.open_cube(tmp_path / "e.zarr")
    assert hsi.open_cube(tmp_path / "e.zarr", energy="-5:1:eV").energy.values.tolist() == list(range(-5, 11))


def test_a_unit_alone_keeps_the_energies(tmp_path: Path) -> None:
    plain(energy=("energy", np.arange(16.0), {})).to_zarr(tmp_path / "e.zarr", consolidated=False)
    cube = hsi.open_cube(tmp_path / "e.zarr", energy="Electronvolt")
    assert cube.energy.attrs["units"] == "eV"
    assert float(cube.energy[-1]) == 15


@pytest.mark.parametrize("mask", [np.zeros((4, 5), bool), np.arange(20).reshape(4, 5) > 6], ids=["none", "some"])
def test_a_mask_is_left_out_or_inverted(tmp_path: Path, mask: np.ndarray) -> None:
    plain(mask=(("y", "x"), mask)).to_zarr(tmp_path / "m.zarr", consolidated=False)
    assert "mask" not in hsi.open_cube(tmp_path / "m.zarr", mask="ignore").coords
    np.testing.assert_array_equal(hsi.open_cube(tmp_path / "m.zarr", mask="invert").mask, ~mask)
    if not mask.any():
        with pytest.raises(InputError, match=r"leaves no pixel.*mask='ignore'"):
            hsi.open_cube(tmp_path / "m.zarr")


def test_booleans_are_counts_of_0_and_1(tmp_path: Path) -> None:
    plain().astype(bool).to_zarr(tmp_path / "b.zarr", consolidated=False)
    cube = hsi.open_cube(tmp_path / "b.zarr")
    assert cube.dtype == "u1"
    assert int(cube.sum()) == int((COUNTS > 0).sum())


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"axes": "y,x"}, "with energy among them"),
        ({"axes": "y,y,energy"}, "with energy among them"),
        ({"axes": "t,y,x,energy"}, "are 4, the data have 3"),
        ({"energy": "0:keV"}, r"no calibration; type it as 0:0\.01:keV"),
        ({"energy": "0:0:keV"}, "no calibration"),
        ({"energy": "a:1:keV"}, "no calibration"),
        ({"energy": "0:nan:keV"}, "no calibration"),
        ({"pixel": "nm"}, r"no calibration; type it as 0\.5:nm"),
        ({"mask": "ignore"}, "has no mask"),
        ({"mask": "drop"}, "mask='drop' is not known"),
    ],
    ids=str,
)
def test_repairs_that_do_not_fit_are_refused(tmp_path: Path, given: dict[str, str], match: str) -> None:
    plain().to_zarr(tmp_path / "p.zarr", consolidated=False)
    with pytest.raises(InputError, match=match):
        hsi.open_cube(tmp_path / "p.zarr", **given)


def test_a_file_of_another_program_is_calibrated(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    pytest.importorskip("rsciio")
    with h5py.File(tmp_path / "a.hspy", "w") as file:
        file.attrs.update(file_format="HyperSpy", file_format_version="3.3")
        group = file.create_group("Experiments/map")
        group.attrs.update(package="hyperspy", package_version="2.5")
        group.create_dataset("data", data=COUNTS, chunks=True)
        for i, name in enumerate(("y", "x", "Energy loss")):
            axis = {"_type": "UniformDataAxis", "name": name, "scale": 1.0, "offset": 0.0, "navigate": i < 2}
            group.create_group(f"axis-{i}").attrs.update({**axis, "units": "", "size": COUNTS.shape[i]})
        meta = group.create_group("metadata")
        meta.create_group("General").attrs["title"] = "map"
        meta.create_group("Signal").attrs["signal_type"] = "EELS"
        group.create_group("original_metadata")
    cube = hsi.open_cube(tmp_path / "a.hspy", energy="400:0.5:eV", pixel="2:nm")
    assert cube.energy.attrs["units"] == "eV"
    assert float(cube.energy[0]) == 400
    assert float(cube.y[1]) == 2
    with pytest.raises(InputError, match="names the axes of a Zarr store"):
        hsi.open_cube(tmp_path / "a.hspy", axes="y,x,energy")


def test_the_repair_is_typed_at_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, made = bare(tmp_path / "b.zarr"), tmp_path / "c.zarr"
    assert main(["convert", str(path), str(made)]) == 2
    said = capsys.readouterr().err
    assert "--axes y,x,energy" in said
    assert "--energy 0:0.01:keV" in said
    repair = ["--axes", "y,x,energy", "--energy", "0.1:0.01:keV", "--pixel", "0.5:nm"]
    assert main(["convert", str(path), str(made), *repair, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)
    np.testing.assert_array_equal(hsi.open_cube(made).values, COUNTS)


def test_tiny_chunks_are_read_together(tmp_path: Path) -> None:
    counts = np.random.default_rng(0).poisson(5, (40, 33, 8)).astype("f4")
    counts[0, 0, 0] = np.nan
    cube = hsi.make_cube(counts, energy=np.arange(8), energy_units="eV").rename("counts").chunk(y=1, x=1, energy=4)
    packed = {"counts": {"dtype": "u1", "_FillValue": 255}}
    cube.to_dataset().to_zarr(tmp_path / "t.zarr", consolidated=False, encoding=packed)
    opened = hsi.open_cube(tmp_path / "t.zarr")
    assert opened.data.npartitions == 1
    np.testing.assert_array_equal(opened.values, counts)


def test_many_tiny_chunks_are_read_in_five_times_a_plain_reading(tmp_path: Path) -> None:
    counts = np.random.default_rng(0).poisson(5, (50, 50, 64)).astype("u1")
    cube = hsi.make_cube(counts, energy=np.arange(64), energy_units="eV").rename("counts").chunk(y=1, x=1)
    cube.drop_attrs().to_dataset().to_zarr(tmp_path / "t.zarr", consolidated=False)

    def seconds(read: Any) -> float:
        start = time.process_time()
        np.testing.assert_array_equal(read(), counts)
        return time.process_time() - start

    plain_reading = min(seconds(lambda: zarr.open_group(tmp_path / "t.zarr", mode="r")["counts"][:]) for _ in range(2))
    ours = min(seconds(lambda: hsi.open_cube(tmp_path / "t.zarr").values) for _ in range(2))
    assert ours < 5 * plain_reading, f"{ours:.2f} s, plain {plain_reading:.2f} s"
