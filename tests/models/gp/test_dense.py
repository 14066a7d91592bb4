"""The dense reference by gpytorch against the other engines: equal maps for equal kernels and hyperparameters."""

import sys
from importlib.util import find_spec

import numpy as np
import pytest

from scalehsi import InputError
from scalehsi.kernels.gaussian_process import likelihood, missing_pixels, posterior, radial_kernel, radial_solver
from scalehsi.kernels.gaussian_process.fft_kernel import Prior
from scalehsi.kernels.gaussian_process.likelihood import Hyper
from scalehsi.kernels.gaussian_process.sampling_points import Points
from scalehsi.models.gp import dense

pytestmark = pytest.mark.long

needed = pytest.mark.skipif(find_spec("gpytorch") is None, reason="gpytorch is not installed")
SCATTERED = ((0.0, 1.3, 1.3, 8.4), (-0.4, 2.0, 5.25))
"""Arbitrary points, one of them twice."""
PRODUCTS = ["matern12", "matern32", "matern52", "rbf", "matern52*periodic(6)", "rbf+matern32*periodic(4)"]
SHAPE = (9, 11)


def known(kernel: str) -> Hyper:
    factor = np.array([[1.0], [0.7], [-0.4]])
    signal = factor @ factor.T + np.diag([0.05, 0.2, 0.1])
    noise, mean = np.array([0.1, 0.3, 0.2]), np.array([2.0, -1.0, 0.0])
    return Hyper(kernel, (2.5, 3.5), signal, noise, mean, 0.0, np.empty((0, 2)), 0)


