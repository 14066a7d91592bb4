"""VCA, N-FINDR and SSS: the published benchmark, exact corners of noise-free data, and when they warn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xarray as xr
from numpy.testing import assert_allclose, assert_array_equal

import scalehsi as hsi
from scalehsi.cube import make_cube
from scalehsi.kernels.extraction.polytope import far_corners
from scalehsi.kernels.extraction.simplex import nfindr, simplex_volume, smooth_maps
from scalehsi.kernels.quadratic.sum_to_one import map_moments, sum_to_one_scales
from scalehsi.result import result_warnings
from scalehsi.schema import InputError
from tests.bench.unmixing import refined
from tests.bench.unmixing_scenes import NAMES, edx_scene, fractions, scene, scores, scores_of, spectra

pytestmark = pytest.mark.long

PUBLIC: dict[str, Any] = {"weighting": None, "smooth": 0, "mode": "auto", "restarts": 1}
SLOW = pytest.mark.slow
TABLE = [
    ("VCA", {}, 3, 0.0035, 0.0065),
    ("NFINDR", {}, 3, 0.0035, 0.0065),
    ("VCA", PUBLIC, 3, 0.016, 0.050),
    ("SSS", {"restarts": 5}, 3, 0.009, 0.018),
    pytest.param("VCA", {}, 4, 0.006, 0.004, marks=SLOW),
    pytest.param("NFINDR", {}, 4, 0.006, 0.004, marks=SLOW),
    pytest.param("VCA", PUBLIC, 4, 0.016, 0.012, marks=SLOW),
    pytest.param("SSS", {}, 4, 0.020, 0.013, marks=SLOW),
]


def codes(result: xr.Dataset) -> list[str]:
    return [w.code for w in result_warnings(result)]


# The scenes


@pytest.mark.parametrize(
    ("k", "sums", "angles", "means", "pure", "gain"),
    [
        (3, [49.238384, 24.474828, 31.270497], [0.11119, 0.08727, 0.06283], [0.296875, 0.343750, 0.359375],
         [176, 192, 240], 2918.1146),
        (4, [195.761303, 283.351790, 128.992220, 215.278333], [0.18388, 0.16280, 0.21460, 0.19316, 0.07100, 0.21839],
         [0.218750, 0.203125, 0.328125, 0.250000], [112, 128, 64, 16], 508.8443),
    ],
)  # fmt: skip
def test_the_scenes_are_those_of_the_recipe(
    k: int, sums: list[float], angles: list[float], means: list[float], pure: list[int], gain: float
) -> None:
    m, made = spectra(k), scene(k)
    assert_allclose(m.sum(axis=1), sums, rtol=1e-7)
    pairs = hsi.metrics.spectral_angle(m[:, None], m[None])[np.triu_indices(k, 1)]
    assert_allclose(pairs, angles, atol=6e-6)
    assert_allclose(made.maps.mean(axis=(0, 1)), means, atol=5e-7)
    assert_allclose((made.maps.reshape(-1, k) > 0.99).sum(axis=0), pure)
    assert made.spectra[0, 0] / m[0, 0] == pytest.approx(gain, rel=1e-7)
    assert made.cube.shape == (64, 64, m.shape[1])
    assert len(NAMES[k]) == k


def test_the_wrapped_scene_has_few_pure_pixels() -> None:
    maps = fractions(np.random.default_rng(0), 4, mode="wrap")
    assert_allclose(maps.max(axis=(0, 1)), [0.99, 0.99, 0.99, 0.89], atol=6e-3)


# The table of the specification


@pytest.mark.parametrize(("name", "settings", "k", "angle", "error"), TABLE)
def test_the_benchmark_is_met(name: str, settings: dict[str, Any], k: int, angle: float, error: float) -> None:
    found = []
    for seed in range(3):
        made = scene(k, seed=seed)
        found.append(scores_of(made, hsi.fit(made.cube, getattr(hsi, name)(k, **settings), seed=seed)))
    sad, nmse = np.mean(found, axis=0)
    assert sad <= angle
    assert nmse <= error


@pytest.mark.parametrize(("k", "limit"), [(3, 0.0045), pytest.param(4, 0.0028, marks=SLOW)])
def test_fractions_of_the_true_spectra_meet_the_benchmark(k: int, limit: float) -> None:
    found = []
    for seed in range(3):
        made = scene(k, seed=seed)
        maps = hsi.project(made.spectra, made.cube, constraint="fcls").transpose("y", "x", "component").values
        found.append(scores(made, made.spectra, maps)[1])
    assert np.mean(found) <= limit


@pytest.mark.parametrize(("k", "angle", "error"), [(3, 0.005, 0.010), pytest.param(4, 0.012, 0.011, marks=SLOW)])
def test_a_few_steps_of_nmf_from_the_corners_meet_the_benchmark(k: int, angle: float, error: float) -> None:
    found = [scores(made, *refined(made, 0)) for made in (scene(k, seed=seed) for seed in range(3))]
    assert (np.mean(found, axis=0) <= (angle, error)).all()


def test_the_dose_decides() -> None:
    found = {}
    for dose in (1e4, 1e5, 1e6):
        made = [scene(3, dose=dose, seed=seed) for seed in range(3)]
        found[dose] = np.mean([scores_of(m, hsi.fit(m.cube, hsi.VCA(3), seed=0)) for m in made], axis=0)
    assert (found[1e4] <= (0.010, 0.045)).all()
    assert (found[1e6] <= (0.0011, 0.0009)).all()
    assert (found[1e4] > found[1e5]).all()
    assert (found[1e5] > found[1e6]).all()


def test_without_pure_pixels_zeros_separate() -> None:
    found: dict[str, list[float]] = {"VCA": [], "SSS": []}
    for seed in range(3):
        made = edx_scene(seed=seed)
        found["VCA"].append(scores_of(made, hsi.fit(made.cube, hsi.VCA(3), seed=seed))[0])
        model = hsi.SSS(3, side="spectra", restarts=5)
        found["SSS"].append(scores_of(made, hsi.fit(made.cube, model, seed=seed))[0])
    assert np.mean(found["SSS"]) <= 0.03
    assert np.mean(found["SSS"]) <= np.mean(found["VCA"]) / 4


def test_sampling_finds_what_programmes_find_but_rougher() -> None:
    made = scene(3)
    exact = scores_of(made, hsi.fit(made.cube, hsi.SSS(3, restarts=5), seed=0))
    sampled = scores_of(made, hsi.fit(made.cube, hsi.SSS(3, method="sample"), seed=0))
    assert exact[0] < sampled[0] < 2 * exact[0]


# Exactness


def noise_free(k: int = 3) -> tuple[xr.DataArray, np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """A cube without noise, with one pure pixel of each component, the spectra, and the numbers of these pixels."""
    rng = np.random.default_rng(1)
    s = rng.random((k, 30)) + 0.1
    maps = rng.dirichlet([1.0] * k, 120)
    maps[maps.max(axis=1) > 0.9] = 1 / k
    pure = rng.choice(120, k, replace=False)
    maps[pure] = np.eye(k)
    return make_cube((maps @ s).reshape(10, 12, 30), energy=np.arange(30.0), energy_units="eV"), s, pure


@pytest.mark.parametrize("model", [hsi.VCA(3, smooth=0), hsi.NFINDR(3, smooth=0), hsi.VCA(3, smooth=0, weighting=None)])
def test_pure_pixels_are_found_exactly(model: Any) -> None:
    cube, s, pure = noise_free()
    result = hsi.fit(cube, model, seed=0)
    assert sorted(result["vertex_pixel"].values) == sorted(pure)
    order = [list(pure).index(p) for p in result["vertex_pixel"].values]
    assert_allclose(result["endmembers"], s[order], rtol=1e-6)
    assert_allclose(result["abundances"].sum("component"), 1.0, atol=1e-6)
    assert "no_pure_pixels" not in codes(result)


def test_of_equal_pixels_the_first_is_taken() -> None:
    cube, _, pure = noise_free()
    twice = xr.concat([cube, cube], "y").assign_coords(y=np.arange(20.0))
    found = hsi.fit(twice.chunk({"y": 7, "x": 5}), hsi.VCA(3, smooth=0), seed=0)["vertex_pixel"].values
    assert sorted(found) == sorted(pure)


def test_perspective_takes_thickness_out() -> None:
    made = scene(3, variant="thickness")
    angle = {
        mode: scores_of(made, hsi.fit(made.cube, hsi.VCA(3, mode=mode, constraint="nnls"), seed=0))[0]
        for mode in ("affine", "perspective")
    }
    assert angle["perspective"] < angle["affine"] / 3


def test_an_exchange_enlarges_the_simplex_to_the_largest() -> None:
    points = np.column_stack([np.random.default_rng(2).standard_normal((60, 2)), np.ones(60)])
    found = nfindr(points, np.array([0, 1, 2]))
    volume = simplex_volume(points[found])
    for k in range(3):
        others = [simplex_volume(np.vstack([np.delete(points[found], k, axis=0), p])) for p in points]
        assert max(others) <= volume * (1 + 1e-9)


def test_programmes_find_the_corners_of_a_known_polytope() -> None:
    # A triangle cut by three sides, among 6000 rows of which most are no constraints.
    corners = np.array([[0.1, 0.2, 0.7], [0.8, 0.1, 0.1], [0.2, 0.7, 0.1]])
    sides = np.linalg.inv(corners).T
    inside = sides.T[None] @ np.eye(3)
    rows = np.concatenate([inside[0].T, np.random.default_rng(0).dirichlet([1, 1, 1], 6000) @ inside[0].T + 0.1])
    found = far_corners(rows, np.ones(3), restarts=3, seed=0)
    order = np.argmax(found, axis=1)
    wanted = corners[np.argsort(np.argmax(corners, axis=1))]
    assert_allclose(found[np.argsort(order)], wanted, atol=1e-9)


def test_sources_that_vanish_nowhere_have_no_polytope() -> None:
    with pytest.raises(InputError, match="the polytope has no end"):
        far_corners(np.array([[1.0, 0.0], [1.0, 0.1]]), np.array([1.0, 0.0]), restarts=1, seed=0)


def test_means_over_neighbours_leave_masked_pixels_out() -> None:
    maps = np.arange(20.0).reshape(4, 5, 1)
    used = np.ones((4, 5), bool)
    used[1, 1] = False
    found = smooth_maps(np.where(used[..., None], maps, np.nan), used, 3)
    assert found[0, 0, 0] == pytest.approx(np.mean([0, 1, 5]))
    assert found[2, 2, 0] == pytest.approx(np.mean([7, 8, 11, 12, 13, 16, 17, 18]))
    assert_array_equal(smooth_maps(maps, used, 0), maps)


def test_scales_of_known_factors_are_found() -> None:
    maps, scale = np.random.default_rng(0).dirichlet([1, 1, 1], 50), np.array([2.0, 0.5, 7.0])
    assert_allclose(sum_to_one_scales(**map_moments(maps * scale)), 1 / scale, rtol=1e-9)
    signed = np.array([-2.0, 0.5, 7.0])
    assert_allclose(sum_to_one_scales(**map_moments(maps * signed), signed=True), 1 / signed, rtol=1e-9)


@pytest.mark.parametrize("weights", [None, "poisson"])
def test_channels_without_counts_do_no_harm(weights: str | None) -> None:
    made = scene(3, dose=1e5)
    cube = made.cube.copy()
    cube[..., 50:60] = 0
    cube[3, 4, 55] = 1
    result = hsi.fit(cube, hsi.VCA(3, weighting=weights), seed=0)
    assert np.isfinite(result["endmembers"]).all()
    assert float(result["endmembers"][:, 55].max()) < 1.0


# Warnings and refusals


def test_a_scene_with_pure_pixels_gives_no_warning_of_the_method() -> None:
    for model in (hsi.VCA(3), hsi.NFINDR(3), hsi.SSS(3, restarts=3), hsi.VCA(4)):
        made = scene(model.n_components, seed=1)
        assert not {"no_pure_pixels", "no_zeros"} & {*codes(hsi.fit(made.cube, model, seed=0))}


@pytest.mark.parametrize("model", [hsi.VCA(3), hsi.NFINDR(3)])
def test_a_scene_without_pure_pixels_is_said(model: Any) -> None:
    result = hsi.fit(scene(3, variant="no pure").cube, model, seed=0)
    (found,) = [w for w in result_warnings(result) if w.code == "no_pure_pixels"]
    assert found.text.startswith("27% of the pixels lie outside of the simplex")
    assert found.remedy.startswith("SSS(3)")


def test_spectra_that_vanish_nowhere_are_said() -> None:
    result = hsi.fit(scene(3).cube, hsi.SSS(3, side="spectra", restarts=3), seed=0)
    (found,) = [w for w in result_warnings(result) if w.code == "no_zeros"]
    assert "of the channels" in found.text
    assert found.remedy == "SSS(3, side='maps'), or VCA(3)"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_components": 1}, "n_components=1: a simplex has at least 2 corners"),
        ({"smooth": 2}, "smooth is 0 or an odd number of pixels such as 3, got 2"),
        ({"restarts": 0}, "restarts is a whole number of at least 1, got 0"),
        ({"constraint": "ls"}, "constraint='ls' is not known"),
        ({"weighting": "channels"}, "weighting='channels' is not known; it is None or 'poisson'"),
        ({"mode": "linear"}, "mode='linear' is not known"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        hsi.VCA(**{"n_components": 3, **settings})


def test_bad_cubes_are_refused() -> None:
    made = scene(3, dose=100)
    with pytest.raises(InputError, match="every value of the cube is zero"):
        hsi.fit(made.cube * 0, hsi.VCA(3))
    with pytest.raises(InputError, match="the mask leaves no pixel"):
        hsi.fit(made.cube.assign_coords(mask=(("y", "x"), np.zeros((64, 64), bool))), hsi.VCA(3))
    with pytest.raises(InputError, match=r"0 channels have more than least_counts=2500 .* type a smaller one"):
        hsi.fit(made.cube[:2, :2], hsi.SSS(3, side="spectra"))
    with pytest.raises(InputError, match="12800 values are NaN or Inf"):
        hsi.fit(made.cube.astype("f4").where(made.cube.y > 0), hsi.VCA(3))
