"""Tests of simulated maps: the same numbers for any chunks, lazy maps of any size, noise and truth as requested."""

from __future__ import annotations

import json
import pickle

import dask
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import scalehsi as hsi
from scalehsi import simulate
from scalehsi.io import open_maps
from scalehsi.metrics import similarity
from scalehsi.schema import InputError

MAKERS = {
    "sines": simulate.sines,
    "smooth": simulate.maps,
    "atoms": lambda *a, **k: simulate.maps(*a, kind="atoms", **k),
}


def no_compute(dsk, keys, **kwargs):
    raise AssertionError("something was computed")


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("chunk", [1, 7, (40, 5), (13, 33), 1000])
def test_chunks_never_change_the_data(kind, chunk):
    shape = (11, 9) if chunk == 1 else (70, 67)
    more = {"n_components": 5, "missing": 0.3, "seed": 3, "upsample": 2}
    whole, parts = MAKERS[kind](shape, **more), MAKERS[kind](shape, chunk=chunk, **more)
    np.testing.assert_array_equal(parts.maps.values, whole.maps.values)
    np.testing.assert_array_equal(parts.truth.values, whole.truth.values)
    assert parts.maps.data.npartitions == parts.truth.data.npartitions
    assert whole.truth.shape == (5, 2 * shape[0], 2 * shape[1])


@pytest.mark.parametrize("kind", MAKERS)
def test_schedulers_and_pickling_never_change_the_data(kind):
    maps = MAKERS[kind]((40, 33), chunk=16).maps
    with dask.config.set(scheduler="synchronous"):
        one_by_one = maps.values
    with dask.config.set(scheduler="threads", num_workers=4):
        np.testing.assert_array_equal(maps.values, one_by_one)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(maps)).values, one_by_one)


@pytest.mark.parametrize("kind", MAKERS)
def test_maps_of_any_size_are_lazy_and_a_tile_computes_one_chunk(kind):
    count = 6 if kind == "atoms" else 8
    with dask.config.set(scheduler=no_compute):
        maps, truth = MAKERS[kind]((100_000, 20_000), n_components=count)
    assert max(maps.data.chunksize[1:]) * count * 4 < 128e6
    at = {"y": slice(70_010, 70_014), "x": slice(9_000, 9_003)}
    computed = []
    with dask.callbacks.Callback(posttask=lambda key, *_: computed.append(key)):
        here = MAKERS[kind]((100_000, 20_000), chunk=200).maps.isel(at).values
    assert len(computed) <= 2  # the chunk, and the window of it
    np.testing.assert_array_equal(here[0], MAKERS[kind]((100_000, 20_000), chunk=25).maps.isel(at).values[0])
    assert np.isfinite(truth.isel(at).values).all()


@pytest.mark.parametrize("kind", MAKERS)
def test_a_larger_scene_has_the_noise_of_the_smaller_one(kind):
    small, large = (MAKERS[kind](shape, seed=2) for shape in ((60, 50), (64, 90)))
    noise = [scene.maps.values - scene.truth.values for scene in (small, large)]
    np.testing.assert_allclose(noise[1][:, :60, :50], noise[0], atol=1e-6)


@pytest.mark.parametrize("kind", MAKERS)
def test_another_seed_makes_other_noise_and_the_same_seed_the_same(kind):
    first, again, other = (MAKERS[kind]((30, 30), seed=s, missing=0.2).maps for s in (1, 1, 2))
    np.testing.assert_array_equal(first.values, again.values)
    assert first.data.name == again.data.name != other.data.name
    assert not np.array_equal(np.isnan(first.values), np.isnan(other.values))
    assert np.nanmax(np.abs(first.values - other.values)) > 0.05


