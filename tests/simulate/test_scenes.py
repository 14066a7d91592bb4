"""Tests of simulated scenes: the same counts for any chunks, lazy cubes of any size, and the truth of the counts."""

from __future__ import annotations

import json
import pickle
import time
import tracemalloc

import dask
import numpy as np
import pytest

from scalehsi import simulate
from scalehsi.cube import check_cube
from scalehsi.result import check_result
from scalehsi.schema import InputError

pytestmark = pytest.mark.long

SMALL = {
    "phases": {"shape": (40, 33), "n_channels": 300},
    "chequerboard": {"shape": (40, 33), "n_channels": 96},
    "acquisitions": {"shape": (40, 33), "n_channels": 96},
    "oxide_particle": {"shape": (40, 33)},
}
"""A small scene of every kind."""
PLAIN = [kind for kind in SMALL if kind != "oxide_particle"]
"""Kinds whose truth multiplies to the expected counts, with settings of the axis."""


def no_compute(dsk, keys, **kwargs):
    raise AssertionError("something was computed")


def expectation(truth):
    maps = truth.abundances.values.astype(np.float64)
    return np.moveaxis(maps, 0, -1) @ truth.endmembers.values


@pytest.fixture(scope="module")
def minerals():
    return {seed: simulate.phases(seed=seed).truth.abundances.values for seed in range(5)}


def test_every_kind_is_covered():
    # Maps are tested in another file.
    assert set(SMALL) | {"acquisitions", "coupled", "maps", "sines", "tensor_stack"} == set(simulate.KINDS)


@pytest.mark.parametrize("kind", SMALL)
@pytest.mark.parametrize("chunk", [1, 7, (40, 5), (13, 33), 1000])
def test_chunks_never_change_the_data(kind, chunk):
    shape = (11, 9) if chunk == 1 else SMALL[kind]["shape"]
    whole = simulate.KINDS[kind](**{**SMALL[kind], "shape": shape})
    parts = simulate.KINDS[kind](**{**SMALL[kind], "shape": shape}, chunk=chunk)
    np.testing.assert_array_equal(parts.cube.values, whole.cube.values)
    np.testing.assert_array_equal(parts.truth.abundances.values, whole.truth.abundances.values)
    assert parts.cube.chunks[:2] == parts.truth.abundances.chunks[1:]
    assert len(parts.cube.chunks[2]) == 1


@pytest.mark.parametrize("kind", SMALL)
def test_schedulers_and_pickling_never_change_the_data(kind):
    cube = simulate.KINDS[kind](**SMALL[kind], chunk=16).cube
    with dask.config.set(scheduler="synchronous"):
        one_by_one = cube.values
    with dask.config.set(scheduler="threads", num_workers=4):
        np.testing.assert_array_equal(cube.values, one_by_one)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(cube)).values, one_by_one)


@pytest.mark.parametrize("kind", SMALL)
def test_describing_a_scene_computes_nothing(kind):
    with dask.config.set(scheduler=no_compute):
        scene = simulate.KINDS[kind](**SMALL[kind])
        cube, truth = scene.cube, scene.truth
        assert dask.is_dask_collection(cube.data)
        assert dask.is_dask_collection(truth.abundances.data)
        with pytest.raises(AssertionError, match="computed"):
            cube.compute()


@pytest.mark.parametrize("kind", SMALL)
def test_scenes_of_terabytes_are_lazy_and_take_little_memory(kind):
    simulate.KINDS[kind](**SMALL[kind])  # the tables of lines are read once
    tracemalloc.start()
    with dask.config.set(scheduler=no_compute):
        scene = simulate.KINDS[kind]((100_000, 20_000))
    cube, truth = scene.cube, scene.truth
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert cube.nbytes > 7e11
    assert peak < 64e6
    assert cube.data.npartitions < 100_000
    assert np.prod(cube.data.chunksize) * cube.dtype.itemsize < 128e6
    small = simulate.KINDS[kind]((100_000, 20_000), chunk=25)
    at = {"y": slice(70_010, 70_014), "x": slice(9_000, 9_003)}
    computed = []
    with dask.callbacks.Callback(posttask=lambda key, *_: computed.append(key)):
        tile = small.cube.isel(at).compute()
    assert len(computed) <= 2  # the chunk, and the window of it
    assert tile.sum() > 0
    np.testing.assert_array_equal(tile.values, simulate.KINDS[kind]((100_000, 20_000), chunk=3).cube.isel(at).values)
    np.testing.assert_array_equal(small.truth.abundances.isel(at).values, truth.abundances.isel(at).values)


