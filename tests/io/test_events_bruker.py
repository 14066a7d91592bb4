"""Bruker maps: the counts of the file in each of its encodings, read by bands, and damaged containers in one line."""

from __future__ import annotations

import contextlib
import struct
import zlib
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest

import scalehsi as hsi
from scalehsi.io.events import bands, event_file
from scalehsi.io.events import file as files
from scalehsi.schema import InputError
from tests.io.bruker_files import header, packed, spectrum_data, write_bruker, write_container
from tests.io.cubes import hidden
from tests.paths import DATA

rosetta = pytest.importorskip("rsciio.bruker", reason="the extra io is not installed")

VENDOR = sorted((DATA / "vendor").glob("bruker*/*.bcf"))


@pytest.fixture
def counts() -> np.ndarray[Any, Any]:
    made = np.random.default_rng(1).poisson(0.4, (9, 7, 64))
    made[3] = 0  # a row, and a pixel, without counts
    made[5, 2] = 0
    made[7, 1, 5:9] = (14, 250, 77, 16)
    return made


def oracle(path: Path, **options: Any) -> np.ndarray[Any, Any]:
    return next(s["data"] for s in rosetta.file_reader(str(path), **options) if s["data"].ndim == 3)


@pytest.mark.parametrize(
    "how",
    [
        {"flags": (0,)},
        {"flags": (1,)},
        {"flags": (2,)},
        {"flags": (2,), "extra": 3},
        {},
        {"compressed": True},
        {"block": 0xE49},
        {"block": 600, "compressed": True},
    ],
    ids=str,
)
def test_every_encoding(
    tmp_path: Path, counts: np.ndarray[Any, Any], how: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bands, "BAND_BYTES", 2 * counts[0].size)
    monkeypatch.setattr(files, "BAND_WORDS", 3000)
    path = write_bruker(tmp_path / "a.bcf", [counts], **how)
    cube = hsi.open_cube(path)
    np.testing.assert_array_equal(cube.values, counts)
    if how.get("block") != 600:  # its directory has one item in a block, which RosettaSciIO does not expect
        np.testing.assert_array_equal(oracle(path), counts)
    assert cube.chunks[0] == (1,) * 9
    stored = []
    for threads in (1, 4):
        with dask.config.set(num_workers=threads):
            stored.append(hsi.open_cube(hsi.convert(path, tmp_path / f"{threads}.zarr", chunk_mb=1e-3)))
    np.testing.assert_array_equal(stored[0].values, counts)
    np.testing.assert_array_equal(stored[1].values, counts)
    assert stored[0].dtype == np.uint8
    assert stored[0].attrs["beam_energy_keV"] == 20
    np.testing.assert_allclose(stored[0].x, 2000 * np.arange(7))


@pytest.mark.parametrize(("most", "dtype"), [(300, "u2"), (70_000, "u4")])
def test_large_counts_are_counts(tmp_path: Path, counts: np.ndarray[Any, Any], most: int, dtype: str) -> None:
    """RosettaSciIO gives 300 as 44: its dtype follows the mean."""
    counts[8, 6, 9] = most
    path = write_bruker(tmp_path / "a.bcf", [counts], flags=(2,))
    cube = hsi.open_cube(hsi.convert(path, tmp_path / "a.zarr"))
    assert int(cube[8, 6, 9]) == most
    assert cube.dtype == dtype
    np.testing.assert_array_equal(cube.values, counts)
    assert int(oracle(path)[8, 6, 9]) == most % 256


def test_energies_and_pixels_are_joined(tmp_path: Path, counts: np.ndarray[Any, Any]) -> None:
    path = write_bruker(tmp_path / "a.bcf", [counts])
    store = hsi.convert(path, tmp_path / "a.zarr", energy=(-0.37, -0.1), bin={"y": 2, "x": 3, "energy": 4})
    wanted = counts[:8, :6, 10:38].reshape(4, 2, 2, 3, 28, 1)[..., 0].sum(axis=(1, 3)).reshape(4, 2, 7, 4).sum(axis=-1)
    np.testing.assert_array_equal(hsi.open_cube(store).values, wanted)


def test_detectors(tmp_path: Path, counts: np.ndarray[Any, Any]) -> None:
    path = write_bruker(tmp_path / "a.bcf", [counts, counts[::-1]])
    np.testing.assert_array_equal(hsi.open_cube(path).values, counts + counts[::-1])
    kept = hsi.open_cube(hsi.convert(path, tmp_path / "a.zarr", detectors="keep"))
    np.testing.assert_array_equal(kept.values, [counts, counts[::-1]])
    one = hsi.open_cube(hsi.convert(path, tmp_path / "b.zarr", detectors=[1]))
    np.testing.assert_array_equal(one.values, counts[::-1])
    assert one.attrs["history"][-1] == "convert: detectors 1 of 2, summed"