def test_noise_is_normal_and_independent_in_every_map():
    sigma = [0.1, 0.5, 1.0, 2.0]
    maps, truth = simulate.maps((200, 190), n_components=4, noise=sigma, seed=5)
    rest = maps.values - truth.values
    np.testing.assert_allclose(rest.std(axis=(1, 2)), sigma, rtol=0.02)
    unit = rest / np.array(sigma)[:, None, None]
    assert np.abs(unit.mean(axis=(1, 2))).max() < 4 / np.sqrt(200 * 190)
    assert np.abs(np.corrcoef(unit.reshape(4, -1)) - np.eye(4)).max() < 0.03
    # It is independent in neighbouring pixels too, inside a square that is drawn together and beyond it.
    for step in (1, 64):
        assert abs(np.mean(unit[:, step:] * unit[:, :-step])) < 0.01
        assert abs(np.mean(unit[:, :, step:] * unit[:, :, :-step])) < 0.01
    assert np.abs(unit).max() < 6
    assert 0.045 < (np.abs(unit) > 1.96).mean() < 0.055


@settings(max_examples=10, deadline=None)
@given(st.floats(0.0, 0.95))
def test_missing_pixels_are_missing_in_all_maps(share):
    maps, truth = simulate.sines((128, 120), missing=share, seed=1)
    gone = np.isnan(maps.values)
    assert (gone == gone[0]).all()
    assert gone.mean() == pytest.approx(share, abs=5 * np.sqrt(0.25 / gone[0].size))
    assert not np.isnan(truth.values).any()


def test_the_two_models_of_noise_ratios():
    one = simulate.sines(model=1, sigma0=0.5, alpha=2.0, n_components=4)
    two = simulate.sines(model=2, sigma0=0.5, alpha=2.0, n_components=4)
    assert one.maps["noise"].values.tolist() == [0.0, 0.5, 1.0, 1.0]
    assert two.maps["noise"].values.tolist() == [0.5, 1.0, 1.0, 1.0]
    np.testing.assert_array_equal(one.maps.values[0], one.truth.values[0])
    truth = one.truth.values
    np.testing.assert_array_equal(truth[0], truth[2])
    np.testing.assert_array_equal(truth[1], truth[3])
    assert abs(similarity(truth[0], truth[1])) < 1e-6


def test_sinusoids_have_their_period_and_range():
    truth = simulate.sines((48, 72), period=12.0).truth.values
    np.testing.assert_allclose(truth[0, 12:], truth[0, :-12], atol=1e-6)
    np.testing.assert_allclose(truth[1, :, 24:], truth[1, :, :-24], atol=1e-6)
    assert not np.allclose(truth[1, :, 12:], truth[1, :, :-12], atol=0.1)
    np.testing.assert_allclose(truth.std(axis=(1, 2)), 0.25, atol=1e-6)
    assert truth.min() >= 0
    assert truth.max() <= 1


def test_the_scenes_are_as_difficult_as_those_of_the_paper():
    """Similarity of noisy maps and truth at sigma 0.3, which depends on the amplitudes of the maps."""
    smooth, sines = simulate.maps(), simulate.sines()
    found = [[similarity(m, t) for m, t in zip(*scene, strict=True)] for scene in (smooth, sines)]
    np.testing.assert_allclose(found[0], [0.760, 0.564, 0.828], atol=0.02)
    np.testing.assert_allclose(found[1], 0.644, atol=0.02)
    np.testing.assert_allclose(simulate.maps((24, 24)).truth.std(("y", "x")), smooth.truth.std(("y", "x")), atol=0.02)


@pytest.mark.parametrize("kind", MAKERS)
def test_the_truth_between_the_pixels(kind):
    coarse, fine = (MAKERS[kind]((48, 48), upsample=u, pixel_size_nm=0.5) for u in (1, 3))
    np.testing.assert_allclose(fine.truth.values[:, 1::3, 1::3], coarse.truth.values, atol=1e-6)
    np.testing.assert_array_equal(fine.maps.values, coarse.maps.values)
    np.testing.assert_allclose(fine.truth.x.values[1::3], coarse.maps.x.values, atol=1e-12)
    assert fine.truth.x.attrs["units"] == "nm"
    assert float(fine.truth.x[1] - fine.truth.x[0]) == pytest.approx(0.5 / 3)