@pytest.mark.parametrize("kind", SMALL)
def test_another_seed_makes_another_scene_and_the_same_seed_the_same(kind):
    first, again, other = (simulate.KINDS[kind](**SMALL[kind], seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.cube.values, again.cube.values)
    assert not np.array_equal(first.cube.values, other.cube.values)
    assert not np.array_equal(first.truth.abundances.values, other.truth.abundances.values)
    assert first.cube.data.name == again.cube.data.name != other.cube.data.name


@pytest.mark.parametrize("kind", PLAIN)
@pytest.mark.parametrize("counts", [60.0, 3000.0], ids=["per count", "per channel"])
def test_counts_are_poisson_numbers_of_the_truth(kind, counts):
    scene = simulate.KINDS[kind](**SMALL[kind], counts_per_pixel=counts)
    cube, truth = scene.cube, scene.truth
    observed, expected = cube.values.reshape(-1, cube.sizes["energy"]).astype(float), expectation(truth)
    expected = expected.reshape(observed.shape)
    for axis in (0, 1):
        total, mean = observed.sum(axis=axis), expected.sum(axis=axis)
        z = (total - mean)[mean > 5] / np.sqrt(mean[mean > 5])
        assert abs(z.mean()) < 4 / np.sqrt(z.size)
        assert z.std() == pytest.approx(1.0, abs=4 / np.sqrt(2 * z.size))
    likely = expected > 1e-3
    index = ((observed - expected) ** 2)[likely].sum() / expected[likely].sum()
    assert index == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize("kind", PLAIN)
def test_attributes_describe_cubes_and_truths(kind):
    scene = simulate.KINDS[kind](**SMALL[kind], seed=3, pixel_size_nm=2.5)
    cube, truth = scene.cube, scene.truth
    assert check_cube(cube) is cube
    assert check_result(truth) is truth
    assert (cube.name, cube.dims) == ("counts", ("y", "x", "energy"))
    assert cube.dtype.kind == "u"
    assert float(cube.x[1]) == 2.5
    assert cube.x.attrs["units"] == cube.y.attrs["units"] == "nm"
    assert cube.energy.attrs["units"] == {"EDS": "keV", "EELS": "eV"}[cube.attrs["signal"]]
    assert cube.attrs["history"][0].startswith(f"simulate.{kind}(shape=(40, 33), ")
    known = {element for each in json.loads(truth.attrs["composition"]).values() for element in each}
    assert sorted(cube.attrs["elements"]) == sorted(known)
    assert len(known) > 3 or kind == "acquisitions"
    assert truth.abundances.dims == ("component", "y", "x")
    assert truth.endmembers.dims == ("component", "energy")
    np.testing.assert_array_equal(truth.component, np.arange(1, truth.sizes["component"] + 1))
    assert truth.attrs["seed"] == 3
    assert truth.attrs["kind"] == kind
    assert list(json.loads(truth.attrs["composition"])) == truth.attrs["components"]
    json.dumps([cube.attrs, truth.attrs])  # attributes go into a store as JSON


@pytest.mark.parametrize("kind", SMALL)
def test_the_settings_in_the_truth_make_the_same_scene(kind):
    scene = simulate.KINDS[kind](**SMALL[kind], seed=5)
    cube, truth = scene.cube, scene.truth
    again = simulate.KINDS[kind](**json.loads(truth.attrs["settings"]))
    np.testing.assert_array_equal(again.cube.values, cube.values)


@pytest.mark.parametrize(("counts", "dtype"), [(147.0, "uint8"), (2e4, "uint16"), (2e6, "uint32")])
def test_the_smallest_dtype_is_chosen_beforehand(counts, dtype):
    cube, truth = simulate.phases((20, 20), counts_per_pixel=counts)
    assert cube.dtype == dtype
    assert int(cube.max()) < np.iinfo(dtype).max
    assert int(cube.max()) > 0.5 * float(truth.endmembers.isel(component=0).max())


def test_minerals_lie_as_in_the_paper(minerals):
    """Fractions, mixed pixels and the purest bins of 12 x 12 pixels, for each of the first seeds."""
    for maps in minerals.values():
        matrix, fp, capv = maps.mean(axis=(1, 2))
        assert 0.80 < matrix < 0.89
        assert 0.08 < fp < 0.18
        assert 0.015 < capv < 0.06
        assert 0.13 < ((maps > 0.05).sum(axis=0) > 1).mean() < 0.27
        purest = maps.reshape(3, 15, 12, 15, 12).mean(axis=(2, 4)).max(axis=(1, 2))
        assert (purest > [0.999, 0.90, 0.95]).all()
    mean = np.mean([maps.mean(axis=(1, 2)) for maps in minerals.values()], axis=0)
    np.testing.assert_allclose(mean, [0.84, 0.13, 0.03], rtol=0.2)


def test_minerals_keep_their_fractions_over_wide_fields():
    far = simulate.phases((100_000, 20_000)).truth.abundances.isel(y=slice(50_000, 51_000), x=slice(9_000, 10_000))
    np.testing.assert_allclose(far.mean(("y", "x")).values, [0.84, 0.13, 0.03], rtol=0.2)
    np.testing.assert_allclose(far.sum("component").values, 1.0, atol=1e-6)


def test_a_larger_scene_contains_the_smaller_one(minerals):
    larger = simulate.phases((200, 400)).truth.abundances.values
    np.testing.assert_array_equal(larger[:, :180, :180], minerals[0])


@pytest.mark.parametrize(("side", "purest"), [(24, 0.6), (48, 0.85), (100, 0.95)])
def test_small_scenes_have_every_phase(side, purest):
    maps = simulate.phases((side, side)).truth.abundances.values
    assert (maps.max(axis=(1, 2)) > purest).all()
    full = simulate.phases((side, side), grain_scale=1.0).truth.abundances.values
    assert not np.array_equal(maps, full)


def test_counts_of_the_minerals_are_as_requested():
    cube, truth = simulate.phases(seed=2)
    assert float(cube.sum(("y", "x", "energy"))) / 180**2 == pytest.approx(147.0, rel=0.02)
    densities = truth.endmembers.sum("energy").values
    np.testing.assert_allclose(densities / densities[0], [1.0, 0.8, 1.2])


def test_phases_peak_where_their_elements_do():
    endmembers = simulate.phases((8, 8)).truth.endmembers
    for number, energy, ratio in ((1, 1.740, 20), (2, 8.041, 3), (3, 3.171, 3)):
        spectra = endmembers.sel(energy=energy, method="nearest")
        others = spectra.drop_sel(component=number).max() if number > 1 else spectra.sel(component=2)
        assert spectra.sel(component=number) > ratio * others


@pytest.mark.parametrize("signal", ["EELS", "EDS"])
@pytest.mark.parametrize("components", [1, 2, 5, 8])
def test_boards_of_any_number_of_phases(signal, components):
    cube, truth = simulate.chequerboard(
        (30, 30), squares=(3, 3), n_components=components, n_channels=200, signal=signal
    )
    assert truth.sizes["component"] == components == len(truth.attrs["components"])
    assert float(cube.sum(("y", "x", "energy"))) / 900 == pytest.approx(500.0, rel=0.15)
    assert set(truth.abundances.values.argmax(axis=0).ravel()) == set(range(components))
    assert np.linalg.matrix_rank(truth.endmembers.values) == components


def test_the_corners_of_a_board_belong_to_one_phase_each():
    maps = simulate.chequerboard((64, 64), n_channels=32).truth.abundances.values
    share = maps / maps.sum(axis=0)
    for k, (y, x) in enumerate(((0, 0), (0, 1), (1, 0), (1, 1))):
        corner = share[k, 4 + 32 * y : 28 + 32 * y, 4 + 32 * x : 28 + 32 * x]
        assert corner.min() > 0.7
        assert corner.min() < 0.85
        assert corner.max() > 0.99


def test_a_shared_background_is_added_on_request():
    without, with_it = (
        simulate.chequerboard((8, 8), background=b, n_channels=128).truth.endmembers.isel(energy=slice(0, 4)).values
        for b in (0.0, 0.5)
    )
    assert np.abs(without).max() < 1e-9
    assert with_it.min() > 0.1


@pytest.mark.filterwarnings("ignore:Maximum number of iterations")
@pytest.mark.parametrize("shuffled", [False, True])
def test_plain_nmf_resolves_the_board(shuffled):
    """Angles of a few degrees, for gathered and for shuffled phases: the scene is neither trivial nor impossible."""
    decomposition = pytest.importorskip("sklearn.decomposition")
    cube, truth = simulate.chequerboard((64, 64), n_channels=256)
    pixels = cube.values.reshape(-1, 256).astype(np.float32)
    if shuffled:
        pixels = np.random.default_rng(0).permutation(pixels)
    found = decomposition.NMF(4, init="nndsvda", max_iter=200, tol=1e-5, random_state=0)
    found.fit(pixels)
    known = truth.endmembers.values
    cosines = (known / np.linalg.norm(known, axis=1)[:, None]) @ (
        found.components_ / np.linalg.norm(found.components_, axis=1)[:, None]
    ).T
    angles = np.degrees(np.arccos(np.clip(cosines, -1, 1)))
    assert sorted(angles.argmin(axis=1)) == [0, 1, 2, 3]
    assert angles.min(axis=1).max() < 8.0
    assert angles.min(axis=1).max() > 1.0


@pytest.mark.parametrize("kind", PLAIN)
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"shape": (10,)}, r"shape must be two whole numbers .* got \(10,\); type shape=\(64, 64\)"),
        ({"shape": (0, 5)}, "shape must be two whole numbers"),
        ({"shape": (4.0, 5)}, "shape must be two whole numbers"),
        ({"shape": "64"}, "shape must be two whole numbers"),
        ({"shape": 64}, "shape must be two whole numbers"),
        ({"counts_per_pixel": 0}, "counts_per_pixel must be a number above 0, got 0"),
        ({"counts_per_pixel": float("nan")}, "counts_per_pixel must be a number above 0, got nan"),
        ({"counts_per_pixel": "many"}, "counts_per_pixel must be a number above 0, got 'many'"),
        ({"pixel_size_nm": -1.0}, "pixel_size_nm must be a number above 0"),
        ({"seed": -1}, "seed must be a whole number of at least 0, got -1; type seed=0"),
        ({"seed": 0.5}, "seed must be a whole number"),
        ({"seed": True}, "seed must be a whole number"),
        ({"n_channels": 1}, "n_channels must be a whole number of at least 2, got 1"),
        ({"chunk": 0}, r"chunk must be two whole numbers of at least 1 .* got \(0, 0\)"),
        ({"chunk": (5, 5, 5)}, "chunk must be two whole numbers"),
    ],
)
def test_settings_out_of_range_are_refused(kind, wrong, message):
    with pytest.raises(InputError, match=message):
        simulate.KINDS[kind](**{**SMALL[kind], **wrong})


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"n_components": 0}, "n_components must be a whole number of at least 1 and at most 8, got 0"),
        ({"n_components": 9, "squares": (3, 3)}, "at most 8, got 9"),
        ({"n_components": 5}, r"5 components do not find room on 2 x 2 squares; type squares=\(3, 3\)"),
        ({"squares": (2,)}, r"squares must be two whole numbers"),
        ({"shape": (2, 2), "squares": (3, 3)}, r"squares=\(3, 3\) are more than the pixels of shape=\(2, 2\)"),
        ({"signal": "EEL"}, "signal 'EEL' is not simulated; did you mean 'EELS'"),
        ({"mixing": 1.0}, "mixing must be a number from 0 to 0.9, got 1.0"),
        ({"border": 2}, "border must be a number from 0 to 1, got 2"),
        ({"wedge": -0.1}, "wedge must be a number from 0 to 0.9, got -0.1"),
        ({"background": -1}, "background must be a number of at least 0, got -1"),
    ],
)
def test_board_settings_out_of_range_are_refused(wrong, message):
    with pytest.raises(InputError, match=message):
        simulate.chequerboard(**{**SMALL["chequerboard"], **wrong})