def measured(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((*SHAPE, 3))


def scene(side: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Three maps with partly common structure, true and with noise 0.3."""
    fields = Prior("matern52-radial", (side, side), (4.0, 5.0)).draw(np.random.default_rng(seed), 3)[0]
    truth = np.einsum("khw,tk->hwt", fields, np.array([[1.0, 0.0, 0.0], [0.8, 0.6, 0.0], [0.6, 0.0, 0.8]]))
    return truth, truth + 0.3 * np.random.default_rng(seed + 1).standard_normal(truth.shape)


def similarity(maps: np.ndarray, truth: np.ndarray) -> np.ndarray:
    return np.array([np.corrcoef(maps[..., t].ravel(), truth[..., t].ravel())[0, 1] for t in range(truth.shape[-1])])


@needed
@pytest.mark.parametrize("kernel", PRODUCTS)
@pytest.mark.parametrize("upsample", [1, 2, 3, SCATTERED])
def test_the_structured_engine_agrees(kernel: str, upsample: Points) -> None:
    mean, std = posterior.predict(measured(), known(kernel), upsample=upsample)
    expected, deviation = dense.predict(measured(), None, known(kernel), upsample=upsample)
    np.testing.assert_allclose(mean, expected, atol=1e-6 * np.abs(expected).max())
    np.testing.assert_allclose(std, deviation, rtol=1e-6)


@needed
@pytest.mark.parametrize("kernel", ["matern52", "rbf+matern32*periodic(4)"])
@pytest.mark.parametrize("upsample", [1, 2, SCATTERED])
def test_missing_pixels_agree(kernel: str, upsample: Points, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(missing_pixels, "TOLERANCE", 1e-11)
    observed = np.random.default_rng(1).random(SHAPE) >= 0.4
    broken = np.where(observed[..., None], measured(), np.nan)
    mean, _ = posterior.predict(
        missing_pixels.fill(broken, observed, known(kernel)).maps, known(kernel), upsample=upsample
    )
    expected, _ = dense.predict(broken, observed, known(kernel), upsample=upsample)
    np.testing.assert_allclose(mean, expected, atol=1e-6 * np.abs(expected).max())


@needed
@pytest.mark.parametrize("kernel", ["matern12", "matern32", "matern52", "rbf"])
@pytest.mark.parametrize("upsample", [1, 2])
def test_the_iterative_engine_agrees(kernel: str, upsample: int) -> None:
    observed = np.random.default_rng(1).random(SHAPE) >= 0.4
    hyper = known(f"{kernel}-radial")
    found = radial_solver.solve(measured(), observed, hyper, upsample=upsample, tolerance=1e-12)
    expected, deviation = dense.predict(measured(), observed, hyper, upsample=upsample)
    # The distance of a point from itself is some 1e-8 in gpytorch, which is visible at the kink of "matern12".
    off = 1e-5 if kernel == "matern12" else 1e-6
    np.testing.assert_allclose(found.mean, expected, atol=off * np.abs(expected).max())
    np.testing.assert_allclose(found.std, deviation, rtol=off)


@needed
@pytest.mark.parametrize(("kernel", "own"), [("matern52", likelihood.fit), ("rbf-radial", radial_kernel.fit)])
def test_the_likelihoods_agree(kernel: str, own: object) -> None:
    _, y = scene(10)
    found, losses = dense.fit(1e3 * y + 5.0, kernel=kernel, steps=150, rate=0.1, bounds=((1.0, 8.0), (1.0, 8.0)))
    assert losses.shape == (150,)
    assert losses[0] > losses[20] > losses[-1]
    best = own([1e3 * y + 5.0], kernel=kernel, bounds=((1.0, 8.0), (1.0, 8.0)))
    # The others take the mean of the data, gpytorch fits it; both are the likelihood of all data, in nats.
    assert found.loss == pytest.approx(best.loss, abs=4.0)
    np.testing.assert_allclose(found.noise, best.noise, rtol=0.1)
    np.testing.assert_allclose(found.lengths, best.lengths, rtol=0.15)


@needed
def test_lengths_start_in_the_middle_of_their_interval_and_stay_in_it() -> None:
    _, y = scene(8)
    reported: list[tuple[int, float]] = []
    mask = np.random.default_rng(2).random((8, 8)) >= 0.3
    broken = np.where(mask[..., None], y, np.nan)
    limits = ((1.0, 2.0), (3.0, 6.0))
    first, losses = dense.fit(broken, mask, bounds=limits, steps=0)
    assert first.lengths == pytest.approx((1.5, 4.5))
    assert losses.size == 0
    np.testing.assert_array_equal(dense.fit(broken, mask, bounds=limits, steps=0)[0].signal, first.signal)
    last, losses = dense.fit(
        broken, mask, bounds=limits, steps=5, rate=1.0, report=lambda step, loss: reported.append((step, loss))
    )
    assert 1.0 <= last.lengths[0] <= 2.0
    assert 3.0 <= last.lengths[1] <= 6.0
    assert reported == [(n + 1, loss) for n, loss in enumerate(losses)]
    alike, _ = dense.fit(broken, mask, bounds=((1.0, 3.0), (2.0, 6.0)), isotropic=True, steps=3, kernel="rbf")
    assert 2.0 <= alike.lengths[0] == alike.lengths[1] <= 3.0
    fixed, _ = dense.fit(broken, mask, bounds=((2.0, 2.0), (3.0, 3.0)), steps=3)
    assert fixed.lengths == pytest.approx((2.0, 3.0), rel=1e-5)


@needed
@pytest.mark.slow
@pytest.mark.parametrize("kernel", ["matern52", "matern52-radial"])
def test_the_fits_agree(kernel: str) -> None:
    truth, y = scene(24)
    fitted, _ = dense.fit(y, kernel=kernel)
    theirs = similarity(dense.predict(y, None, fitted)[0], truth)
    structured = likelihood.fit([y])
    ours = similarity(posterior.predict(y, structured)[0], truth)
    assert (np.abs(ours - theirs) < 0.01).all()
    found = radial_kernel.fit([y])
    assert (np.abs(similarity(radial_solver.solve(y, None, found).mean, truth) - theirs) < 0.01).all()


@needed
def test_maps_larger_than_the_memory_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dense, "free_memory", lambda: 100_000)
    with pytest.raises(InputError, match="engine='structured', which needs no matrix"):
        dense.predict(measured(), None, known("matern52"))
    with pytest.raises(InputError, match="engine='iterative'"):
        dense.fit(measured(), kernel="matern52-radial")


@needed
def test_what_cannot_be_fitted_is_refused() -> None:
    with pytest.raises(InputError, match="no pixel was measured"):
        dense.fit(measured(), np.zeros(SHAPE, dtype=bool))
    with pytest.raises(InputError, match="no length is within both"):
        dense.fit(measured(), bounds=((1.0, 2.0), (3.0, 4.0)), isotropic=True)
    with pytest.raises(InputError, match="no kernel of distance"):
        dense.fit(measured(), kernel="matern72-radial")


def test_without_gpytorch_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gpytorch", None)
    with pytest.raises(InputError, match=r"pip install 'scalehsi\[gp\]'"):
        dense.fit(measured())


@needed
def test_a_missing_gpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="torch finds no usable GPU"):
        dense.predict(measured(), None, known("matern52"), device="cuda")


@needed
@pytest.mark.gpu
def test_the_engine_agrees_on_a_gpu() -> None:
    expected = dense.predict(measured(), None, known("matern52"), upsample=2)
    found = dense.predict(measured(), None, known("matern52"), upsample=2, device="cuda")
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)
    _, y = scene(8)
    np.testing.assert_allclose(dense.fit(y, steps=5, device="cuda")[1], dense.fit(y, steps=5)[1], rtol=1e-6)