def test_there_are_no_frames(tmp_path: Path, counts: np.ndarray[Any, Any]) -> None:
    path = write_bruker(tmp_path / "a.bcf", [counts])
    with pytest.raises(InputError, match="Bruker files have no frames"):
        hsi.convert(path, tmp_path / "a.zarr", frames=(0, 1))


# Damaged containers --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("part", [0.02, 0.3, 0.6, 0.9, 0.99])
def test_a_cut_file_is_one_line(tmp_path: Path, counts: np.ndarray[Any, Any], compressed: bool, part: float) -> None:
    whole = write_bruker(tmp_path / "a.bcf", [counts], block=1024, compressed=compressed).read_bytes()
    (tmp_path / "cut.bcf").write_bytes(whole[: int(part * len(whole))])
    with pytest.raises(InputError, match=r"'cut\.bcf'.*(truncated|damaged)") as refused:
        hsi.convert(tmp_path / "cut.bcf", tmp_path / "a.zarr")
    assert "\n" not in str(refused.value)
    assert hidden(tmp_path) == []


def test_a_list_that_ends_early_names_its_row(tmp_path: Path, counts: np.ndarray[Any, Any]) -> None:
    for name, content in (("a", spectrum_data(counts)[:-500]), ("b", packed(spectrum_data(counts)[:-500]))):
        words = header(counts.shape, 1)
        stored = [("HeaderData", packed(words) if name == "b" else words), ("SpectrumData0", content)]
        path = write_container(tmp_path / f"{name}.bcf", stored)
        with pytest.raises(InputError, match=rf"'{name}\.bcf' is truncated at row 9 of 9; copy it again"):
            event_file(path).index()


@pytest.mark.parametrize(
    ("at", "value"),
    [(0x128, 3), (0x128, 2**31), (0x140, 10**6), (0x144, 10**9), (0x148, 10**6)],
    ids=["small blocks", "large blocks", "directory", "items", "blocks"],
)
def test_hostile_claims_of_the_container(tmp_path: Path, counts: np.ndarray[Any, Any], at: int, value: int) -> None:
    path = write_bruker(tmp_path / "a.bcf", [counts])
    content = bytearray(path.read_bytes())
    struct.pack_into("<I", content, at, value)
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"'a\.bcf': it is (damaged|truncated)"):
        hsi.open_cube(path)


@pytest.mark.parametrize("field", [0, 12, 16, 18])
def test_hostile_pixels(tmp_path: Path, counts: np.ndarray[Any, Any], field: int) -> None:
    """Sizes and numbers of a pixel are checked; its column, when there is none such, is left out."""
    for flag in (0, 1, 2):
        data = bytearray(spectrum_data(counts, flags=(flag,)))
        data[0x1A0 + 4 + field : 0x1A0 + 6 + field] = b"\xff\xff"
        path = write_container(tmp_path / "a.bcf", [("HeaderData", header(counts.shape, 1)), ("SpectrumData0", data)])
        refused = field == 16 or field == 18 or (field == 12 and flag < 2)
        with pytest.raises(InputError, match=r"damaged|truncated") if refused else contextlib.nullcontext():
            np.testing.assert_array_equal(hsi.open_cube(path).values[1:], counts[1:])


def test_a_bomb_inflates_to_its_claim_at_most(tmp_path: Path, counts: np.ndarray[Any, Any]) -> None:
    bomb = b"AACS" + struct.pack("<III", 4096, 0, 1)
    part = zlib.compress(bytes(10**8))
    bomb = bomb.ljust(0x80, b"\0") + struct.pack("<IIII", len(part), 10**8, 0, 0) + part
    path = write_container(
        tmp_path / "a.bcf", [("HeaderData", packed(header(counts.shape, 1))), ("SpectrumData0", bomb)]
    )
    with pytest.raises(InputError, match=r"damaged"):
        hsi.open_cube(path).compute()


# Files of the vendor -------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not VENDOR, reason="no test data beside the repository")
@pytest.mark.parametrize("path", VENDOR, ids=lambda p: p.name)
def test_files_of_bruker_equal_the_oracle(path: Path, tmp_path: Path) -> None:
    whole = oracle(path)
    np.testing.assert_array_equal(hsi.open_cube(path).values, whole)
    joint = hsi.open_cube(hsi.convert(path, tmp_path / "a.zarr", bin={"y": 3, "x": 2, "energy": 4}))
    ny, nx, ne = whole.shape[0] // 3, whole.shape[1] // 2, whole.shape[2] // 4
    cut = whole[: 3 * ny, : 2 * nx].reshape(ny, 3, nx, 2, ne, 4)
    np.testing.assert_array_equal(joint.values, cut.sum(axis=(1, 3, 5), dtype="u4"))