def test_grains_of_no_size_are_refused():
    with pytest.raises(InputError, match="grain_scale must be a number above 0, got 0"):
        simulate.phases((8, 8), grain_scale=0)


def test_a_scene_is_drawn_as_fast_as_numpy_draws_its_counts():
    cube = simulate.phases().cube[:60]
    expected = np.full((60 * 180, 1980), 147 / 1980)

    def seconds(function):
        began = time.process_time()
        function()
        return time.process_time() - began

    with dask.config.set(scheduler="synchronous"):
        ours = min(seconds(cube.compute) for _ in range(2))
    theirs = min(seconds(lambda: np.random.default_rng(0).poisson(expected)) for _ in range(2))
    assert ours < 5 * theirs  # 0.8 alone on a core


# Two acquisitions ----------------------------------------------------------------------------------------------------


def test_a_spectral_pixel_is_the_mean_over_its_footprint():
    scene = simulate.acquisitions((36, 48), footprint=6, dwell_ratio=1e4, n_channels=40, seed=4)
    wide = scene.cubes["spectral"]
    assert wide.shape == (6, 8, 40)
    np.testing.assert_allclose(wide.y, 2.5 + 6 * np.arange(6))
    want = expectation(scene.truth).reshape(6, 6, 8, 6, 40).mean(axis=(1, 3)) * 1e4
    index = ((wide.values - want) ** 2 / want).mean()
    assert index == pytest.approx(1.0, abs=0.1)


