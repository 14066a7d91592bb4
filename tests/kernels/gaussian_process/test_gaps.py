"""Maps with gaps of their own against the dense formulas on the measured values."""

from __future__ import annotations

import numpy as np
import pytest

from scalehsi.kernels.gaussian_process import radial_solver, radial_variance
from scalehsi.kernels.gaussian_process.covariance import covariance
from scalehsi.kernels.gaussian_process.gaps import choose_tiles, common_gaps, common_gaps_of
from scalehsi.kernels.gaussian_process.likelihood import Hyper, standardised
from scalehsi.kernels.gaussian_process.missing_fit import fit_missing
from scalehsi.kernels.gaussian_process.missing_pixels import deviation, draw, fill
from scalehsi.kernels.gaussian_process.posterior import mixing, predict
from scalehsi.kernels.gaussian_process.radial_kernel import radial_covariance
from scalehsi.kernels.gaussian_process.sampling_points import Points, axis_points, positions

pytestmark = pytest.mark.long

SHAPE = (8, 9)
POINTS = ((0.0, 1.3, 8.4), (-0.4, 2.0, 5.25))
PATTERNS = ["random", "rows", "corner", "one map", "never together"]


def hyper_of(kernel: str, maps: int) -> Hyper:
    factor = np.linspace(1.0, -0.6, maps)[:, None]
    signal = factor @ factor.T + np.diag(np.linspace(0.05, 0.3, maps))
    noise, mean = np.linspace(0.1, 0.4, maps), np.linspace(2.0, -1.0, maps)
    return Hyper(kernel, (2.5, 3.5), signal, noise, mean, 0.0, np.empty((0, 2)), 0)


