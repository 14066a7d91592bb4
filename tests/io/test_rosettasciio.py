"""Files of other programs: those of the test data where they are, and files that RosettaSciIO writes itself."""

from __future__ import annotations

import importlib
import logging
import re
import sys
import tracemalloc
from pathlib import Path
from typing import Any, NamedTuple

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr

from scalehsi.io import convert, open_cube, open_image
from scalehsi.io.rosettasciio import extensions, read_vendor
from scalehsi.schema import InputError
from tests.helpers import raise_if_dask_computes
from tests.paths import DATA

pytestmark = pytest.mark.long

pytest.importorskip("rsciio", reason="the extra io is not installed")

needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="no test data beside the repository")


class Known(NamedTuple):
    """What is known of a file: pixels, channels, step in nm (None: uncalibrated), energy axis, attributes."""

    path: str
    shape: tuple[int, ...]
    step: float | None
    energy: tuple[float, float, str]
    signal: str = "EELS"
    beam: float | None = None
    elements: str = ""


def bruker(name: str, shape: tuple[int, ...], step: float, energy: tuple[float, float], **options: Any) -> Known:
    options = {"signal": "EDS", "beam": 20.0, **options}
    return Known(f"vendor/{name}", shape, step, (*energy, "keV"), **options)


P45 = "Al Ca Cl Fe K Mg Na O P Si Ti"
TCI = "eels_refs/TCI2018_endmembers/"
ROBIN = "eels_roundrobin/"
FILES = [
    Known(
        "edx_88ESLP/88_ES-LP_G8_selection2_cropped2.hspy",
        (80, 80, 1917),
        9.86,
        (0.8315, 0.0100, "keV"),
        "EDS",
        200.0,
        "Al Ca Fe Hf Lu Mg Nd O Si Sm U",
    ),
    Known("edx_FePt/core_shell.hspy", (64, 64, 992), 0.5, (0.16, 0.02, "keV"), "EDS", 200.0, "Fe Pt"),
    Known("edx_FePt/bare_core.hspy", (84, 84, 992), 0.5, (0.16, 0.02, "keV"), "EDS", 200.0, "Fe Pt"),
    Known("edx_FePt/core_shell_2x2rebinned_ePSIC.hdf5", (32, 32, 992), 1.0, (0.16, 0.02, "keV"), "EDS", 200.0, "Fe Pt"),
    Known("edx_FePt/bare_core_2x2rebinned_ePSIC.hdf5", (42, 42, 992), 1.0, (0.16, 0.02, "keV"), "EDS", 200.0, "Fe Pt"),
    Known("eels_CuZn_HAADF/CuZn_EELS_mapping_tutorial.hspy", (50, 40, 162), 0.9214, (700, 8, "eV"), beam=200.0),
    Known("eels_NMC/TM+O EELS Spectrum Image.dm3", (2, 21, 2048), 2.046, (440, 0.3, "eV"), beam=300.0),
    Known("eels_NMC/Si EELS Spectrum Image.dm3", (2, 28, 2048), 1.491, (35, 0.3, "eV"), beam=300.0),
    Known("eels_NMC/ZLP EELS Spectrum Image.dm3", (2, 21, 2048), 2.046, (-60, 0.3, "eV"), beam=300.0),
    # Single spectra; their headers give volts.
    Known("eels_NMC/oxygen_edge.msa", (1, 1, 2036), None, (443.6, 0.3, "eV"), beam=300.0),
    Known("eels_NMC/Co_edge.msa", (1, 1, 1977), None, (459.2, 0.3, "eV"), beam=300.0),
    Known("eels_NMC/Mn_edge.msa", (1, 1, 2021), None, (446.0, 0.3, "eV"), beam=300.0),
    Known("eels_NMC/Ni_edge.msa", (1, 1, 2001), None, (450.8, 0.3, "eV"), beam=300.0),
    # Series of spectra: one row, whose step has no unit in the file.
    Known(f"{ROBIN}T3_A3/region1/HL_SI.dm3", (1, 100, 1024), None, (130, 0.5, "eV")),
    Known(f"{ROBIN}T3_A3/region1/LL_SI.dm3", (1, 100, 1024), None, (-60, 0.5, "eV")),
    Known(f"{ROBIN}T3_B3/region1/SI_HL.dm3", (1, 100, 1024), None, (380, 0.3, "eV")),
    Known(f"{ROBIN}T3_B3/region1/SI_LL.dm3", (1, 100, 1024), None, (-40, 0.3, "eV")),
    Known(f"{ROBIN}T3_B3/region1/BG_50sec.dm3", (1, 1, 1024), None, (380, 0.3, "eV"), beam=300.0),
    # The published endmembers leave out the first three of these channels: 173.37 + 3 * 0.5168 = 174.9 eV.
    *(
        Known(f"{TCI}{name}.dm4", (1, 1, 1340), None, (173.3676, 0.5168, "eV"))
        for name in ("Comp0_Resine", "Comp1_Calcification", "Comp2_Orga1", "Comp5_Orga2")
    ),
    bruker("bruker_PDDL/4on3_full.bcf", (3, 4, 1024), 409_600.0, (-0.4701, 0.01), beam=15.0),
    bruker("bruker_PDDL/P45_job_hyperspy.bcf", (75, 100, 2048), 8736.785, (-0.4724, 0.010001)),
    bruker("bruker_PDDL/P45_12bit_packed_8bit_compressed.bcf", (75, 100, 2048), 8736.785, (-0.4724, 0.010001)),
    bruker(
        "bruker_PDDL/P45_8bit_compressed_80keV_range.bcf", (75, 100, 4096), 8736.785, (-1.9, 0.019994), elements=P45
    ),
    bruker("bruker_rsciio/test_TEM.bcf", (64, 64, 2048), 0.771, (-0.4754, 0.010001), beam=200.0, elements="Cu O Pd Ti"),
    Known("vendor/bruker_PDDL/4on3_full.rpl", (3, 4, 1024), None, (0, 1, "channel"), ""),
    Known("vendor/bruker_PDDL/4on3_full.raw", (3, 4, 1024), None, (0, 1, "channel"), ""),
    Known("vendor/gatan/EELS_SI.dm4", (2, 2, 2048), 1.992, (300, 1, "eV"), beam=200.0),
    Known("vendor/velox/fei_emd_si.emd", (16, 16, 4096), 5.3024, (-1, 0.01, "keV"), "EDS", 200.0),
    # Ten frames, summed as Velox shows them; test_frames_on_request has them one by one.
    Known(
        "vendor/velox/fei_SI_SuperX-HAADF_10frames_10x50.emd", (50, 10, 4096), 1.234, (-1, 0.005, "keV"), "EDS", 200.0
    ),
    Known(
        "vendor/jeol/Sample/00_View000/View000_0000006.pts",
        (512, 512, 4096),
        8.691,
        (-0.9607, 0.01, "keV"),
        "EDS",
        200.0,
    ),
    Known("vendor/jeol/rawdata.ASW", (512, 512, 4096), 8.691, (-0.9607, 0.01, "keV"), "EDS", 200.0),
]