def test_drift_moves_the_sample_and_not_the_axes():
    settings = {"shape": (48, 48), "footprint": 1, "dwell_ratio": 1e5, "n_channels": 8, "seed": 4}
    still, moved = (simulate.acquisitions(**settings, drift=d).cubes["spectral"] for d in ((0, 0), (3, -2)))
    np.testing.assert_array_equal(still.y, moved.y)
    a, b = (each.sum("energy").values.astype(float) for each in (still, moved))
    np.testing.assert_allclose(b[:-3, 2:], a[3:, :-2], rtol=0.01)


def test_a_wider_probe_and_other_channels():
    settings = {"shape": (60, 60), "footprint": 6, "dwell_ratio": 1e4, "n_channels": 40, "seed": 4}
    sharp, wide = (simulate.acquisitions(**settings, point_spread=b).cubes["spectral"] for b in (0, 9))
    assert wide.sum("energy").values.std() < 0.8 * sharp.sum("energy").values.std()
    fine = simulate.acquisitions(**settings, spectral_channels=80).cubes["spectral"]
    assert fine.sizes["energy"] == 80
    np.testing.assert_allclose(fine.values.sum(axis=-1), sharp.values.sum(axis=-1), rtol=0.01)


def test_an_image_shows_the_mass_on_finer_pixels():
    scene = simulate.acquisitions((40, 33), image_counts=1e4, seed=4)
    image = scene.cubes["image"]
    assert image.dims == ("y", "x")
    assert image.shape == (80, 66)
    np.testing.assert_allclose(image.y[:2], [-0.25, 0.25])
    tail = scene.truth.abundances[0].values
    np.testing.assert_allclose(image.values.reshape(40, 2, 33, 2).mean(axis=(1, 3)), tail * 1e4, rtol=0.05)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"footprint": 41}, "footprint=41 is more than the 40 x 33 pixels of the map"),
        ({"footprint": 0}, "footprint"),
        ({"drift": (1,)}, "drift must be two numbers"),
        ({"drift": (np.inf, 0)}, "drift must be two numbers"),
        ({"point_spread": -1}, "point_spread"),
        ({"dwell_ratio": 0}, "dwell_ratio"),
    ],
)
def test_acquisition_settings_out_of_range_are_refused(wrong, message):
    with pytest.raises(InputError, match=message):
        simulate.acquisitions(**{"shape": (40, 33), **wrong})
