"""xarray opens files through ``engine="scalehsi"``: the same as open_cube, lazily, and for nobody else's files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import xarray as xr

import scalehsi as hsi
from scalehsi.engine import EXTENSIONS, ScalehsiBackendEntrypoint
from scalehsi.io.rosettasciio import extensions
from scalehsi.schema import InputError
from tests.helpers import raise_if_dask_computes
from tests.io.hspy_files import COUNTS, EDS, file_of
from tests.paths import DATA, ROOT

pytest.importorskip("rsciio", reason="the extra io is not installed")

pytestmark = pytest.mark.long

VENDOR = DATA / "vendor"
FILES = [
    "bruker_PDDL/4on3_full.bcf",
    "bruker_PDDL/4on3_full.rpl",
    "bruker_PDDL/P45_12bit_packed_8bit_compressed.bcf",
    "bruker_PDDL/P45_job_hyperspy.bcf",
    "bruker_rsciio/test_TEM.bcf",
    "gatan/EELS_SI.dm4",
    "velox/fei_emd_si.emd",
    "velox/fei_SI_SuperX-HAADF_10frames_10x50.emd",
]


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    return file_of(tmp_path / "scan.hspy", ("HAADF", COUNTS[0, :, :, 0], 0, {}), ("map", COUNTS[0], 2, EDS))


def test_it_is_among_the_engines() -> None:
    assert isinstance(xr.backends.list_engines()["scalehsi"], ScalehsiBackendEntrypoint)


@pytest.mark.skipif(not DATA.is_dir(), reason="no test data beside the repository")
@pytest.mark.parametrize("path", FILES, ids=[Path(f).name for f in FILES])
def test_vendor_files_are_the_cubes_that_we_open(path: str) -> None:
    wanted = hsi.open_cube(VENDOR / path)
    with raise_if_dask_computes(max_computes=1):  # the last value of a memory map, to see that it is there
        opened = xr.open_dataset(VENDOR / path, engine="scalehsi")
    xr.testing.assert_identical(opened["counts"], wanted)


@pytest.mark.skipif(not DATA.is_dir(), reason="no test data beside the repository")
def test_the_largest_vendor_file_by_a_window() -> None:
    path = VENDOR / "jeol" / "Sample" / "00_View000" / "View000_0000006.pts"
    window = {"y": slice(100, 103), "x": slice(0, 40)}
    opened = xr.open_dataset(path, engine="scalehsi", chunks={})["counts"]
    wanted = hsi.open_cube(path)
    assert opened.chunks == wanted.chunks
    xr.testing.assert_identical(opened.isel(window), wanted.isel(window))


def test_nothing_is_computed_before_the_values(scan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = hsi.open_cube
    computed: list[tuple[int, ...]] = []

    def counting(path: Any, **options: Any) -> xr.DataArray:
        cube = real(path, **options).chunk(y=2)
        return cube.copy(
            data=cube.data.map_blocks(lambda b: computed.append(b.shape) or b, dtype=cube.dtype, meta=cube.data._meta)
        )

    monkeypatch.setattr(hsi, "open_cube", counting, raising=False)
    opened = xr.open_dataset(scan, engine="scalehsi")["counts"]
    assert "counts" in repr(opened)
    assert computed == []
    pixel = opened.isel(y=3, x=1)
    np.testing.assert_array_equal(pixel.values, COUNTS[0, 3, 1])
    assert computed == [(2, 5, 6)]


def test_chunks_are_those_of_open_cube(tmp_path: Path) -> None:
    cube = hsi.make_cube(np.ones((8, 6, 10)), energy=np.arange(10.0), energy_units="eV").chunk(y=4, x=3)
    path = hsi.save(cube, tmp_path / "a.zarr", chunk_mb=4 * 3 * 10 * 8 / 2**20)
    wanted = hsi.open_cube(path)
    assert wanted.data.npartitions > 1
    opened = xr.open_dataset(path, engine="scalehsi", chunks={})["counts"]
    assert opened.chunks == wanted.chunks
    assert isinstance(opened.data, da.Array)
    xr.testing.assert_identical(opened, wanted)
    assert xr.open_dataset(path, engine="scalehsi", chunks={"y": 8})["counts"].chunks[0] == (8,)


def test_an_image_file_is_an_image(tmp_path: Path) -> None:
    path = file_of(tmp_path / "a.hspy", ("HAADF", COUNTS[0, :, :, 0], 0, {}))
    opened = xr.open_dataset(path, engine="scalehsi")
    xr.testing.assert_identical(opened["image"], hsi.open_image(path))


def test_options_and_variables_left_out(scan: Path) -> None:
    opened = xr.open_dataset(scan, engine="scalehsi", dataset="map", energy="2:0.5:keV", drop_variables=["y"])
    assert opened.energy.attrs["units"] == "keV"
    assert "y" not in opened.coords
    xr.testing.assert_identical(xr.open_dataset(scan, engine="scalehsi", dataset=0)["image"], hsi.open_image(scan))


def test_a_tree_of_all_signals(scan: Path) -> None:
    tree, wanted = xr.open_datatree(scan, engine="scalehsi"), hsi.open_tree(scan)
    xr.testing.assert_identical(tree, wanted)
    assert (
        xr.open_datatree(scan, engine="scalehsi", chunks={})["eds"]["counts"].chunks == wanted["eds"]["counts"].chunks
    )
    assert set(xr.open_groups(scan, engine="scalehsi")) == {"/", "/haadf", "/eds"}


def test_damaged_files_get_our_error(scan: Path, tmp_path: Path) -> None:
    scan.write_bytes(scan.read_bytes()[:3000])
    with pytest.raises(InputError, match=r"'scan\.hspy' cannot be read"):
        xr.open_dataset(scan, engine="scalehsi")
    path = hsi.save(hsi.make_cube(COUNTS[0], energy=np.arange(6.0), energy_units="eV"), tmp_path / "a.zarr")
    next((path / "counts").rglob("c/*/*/*")).unlink()
    with pytest.raises(InputError, match="is truncated: 1 of 1 chunk files"):
        xr.open_dataset(path, engine="scalehsi")
    with pytest.raises(InputError, match="there is no"):
        xr.open_dataset(tmp_path / "none.dm4", engine="scalehsi")


@pytest.mark.parametrize(
    ("given", "claimed"),
    [
        *((name, True) for name in ("a.dm4", "A.BCF", Path("b.emd"), "c.hspy")),
        *((name, False) for name in ("a.nc", "a.h5", "a.zarr", "a.tif", "a.hdf5", "a", b"CDF", None)),
    ],
)
def test_files_that_it_claims(given: Any, claimed: bool) -> None:
    assert ScalehsiBackendEntrypoint().guess_can_open(given) is claimed


def test_the_endings_that_it_claims_are_readable() -> None:
    assert EXTENSIONS <= set(extensions())


def test_looking_at_a_name_loads_no_reader() -> None:
    text = python(
        "import sys, xarray as xr; from scalehsi.engine import ScalehsiBackendEntrypoint as own; "
        "own().guess_can_open('a.bcf'); print(*(m in sys.modules for m in ('rsciio', 'numba', 'dask.array', 'h5py')))"
    )
    assert text.split() == ["False"] * 4


def test_importing_xarray_alone_loads_none_of_our_modules() -> None:
    assert python("import sys, xarray; print([m for m in sys.modules if m.split('.')[0] == 'scalehsi'])") == "[]"
    # Opening any file loads the engine, which is little.
    found = python(
        "import sys, xarray; xarray.backends.list_engines(); print(*(m for m in sys.modules if 'scalehsi.' in m))"
    )
    assert set(found.split()) == {
        *("scalehsi.accessor", "scalehsi.engine", "scalehsi.interrupt", "scalehsi.schema"),
        *("scalehsi.models", "scalehsi.models.catalogue"),
    }