def spatial(kernel: str, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Covariance between places (n, 2) and (m, 2)."""
    dy, dx = (np.subtract.outer(a[:, i], b[:, i]) for i in (0, 1))
    if kernel.endswith("radial"):
        return radial_covariance(kernel, dy, dx, (2.5, 3.5))[0]
    return covariance(kernel, dy, 2.5)[0] * covariance(kernel, dx, 3.5)[0]


def grid(shape: tuple[int, int], points: Points = 1) -> np.ndarray:
    axes = [positions(axis_points(points, i), n) for i, n in enumerate(shape)]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 2)


def draws(hyper: Hyper, shape: tuple[int, int], seed: int) -> np.ndarray:
    rng, k = np.random.default_rng(seed), spatial(hyper.kernel, grid(shape), grid(shape))
    root, couple = np.linalg.cholesky(k + 1e-9 * np.eye(len(k))), np.linalg.cholesky(hyper.signal)
    truth = (root @ rng.standard_normal((len(k), len(couple))) @ couple.T).reshape(*shape, -1) + hyper.mean
    return truth + hyper.noise * rng.standard_normal(truth.shape)


def gaps(pattern: str, maps: int, shape: tuple[int, int] = SHAPE) -> np.ndarray:
    """True where each map was measured."""
    seen, rng = np.ones((*shape, maps), dtype=bool), np.random.default_rng(3)
    if pattern == "random":
        seen = rng.random(seen.shape) < np.linspace(0.4, 1.0, maps)
    elif pattern == "rows":
        seen[::2, :, 0] = seen[1::3, :, 1] = False
    elif pattern == "corner":
        seen[..., 1] = False
        seen[:4, :4, 1] = True
    elif pattern == "one map":
        seen[..., 1] = False
    else:
        for t in range(maps):
            seen[..., t] = np.arange(shape[0])[:, None] % maps == t
    return seen


def dense(y: np.ndarray, seen: np.ndarray, hyper: Hyper, points: Points) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation by one matrix of all measured values."""
    keep, places, targets = seen.ravel(), grid(seen.shape[:2]), grid(seen.shape[:2], points)
    noise = np.kron(np.eye(len(places)), np.diag(hyper.noise**2))
    whole = (np.kron(spatial(hyper.kernel, places, places), hyper.signal) + noise)[np.ix_(keep, keep)]
    cross = np.kron(spatial(hyper.kernel, targets, places), hyper.signal)[:, keep]
    gain = np.linalg.solve(whole, cross.T).T
    variance = np.tile(np.diag(hyper.signal), len(targets)) - np.einsum("ij,ij->i", gain, cross)
    mean = (gain @ (y - hyper.mean).ravel()[keep]).reshape(len(targets), -1) + hyper.mean
    return mean, np.sqrt(np.maximum(variance, 0.0)).reshape(mean.shape)


def flat(values: np.ndarray) -> np.ndarray:
    return values.reshape(-1, values.shape[-1])


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize(("maps", "points"), [(2, 1), (2, 2), (3, 1), (5, POINTS)])
def test_the_mean_uses_each_measured_value_and_nothing_else(pattern: str, maps: int, points: Points) -> None:
    hyper = hyper_of("matern52", maps)
    y, seen = draws(hyper, SHAPE, 1), gaps(pattern, maps)
    mean, std = dense(y, seen, hyper, points)
    filled = fill(np.where(seen, y, np.nan), seen, hyper)
    assert filled.residual <= 1e-5
    found, _ = predict(filled.maps, hyper, upsample=points)
    assert (np.abs(flat(found) - mean) / std).max() < 0.01


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("points", [1, 2])
def test_the_deviation_is_that_of_each_map(pattern: str, points: Points) -> None:
    hyper, seen = hyper_of("matern52", 3), gaps(pattern, 3)
    expected = dense(np.zeros((*SHAPE, 3)), seen, hyper, points)[1]
    found = flat(deviation(SHAPE, seen, hyper, count=300, upsample=points))
    error = found / expected - 1
    assert np.sqrt((error**2).mean()) < 1 / np.sqrt(2 * 300)
    complete = flat(predict(np.zeros((*SHAPE, 3)), hyper, upsample=points)[1])
    assert (found >= complete * (1 - 1e-9)).all()


def test_a_complete_map_beside_a_gappy_one_of_no_kin_keeps_its_deviation() -> None:
    hyper = Hyper("matern52", (2.5, 3.5), np.eye(2), np.full(2, 0.3), np.zeros(2), 0.0, np.empty((0, 2)), 0)
    seen = gaps("random", 2)
    found = deviation(SHAPE, seen, hyper, count=2)
    alone = predict(np.zeros((*SHAPE, 2)), hyper)[1]
    np.testing.assert_allclose(found[..., 1], alone[..., 1], rtol=1e-9)
    assert (found[..., 0][~seen[..., 0]] > 1.02 * alone[..., 0][~seen[..., 0]]).all()


def test_draws_have_the_mean_and_the_deviation_of_the_posterior() -> None:
    hyper, seen = hyper_of("matern52", 2), gaps("random", 2)
    y = draws(hyper, SHAPE, 2)
    mean, std = dense(y, seen, hyper, 1)
    drawn = draw(np.where(seen, y, np.nan), seen, hyper, count=400, seed=0).reshape(400, -1, 2)
    assert (np.abs(drawn.mean(axis=0) - mean) / std).max() < 5 / np.sqrt(400)
    assert drawn.std(axis=0).mean() == pytest.approx(std.mean(), rel=0.03)


@pytest.mark.parametrize(("pattern", "upsample"), [("random", 2), *((name, 1) for name in PATTERNS[1:])])
def test_kernels_of_distance(pattern: str, upsample: int, monkeypatch: pytest.MonkeyPatch) -> None:
    hyper, seen = hyper_of("matern32-radial", 3), gaps(pattern, 3)
    y = draws(hyper, SHAPE, 4)
    mean, std = dense(y, seen, hyper, upsample)
    found = radial_solver.solve(np.where(seen, y, np.nan), seen, hyper, upsample=upsample, tolerance=1e-10)
    np.testing.assert_allclose(flat(found.mean), mean, atol=1e-6)
    assert found.std is not None
    np.testing.assert_allclose(flat(found.std), std, rtol=1e-5)
    monkeypatch.setattr(radial_variance, "MAX_DENSE_PIXELS", 10)
    drawn = radial_solver.solve(y, seen, hyper, upsample=upsample, draws=100).std
    assert drawn is not None
    assert np.sqrt(((flat(drawn) / std - 1) ** 2).mean()) < 1.3 / np.sqrt(200)


def test_draws_with_a_kernel_of_distance() -> None:
    hyper, seen = hyper_of("matern52-radial", 2), gaps("corner", 2)
    y = draws(hyper, SHAPE, 2)
    mean, std = dense(y, seen, hyper, 1)
    drawn = radial_solver.draw(np.where(seen, y, np.nan), seen, hyper, count=200, seed=0).reshape(200, -1, 2)
    assert (np.abs(drawn.mean(axis=0) - mean) / std).max() < 5 / np.sqrt(200)
    assert drawn.std(axis=0).mean() == pytest.approx(std.mean(), rel=0.05)


def loss(y: np.ndarray, seen: np.ndarray, hyper: Hyper) -> float:
    """Exact negative log likelihood of the measured values."""
    k = [covariance(hyper.kernel, np.subtract.outer(np.arange(n), np.arange(n)), ell)[0]
         for n, ell in zip(seen.shape[:2], hyper.lengths, strict=True)]  # fmt: skip
    noise = np.kron(np.eye(seen[..., 0].size), np.diag(hyper.noise**2))
    keep = seen.ravel()
    whole = (np.kron(np.kron(*k), hyper.signal) + noise)[np.ix_(keep, keep)]
    off = (y - hyper.mean).ravel()[keep]
    return float(
        0.5 * (np.linalg.slogdet(whole)[1] + off @ np.linalg.solve(whole, off) + keep.sum() * np.log(2 * np.pi))
    )


@pytest.mark.parametrize("pattern", ["random", "rows", "corner", "never together"])
def test_the_fit_is_as_likely_as_the_truth(pattern: str) -> None:
    hyper, shape = hyper_of("matern52", 2), (14, 15)
    seen = gaps(pattern, 2, shape)
    y = draws(hyper, shape, 5)
    found = fit_missing([np.where(seen, y, np.nan)], [seen], rounds=8)
    assert loss(y, seen, found) < loss(y, seen, hyper) + 1.0
    known = seen.sum(axis=(0, 1)) >= 50
    np.testing.assert_allclose(found.noise[known], hyper.noise[known], rtol=0.5)


def test_masks_of_all_maps_and_of_each() -> None:
    alike = np.repeat(gaps("random", 2)[..., :1], 3, axis=-1)
    assert common_gaps(alike).shape == SHAPE
    unlike = gaps("rows", 3)
    assert common_gaps(unlike) is unlike
    assert [mask.ndim for mask in common_gaps_of([alike, alike])] == [2, 2]
    assert [mask.ndim for mask in common_gaps_of([alike, unlike])] == [3, 3]
    y = draws(hyper_of("matern52", 3), SHAPE, 0)
    for a, b in zip(standardised([y], [alike]), standardised([y], [alike[..., 0]]), strict=True):
        np.testing.assert_allclose(a, b)
    _, mean, scale = standardised([np.where(unlike, y, np.nan)], [unlike])
    np.testing.assert_allclose(mean, [y[..., t][unlike[..., t]].mean() for t in range(3)])
    np.testing.assert_allclose(scale, [y[..., t][unlike[..., t]].std() for t in range(3)])


def test_chosen_tiles_show_every_map() -> None:
    masks = [gaps("one map", 2) for _ in range(6)]
    masks[4] = gaps("corner", 2)
    assert choose_tiles(masks, 3) == [4, 0, 1]
    assert choose_tiles(masks[:3], 2) == [0, 1]
    assert choose_tiles([mask[..., 0] for mask in masks], 2) == [0, 1]


def test_the_rotation_is_orthogonal() -> None:
    u = mixing(hyper_of("matern52", 4))
    np.testing.assert_allclose(u @ u.T, np.eye(4), atol=1e-12)
