"""Several answers about one cube are computed in one pass: each chunk is read once, and the numbers are the same."""

from __future__ import annotations

from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr

import scalehsi as hsi
from scalehsi.schema import InputError
from tests.helpers import CountingStore, random_mask

CHUNKS = (8, 8)


def counted(cube: xr.DataArray) -> tuple[xr.DataArray, CountingStore]:
    """The cube, read from a store that counts."""
    store = CountingStore(cube.values)
    data = da.from_array(store, chunks=(*CHUNKS, -1), asarray=False, meta=np.empty((0,) * 3, cube.dtype))
    return cube.copy(data=data), store


def edx() -> xr.DataArray:
    cube = hsi.simulate.phases((16, 24), counts_per_pixel=300)[0].compute()
    return cube.assign_coords(mask=(("y", "x"), random_mask((16, 24))))


def answers(cube: xr.DataArray, spectra: Any) -> list[Any]:
    return [
        hsi.project(spectra, cube),
        hsi.project(spectra, cube, constraint="nnls"),
        hsi.quantify.edge_maps(cube, elements=["Mg", "Si"], lazy=True),
        hsi.quantify(cube, ["Mg", "Si", "O"], maps=True),
        cube.sum("energy"),
    ]


@pytest.fixture(scope="module")
def fitted() -> xr.Dataset:
    return hsi.fit(edx(), hsi.NMF(3, loss="frobenius", max_iter=4), seed=0)


def test_each_chunk_is_read_once_for_all_answers(fitted: xr.Dataset) -> None:
    cube, store = counted(edx())
    lazy = answers(cube, fitted)
    assert max(store.reads.values()) == 1  # for the sum spectrum of the quantification
    store.reads.clear()
    together = hsi.compute_together(*lazy)
    assert set(store.reads.values()) == {1}
    assert len(store.reads) == 2 * 3
    store.reads.clear()
    apart = [each.compute() for each in lazy]
    assert set(store.reads.values()) == {len(lazy)}
    for one, other in zip(together, apart, strict=True):
        xr.testing.assert_identical(one, other)
    xr.testing.assert_identical(together[2], hsi.quantify.edge_maps(edx(), elements=["Mg", "Si"]))


def test_edges_of_eels_are_lazy_too() -> None:
    energy = 600.0 + np.arange(260)
    mean = 2e8 * energy**-2.2 + 30.0 * (energy > 708) + 200.0 * (abs(energy - 711) < 2) + 90.0 * (abs(energy - 724) < 2)
    counts = np.random.default_rng(0).poisson(mean, (16, 16, 260))
    cube, store = counted(hsi.make_cube(counts, energy=energy, energy_units="eV", signal="EELS"))
    settings: dict[str, Any] = {"background": (610, 700), "gain": 1.0, "window_gain": 1.0}
    edges = {"Fe L3": (708, 760), "later": (740, 800)}
    white = {"Fe L3": ((708, 715), (720, 728))}
    lazy = hsi.quantify.edge_maps(cube, edges, lazy=True, white_lines=white, **settings)
    assert not store.reads
    (found,) = hsi.compute_together(lazy)
    assert set(store.reads.values()) == {1}
    assert bool(np.isfinite(found["white_line_ratio"].sel(edge="Fe L3")).any())
    xr.testing.assert_identical(found, hsi.quantify.edge_maps(cube, edges, white_lines=white, **settings))


def test_stored_chunks_larger_than_blocks_and_memory_are_fine(fitted: xr.Dataset) -> None:
    cube = edx()
    in_memory = hsi.project(fitted, cube)
    slabs = hsi.project(fitted, cube.chunk(y=2))
    known = cube["energy"]
    found = hsi.compute_together(in_memory, slabs, known)
    np.testing.assert_allclose(found[0].values, found[1].values, rtol=1e-4, atol=1e-4)
    xr.testing.assert_identical(found[2], known)


@pytest.mark.cluster
def test_on_a_cluster_the_numbers_are_the_same(fitted: xr.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scalehsi.blocks.fold.MAX_INLINE_SHARED_BYTES", 0)  # shared arguments are a task of their own
    cube = edx().chunk(y=8, x=8)
    here = hsi.compute_together(*answers(cube, fitted))
    with hsi.connect("local", workers=2, dashboard=False):
        there = hsi.compute_together(*answers(cube, fitted))
    for one, other in zip(here, there, strict=True):
        xr.testing.assert_allclose(one, other)


def test_nothing_else_is_accepted(fitted: xr.Dataset) -> None:
    with pytest.raises(InputError, match=r"got a list; type project\(...\)"):
        hsi.compute_together([fitted["abundances"]])
    with pytest.raises(InputError, match="got nothing"):
        hsi.compute_together()
    with dask.config.set(scheduler="synchronous"):
        assert hsi.compute_together(fitted)[0].equals(fitted.compute())
