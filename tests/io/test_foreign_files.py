"""Stores and files as other programs leave them: opened as they are meant, or refused with a repair."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import xarray as xr
import zarr

import scalehsi as hsi
from scalehsi.cube import describe_axes
from scalehsi.io.atomic import replacing, write_file
from scalehsi.schema import InputError, usual_unit

h5py = pytest.importorskip("h5py")

COUNTS = np.random.default_rng(0).poisson(5, (4, 5, 16)).astype("u2")
LENGTHS = [{"name": n, "units": "nm", "scale": 1.0, "offset": 0.0, "navigate": True} for n in "yx"]
LOSS = {"name": "Energy loss", "units": "eV", "scale": 0.5, "offset": 400.0, "navigate": False}


def plain(dtype: str = "u2") -> xr.DataArray:
    cube = hsi.make_cube(COUNTS.astype(dtype), energy=np.arange(16) * 0.5 + 400, energy_units="eV")
    return cube.rename("counts")


def hspy(path: Path, signals: list[tuple[np.ndarray, list[dict[str, Any]], str]], *, chunks: Any = True) -> Path:
    """A file as HyperSpy lays it out, of (data, axes, title)."""
    with h5py.File(path, "w") as file:
        file.attrs.update(file_format="HyperSpy", file_format_version="3.3")
        for number, (data, axes, title) in enumerate(signals):
            group = file.require_group("Experiments").create_group(f"{title}-{number}")
            group.attrs.update(package="hyperspy", package_version="2.5")
            group.create_dataset("data", data=data, chunks=chunks)
            for i, axis in enumerate(axes):
                group.create_group(f"axis-{i}").attrs.update(
                    {"_type": "UniformDataAxis", "size": data.shape[i], **axis}
                )
            meta = group.create_group("metadata")
            meta.create_group("General").attrs["title"] = title
            meta.create_group("Signal").attrs["signal_type"] = "EELS"
            group.create_group("original_metadata")
            group.create_group("learning_results")
    return path


# Names are taken once.


def folder_of_the_user(path: Path) -> None:
    path.mkdir()
    (path / "thesis.txt").write_text("precious")


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_that_appears_while_a_store_is_written_stays(tmp_path: Path, overwrite: bool) -> None:
    path = tmp_path / "o.zarr"
    with pytest.raises(InputError, match="exists already"), replacing(path, overwrite=overwrite):
        folder_of_the_user(path)
    assert (path / "thesis.txt").read_text() == "precious"
    assert [p.name for p in tmp_path.iterdir()] == ["o.zarr"]


def test_of_two_writers_of_a_store_the_first_wins(tmp_path: Path) -> None:
    path = tmp_path / "o.zarr"

    def block(values: np.ndarray) -> np.ndarray:
        if values.size and not path.exists():
            hsi.save(plain() * 0 + 7, path)
        return values

    lazy = plain().copy(data=da.from_array(COUNTS, chunks=-1).map_blocks(block, dtype="u2"))
    with pytest.raises(InputError, match="exists already"):
        hsi.save(lazy, path)
    assert int(hsi.open_cube(path).max()) == 7
    assert [p.name for p in tmp_path.iterdir()] == ["o.zarr"]


def test_a_store_replaces_a_store_that_appeared_only_with_overwrite(tmp_path: Path) -> None:
    path = tmp_path / "o.zarr"
    with replacing(path, overwrite=True) as folder:
        (folder / "zarr.json").write_text("new")
        path.mkdir()
        (path / "zarr.json").write_text("other")
    assert (path / "zarr.json").read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["o.zarr"]


def test_a_file_that_appears_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, write = tmp_path / "t.csv", Path.write_bytes

    def late(self: Path, content: bytes) -> int:
        if not path.exists():
            path.write_text("mine")
        return write(self, content)

    monkeypatch.setattr(Path, "write_bytes", late)
    with pytest.raises(InputError, match="exists already"):
        write_file(path, b"new", overwrite=False)
    assert path.read_text() == "mine"
    write_file(path, b"new", overwrite=True)
    assert path.read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["t.csv"]


@pytest.mark.parametrize("length", [150, 235, 255])
def test_names_up_to_the_limit_of_the_file_system(tmp_path: Path, length: int) -> None:
    path = tmp_path / ("n" * (length - 5) + ".zarr")
    hsi.save(plain(), path)
    hsi.save(plain() * 0, path, overwrite=True)
    assert int(hsi.open_cube(path).max()) == 0
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_longer_name_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="too long for this file system"):
        hsi.save(plain(), tmp_path / ("n" * 300 + ".zarr"))
    with pytest.raises(InputError, match="too long for this file system"):
        hsi.open_cube(tmp_path / ("n" * 300 + ".zarr"))


# Values and masks.


@pytest.mark.parametrize("mark", [{"_FillValue": 65535}, {"_FillValue": 9}], ids=str)
def test_a_fill_value_is_no_count(tmp_path: Path, mark: dict[str, int]) -> None:
    data = plain("f4")
    data.values[0, 0] = np.nan
    data.to_dataset().to_zarr(tmp_path / "p.zarr", consolidated=False, encoding={"counts": {"dtype": "u2", **mark}})
    cube = hsi.open_cube(tmp_path / "p.zarr")
    assert np.isnan(cube[0, 0].values).all()
    assert int(cube[3, 4, 0]) == COUNTS[3, 4, 0] or COUNTS[3, 4, 0] == mark["_FillValue"]


@pytest.mark.parametrize("version", [2, 3])
def test_a_fill_value_of_floats_is_no_value(tmp_path: Path, version: Any) -> None:
    data = plain("f4")
    data.values[0, 0] = np.nan
    encoding = {"counts": {"_FillValue": -999.0}}
    data.to_dataset().to_zarr(tmp_path / "p.zarr", consolidated=False, encoding=encoding, zarr_format=version)
    np.testing.assert_array_equal(hsi.open_cube(tmp_path / "p.zarr").values, data.values)


@pytest.mark.parametrize("version", [2, 3])
def test_a_fill_value_of_zero_leaves_counts_integers(tmp_path: Path, version: Any) -> None:
    plain().to_dataset().to_zarr(tmp_path / "p.zarr", zarr_format=version, consolidated=False)
    cube = hsi.open_cube(tmp_path / "p.zarr")
    assert cube.dtype == "u2"
    np.testing.assert_array_equal(cube.values, COUNTS)


@pytest.mark.parametrize("dtype", ["?", "u1", "i4", "f8"])
@pytest.mark.parametrize("how", ["variable", "coordinate"])
@pytest.mark.parametrize("dims", [("y", "x"), ("x", "y"), ("y",)], ids=str)
def test_a_mask_is_honoured_however_it_is_stored(tmp_path: Path, dtype: str, how: str, dims: Any) -> None:
    used = xr.DataArray(np.arange(20).reshape(4, 5) > 6, dims=("y", "x"))
    mask = (used if len(dims) == 2 else used.any("x")).transpose(*dims)
    data = plain().to_dataset()
    data["mask"] = mask.astype(dtype)
    data = data.set_coords("mask") if how == "coordinate" else data
    data.to_zarr(tmp_path / "m.zarr", consolidated=False)
    cube = hsi.open_cube(tmp_path / "m.zarr")
    want = mask.broadcast_like(used).transpose("y", "x")
    assert cube["mask"].dtype == bool
    np.testing.assert_array_equal(cube["mask"].values, want.values)


def test_another_number_than_one_stands_for_true(tmp_path: Path) -> None:
    used = np.arange(20).reshape(4, 5) > 6
    data = plain().assign_coords(mask=(("y", "x"), used.astype("u1") * 255))
    data.to_dataset().to_zarr(tmp_path / "m.zarr", consolidated=False)
    np.testing.assert_array_equal(hsi.open_cube(tmp_path / "m.zarr")["mask"].values, used)


def test_numbers_that_are_no_mask_are_refused(tmp_path: Path) -> None:
    bad = plain().assign_coords(mask=(("y", "x"), np.arange(20).reshape(4, 5)))
    bad.to_dataset().to_zarr(tmp_path / "m.zarr", consolidated=False)
    with pytest.raises(InputError, match="booleans are expected"):
        hsi.open_cube(tmp_path / "m.zarr")


# Axes and units.


@pytest.mark.parametrize(
    ("text", "unit"),
    [
        ("\u00c5", "Å"),
        ("\u212b", "Å"),
        ("angstrom", "Å"),
        ("Angstroms", "Å"),
        ("\u00b5m", "µm"),
        ("\u03bcm", "µm"),
        ("um", "um"),
        ("microns", "µm"),
        ("Nanometers", "nm"),
        ("EV", "eV"),
        ("KeV", "keV"),
        ("Energy Loss (eV)", "eV"),
        ("X-ray energy [keV]", "keV"),
        ("1/nm", "1/nm"),
        ("counts (a.u.)", "counts (a.u.)"),
        ("m", "m"),
        ("meV", "meV"),
        ("MeV", "MeV"),
    ],
)
def test_units_are_understood_in_their_usual_spellings(text: str, unit: str) -> None:
    assert usual_unit(text) == unit


@pytest.mark.parametrize("unit", ["Å", "\u212b", "angstrom", "Angstrom"])
def test_pixels_in_angstrom_come_in_nm(tmp_path: Path, unit: str) -> None:
    axes = [{**a, "units": unit, "scale": 2.0} for a in LENGTHS]
    cube = hsi.open_cube(hspy(tmp_path / "a.hspy", [(COUNTS, [*axes, LOSS], "map")]))
    assert cube.x.attrs["units"] == "nm"
    assert float(cube.x[-1]) == pytest.approx(0.8)


@pytest.mark.parametrize("scale", [np.nan, np.inf, 0.0])
def test_a_pixel_axis_without_a_scale_counts_pixels(tmp_path: Path, scale: float) -> None:
    axes = [{**a, "scale": scale} for a in LENGTHS]
    cube = hsi.open_cube(hspy(tmp_path / "a.hspy", [(COUNTS, [*axes, LOSS], "map")]))
    assert cube.x.attrs["units"] == "px"
    assert cube.x.values.tolist() == [0, 1, 2, 3, 4]


def test_an_uneven_axis_has_no_step() -> None:
    cube = hsi.make_cube(COUNTS, energy=np.geomspace(1, 9, 16), energy_units="keV")
    assert describe_axes(cube, ["energy"])["energy"]["step"] is None
    assert describe_axes(plain(), ["energy"])["energy"]["step"] == pytest.approx(0.5)


# Files of several signals.


def test_the_map_is_chosen_among_signals_of_one_title(tmp_path: Path) -> None:
    signals = [(COUNTS[0, 0], [LOSS], "EDS"), (COUNTS, [*LENGTHS, LOSS], "EDS")]
    path = hspy(tmp_path / "v.hspy", signals)
    assert hsi.open_cube(path, dataset="EDS").shape == (4, 5, 16)
    assert hsi.open_cube(path, dataset=0).shape == (1, 1, 16)


def test_a_number_of_numpy_is_a_number(tmp_path: Path) -> None:
    low = {**LOSS, "offset": -20.0}
    path = hspy(tmp_path / "d.hspy", [(COUNTS, [*LENGTHS, LOSS], "core"), (COUNTS, [*LENGTHS, low], "low")])
    assert float(hsi.open_cube(path, dataset=np.int64(1)).energy[0]) == -20.0
    plain().to_dataset().assign(other=plain() * 2).to_zarr(tmp_path / "z.zarr", consolidated=False)
    assert hsi.open_cube(tmp_path / "z.zarr", dataset=np.int64(1)).name == "other"


def test_hdf5_without_chunks_opens(tmp_path: Path) -> None:
    path = hspy(tmp_path / "c.hspy", [(COUNTS, [*LENGTHS, LOSS], "map")], chunks=None)
    np.testing.assert_array_equal(hsi.open_cube(path).values, COUNTS)


def test_a_file_can_be_written_again_after_convert(tmp_path: Path) -> None:
    path = hspy(tmp_path / "h.hspy", [(COUNTS, [*LENGTHS, LOSS], "map")])
    hsi.convert(path, tmp_path / "h.zarr")
    gc.collect()
    h5py.File(path, "a").close()


def test_a_table_beside_the_map_of_a_nexus_file_does_not_matter(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "n.nxs", "w") as file:
        entry = file.create_group("entry")
        entry.attrs["NX_class"] = "NXentry"
        good = entry.create_group("eds")
        good.attrs.update(NX_class="NXdata", signal="data", axes=["y", "x", "energy"])
        good["data"] = COUNTS
        for size, (name, unit) in zip(COUNTS.shape, (("y", "nm"), ("x", "nm"), ("energy", "keV")), strict=True):
            good[name] = np.arange(float(size))
            good[name].attrs["units"] = unit
        stage = entry.create_group("instrument").create_group("stage")
        stage.attrs["NX_class"] = "NXpositioner"
        stage["value"] = np.ones((29, 15))
    assert hsi.open_cube(tmp_path / "n.nxs").shape == (4, 5, 16)


# What is no cube, said as it is.


@pytest.mark.parametrize("groups", [["scan1/eds"], ["a", "b/c/d"]], ids=str)
def test_nested_groups_are_named(tmp_path: Path, groups: list[str]) -> None:
    zarr.open_group(tmp_path / "n.zarr", mode="w")
    for group in groups:
        plain().to_dataset().to_zarr(tmp_path / "n.zarr", group=group, consolidated=False)
    with pytest.raises(InputError, match="holds groups") as refused:
        hsi.open_cube(tmp_path / "n.zarr")
    for group in groups:
        path = str(tmp_path / "n.zarr" / group)
        assert path in str(refused.value)
        assert hsi.open_cube(path).shape == (4, 5, 16)


def test_arrays_without_names_of_dims_are_no_damage(tmp_path: Path) -> None:
    zarr.open_group(tmp_path / "g.zarr", mode="w").create_array("data", data=COUNTS)
    with pytest.raises(InputError, match=r"no names of its dims.*make_cube") as refused:
        hsi.open_cube(tmp_path / "g.zarr")
    assert "damaged" not in str(refused.value)


def test_a_store_that_may_not_be_read_is_not_damaged(tmp_path: Path) -> None:
    path = hsi.save(plain(), tmp_path / "p.zarr")
    (path / "zarr.json").chmod(0)
    limit = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.getuid() == 0 else []
    command = [*limit, sys.executable, "-m", "scalehsi", "info", str(path)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    except FileNotFoundError:
        pytest.skip("setpriv is not there to give up the rights of root")
    assert done.returncode == 2
    assert "may not be read" in done.stderr
    assert "damaged" not in done.stderr


@pytest.mark.parametrize("address", ["s3://bucket/scan.zarr", "gs://b/a.zarr", "https://site/a.zarr"])
def test_addresses_are_refused_as_addresses(address: str) -> None:
    for call in (hsi.open_cube, hsi.open_result, lambda path: hsi.save(plain(), path)):
        with pytest.raises(InputError, match="is an address") as refused:
            call(address)
        assert address in str(refused.value)
