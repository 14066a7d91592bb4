"""HyperSpy signals as cubes and back: axes, units, metadata, lazy data, and what is refused."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import xarray as xr

import scalehsi as hsi
from scalehsi.schema import InputError
from tests.helpers import raise_if_dask_computes
from tests.paths import DATA

hs = pytest.importorskip("hyperspy.api", reason="the extra hyperspy is not installed")
pytest.importorskip("exspy", reason="the extra hyperspy is not installed")

pytestmark = [
    pytest.mark.long,
    # HyperSpy 2.5 warns about an import of its own when a signal changes its class.
    pytest.mark.filterwarnings("ignore:Importing `.*` from `hyperspy"),
]

COUNTS = np.random.default_rng(0).integers(0, 900, (3, 4, 5, 6)).astype("u2")
ENERGY = {"name": "Energy", "units": "keV", "offset": 0.1, "scale": 0.013, "navigate": False}


def axis(name: str, units: str = "nm", **more: Any) -> dict[str, Any]:
    return {"name": name, "units": units, "offset": 1.5, "scale": 0.3, "navigate": True, **more}


def signal(data: Any, *axes: dict[str, Any], kind: Any = None) -> Any:
    sized = [{**each, "size": n} for each, n in zip(axes, data.shape, strict=True)]
    return (kind or hs.signals.Signal1D)(data, axes=sized)


def cube(shape: tuple[int, ...] = (4, 5, 6), **attrs: Any) -> xr.DataArray:
    energy = 0.1 + 0.013 * np.arange(shape[-1])
    data = np.resize(COUNTS, shape)
    return hsi.make_cube(data, energy=energy, energy_units="keV", pixel_size=0.3, attrs={"title": "map", **attrs})


def test_a_spectrum_image_shares_its_memory_and_keeps_its_axes() -> None:
    s = signal(COUNTS[0], axis("y", "µm"), axis("x", "µm"), ENERGY)
    found = hsi.from_hyperspy(s)
    assert found.dims == ("y", "x", "energy")
    assert np.shares_memory(found.values, s.data)
    np.testing.assert_allclose(found.x, 1e3 * (1.5 + 0.3 * np.arange(5)))
    np.testing.assert_array_equal(found.energy, s.axes_manager["Energy"].axis)
    assert [found[d].attrs["units"] for d in found.dims] == ["nm", "nm", "keV"]
    assert found.attrs["history"] == ["from_hyperspy: Signal1D, 4 x 5 x 6 uint16"]


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize(
    ("shape", "names", "sizes"),
    [
        ((6,), (), {"y": 1, "x": 1, "energy": 6}),
        ((5, 6), ("x",), {"y": 1, "x": 5, "energy": 6}),
        ((4, 5, 6), ("", ""), {"y": 4, "x": 5, "energy": 6}),
        ((4, 5, 6), ("x", "y"), {"y": 5, "x": 4, "energy": 6}),
        ((3, 4, 5, 6), ("time", "y", "x"), {"time": 3, "y": 4, "x": 5, "energy": 6}),
    ],
)
def test_shapes(shape: tuple[int, ...], names: tuple[str, ...], sizes: dict[str, int], *, lazy: bool) -> None:
    data = np.resize(COUNTS, shape)
    s = signal(data, *(axis(n, "s" if n == "time" else "nm") for n in names), ENERGY)
    with raise_if_dask_computes():
        found = hsi.from_hyperspy(s.as_lazy() if lazy else s)
    assert dict(found.sizes) == sizes
    assert isinstance(found.data, da.Array) == lazy
    values = found.transpose(*names, ...).values if names and names[0] else found.values
    np.testing.assert_array_equal(values.ravel(), data.ravel())


def test_an_array_with_the_energy_first() -> None:
    s = signal(COUNTS[0], {**ENERGY}, axis("y"), axis("x"), kind=hs.signals.BaseSignal)
    assert (s.axes_manager.signal_shape, s.axes_manager.navigation_shape) == ((4,), (6, 5))
    found = hsi.from_hyperspy(s)
    np.testing.assert_array_equal(found.values, np.moveaxis(COUNTS[0], 0, -1))


def test_axes_without_equal_steps() -> None:
    values = np.array([0.1, 0.2, 0.4, 0.8, 1.6, 3.2])
    uneven = cube().assign_coords(energy=("energy", values, {"units": "keV"}))
    s = hsi.to_hyperspy(uneven)
    assert not s.axes_manager["Energy"].is_uniform
    np.testing.assert_array_equal(hsi.from_hyperspy(s).energy.values, values)
    functional = {"name": "Energy", "units": "keV", "expression": "0.1 * 2**x", "navigate": False}
    functional["x"] = {"size": 6, "offset": 0, "scale": 1}
    s = hs.signals.Signal1D(COUNTS[0], axes=[axis("y", size=4), axis("x", size=5), functional])
    np.testing.assert_allclose(hsi.from_hyperspy(s).energy.values, values)


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("shape", [(1, 1, 6), (1, 5, 6), (4, 5, 6), (3, 4, 5, 6)])
def test_there_and_back(shape: tuple[int, ...], *, lazy: bool) -> None:
    there = cube(shape)
    for dim in ("y", "x"):
        if there.sizes[dim] == 1:  # as a line scan and a single spectrum come from a file
            there[dim].attrs["units"] = "px"
    if "frame" in there.dims:
        there = there.assign_coords(frame=("frame", 2.0 * np.arange(3), {"units": "s"}))
    with raise_if_dask_computes():
        s = hsi.to_hyperspy(there.chunk() if lazy else there)
        back = hsi.from_hyperspy(s)
    assert s.axes_manager.navigation_dimension == sum(n > 1 for n in shape[:-1])
    assert s._lazy == lazy == isinstance(back.data, da.Array)
    assert back.dims == there.dims
    for dim in there.dims:
        np.testing.assert_allclose(back[dim], there[dim], rtol=1e-15)
        assert back[dim].attrs == there[dim].attrs
    np.testing.assert_array_equal(back.values, there.values)


METADATA = {
    "title": ("map", "General.title"),
    "date": ("2026-12-01", "General.date"),
    "time": ("10:00:00", "General.time"),
    "sample": ("olivine", "Sample.name"),
    "beam_energy_keV": (200.0, "*.beam_energy"),
    "beam_current_nA": (0.5, "*.beam_current"),
    "magnification": (2e5, "*.magnification"),
    "microscope": ("Titan", "*.microscope"),
    "convergence_angle_mrad": (20.0, "*.convergence_angle"),
    "tilt_alpha_deg": (12.0, "*.Stage.tilt_alpha"),
}
EDS = {
    "live_time_s": (9.0, "*.Detector.EDS.live_time"),
    "real_time_s": (10.0, "*.Detector.EDS.real_time"),
    "azimuth_angle_deg": (45.0, "*.Detector.EDS.azimuth_angle"),
    "elevation_angle_deg": (22.0, "*.Detector.EDS.elevation_angle"),
    "energy_resolution_MnKa_eV": (127.0, "*.Detector.EDS.energy_resolution_MnKa"),
}
EELS = {"collection_angle_mrad": (30.0, "*.Detector.EELS.collection_angle")}


@pytest.mark.parametrize(
    ("kind", "more", "beam", "wanted"),
    [
        ("EDS", EDS, 200.0, ("EDSTEMSpectrum", "TEM")),
        ("EDS", EDS, 15.0, ("EDSSEMSpectrum", "SEM")),
        ("EELS", EELS, 200.0, ("EELSSpectrum", "TEM")),
    ],
)
def test_metadata_there_and_back(kind: str, more: dict[str, Any], beam: float, wanted: tuple[str, str]) -> None:
    known = METADATA | more | {"beam_energy_keV": (beam, "*.beam_energy")}
    there = cube(**{name: value for name, (value, _) in known.items()}, elements=["Fe", "O"], signal=kind)
    s = hsi.to_hyperspy(there)
    name, instrument = wanted
    assert type(s).__name__ == name
    for value, path in known.values():
        assert s.metadata.get_item(path.replace("*", f"Acquisition_instrument.{instrument}")) == value, path
    assert sorted(s.metadata.Sample.elements) == ["Fe", "O"]
    back = hsi.from_hyperspy(s).attrs
    assert {name: back.get(name) for name in known} == {name: value for name, (value, _) in known.items()}
    assert (back["signal"], sorted(back["elements"])) == (kind, ["Fe", "O"])
    assert len(back["history"]) == 1


def test_the_preferences_of_exspy_are_named_in_the_history() -> None:
    s = hsi.to_hyperspy(cube(signal="EDS", elevation_angle_deg=22.0))
    assert hsi.from_hyperspy(s).attrs["history"][1:] == [
        "from_hyperspy: azimuth_angle_deg 0, energy_resolution_MnKa_eV 130 equal eXSpy's preferences, "
        "and may not be measured"
    ]


def test_units_that_count_are_none_in_hyperspy() -> None:
    counted = hsi.make_cube(COUNTS[0], energy=np.arange(6), energy_units="channel", pixel_units="px")
    s = hsi.to_hyperspy(counted)
    assert [str(a.units) for a in (*s.axes_manager.navigation_axes, *s.axes_manager.signal_axes)] == ["<undefined>"] * 3
    assert [hsi.from_hyperspy(s)[d].attrs["units"] for d in counted.dims] == ["px", "px", "channel"]


def test_scans_of_diffraction_patterns_are_cubes() -> None:
    detector = [axis(n, "1/nm", navigate=False) for n in ("ky", "kx")]
    found = hsi.from_hyperspy(signal(COUNTS, axis("y"), axis("x"), *detector, kind=hs.signals.Signal2D))
    assert dict(found.sizes) == {"y": 3, "x": 4, "energy": 30}
    assert found.attrs["detector_shape"] == [5, 6]


def test_energy_chunks_of_a_lazy_signal_are_joined(caplog: pytest.LogCaptureFixture) -> None:
    s = signal(COUNTS[0], axis("y"), axis("x"), ENERGY).as_lazy()
    s.data = s.data.rechunk((2, 5, 3))
    with caplog.at_level(logging.WARNING, logger="scalehsi"):
        found = hsi.from_hyperspy(s)
    assert found.data.numblocks[-1] == 1
    assert "energy axis joined from 2 chunks" in found.attrs["history"][-1]
    assert not caplog.records


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (hs.signals.Signal2D(COUNTS[0]), r"2 signal and 1 navigation axes holds no spectra.*as_signal1D"),
        (hs.signals.Signal2D(COUNTS[0, 0]), r"2 signal and 0 navigation axes holds no spectra"),
        (
            hs.signals.ComplexSignal1D(COUNTS[0] + 1j),
            r"holds complex data, real numbers are expected; type signal\.real",
        ),
        (hs.signals.BaseSignal(np.array([[1], [1, 2]], dtype=object), ragged=True), r"holds ragged \(object\) data"),
        (
            signal(COUNTS[0], {**ENERGY, "navigate": True}, axis("y"), axis("x", navigate=False)),
            r"energies of this signal are a navigation axis; type signal\.as_signal1D\(1\)",
        ),
        (COUNTS, r"a HyperSpy signal is expected, got ndarray"),
    ],
)
def test_what_is_no_cube(given: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        hsi.from_hyperspy(given)


def test_a_signal_in_place_of_a_cube_says_how_to_convert_it(tmp_path: Path) -> None:
    s = signal(COUNTS[0], axis("y"), axis("x"), ENERGY)
    for call in (
        lambda: hsi.open_cube(s),
        lambda: hsi.fit(s, hsi.NMF(2)),
        lambda: hsi.plan(s, hsi.NMF(2)),
        lambda: hsi.save(s, tmp_path / "a.zarr"),
        lambda: hsi.convert(s, tmp_path / "a.zarr"),
        lambda: hsi.to_hyperspy(s),
    ):
        with pytest.raises(InputError, match=r"got Signal1D; type scalehsi\.from_hyperspy\(signal\)$"):
            call()
    assert not list(tmp_path.iterdir())


def test_hspy_is_written_through_a_signal(tmp_path: Path) -> None:
    there = cube(signal="EDS", beam_energy_keV=200.0)
    with pytest.raises(InputError, match=r"type '.*a\.zarr', or scalehsi\.to_hyperspy\(data\)\.save\('.*a\.hspy'\)"):
        hsi.save(there, tmp_path / "a.hspy")
    hsi.to_hyperspy(there).save(tmp_path / "a.hspy")
    found = hsi.open_cube(tmp_path / "a.hspy")
    np.testing.assert_array_equal(found.values, there.values)
    np.testing.assert_allclose(found.energy, there.energy, rtol=1e-15)
    assert (found.attrs["signal"], found.attrs["beam_energy_keV"]) == ("EDS", 200.0)
    with raise_if_dask_computes():
        lazy = hsi.from_hyperspy(hs.load(tmp_path / "a.hspy", lazy=True))
    xr.testing.assert_equal(lazy, found)


@pytest.mark.parametrize(("missing", "signal"), [("hyperspy.api", ""), ("exspy", "EDS")])
def test_without_the_extra(monkeypatch: pytest.MonkeyPatch, missing: str, signal: str) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(InputError, match=r'not installed; type pip install "scalehsi\[hyperspy\]"'):
        hsi.to_hyperspy(cube(signal=signal))


FILES = [
    "vendor/gatan/EELS_SI.dm4",
    "eels_NMC/TM+O EELS Spectrum Image.dm3",
    "edx_FePt/core_shell.hspy",
    "vendor/bruker_rsciio/test_TEM.bcf",
    "eels_refs/TCI2018_endmembers/Comp0_Resine.dm4",
]


@pytest.mark.skipif(not DATA.is_dir(), reason="no test data beside the repository")
@pytest.mark.parametrize("path", FILES)
def test_a_file_loaded_by_hyperspy_is_the_cube_that_we_open(path: str) -> None:
    loaded = hs.load(DATA / path, lazy=True)
    signals = loaded if isinstance(loaded, list) else [loaded]
    s = max((each for each in signals if each.axes_manager.signal_dimension == 1), key=lambda each: each.data.size)
    wanted = hsi.open_cube(DATA / path)
    found = hsi.from_hyperspy(s)
    xr.testing.assert_equal(found, wanted)
    ours = {k: v for k, v in wanted.attrs.items() if k not in ("history", "source")}
    assert {k: found.attrs.get(k) for k in ours} == ours
