"""Stores, results and checkpoints that a stranger made: each opens, or is refused in one line; see `tests.hostile`."""

from __future__ import annotations

import gzip
import os
import pickle
import re
import resource
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec, GzipCodec

import scalehsi as hsi
from scalehsi.io.archive import read_archive
from scalehsi.io.chunk_guard import GuardedPipeline, guarded
from scalehsi.io.open import open_maps
from scalehsi.io.reference_spectra import open_spectra
from scalehsi.io.zstd_size import zstd_size
from scalehsi.schema import InputError
from tests.hostile import KINDS, plant, planted
from tests.hostile.kinds import Payload, chunk, edit_array

pytestmark = pytest.mark.long

LARGE = ("100-MB", "50-MB", "gzip-bomb", "zstd-bomb", "variables-10000", "entries-1e5", "zip-of-3-GB")
"""Kinds that take seconds to make: ``python -m tests.hostile`` runs them."""
EVERY = 3
"""Of the attributes of wrong kinds, one in this many is tested."""


def chosen() -> list[str]:
    names = [n for n in KINDS if not any(word in n for word in LARGE)]
    return [n for i, n in enumerate(names) if "-is-" not in n or i % EVERY == 0]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("good")
    plant(folder)
    return folder


def read(name: str, path: Path, good: Path) -> None:
    subject = KINDS[name].subject
    if subject == "cube":
        cube = hsi.open_cube(path)
        cube.isel(y=slice(2), x=slice(2)).compute()
    elif subject == "result":
        hsi.open_result(path).isel(y=0, x=0).compute()
        open_maps(path)
    else:
        hsi.fit(hsi.open_cube(good / "map.zarr"), hsi.NMF(2, max_iter=3), checkpoint=path, resume=True)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", chosen())
def test_a_stranger_is_opened_or_refused_in_one_line(
    name: str, tmp_path: Path, good: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOSTILE_MARK", str(tmp_path / "code-ran"))
    work = tmp_path / "work"
    work.mkdir()
    path = planted(name, good, work)
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.thread_time()
    try:
        read(name, path, good)
    except InputError as error:
        text = str(error)
        assert text.strip() and "\n" not in text and "Traceback" not in text  # noqa: PT018
        assert len(text) < 3000
    assert time.thread_time() - start < 10
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400_000
    assert [p.name for p in tmp_path.iterdir()] == ["work"]


# What the reading guard lets through, and what it refuses.

COUNTS = np.random.default_rng(0).poisson(3, (8, 9, 10)).astype("u2")


def opened(path: Path) -> Any:
    with guarded():
        return zarr.open_array(path, mode="r")


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"compressors": [GzipCodec(), Crc32cCodec()]},
        {"compressors": [BloscCodec()]},
        {"compressors": None},
        {"shards": (8, 6, 10), "compressors": [GzipCodec()]},
        {"zarr_format": 2},
        {"dtype": "f4"},
    ],
    ids=["default", "gzip and checksum", "blosc", "none", "shards", "format 2", "float32"],
)
def test_chunks_come_as_zarr_reads_them(tmp_path: Path, options: dict[str, Any]) -> None:
    array = zarr.create_array(tmp_path / "a", **{"shape": COUNTS.shape, "dtype": "u2", "chunks": (4, 3, 10), **options})
    array[:] = COUNTS
    back = opened(tmp_path / "a")
    assert isinstance(back._async_array.codec_pipeline, GuardedPipeline)
    np.testing.assert_array_equal(back[:], COUNTS)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(back))[2:5, :, 3], COUNTS[2:5, :, 3])