def step(cube: xr.DataArray, dim: str) -> float:
    axis = cube[dim].values
    return float((axis[-1] - axis[0]) / max(1, axis.size - 1))


@needs_data
@pytest.mark.parametrize("known", FILES, ids=[Path(f.path).name for f in FILES])
def test_files_of_the_test_data_open_with_their_axes(known: Known) -> None:
    with raise_if_dask_computes(max_computes=1):  # one: the last value of a memory map, to see that it is there
        cube = open_cube(DATA / known.path)
    assert cube.dims == ("y", "x", "energy")
    assert cube.shape == known.shape
    first, width, units = known.energy
    assert cube.energy.attrs["units"] == units
    assert float(cube.energy[0]) == pytest.approx(first, abs=width / 20)
    assert step(cube, "energy") == pytest.approx(width, rel=2e-3)
    for dim in ("y", "x"):
        assert cube[dim].attrs["units"] == ("px" if known.step is None else "nm")
        if cube.sizes[dim] > 1:
            assert step(cube, dim) == pytest.approx(known.step or 1.0, rel=1e-3)
    assert cube.attrs["signal"] == known.signal
    assert cube.attrs.get("beam_energy_keV") == known.beam
    if known.elements:
        assert cube.attrs["elements"] == known.elements.split()
    assert cube.attrs["history"][0].startswith(f"open: {cube.attrs['source']}")
    assert isinstance(cube.data, da.Array)
    assert cube.data.numblocks[-1] == 1
    corner = cube.isel(y=slice(0, 2), x=slice(-2, None)).compute()
    assert np.isfinite(corner.values).all()


