"""Every start, on every kind of cube: sound rows, the same for any cut; singular vectors against scikit-learn."""

from __future__ import annotations

import logging
from typing import Any

import dask
import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.decomposition._nmf import _initialize_nmf

import scalehsi as hsi
from scalehsi.arrays import Float
from scalehsi.blocks import open_blocks
from scalehsi.cube import make_cube
from scalehsi.fitting.survey import survey
from scalehsi.kernels.quadratic.nnls import nnls
from scalehsi.kernels.resampling.pixel_windows import bin_sums
from scalehsi.models.nmf import starts as module
from scalehsi.models.nmf.starts import READINGS, STARTS, bin_sides, brightness, first_endmembers, given_endmembers
from scalehsi.schema import InputError
from tests.helpers import counts_cube, random_mask
from tests.strategies import Case, cases

pytestmark = pytest.mark.long


def start(cube: xr.DataArray, how: str, n: int, *, counts: bool = False, seed: int = 0, **options: Any) -> Float:
    view = open_blocks(cube, **({"block_bytes": 60_000} | options))
    seen = survey(view, seed=seed, counts=counts, least=4 * n)
    return first_endmembers(view, seen, how, n, counts=counts, seed=seed)


def sound(s: Float, n: int, channels: int) -> None:
    assert s.shape == (n, channels)
    assert s.dtype == np.float64
    assert (s >= 0).all()
    assert_allclose(s.sum(axis=1), 1.0)
    if channels > 1:
        length = np.linalg.norm(s, axis=1)
        assert np.triu(s @ s.T / np.outer(length, length), 1).max() < 1


def excess(x: Float, s: Float, best: float) -> float:
    c = nnls(s @ s.T, x @ s.T)
    return float(0.5 * ((x - c @ s) ** 2).sum()) / best - 1


@pytest.fixture(scope="module")
def scene() -> tuple[xr.DataArray, xr.Dataset]:
    lazy, truth = hsi.simulate.chequerboard((48, 40), n_channels=96, counts_per_pixel=3000.0)
    return lazy.compute(), truth


@pytest.mark.parametrize("how", STARTS)
@given(case=cases(max_side=5), data=st.data())
def test_rows_are_sound_on_any_cube(how: str, case: Case, data: st.DataObject) -> None:
    pixels = case.counts[case.used]
    if not pixels.any():
        return
    n = data.draw(st.integers(1, min(case.counts.shape[-1], case.used.size)))
    counts, seed = data.draw(st.booleans()), data.draw(st.integers(0, 9))
    with dask.config.set(scheduler="synchronous"):
        s = start(case.cube, how, n, counts=counts, seed=seed, **case.options)
    sound(s, n, case.counts.shape[-1])


@pytest.mark.parametrize("how", STARTS)
@pytest.mark.parametrize("counts", [False, True])
def test_no_cut_and_no_scheduler_changes_a_start(how: str, counts: bool, scene: Any) -> None:
    cube = scene[0].assign_coords(mask=(("y", "x"), random_mask((48, 40))))
    want = start(cube, how, 4, counts=counts, block_bytes=None)
    assert_array_equal(want, start(cube, how, 4, counts=counts, block_bytes=None))
    for chunks, scheduler in (({"y": 48}, "synchronous"), ({"y": 5, "x": 7}, "threads"), ({"x": 11}, "threads")):
        with dask.config.set(scheduler=scheduler):
            got = start(cube.chunk(chunks), how, 4, counts=counts, block_bytes=40_000)
        assert_allclose(got, want, rtol=1e-3, atol=1e-7)
    if how != "nndsvd" and how != "nndsvda":
        assert not np.array_equal(start(cube, how, 4, counts=counts, seed=1), want)


@pytest.mark.parametrize("how", STARTS)
def test_a_mask_is_as_good_as_leaving_pixels_out(how: str, scene: Any) -> None:
    cube = scene[0]
    used = np.zeros((48, 40), bool)
    used[8:40] = True
    garbage = cube.copy(data=np.where(used[..., None], cube.values, 200).astype(cube.dtype))
    got = start(garbage.assign_coords(mask=(("y", "x"), used)), how, 3)
    want = start(cube.isel(y=slice(8, 40)), how, 3)
    # The sample draws by absolute pixel, so that only what sees every pixel agrees to rounding.
    cosine = got @ want.T / np.outer(np.linalg.norm(got, axis=1), np.linalg.norm(want, axis=1))
    if how in ("nndsvd", "nndsvda", "multistart"):
        assert cosine.max(axis=1).min() > 0.999
    assert cosine.max(axis=1).min() > 0.7