def test_atoms_lie_six_pixels_apart():
    truth = simulate.maps((48, 48), kind="atoms").truth.values[3]
    np.testing.assert_allclose(truth[6:], truth[:-6], atol=1e-6)
    assert (
        np.abs(np.fft.rfft2(truth - truth.mean()))[8].max() > 10 * np.abs(np.fft.rfft2(truth - truth.mean()))[7].max()
    )
    signal = simulate.maps((48, 48), kind="atoms").truth.std(("y", "x")).values
    noise = simulate.maps(kind="atoms").maps["noise"].values
    assert (signal[:4] > noise[:4]).all()
    assert (signal[4:] < 0.3 * noise[4:]).all()


@pytest.mark.parametrize("kind", MAKERS)
def test_their_attributes_describe_them_and_make_them_again(kind):
    maps, truth = MAKERS[kind]((20, 21), seed=4, missing=0.1, pixel_size_nm=2.5)
    assert (maps.name, maps.dims, truth.dims) == ("abundances", *[("component", "y", "x")] * 2)
    assert maps.dtype == truth.dtype == np.float32
    np.testing.assert_array_equal(maps.component, np.arange(1, maps.sizes["component"] + 1))
    assert float(maps.x[1]) == 2.5
    assert maps.y.attrs["units"] == "nm"
    assert maps.attrs["history"][0].startswith(f"simulate.{maps.attrs['kind']}(shape=(20, 21), ")
    json.dumps(maps.attrs)
    again = simulate.KINDS[maps.attrs["kind"]](**json.loads(maps.attrs["settings"]))
    np.testing.assert_array_equal(again.maps.values, maps.values)


@pytest.mark.parametrize("shape", [(1, 1), (1, 30), (30, 1)])
@pytest.mark.parametrize("kind", MAKERS)
def test_one_pixel_wide(kind, shape):
    maps, truth = MAKERS[kind](shape)
    assert np.isfinite(maps.values).all()
    assert np.isfinite(truth.values).all()


def test_saved_maps_are_read_unchanged(tmp_path):
    maps, _ = simulate.maps((40, 30), missing=0.2, chunk=16)
    back = open_maps(hsi.save(maps, tmp_path / "maps.zarr"))
    np.testing.assert_array_equal(back.values, maps.values)
    assert back.x.attrs["units"] == "nm"
    np.testing.assert_array_equal(back["noise"], maps["noise"])
    cube = hsi.save(simulate.phases((8, 8), n_channels=16).cube, tmp_path / "cube.zarr")
    with pytest.raises(InputError, match=r"no maps.*'counts'"):
        open_maps(cube)


@pytest.mark.parametrize(
    ("make", "bad", "words"),
    [
        (simulate.sines, {"period": 0}, "period must be a number above 0"),
        (simulate.sines, {"model": 3}, "model must be 1"),
        (simulate.sines, {"sigma0": -1}, "sigma0 must be"),
        (simulate.sines, {"alpha": float("nan")}, "alpha must be"),
        (simulate.sines, {"noise": [0.1, 0.2]}, "2 numbers for 3 maps"),
        (simulate.sines, {"noise": "loud"}, "noise must be a number"),
        (simulate.sines, {"shape": (0, 3)}, "shape must be two whole numbers"),
        (simulate.maps, {"kind": "rough"}, "Known: atoms, smooth"),
        (simulate.maps, {"kind": "atoms", "n_components": 7}, "at most 6"),
        (simulate.maps, {"missing": 1.0}, "missing must be"),
        (simulate.maps, {"upsample": 0}, "upsample must be a whole number"),
        (simulate.maps, {"feature": 0}, "feature must be"),
        (simulate.maps, {"seed": -1}, "seed must be"),
        (simulate.maps, {"chunk": 0}, "chunk must be"),
        (simulate.maps, {"pixel_size_nm": 0}, "pixel_size_nm must be"),
    ],
)
def test_bad_settings_are_refused_in_one_line(make, bad, words):
    with pytest.raises(InputError, match=words) as caught:
        make(**bad)
    assert "\n" not in str(caught.value)