@needs_data
@pytest.mark.parametrize("name", ["core_shell", "bare_core"])
def test_the_values_are_those_of_the_reference_copy(name: str) -> None:
    with np.load(DATA / "edx_FePt" / "compact.npz") as reference:
        wanted = reference[name]
    np.testing.assert_array_equal(open_cube(DATA / "edx_FePt" / f"{name}.hspy").values, wanted)


@needs_data
def test_a_bcf_and_its_raw_export_hold_the_same_counts() -> None:
    folder = DATA / "vendor" / "bruker_PDDL"
    np.testing.assert_array_equal(
        open_cube(folder / "4on3_full.bcf").values, open_cube(folder / "4on3_full.rpl").values
    )


@needs_data
def test_frames_on_request() -> None:
    path = DATA / "vendor" / "velox" / "fei_SI_SuperX-HAADF_10frames_10x50.emd"
    frames = open_cube(path, reader_options={"sum_frames": False})
    assert dict(frames.sizes) == {"time": 10, "y": 50, "x": 10, "energy": 4096}
    assert frames.time.attrs["units"] == "s"
    np.testing.assert_array_equal(frames.sum("time").values, open_cube(path).values)


@needs_data
@pytest.mark.slow
@pytest.mark.parametrize("known", FILES, ids=[Path(f.path).name for f in FILES])
def test_files_of_the_test_data_are_converted_without_loss(known: Known, tmp_path: Path) -> None:
    source = open_cube(DATA / known.path)
    tracemalloc.start()
    try:
        path = convert(DATA / known.path, tmp_path / "a.zarr")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 400e6  # the JEOL map takes 2.1 GB
    cube = open_cube(path)
    assert cube.dtype.itemsize <= source.dtype.itemsize
    assert cube.dtype.kind == "u" or source.dtype.kind in "if"
    for row in range(0, cube.sizes["y"], max(1, cube.sizes["y"] // 5)):
        np.testing.assert_array_equal(cube[row].values, source[row].values)
    assert cube.attrs["history"][0] == source.attrs["history"][0]
    assert cube.attrs["source"] == source.attrs["source"]


NO_SPECTRUM_IMAGE = {
    "eels_CuZn_HAADF/CuZn_HAADF.hspy": r"holds no spectrum image; it holds 0 'Gatan HAADF' \(50 x 40 uint16\)",
    "eels_NMC/TM ADF Image.dm3": r"holds no spectrum image; it holds 0 'ADF Image' \(2 x 21 float32\)",
    "vendor/jeol/Sample/00_View000/View000_0000000.img": r"holds no spectrum image; it holds 0 'IMG1'",
    "vendor/jeol/Sample/00_View000/View000_0000001.map": r"holds no spectrum image; it holds 0 'C K'",
    "vendor/jeol/Sample/00_View000/View000_0000005.map": r"holds no spectrum image; it holds 0 'Cu K'",
    "vendor/jeol/181019-BN.ASW": r"it refers to '.*000_0000000\.img', which is not beside it",
    "eels_Mn3O4/mn3o4_f2.mat": r"no reader for 'mn3o4_f2\.mat'.*scipy\.io\.loadmat",
    "eels_Mn3O4/SI_data.npz": r"no reader for 'SI_data\.npz'.*scalehsi\.make_cube\(numpy\.load",
    f"{TCI}Spectra.mat": r"scipy\.io\.loadmat",
    f"{TCI}Composante1.png": r"holds no spectrum image; it holds 0 '.*' \(100 x 100 uint8\)",
    "eels_refs/Mn_MnEdgeNet/Data2_MnO.csv": r"cannot be read.*read it with numpy\.loadtxt",
}


@needs_data
@pytest.mark.parametrize(("path", "message"), NO_SPECTRUM_IMAGE.items(), ids=lambda v: Path(v).name)
def test_what_is_no_spectrum_image_says_what_it_is(path: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        open_cube(DATA / path)


@needs_data
def test_an_image_beside_a_spectrum_image() -> None:
    image = open_image(DATA / "eels_CuZn_HAADF" / "CuZn_HAADF.hspy")
    cube = open_cube(DATA / "eels_CuZn_HAADF" / "CuZn_EELS_mapping_tutorial.hspy")
    assert (image.dims, image.shape, image.dtype) == (("y", "x"), (50, 40), np.uint16)
    for dim in ("y", "x"):
        np.testing.assert_allclose(image[dim], cube[dim])
        assert image[dim].attrs["units"] == "nm"
    assert image.attrs["source"] == "CuZn_HAADF.hspy"
    with pytest.raises(InputError, match="is no image of two axes; it holds 0 'EELS Spectrum Image'"):
        open_image(DATA / "eels_CuZn_HAADF" / "CuZn_EELS_mapping_tutorial.hspy")


# Files that the tests write ----------------------------------------------------------------------------------------


def written(path: Path, data: np.ndarray[Any, Any], axes: list[dict[str, Any]], **options: Any) -> Path:
    """Write one signal with RosettaSciIO, by the plugin that the extension names."""
    plugins = {".hspy": "hspy", ".rpl": "ripple", ".msa": "msa", ".npy": "numpy", ".emd": "emd", ".nxs": "nexus"}
    plugins |= {".blo": "blockfile", ".tif": "tiff"}
    signal = {
        "data": data,
        "axes": [
            {"scale": 0.5, "offset": 1.0, "navigate": i < data.ndim - 1, "_type": "UniformDataAxis", **axis}
            | {"size": data.shape[i], "index_in_array": i, "is_binned": False}
            for i, axis in enumerate(axes)
        ],
        "metadata": options.pop("metadata", {"General": {"title": "map"}, "Signal": {"signal_type": "EELS"}}),
        "original_metadata": {},
        "tmp_parameters": {},
        "learning_results": {},
        "models": {},
        "attributes": {"_lazy": False, "ragged": False},
        "package_info": {"package": "scalehsi tests", "package_version": "1"},
    }
    importlib.import_module(f"rsciio.{plugins[path.suffix]}").file_writer(str(path), signal, **options)
    return path


def axis(name: str, units: str = "", **more: Any) -> dict[str, Any]:
    return {"name": name, "units": units, **more}


YX = [axis("y", "nm"), axis("x", "nm")]
ENERGY = axis("Energy loss", "eV")
COUNTS = np.random.default_rng(0).integers(0, 900, (6, 7, 20)).astype("u2")


@pytest.mark.parametrize("names", [("y", "x"), ("x", "y"), ("", "")])
def test_an_image_is_y_and_x(tmp_path: Path, names: tuple[str, str]) -> None:
    axes = [axis(name, "um", navigate=False) for name in names]
    image = open_image(written(tmp_path / "a.hspy", COUNTS[..., 0], axes))
    turned = names == ("x", "y")
    np.testing.assert_array_equal(image, COUNTS[..., 0].T if turned else COUNTS[..., 0])
    np.testing.assert_allclose(image.y, 1e3 * (1 + 0.5 * np.arange(7 if turned else 6)))
    with pytest.raises(InputError, match=r"there is no dataset 3 in 'a\.hspy'"):
        open_image(tmp_path / "a.hspy", dataset=3)
    with pytest.raises(InputError, match=r"dataset 0 of 'b\.hspy' is no image"):
        open_image(written(tmp_path / "b.hspy", COUNTS, [*YX, ENERGY]), dataset=0)


@pytest.mark.parametrize("suffix", ["hspy", "rpl", "nxs", "emd"])
def test_formats_that_keep_axes(tmp_path: Path, suffix: str) -> None:
    cube = open_cube(written(tmp_path / f"a.{suffix}", COUNTS, [*YX, ENERGY]))
    np.testing.assert_array_equal(cube.values, COUNTS)
    assert cube.dtype == np.uint16
    assert [cube[d].attrs["units"] for d in cube.dims] == ["nm", "nm", "eV"]
    np.testing.assert_allclose(cube.y, 1 + 0.5 * np.arange(6))
    np.testing.assert_allclose(cube.energy, 1 + 0.5 * np.arange(20))
    assert cube.attrs["source"] == f"a.{suffix}"


def test_a_zspy_folder_is_a_file_of_hyperspy(tmp_path: Path) -> None:
    import zarr

    # Its writer in RosettaSciIO needs Zarr 2; the format is that of .hspy in Zarr groups.
    root = zarr.open_group(tmp_path / "a.zspy", mode="w", zarr_format=2)
    root.attrs.update({"file_format": "HyperSpy", "file_format_version": "3.1"})
    signal = root.create_group("Experiments").create_group("map")
    signal.create_array("data", data=COUNTS, chunks=(3, 7, 5))
    for i, entry in enumerate([*YX, ENERGY]):
        uniform = {"_type": "UniformDataAxis", "scale": 0.5, "offset": 1.0, "navigate": i < 2, "size": COUNTS.shape[i]}
        signal.create_group(f"axis-{i}").attrs.update(entry | uniform)
    metadata = signal.create_group("metadata")
    metadata.create_group("Signal").attrs["signal_type"] = "EELS"
    signal.create_group("original_metadata")
    before = sorted(p.name for p in (tmp_path / "a.zspy").rglob("*"))
    cube = open_cube(tmp_path / "a.zspy")
    np.testing.assert_array_equal(cube.values, COUNTS)
    assert cube.attrs["signal"] == "EELS"
    assert sorted(p.name for p in (tmp_path / "a.zspy").rglob("*")) == before


def test_a_single_spectrum_is_a_cube_of_one_pixel(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = written(tmp_path / "a.msa", COUNTS[0, 0].astype("f8"), [ENERGY])
    with caplog.at_level(logging.INFO, logger="scalehsi"):
        cube = open_cube(path)
    assert cube.shape == (1, 1, 20)
    assert cube.attrs["signal"] == "EELS"
    assert isinstance(cube.data, da.Array)
    np.testing.assert_array_equal(cube.values.ravel(), COUNTS[0, 0])
    assert "a.msa: its format has no lazy reader" in caplog.text


def test_a_line_scan_has_one_row(tmp_path: Path) -> None:
    cube = open_cube(written(tmp_path / "a.hspy", COUNTS[0], [axis("x", "nm"), ENERGY]))
    assert dict(cube.sizes) == {"y": 1, "x": 7, "energy": 20}


def test_frames_come_first(tmp_path: Path) -> None:
    data = np.stack([COUNTS, COUNTS + 1])
    cube = open_cube(written(tmp_path / "a.hspy", data, [axis("Time", "s"), *YX, ENERGY]))
    assert dict(cube.sizes) == {"time": 2, "y": 6, "x": 7, "energy": 20}
    np.testing.assert_array_equal(cube.values, data)


@pytest.mark.parametrize("suffix", ["hspy", "blo"])
def test_four_dimensional_stem_is_stacked(tmp_path: Path, suffix: str) -> None:
    data = np.arange(3 * 4 * 8 * 8, dtype="u4").reshape(3, 4, 8, 8) % 251
    axes = [*YX, axis("ky", "cm", navigate=False), axis("kx", "cm", navigate=False)]
    metadata = {"General": {"title": ""}, "Signal": {"signal_type": ""}}
    cube = open_cube(written(tmp_path / f"a.{suffix}", data.astype("u1"), axes, metadata=metadata))
    assert cube.shape == (3, 4, 64)
    assert cube.attrs["detector_shape"] == [8, 8]
    np.testing.assert_array_equal(cube.values.reshape(data.shape), data)


def test_a_bare_array_has_channels_last(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", COUNTS)
    cube = open_cube(tmp_path / "a.npy")
    np.testing.assert_array_equal(cube.values, COUNTS)
    assert [cube[d].attrs["units"] for d in cube.dims] == ["px", "px", "channel"]


def test_an_image_says_what_it_is(tmp_path: Path) -> None:
    path = written(tmp_path / "a.hspy", COUNTS[:, :, 0], [axis("y", "nm", navigate=False), axis("x", "nm")])
    with pytest.raises(InputError, match=r"'a\.hspy' holds no spectrum image; it holds 0 'map' \(6 x 7 uint16\)"):
        open_cube(path)


def test_opening_computes_nothing_and_cuts_blocks_of_whole_spectra(tmp_path: Path) -> None:
    big = np.zeros((40, 300, 1500), "u2")  # 36 MB
    with raise_if_dask_computes():
        hspy = open_cube(written(tmp_path / "a.hspy", big, [*YX, ENERGY], chunks=(10, 50, 100)))
    for cube in (hspy, open_cube(written(tmp_path / "a.rpl", big, [*YX, ENERGY]))):
        assert cube.data.numblocks[-1] == 1
        sizes = [np.prod(c, dtype=int) * 2 for c in np.ndindex(*cube.data.numblocks) for c in [block(cube, c)]]
        assert max(sizes) <= 16 * 2**20
        assert len(sizes) <= 4
    assert all(size % 10 == 0 for size in hspy.chunks[0])


def block(cube: xr.DataArray, index: tuple[int, ...]) -> list[int]:
    return [cube.chunks[d][i] for d, i in enumerate(index)]


def test_a_block_reads_only_its_own_part_of_an_hdf5_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import h5py

    path = written(tmp_path / "a.hspy", np.zeros((64, 64, 3000), "u2"), [*YX, ENERGY], chunks=(8, 8, 500))
    cube = open_cube(path)
    read: list[int] = []
    original = h5py.Dataset.__getitem__

    def count(self: Any, key: Any) -> Any:
        out = original(self, key)
        read.append(np.size(out))
        return out

    monkeypatch.setattr(h5py.Dataset, "__getitem__", count)
    with dask.config.set(scheduler="sync"):
        cube[0:2, 0:2].compute()
    assert sum(read) == 2 * 2 * 3000


# Files with several signals ----------------------------------------------------------------------------------------


@pytest.fixture
def several(tmp_path: Path) -> Path:
    """One .hspy file with an image, an untyped cube, a small EELS cube and a spectrum."""
    import h5py

    path = tmp_path / "several.hspy"

    def add(title: str, kind: str, data: np.ndarray[Any, Any], axes: list[dict[str, Any]]) -> None:
        metadata = {"General": {"title": title}, "Signal": {"signal_type": kind}}
        single = written(tmp_path / f"{title}.hspy", data, axes, metadata=metadata)
        with h5py.File(single) as source, h5py.File(path, "a") as target:
            target.attrs.update(source.attrs)
            source.copy(f"Experiments/{title}", target.require_group("Experiments"))

    add("HAADF", "", COUNTS[:, :, 0], [axis("y", "nm", navigate=False), axis("x", "nm")])
    add("big", "", np.repeat(COUNTS, 2, axis=0), [*YX, ENERGY])
    add("loss", "EELS", COUNTS, [*YX, ENERGY])
    add("sum", "EDS_TEM", COUNTS[0, 0], [ENERGY])
    return path


def test_the_spectrum_image_that_says_what_it_is_comes_first(several: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="scalehsi"):
        cube = open_cube(several)
    assert cube.attrs["title"] == "loss"
    assert "opened dataset" in caplog.text
    assert "'big' (12 x 7 x 20 uint16)" in caplog.text


def test_a_signal_can_be_picked_by_kind_title_or_number(several: Path) -> None:
    assert open_cube(several, signal="EDS").attrs["title"] == "sum"
    assert open_cube(several, dataset="big").shape == (12, 7, 20)
    assert open_cube(several, dataset="BIG").shape == (12, 7, 20)
    with pytest.raises(InputError, match=r"it holds .* 'HAADF'") as caught:
        open_cube(several, dataset=9)
    titles = re.findall(r"\d '(\w+)' \(", str(caught.value))
    assert sorted(titles) == ["HAADF", "big", "loss", "sum"]
    assert open_cube(several, dataset=titles.index("big")).attrs["title"] == "big"


def test_an_unknown_or_unfit_choice_lists_what_is_there(several: Path) -> None:
    listed = r"it holds 0 '\w+' .*, 3 '\w+' \("
    with pytest.raises(InputError, match=rf"no dataset 'zero loss' in 'several\.hspy'; {listed}"):
        open_cube(several, dataset="zero loss")
    with pytest.raises(InputError, match=rf"no dataset 7 in 'several\.hspy'; {listed}"):
        open_cube(several, dataset=7)
    with pytest.raises(InputError, match=rf"dataset 'HAADF' of 'several\.hspy' is no spectrum image; {listed}"):
        open_cube(several, dataset="HAADF")


def test_the_kind_can_be_said_where_the_file_does_not(tmp_path: Path) -> None:
    untyped = {"General": {"title": ""}, "Signal": {"signal_type": ""}}
    path = written(tmp_path / "a.hspy", COUNTS, [*YX, ENERGY], metadata=untyped)
    assert open_cube(path).attrs["signal"] == ""
    assert open_cube(path, signal="EELS").attrs["signal"] == "EELS"


# What cannot be read -----------------------------------------------------------------------------------------------


def test_an_unknown_extension_lists_the_known_ones(tmp_path: Path) -> None:
    (tmp_path / "a.xyz").write_bytes(b"x")
    with pytest.raises(InputError, match=r"no reader for 'a\.xyz' \(\.xyz\); known are .*\.bcf.*\.dm4.*\.hspy.*\.zarr"):
        open_cube(tmp_path / "a.xyz")
    (tmp_path / "README").write_bytes(b"x")
    with pytest.raises(InputError, match=r"no reader for 'README' \(it has no extension\)"):
        open_cube(tmp_path / "README")
    assert {".bcf", ".emd", ".pts", ".msa", ".zarr"} <= set(extensions())


@pytest.mark.parametrize("suffix", ["hspy", "dm3", "bcf", "emd", "pts", "msa", "rpl", "hdf5"])
def test_a_damaged_file_is_refused_with_its_readers_message(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(bytes(range(256)) * 20)
    with pytest.raises(InputError, match=rf"'a\.{suffix}' (cannot be read \(\w+: .+\)|is truncated|holds no spec)"):
        open_cube(path)


def test_a_file_that_ends_early_is_found_when_it_is_opened(tmp_path: Path) -> None:
    path = written(tmp_path / "a.rpl", COUNTS, [*YX, ENERGY])
    raw = path.with_suffix(".raw")
    raw.write_bytes(raw.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"'a\.rpl' is truncated: its header describes more than it holds"):
        open_cube(path)


def test_bare_numbers_are_opened_through_their_header(tmp_path: Path) -> None:
    path = written(tmp_path / "a.rpl", COUNTS, [*YX, ENERGY])
    np.testing.assert_array_equal(open_cube(path.with_suffix(".raw")).values, COUNTS)
    path.unlink()
    with pytest.raises(InputError, match=r"'a\.raw' holds bare numbers; put its header 'a\.rpl' beside it"):
        open_cube(path.with_suffix(".raw"))


def test_an_option_that_the_reader_does_not_know(tmp_path: Path) -> None:
    path = written(tmp_path / "a.rpl", COUNTS, [*YX, ENERGY])
    with pytest.raises(InputError, match=r"cannot be read \(Ripple: .*sum_everything"):
        open_cube(path, reader_options={"sum_everything": True})


def test_without_rosettasciio_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.bcf").write_bytes(b"x")
    monkeypatch.setitem(sys.modules, "rsciio", None)
    with pytest.raises(InputError, match=r'RosettaSciIO, which is not installed; type pip install "scalehsi\[io\]"'):
        open_cube(tmp_path / "a.bcf")


def test_a_parsers_own_warnings_and_log_go_to_ours(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import warnings

    path = written(tmp_path / "a.rpl", COUNTS, [*YX, ENERGY])
    reader = importlib.import_module("rsciio.ripple")
    original = reader.file_reader

    def noisy(*args: Any, chunks: Any = "auto", **kwargs: Any) -> Any:
        warnings.warn("an odd tag", UserWarning, stacklevel=1)
        logging.getLogger("rsciio.ripple").warning("an odd byte")
        return original(*args, chunks=chunks, **kwargs)

    monkeypatch.setattr(reader, "file_reader", noisy)
    handlers = logging.getLogger("rsciio").handlers[:]
    with caplog.at_level(logging.INFO, logger="scalehsi"):
        read_vendor(path)
    assert "RosettaSciIO: an odd tag" in caplog.text
    assert "RosettaSciIO: an odd byte" in caplog.text
    assert capsys.readouterr().out == ""
    assert logging.getLogger("rsciio").handlers == handlers