@pytest.mark.parametrize("how", STARTS)
def test_readings_of_the_cube(how: str, scene: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    fold = module.map_fold
    monkeypatch.setattr(module, "map_fold", lambda *a, **k: (calls.append(k["name"]), fold(*a, **k))[1])
    start(scene[0], how, 4)
    assert len(calls) == READINGS[how]


@pytest.mark.parametrize("how", STARTS)
@pytest.mark.parametrize("counts", [False, True])
def test_a_few_iterations_from_each_start_come_near_the_best(how: str, counts: bool, scene: Any) -> None:
    cube, _ = scene
    view = open_blocks(cube)
    settings: dict[str, Any] = {"loss": "frobenius", "weighting": "poisson" if counts else None, "tol": 0.0}
    best = float(hsi.fit(cube, hsi.NMF(4, max_iter=60, **settings)).objective.min())
    s = first_endmembers(view, survey(view, seed=0, counts=counts), how, 4, counts=counts, seed=0)
    found = hsi.fit(cube, hsi.NMF(4, max_iter=15, start=s, **settings)).objective
    assert float(found.min()) / best - 1 < 2e-3
    if how in ("sample", "multistart"):
        assert float(found[0]) / best - 1 < 5e-3


@pytest.mark.parametrize("dtype", ["u2", "f4", "f8"])
@pytest.mark.parametrize("n", [1, 3, 6])
def test_singular_starts_are_those_of_scikit_learn(dtype: str, n: int) -> None:
    rng = np.random.default_rng(n)
    clean = rng.random((1200, 6)) ** 4 @ rng.random((6, 70)) ** 2 * np.array([600.0])
    cube = make_cube(
        (clean + rng.uniform(0, 5, clean.shape)).reshape(30, 40, 70).astype(dtype),
        energy=np.arange(70.0),
        energy_units="eV",
    )
    x = cube.values.reshape(1200, 70).astype(float)
    for how in ("nndsvd", "nndsvda"):
        # In units of the mean, where what fills the zeros is the same.
        _, want = _initialize_nmf(x / x.mean(), n, init=how, random_state=0)
        got = start(cube, how, n)
        assert_allclose(got, want / want.sum(axis=1, keepdims=True), rtol=2e-2, atol=2e-5)


def test_a_singular_start_sees_what_the_sample_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    from scalehsi.fitting import survey as surveying

    monkeypatch.setattr(surveying, "SAMPLE_PIXELS", 40)
    values = np.zeros((60, 60, 20), "u2")
    values[..., :10] = np.random.default_rng(0).poisson(50.0, (60, 60, 10))
    values[20, 30, 10:] = 4000  # one pixel of another phase
    cube = make_cube(values, energy=np.arange(20.0), energy_units="keV")
    seen = survey(open_blocks(cube), seed=0, counts=True)
    assert not seen.sample[:, 10:].any()
    for how in ("nndsvd", "nndsvda"):
        assert (start(cube, how, 2)[:, 10:].sum(axis=1) > 0.45).any()


def test_corners_of_phases_that_are_pure_somewhere(scene: Any) -> None:
    cube, truth = scene
    s = start(cube, "vca", 4)
    found = xr.DataArray(s, dims=("component", "energy"))
    order = hsi.metrics.match(truth["endmembers"], found)
    assert np.degrees(hsi.metrics.spectral_angle(truth["endmembers"].values, s[order])).max() < 20


@pytest.mark.parametrize("how", STARTS)
@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize(
    "kind",
    ["equal pixels", "rank one", "one filled pixel", "one filled channel", "one pixel", "negative", "tiny", "huge"],
)
def test_degenerate_cubes_give_sound_rows(how: str, n: int, kind: str) -> None:
    rng = np.random.default_rng(0)
    values = {
        "equal pixels": np.ones((6, 5, 4)),
        "rank one": np.multiply.outer(rng.random((6, 5)), rng.random(4)),
        "one filled pixel": np.zeros((6, 5, 4)),
        "one filled channel": rng.random((6, 5, 4)) * [0, 1, 0, 0],
        "one pixel": rng.random((1, 1, 4)),
        "negative": rng.normal(size=(6, 5, 4)) - 3,
        "tiny": 1e-15 * rng.random((6, 5, 4)),
        "huge": 1e15 * rng.random((6, 5, 4)),
    }[kind]
    if kind == "one filled pixel":
        values[2, 3] = [1, 2, 0, 4]
    for dtype in ("f4", "f8") if kind in ("negative", "tiny", "huge") else ("f8",):
        cube = make_cube(values.astype(dtype), energy=np.arange(4.0), energy_units="eV")
        for counts in (False, True) if kind != "negative" else (False,):
            sound(start(cube, how, n, counts=counts), n, 4)


@pytest.mark.parametrize("how", STARTS)
def test_the_unit_of_intensity_does_not_matter(how: str, scene: Any) -> None:
    cube, factor = scene[0].isel(y=slice(24)).astype("f4"), 2.0**-20
    for counts in (False, True) if how != "random" else (False,):  # it averages until there are counts enough
        want = start(cube, how, 3, counts=counts)
        assert_allclose(start(cube * np.float32(factor), how, 3, counts=counts), want, rtol=1e-4, atol=1e-8)


def test_multistart_tells_its_spread_and_the_best_one_wins(scene: Any, caplog: pytest.LogCaptureFixture) -> None:
    view = open_blocks(scene[0])
    seen = survey(view, seed=0, counts=False)
    with caplog.at_level(logging.INFO, logger="scalehsi"):
        found = [first_endmembers(view, seen, "multistart", 4, counts=False, seed=0, restarts=r) for r in (1, 6)]
    assert "1 starts on" in caplog.messages[0]
    assert "6 starts on" in caplog.messages[1]
    _, sums = bin_sums(
        scene[0].values.reshape(-1, 96), index=np.arange(48 * 40), shape=(48, 40), sides=bin_sides((48, 40), 96)
    )
    bins = sums["bins"][0].astype(float)
    one, six = (excess(bins, s, 1.0) for s in found)
    assert six <= one * (1 + 1e-6)
    with pytest.raises(InputError, match="restarts is a whole number of at least 1, got 0"):
        first_endmembers(view, seen, "multistart", 4, counts=False, seed=0, restarts=0)


@pytest.mark.cluster
def test_multistart_runs_on_worker_processes(client: Any, scene: Any) -> None:
    got = start(scene[0].chunk({"y": 16}), "multistart", 4, block_bytes=None)
    with dask.config.set(scheduler="synchronous"):
        want = start(scene[0], "multistart", 4, block_bytes=None)
    assert_allclose(got, want, rtol=1e-6)


@given(shape=st.lists(st.integers(1, 3000), min_size=2, max_size=4).map(tuple), channels=st.integers(1, 20_000))
def test_bins_fit_in_memory(shape: tuple[int, ...], channels: int) -> None:
    sides = bin_sides(shape, channels)
    number = np.prod([-(-n // side) for n, side in zip(shape, sides, strict=True)], dtype=np.int64)
    assert number * channels * 4 <= module.SAMPLE_BYTES
    assert all(1 <= side <= n for side, n in zip(sides, shape, strict=True))


def test_an_unknown_start_is_refused_with_the_nearest() -> None:
    with pytest.raises(InputError, match=r"start='nnsvd' is not known; did you mean 'nndsvd'\?"):
        start(counts_cube((4, 4, 3)), "nnsvd", 2)


@pytest.mark.parametrize("how", STARTS)
def test_values_that_are_missing(how: str, scene: Any) -> None:
    values = scene[0].values.astype("f4")
    values[np.random.default_rng(0).random(values.shape) < 1e-3] = np.nan
    view = open_blocks(scene[0].copy(data=values), block_bytes=60_000)
    seen = survey(view, seed=0, counts=False, missing=True)
    if how in ("nndsvd", "nndsvda"):
        with pytest.raises(InputError, match=r"singular vectors need every value, .* take start='sample'"):
            first_endmembers(view, seen, how, 4, counts=False, seed=0)
        return
    s = first_endmembers(view, seen, how, 4, counts=False, seed=0)
    sound(s, 4, 96)
    full = start(scene[0], how, 4)
    cosine = s @ full.T / np.outer(np.linalg.norm(s, axis=1), np.linalg.norm(full, axis=1))
    if how != "random":
        assert cosine.max(axis=1).min() > 0.95


@pytest.mark.parametrize("counts", [False, True])
def test_on_the_simplex_each_endmember_starts_with_its_own_brightness(counts: bool) -> None:
    rng = np.random.default_rng(0)
    s = rng.random((4, 60)) ** 3
    s /= s.sum(axis=1, keepdims=True)
    want = np.array([200.0, 50.0, 800.0, 400.0])
    c = rng.dirichlet([0.5] * 4, (30, 30))
    c[..., 2] += c[..., 3]
    c[..., 3] = 0.0
    x = rng.poisson(c @ (want[:, None] * s)).astype("u2")
    seen = survey(open_blocks(make_cube(x, energy=np.arange(60.0), energy_units="keV")), seed=0, counts=counts)
    unused = np.zeros((1, 60))
    unused[0, int(np.argmin(x.sum(axis=(0, 1))))] = 1.0
    found = brightness(seen, np.concatenate([s[:3], unused]), counts=counts)
    # Least squares leaves more noise in the faint one; the mean of the data is seven times as bright.
    assert_allclose(found[:3], want[:3], rtol=0.25 if counts else 0.6)
    assert 1e-2 <= found[3] / (x.sum() / 900) <= 1e2


# Starts that are given.


def test_results_arrays_and_dataarrays_in_any_order_are_starts(small_cube: xr.DataArray) -> None:
    result = hsi.fit(small_cube, hsi.NMF(3, loss="frobenius", max_iter=3))
    want = result.endmembers.values / result.endmembers.values.sum(axis=1, keepdims=True)
    spectra = result.endmembers
    for given_ in (result, spectra, spectra.T, spectra.values, spectra.values.tolist(), spectra.drop_vars("energy")):
        assert_allclose(given_endmembers(given_, small_cube, 3), want)


def test_what_is_given_stays_as_it_was(small_cube: xr.DataArray) -> None:
    s = np.random.default_rng(0).random((2, 8))
    s.flags.writeable = False
    got = given_endmembers(s, small_cube, 2)
    got[0] = 0.0
    assert s.all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.to_dataset(name="abundances"), "a Dataset without 'endmembers'; give the result of a fit"),
        (lambda s: s.rename(component="phase"), r"dims \('phase', 'energy'\); \(component, energy\) is expected"),
        (lambda s: s.isel(energy=slice(5)), r"5 channels, the cube 8; bring it onto .*\.interp\(energy=cube.energy\)"),
        (lambda s: s.assign_coords(energy=s.energy + 1), r"runs from 1 to 1.7, the cube from 0 to 0.7; .*interp"),
        (lambda s: s.values[0], r"the shape \(8,\); \(2, 8\) is expected"),
        (lambda s: s.values[:, :3], r"the shape \(2, 3\); \(2, 8\) is expected"),
        (lambda s: np.ones((3, 8)), "3 spectra and n_components=2; type n_components=3"),
        (lambda s: s - 0.9, r"negative values, which no endmember of NMF has; clip them with \.clip\(min=0\)"),
        (lambda s: s.where(s > 0.5), r"NaN or Inf; fill them with \.fillna\(0\)"),
        (lambda s: s * [[1], [0]], "1 spectra of zeros, the first is number 1"),
        (lambda s: object(), r"an array \(K, E\) or one of sample, .*, got object"),
        (lambda s: {"a": 1}, "got dict"),
    ],
)
def test_starts_that_do_not_fit_are_refused(change: Any, message: str, small_cube: xr.DataArray) -> None:
    s = xr.DataArray(
        np.random.default_rng(0).random((2, 8)),
        dims=("component", "energy"),
        coords={"energy": small_cube.energy},
    )
    with pytest.raises(InputError, match=message):
        given_endmembers(change(s), small_cube, 2)
