"""The roles of the axes of a signal of RosettaSciIO, and its acquisition parameters."""

from __future__ import annotations

from typing import Any

import dask.array as da
import numpy as np
import pytest

from scalehsi.io.vendor_signal import axes_of, axis_roles, merge_mapping, metadata_attrs, to_cube
from scalehsi.schema import InputError

Row = tuple[str, int, str, bool]
Y, X = ("y", 3, "nm", True), ("x", 4, "nm", True)
E_KEV, E_EV = ("Energy", 5, "keV", False), ("Energy loss", 5, "eV", False)


def signal(*rows: Row, kind: str = "", lazy: bool = True, **metadata: Any) -> dict[str, Any]:
    """A signal as RosettaSciIO makes it; a row is name, size, units, navigate."""
    shape = tuple(size for _, size, _, _ in rows)
    data = np.arange(np.prod(shape), dtype="u2").reshape(shape)
    return {
        "data": da.from_array(data) if lazy else data,
        "axes": [
            {"name": name, "size": size, "units": units, "navigate": navigate, "scale": 0.5, "offset": 2.0}
            for name, size, units, navigate in rows
        ],
        "metadata": {"Signal": {"signal_type": kind}, **metadata},
    }


def cube_of(*rows: Row, **options: Any) -> Any:
    given = signal(*rows, **options)
    roles = axis_roles(given)
    assert roles is not None
    return to_cube(given, roles, attrs={"source": "file"})


@pytest.mark.parametrize("lazy", [True, False])
@pytest.mark.parametrize(
    ("rows", "sizes"),
    [
        ((Y, X, E_KEV), {"y": 3, "x": 4, "energy": 5}),
        ((("height", 3, "µm", True), ("width", 4, "µm", True), E_KEV), {"y": 3, "x": 4, "energy": 5}),
        # DigitalMicrograph: energy first, and the reader takes y and x for the signal.
        ((("Energy loss", 5, "eV", True), ("y", 3, "nm", False), ("x", 4, "nm", False)), {"y": 3, "x": 4, "energy": 5}),
        ((X, E_EV), {"y": 1, "x": 4, "energy": 5}),
        ((Y, E_EV), {"y": 3, "x": 1, "energy": 5}),
        ((("", 4, "", True), E_EV), {"y": 1, "x": 4, "energy": 5}),
        ((E_EV,), {"y": 1, "x": 1, "energy": 5}),
        ((("Time", 6, "s", True), Y, X, E_KEV), {"time": 6, "y": 3, "x": 4, "energy": 5}),
        ((("Time", 6, "s", True), E_EV), {"time": 6, "y": 1, "x": 1, "energy": 5}),
        ((("Tilt angle", 2, "°", True), ("z", 2, "nm", True), Y, X, E_EV), {"tilt_angle": 2, "z": 2, "y": 3}),
        ((("", 2, "", True), ("", 3, "", True), ("", 4, "", True), E_EV), {"frame": 2, "y": 3, "x": 4, "energy": 5}),
        ((Y, X, ("qy", 2, "mrad", True), E_EV), {"qy": 2, "y": 3, "x": 4, "energy": 5}),
        ((Y, X, ("Wavelength", 5, "nm", False)), {"y": 3, "x": 4, "energy": 5}),
        ((("", 3, "", False), ("", 4, "", False), ("", 5, "", False)), {"y": 3, "x": 4, "energy": 5}),
        ((Y, X, ("ky", 6, "1/nm", False), ("kx", 2, "1/nm", False)), {"y": 3, "x": 4, "energy": 12}),
        ((X, ("ky", 6, "1/nm", False), ("kx", 2, "1/nm", False)), {"y": 1, "x": 4, "energy": 12}),
        ((("", 2, "", True), Y, X, ("", 6, "", False), ("", 2, "", False)), {"frame": 2, "y": 3, "x": 4}),
    ],
)
def test_axes_become_the_right_dims(rows: tuple[Row, ...], sizes: dict[str, int], lazy: bool) -> None:
    cube = cube_of(*rows, lazy=lazy)
    assert {d: cube.sizes[d] for d in sizes} == sizes
    assert cube.dims[-3:] == ("y", "x", "energy")
    assert all(cube[d].attrs["units"] for d in cube.dims)
    assert cube.size == np.prod([r[1] for r in rows])


@pytest.mark.parametrize(
    "rows",
    [
        (("y", 3, "nm", False), ("x", 4, "nm", False)),
        (("x", 4, "nm", False),),
        (("Time", 6, "s", True), ("y", 3, "nm", False), ("x", 4, "nm", False)),
        (("z", 6, "nm", True), ("Time", 2, "s", True), ("y", 3, "nm", False), ("x", 4, "nm", False)),
    ],
)
def test_images_and_stacks_of_images_are_no_spectra(rows: tuple[Row, ...]) -> None:
    assert axis_roles(signal(*rows)) is None


@pytest.mark.parametrize("dtype", ["c8", "S3", [("R", "u1"), ("G", "u1")]])
def test_values_that_are_no_real_numbers_are_no_spectra(dtype: Any) -> None:
    given = signal(Y, X, E_EV) | {"data": np.zeros((3, 4, 5), dtype)}
    assert axis_roles(given) is None


def test_the_values_follow_their_axes() -> None:
    cube = cube_of(("Energy loss", 5, "eV", True), ("x", 4, "nm", False), ("y", 3, "nm", False))
    given = np.arange(60).reshape(5, 4, 3)
    np.testing.assert_array_equal(cube.values, given.transpose(2, 1, 0))