@pytest.mark.parametrize("part", [1, 3])
def test_a_gzip_bomb_stops_at_the_size_of_its_chunk(tmp_path: Path, part: int) -> None:
    array = zarr.create_array(tmp_path / "a", data=COUNTS, chunks=COUNTS.shape, compressors=[GzipCodec()])
    del array
    whole = COUNTS.tobytes()
    parts = [whole[i : i + len(whole) // part] for i in range(0, len(whole), len(whole) // part)]
    file = tmp_path / "a" / "c" / "0" / "0" / "0"
    file.write_bytes(b"".join(gzip.compress(each) for each in parts))
    np.testing.assert_array_equal(opened(tmp_path / "a")[:], COUNTS)
    file.write_bytes(gzip.compress(bytes(3_000_000)))
    with pytest.raises(InputError, match=r"damaged \(c/0/0/0: it decompresses to more than"):
        opened(tmp_path / "a")[:]


def test_a_damaged_chunk_is_named_when_it_is_computed(tmp_path: Path, good: Path) -> None:
    path = planted("checksum-wrong", good, tmp_path)
    cube = hsi.open_cube(path)
    with pytest.raises(InputError, match=r"a chunk of the data is damaged \(counts/c/0/0/0: .*checksum"):
        cube.sum().compute()
    with pytest.raises(InputError, match="a chunk of the data is damaged"):
        hsi.fit(cube, hsi.NMF(2))


@pytest.mark.parametrize("size", [0, 5, 300, 70_000, 1_000_000])
@pytest.mark.parametrize("data", ["zeros", "noise"])
def test_the_size_of_zstandard_data(size: int, data: str) -> None:
    from numcodecs import Zstd

    raw = bytes(size) if data == "zeros" else np.random.default_rng(0).bytes(size)
    encoded = bytes(Zstd(level=1).encode(raw))
    assert zstd_size(encoded) == size
    assert zstd_size(encoded + encoded) == 2 * size
    # Without the size in its head, the blocks give an upper limit.
    bare = encoded[:4] + bytes([encoded[4] & 0x1F & ~0x20, 0x58]) + encoded[5 + _head_bytes(encoded[4]) :]
    assert size <= zstd_size(bare) <= size + 128 * 1024
    with pytest.raises(ValueError, match="cut off"):
        zstd_size(encoded[:-1] if size else encoded[:6])


def _head_bytes(flags: int) -> int:
    """Bytes of window and size in the head of a frame."""
    single = flags >> 5 & 1
    return (0 if single else 1) + (single, 2, 4, 8)[flags >> 6]


def test_a_pickle_in_a_store_is_never_run(tmp_path: Path, good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOSTILE_MARK", str(tmp_path / "code-ran"))
    store = tmp_path / "p.zarr"
    xr.Dataset({"counts": (("y", "x", "energy"), COUNTS)}).to_zarr(store, zarr_format=2, consolidated=False)
    text = (store / "counts" / ".zarray").read_text()
    pickled = text.replace('"filters": null', '"filters": [{"id": "pickle", "protocol": 4}]')
    pickled = re.sub(r'"dtype": "[^"]*"', '"dtype": "|O"', pickled)
    (store / "counts" / ".zarray").write_text(pickled)
    for file in (store / "counts").iterdir():
        if not file.name.startswith(".z"):
            file.write_bytes(pickle.dumps(Payload()))
    with pytest.raises(InputError, match=r"'counts' has the codec \['pickle'\], allowed are"):
        hsi.open_cube(store)
    assert not (tmp_path / "code-ran").exists()


def test_links_to_files_are_followed(tmp_path: Path, good: Path) -> None:
    """Programs that manage large files put links in the place of chunks."""
    path = planted("checksum-wrong", good, tmp_path)
    file = chunk(path, "counts")
    content = chunk(good / "map.zarr", "counts").read_bytes()
    file.unlink()
    (tmp_path / "object").write_bytes(content)
    file.symlink_to(tmp_path / "object")
    xr.testing.assert_equal(hsi.open_cube(path).compute(), hsi.open_cube(good / "map.zarr").compute())


def test_an_axis_without_values_is_refused_before_it_is_read(tmp_path: Path, good: Path) -> None:
    path = planted("checksum-wrong", good, tmp_path)
    edit_array(path, "energy", shape=[10**10])
    with pytest.raises(InputError, match=r"the axis 'energy' has 1e\+10 values, at most 1e\+07 are read"):
        hsi.open_cube(path)


@pytest.mark.parametrize("name", ["a.csv", "a.msa", "a.zarr", "a.hspy"])
@pytest.mark.parametrize("what", ["fifo", "device"])
def test_what_is_no_file_is_refused_wherever_a_path_is_taken(tmp_path: Path, name: str, what: str) -> None:
    path = tmp_path / name
    if what == "fifo":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    for read in (hsi.open_cube, hsi.open_result, hsi.open_image, open_maps, open_spectra):
        with pytest.raises(InputError, match="is no file and no folder"):
            read(path)


@pytest.mark.parametrize("content", [b"\xff\xfe\x00 1", b"energy (eV),a\n1,x\n", b"\0" * 100, b"energy (eV),a\n" * 3])
def test_tables_that_are_none_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(InputError, match=r"'t\.csv' (is no|holds no|has)|the first column of 't\.csv'"):
        open_spectra(tmp_path / "t.csv")


def test_archives_are_read_as_numpy_writes_them(tmp_path: Path) -> None:
    arrays = {"a": np.arange(6.0).reshape(2, 3), "b": np.asfortranarray(COUNTS), "c": np.float64(3), "d": np.array("x")}
    np.savez(tmp_path / "a.npz", **arrays)
    back = read_archive(tmp_path / "a.npz")
    for name, array in arrays.items():
        np.testing.assert_array_equal(back[name], array)
    np.savez_compressed(tmp_path / "b.npz", **arrays)
    with pytest.raises(ValueError, match="compressed"):
        read_archive(tmp_path / "b.npz")
