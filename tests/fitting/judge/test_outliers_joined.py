"""Largest values, spikes and bright pixels: those of plain numpy over the whole map, for any blocks and data type."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from scalehsi.fitting.judge.outliers import joined
from scalehsi.kernels.pixel_rows.sparse_counts import Counts
from tests.fitting.judge.planted import outliers

DTYPES = ("u1", "u2", "i4", "f4", ">f4", "f8", "counts")
Array = np.ndarray[Any, Any]


def scene(shape: tuple[int, ...], *, level: float = 8.0, channels: int = 40, seed: int = 0) -> Array:
    """Counts with a peak, and two phases in halves of the map."""
    rng = np.random.default_rng(seed)
    e = np.arange(channels)
    phases = np.stack([np.ones(channels), 1 + 2 * np.exp(-0.5 * ((e - channels // 3) / 2) ** 2)])
    which = np.broadcast_to(np.arange(shape[-1]) > shape[-1] // 2, shape).astype(int)
    return rng.poisson(level * phases[which]).astype(float)


def blocks(x: Array, chunks: tuple[int, ...], used: Array, dtype: str) -> dict[str, Any]:
    """Sums of all blocks of the map, added as `map_fold` adds them."""
    shape, e = x.shape[:-1], x.shape[-1]
    index = np.arange(np.prod(shape)).reshape(shape)
    mean = np.nanmean(x[used], axis=0)
    found: list[Any] = []
    for corner in itertools.product(*(range(0, n, c) for n, c in zip(shape, chunks, strict=True))):
        box = tuple(slice(a, a + c) for a, c in zip(corner, chunks, strict=True))
        rows, number = x[box][used[box]], index[box][used[box]]
        values = Counts.from_dense(rows) if dtype == "counts" else rows.astype(dtype)
        filled = np.where(np.isnan(rows), mean, rows)
        c, s = filled.sum(axis=1)[:, None] / max(mean.sum(), 1e-9), mean[None]
        sums = outliers(
            values, c, index=number, shape=shape, totals=filled.sum(axis=1), mean=mean, s=s, offset=np.zeros(e)
        )
        found += sums.get("judge_outliers", [])
    return {"judge_outliers": found}


def reader(x: Array, used: Array) -> Any:
    flat = np.where(used[..., None], x, np.nan).reshape(-1, x.shape[-1])
    return lambda index, channel: flat[index, channel]


def find(x: Array, *, chunks: tuple[int, ...] | None = None, used: Array | None = None, dtype: str = "f4") -> Any:
    used = np.ones(x.shape[:-1], dtype=bool) if used is None else used
    sums = blocks(x, chunks or x.shape[:-1], used, dtype)
    return joined(sums, shape=x.shape[:-1], phi=1.0, read=reader(x, used))


def around(maps: Array) -> Array:
    """The largest of the 4 neighbours in the last two dims, -inf without any; NaN is no neighbour."""
    padded = np.pad(
        np.nan_to_num(maps, nan=-np.inf), [(0, 0)] * (maps.ndim - 2) + [(1, 1)] * 2, constant_values=-np.inf
    )
    sides = padded[..., :-2, 1:-1], padded[..., 2:, 1:-1], padded[..., 1:-1, :-2], padded[..., 1:-1, 2:]
    return np.max(np.stack(sides), axis=0)


def reference(x: Array, used: Array) -> tuple[Array, Array]:
    """By how many standard deviations each voxel is above the largest of the three predictions, and that prediction."""
    data = np.where(used[..., None], x, np.nan)
    e, mean = x.shape[-1], np.nanmean(x[used], axis=0)
    finite = np.isfinite(data)
    totals = np.where(finite, data, mean).sum(axis=-1)
    expected = totals[..., None] * mean / mean.sum()
    for channel in range(e):
        near = [i for i in range(e) if 4 <= abs(i - channel) <= 7]
        weight = np.where(finite[..., near], mean[near], 0).sum(axis=-1)
        own = np.nansum(data[..., near], axis=-1) * mean[channel] / np.maximum(weight, 1e-300)
        expected[..., channel] = np.fmax(expected[..., channel], own)
        expected[..., channel] = np.fmax(expected[..., channel], around(data[..., channel]))
    with np.errstate(invalid="ignore"):
        return 2 * (np.sqrt(data + 0.375) - np.sqrt(expected + 0.375)), expected


def mask_of(shape: tuple[int, ...], seed: int) -> Array:
    return np.random.default_rng(seed).random(shape) > 0.3


SHAPES = {
    (16, 18): [(16, 18), (5, 7), (16, 1), (1, 18), (3, 18)],
    (1, 150): [(1, 150), (1, 7)],
    (150, 1): [(150, 1), (11, 1)],
    (3, 8, 10): [(3, 8, 10), (1, 8, 10), (2, 3, 4)],
    (2, 2, 7, 8): [(2, 2, 7, 8), (1, 2, 3, 5)],
}
CASES = [(shape, chunks) for shape, all_chunks in SHAPES.items() for chunks in all_chunks]


def planted(shape: tuple[int, ...], seed: int) -> Array:
    """A scene with spikes, bright pixels and some equal largest values, also in corners and on borders of blocks."""
    x = scene(shape, seed=seed)
    rng = np.random.default_rng(seed + 1)
    flat = x.reshape(-1, x.shape[-1])
    places = np.concatenate([[0, len(flat) - 1], rng.choice(len(flat), 6, replace=False)])
    flat[places, rng.integers(0, x.shape[-1], 8)] += rng.integers(60, 160, 8)
    flat[rng.choice(len(flat), 3, replace=False)] *= 4
    flat[rng.choice(len(flat), 6, replace=False), 20] = 250
    return x


@pytest.mark.parametrize(("shape", "chunks"), CASES)
@pytest.mark.parametrize(("masked", "seed"), [(False, 0), (True, 1)])
def test_all_blocks_find_what_numpy_finds_in_the_whole_map(
    shape: tuple[int, ...], chunks: tuple[int, ...], masked: bool, seed: int
) -> None:
    x = planted(shape, seed)
    used = mask_of(shape, seed) if masked else np.ones(shape, dtype=bool)
    found = find(x, chunks=chunks, used=used)
    extremes, spikes, bright = found["extremes"], found["spikes"], found["bright"]

    values = x[used]
    largest = values.max()
    low = largest - max(np.sqrt(largest) / 2, 2)
    below = (values >= low) & (values < largest)
    assert extremes[:6] == (largest, (values == largest).sum(), below.sum(), 0, values.size, values.min())
    distances = np.diff(np.unique(values[values >= low]))
    assert extremes.steps == (1 if not len(distances) else distances.sum() / distances.min())

    z, expected = reference(x, used)
    high = np.argwhere(np.nan_to_num(z.reshape(-1, x.shape[-1])) >= 7)
    strong = np.flatnonzero(2 * (np.sqrt(spikes.value + 0.375) - np.sqrt(spikes.expected + 0.375)) >= 7)
    assert len(high) >= 1
    got = sorted(zip(spikes.index[strong].tolist(), spikes.channel[strong].tolist(), strict=True))
    assert got == sorted(map(tuple, high.tolist()))
    rows = spikes.index[strong], spikes.channel[strong]
    assert_array_equal(spikes.value[strong], x.reshape(-1, x.shape[-1])[rows])
    assert_allclose(spikes.expected[strong], expected.reshape(-1, x.shape[-1])[rows], rtol=1e-6)
    assert_allclose(
        spikes.model[strong], (x.sum(axis=-1).ravel()[rows[0]] * values.mean(0)[rows[1]] / values.mean(0).sum())
    )

    totals = np.where(used, x.sum(axis=-1), np.nan)
    beside = around(totals)
    lit = np.flatnonzero(((totals > 2.3 * beside) & np.isfinite(beside)).ravel())
    assert sorted(bright.index.tolist()) == lit.tolist()
    assert_array_equal(bright.total, totals.ravel()[bright.index])
    assert_array_equal(bright.neighbour, beside.ravel()[bright.index])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("level", [0.05, 8.0])
def test_every_data_type_gives_the_same(dtype: str, level: float) -> None:
    x = scene((12, 14), level=level, seed=3)
    x[4, 5, 20] += 90
    x[0, 3, 7] += 60
    x[8, 8] = x[8, 8] * 5 + 1
    wanted, found = find(x, dtype="f8"), find(x, dtype=dtype, chunks=(5, 6))
    assert found["extremes"] == wanted["extremes"]
    for name in ("spikes", "bright"):
        for field in dataclasses.fields(wanted[name])[:-1]:
            mine, theirs = (getattr(each[name], field.name) for each in (found, wanted))
            assert_allclose(mine[:2], theirs[:2], rtol=1e-6)
    assert wanted["spikes"].index[:2].tolist() == [4 * 14 + 5, 3]
    assert 8 * 14 + 8 in wanted["bright"].index[:3]


@pytest.mark.parametrize("seed", range(3))
def test_missing_and_infinite_voxels_are_skipped(seed: int) -> None:
    x = planted((10, 12), seed)
    rng = np.random.default_rng(seed)
    x[rng.random(x.shape) < 0.1] = np.nan
    x[2, 2], x[3, 3, 5] = np.nan, np.inf
    x[3, 3, 5] = np.nan
    used = np.ones((10, 12), dtype=bool)
    z, _ = reference(x, used)
    whole, cut = find(x), find(x, chunks=(4, 5))
    high = int((np.nan_to_num(z) >= 7).sum())
    for found in (whole, cut):
        spikes = found["spikes"]
        strong = 2 * (np.sqrt(spikes.value + 0.375) - np.sqrt(spikes.expected + 0.375)) >= 7
        assert strong.sum() == high
        assert found["extremes"].voxels == np.isfinite(x).sum()
        assert found["extremes"].largest == np.nanmax(x)


@pytest.mark.parametrize("gain", [0.01, 1.0, 300.0])
def test_the_values_below_the_largest_are_counted_exactly_when_a_later_block_has_a_larger_one(gain: float) -> None:
    for level in (0.02, 0.5, 30.0, 400.0):
        x = scene((12, 12), level=level) * gain
        for chunks in ((12, 12), (3, 12), (5, 5)):
            sums = blocks(x, chunks, np.ones((12, 12), dtype=bool), "f8")
            got = joined(sums, shape=(12, 12), phi=gain)["extremes"]
            largest = x.max()
            near = (x >= largest - max(np.sqrt(gain * largest) / 2, 2 * gain)) & (x > 0)
            assert got[:3] == (largest, (x == largest).sum(), (near & (x < largest)).sum())


@pytest.mark.parametrize(("shift", "negative"), [(0.0, 0), (20.0, None), (1e4, None)])
def test_negative_values_are_counted(shift: float, negative: int | None) -> None:
    x = scene((9, 9)) - shift
    for chunks in ((9, 9), (2, 5)):
        found = find(x, chunks=chunks)["extremes"]
        assert found.negative == (x < 0).sum()
        assert negative is None or found.negative == negative
        assert found.least == x.min()
    assert shift < 1e4 or found.largest == 0


@pytest.mark.parametrize("gain", [0.01, 1.0, 4.6, 1e4])
def test_neither_gain_nor_unit_matters(gain: float) -> None:
    x = scene((16, 16))
    x[7, 9, 21] += 80
    found = find(x * gain, dtype="f8")
    assert (found["spikes"].index[0], found["spikes"].channel[0]) == (7 * 16 + 9, 21)
    assert find(scene((16, 16)) * gain, dtype="f8")["spikes"].number == 0


@pytest.mark.parametrize("seed", range(4))
def test_a_background_that_was_taken_off_leaves_its_noise_and_no_spikes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    background = 400 * np.exp(-np.arange(100) / 40)
    edge = np.where(np.arange(100) > 50, 300.0, 0.0)
    x = rng.poisson(np.broadcast_to(background + edge, (16, 16, 100))) - background
    assert find(x, dtype="f8")["spikes"].number == 0
    x[3, 4, 20] += 400
    spikes = find(x, dtype="f8")["spikes"]
    assert (spikes.index[0], spikes.channel[0]) == (3 * 16 + 4, 20)


def test_at_most_a_hundred_are_listed_and_all_are_counted() -> None:
    x = scene((40, 40))
    where = np.arange(4, 1600, 11)
    x.reshape(-1, 40)[where, where % 40] += 200
    spikes = find(x)["spikes"]
    assert (len(spikes.index), spikes.number) == (100, len(where))


@pytest.mark.parametrize(
    "x",
    [
        np.zeros((3, 4, 5)),
        np.ones((3, 4, 5)),
        np.full((3, 4, 5), np.nan),
        np.full((3, 4, 5), -1.0),
        np.ones((1, 1, 1)),
        np.arange(5.0).reshape(1, 1, 5),
        np.eye(12).reshape(3, 4, 12),
        np.full((2, 2, 3), 1e30),
    ],
)
@pytest.mark.filterwarnings("ignore:Mean of empty slice")
def test_degenerate_blocks_give_nothing_and_raise_nothing(x: Array) -> None:
    for chunks in (x.shape[:2], (1, 1)):
        found = find(x, chunks=chunks, dtype="f8")
        assert found["spikes"].number == 0
        assert not len(found["bright"].index)


def test_no_pixel_in_use_gives_nothing() -> None:
    found = joined({}, shape=(4, 4))
    assert (found["extremes"].voxels, found["spikes"].number, len(found["bright"].index)) == (0, 0, 0)