def test_four_dimensional_stem_is_stacked_row_by_row() -> None:
    cube = cube_of(Y, X, ("ky", 6, "1/nm", False), ("kx", 2, "1/nm", False))
    assert cube.attrs["detector_shape"] == [6, 2]
    assert cube.energy.attrs["units"] == "channel"
    np.testing.assert_array_equal(cube.values.reshape(3, 4, 6, 2), np.arange(144).reshape(3, 4, 6, 2))


def test_lengths_become_nanometres_and_energies_stay() -> None:
    cube = cube_of(("y", 3, "µm", True), ("x", 4, "Å", True), E_KEV)
    np.testing.assert_allclose(cube.y.values, [2000, 2500, 3000])
    np.testing.assert_allclose(cube.x.values, [0.2, 0.25, 0.3, 0.35])
    np.testing.assert_allclose(cube.energy.values, [2, 2.5, 3, 3.5, 4])
    assert [cube[d].attrs["units"] for d in cube.dims] == ["nm", "nm", "keV"]


@pytest.mark.parametrize("units", [None, "", "<undefined>", "Undefined"])
def test_without_units_pixels_are_counted_and_energies_left_as_they_are(units: Any) -> None:
    cube = cube_of(("y", 3, units, True), ("x", 4, units, True), ("Energy", 5, units, False))
    np.testing.assert_array_equal(cube.y.values, [0, 1, 2])
    assert [cube[d].attrs["units"] for d in cube.dims] == ["px", "px", "unknown"]
    np.testing.assert_allclose(cube.energy.values, [2, 2.5, 3, 3.5, 4])


def test_units_are_known_in_any_case() -> None:
    assert cube_of(Y, X, ("Energy", 5, "KeV", False)).energy.attrs["units"] == "keV"


def test_an_axis_of_given_values() -> None:
    given = signal(Y, X, E_EV)
    given["axes"][2] = {"name": "Energy loss", "units": "eV", "axis": [1, 2, 4, 8, 16], "navigate": False}
    roles = axis_roles(given)
    assert roles is not None
    np.testing.assert_array_equal(to_cube(given, roles, attrs={}).energy, [1, 2, 4, 8, 16])


def test_axes_in_another_order_than_the_data() -> None:
    given = signal(Y, X, E_EV)
    for i, axis in enumerate(given["axes"]):
        axis["index_in_array"] = i
    given["axes"].reverse()
    assert [a.name for a in axes_of(given)] == ["y", "x", "Energy loss"]


def test_a_wrong_number_of_axes_is_refused() -> None:
    given = signal(Y, X, E_EV)
    given["axes"].pop()
    with pytest.raises(InputError, match=r"shape \(3, 4, 5\), the file describes 2 axes"):
        axes_of(given)


def test_booleans_and_the_other_byte_order_become_plain_numbers() -> None:
    for dtype, wanted in (("?", "u1"), (">u2", "u2"), (">f4", "f4")):
        given = signal(Y, X, E_EV)
        given["data"] = da.ones((3, 4, 5), dtype=dtype)
        roles = axis_roles(given)
        assert roles is not None
        cube = to_cube(given, roles, attrs={})
        assert cube.dtype == np.dtype(wanted)
        assert cube.dtype.isnative
        assert float(cube.sum()) == 60


def test_acquisition_parameters_become_attributes() -> None:
    eds = {"live_time": 28.0, "azimuth_angle": "45.0", "detector_type": "Super-X"}
    tem = {"beam_energy": "200", "beam_current": 0.0, "magnification": "20000", "Detector": {"EDS": eds}}
    attrs = metadata_attrs(
        signal(
            Y,
            X,
            E_KEV,
            kind="EDS_TEM",
            General={"title": "map", "date": "20160809"},
            Acquisition_instrument={"TEM": tem},
            Sample={"elements": ["Fe", "O"]},
        )
    )
    assert attrs == {
        "signal": "EDS",
        "signal_type": "EDS_TEM",
        "title": "map",
        "date": "20160809",
        "beam_energy_keV": 200.0,
        "elements": ["Fe", "O"],
        "magnification": 20000.0,
        "live_time_s": 28.0,
        "azimuth_angle_deg": 45.0,
        "detector": "Super-X",
    }


def attrs_with(**metadata: Any) -> dict[str, Any]:
    return metadata_attrs(signal(Y, X, E_EV, kind="EELS", **metadata))


def test_volts_in_place_of_kilovolts() -> None:
    assert attrs_with(Acquisition_instrument={"TEM": {"beam_energy": 300000.0}})["beam_energy_keV"] == 300.0
    assert "beam_energy_keV" not in attrs_with(Acquisition_instrument={"TEM": {"beam_energy": "unknown"}})


def test_elements_printed_as_one_text() -> None:
    assert attrs_with(Sample={"elements": "['Fe' 'Pt']"})["elements"] == ["Fe", "Pt"]
    assert "elements" not in attrs_with(Sample={"elements": []})


def test_tags_of_the_vendor_that_a_reader_maps() -> None:
    given = signal(Y, X, E_EV)
    given["original_metadata"] = {"Microscope": {"Voltage": 80000, "Mode": None, "Bad": "x"}}
    given["mapping"] = {
        "Microscope.Voltage": ("Acquisition_instrument.TEM.beam_energy", lambda v: v / 1e3),
        "Microscope.Mode": ("Acquisition_instrument.TEM.acquisition_mode", None),
        "Microscope.Bad": ("Acquisition_instrument.TEM.magnification", float),
        "Microscope.Missing": ("General.title", None),
    }
    before = dict(given["metadata"])
    assert merge_mapping(given)["Acquisition_instrument"] == {"TEM": {"beam_energy": 80.0}}
    assert given["metadata"] == before
    assert metadata_attrs(given)["beam_energy_keV"] == 80.0
