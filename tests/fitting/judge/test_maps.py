"""Maps that are not the best, of one pixel, or pure nowhere: planted, clean, and inputs that have no answer."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import scalehsi as hsi
from scalehsi.fitting.judge.evidence import Bins, Evidence
from scalehsi.fitting.judge.maps import bins_too_large, maps_not_optimal, one_pixel_component
from scalehsi.kernels import least_squares, poisson
from scalehsi.result import result_warnings
from tests.fitting.judge.reference import evidence_of
from tests.fitting.judge.scenes import Scene, angles, scene

pytestmark = pytest.mark.long

POISSON: dict[str, Any] = {"loss": "poisson"}
WEIGHTED: dict[str, Any] = {"loss": "frobenius", "settings": {"weighting": "poisson"}}
PLAIN: dict[str, Any] = {"loss": "frobenius"}
LOSSES = pytest.mark.parametrize("loss", [POISSON, WEIGHTED, PLAIN], ids=["poisson", "weighted", "plain"])
PEAKS = (((20, 3), (60, 4)), ((35, 3), (90, 4)), ((75, 3), (105, 4)))
MIXTURE: dict[str, Any] = {"model": "PSNMF", "loss": "poisson", "settings": {"loss": "poisson", "settings": "default"}}


def best(made: Scene, loss: dict[str, Any], *, simplex: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Exact maps of the true spectra, and these spectra, which on the simplex have the counts of a pixel."""
    s = made.spectra * (made.counts.sum(axis=-1).mean() if simplex else 1.0)
    x = made.counts.reshape(-1, s.shape[1])
    w = 1 / np.maximum(x.mean(axis=0), 1e-6 * x.mean()) if "settings" in loss else None
    solve = poisson.abundances if loss is POISSON else least_squares.abundances
    extra = {} if loss is POISSON else {"w": w}
    c = solve(x, s=s, simplex=simplex, **extra)[0]["abundances"]
    return c.reshape(*made.counts.shape[:2], -1), s


@LOSSES
@pytest.mark.parametrize(("kind", "counts"), [("edx", 100.0), ("eels", 2e4)])
@pytest.mark.parametrize("simplex", [False, True])
def test_exact_maps_are_the_best(kind: str, counts: float, loss: dict[str, Any], *, simplex: bool) -> None:
    for seed, size in ((0, 16), (1, 24)):
        made = scene(kind, counts, 3, seed=seed, size=size, vary=0.0 if simplex else 0.3)
        assert (
            maps_not_optimal(evidence_of(made.counts, *best(made, loss, simplex=simplex), **loss, simplex=simplex))
            is None
        )


@LOSSES
@pytest.mark.parametrize(("kind", "counts"), [("edx", 100.0), ("eels", 2e4)])
def test_the_true_maps_are_good_enough(kind: str, counts: float, loss: dict[str, Any]) -> None:
    """What noise makes of exact maps is no gain over the truth."""
    for layout in ("smooth", "grains"):
        made = scene(kind, counts, 3, layout=layout, seed=2, size=20)
        # No fit has intensity in a channel without counts.
        s = np.where(made.counts.any(axis=(0, 1)), made.spectra, 0.0)
        assert maps_not_optimal(evidence_of(made.counts, made.maps, s, **loss)) is None


@LOSSES
@pytest.mark.parametrize(("kind", "counts"), [("edx", 100.0), ("eels", 2e3)])
def test_maps_of_zeros_and_ones_are_not(kind: str, counts: float, loss: dict[str, Any]) -> None:
    """A network that collapsed: each pixel is given to its strongest component, or half-way there."""
    made = scene(kind, counts, 3, seed=1, size=20)
    c = made.maps
    hard = np.where(c == c.max(axis=-1, keepdims=True), c.sum(axis=-1, keepdims=True), 0.0)
    for collapsed in (hard, 0.5 * hard + 0.5 * c):
        found = maps_not_optimal(evidence_of(made.counts, collapsed, made.spectra, **loss))
        assert found is not None
        assert float(found.text.split("better by ")[1].split(" ")[0]) > 1.9
        assert found.remedy == "seed=1"


@pytest.mark.parametrize("gain", [1.0, 4.6])
@LOSSES
def test_the_gain_of_the_detector_changes_nothing(gain: float, loss: dict[str, Any]) -> None:
    made = scene("eels", 2e4, 3, seed=1, size=20)
    x = gain * np.random.default_rng(0).poisson(made.expected / gain)
    assert maps_not_optimal(evidence_of(x, made.maps, made.spectra, **loss)) is None


def test_fits_whose_maps_are_something_else_are_left_alone() -> None:
    made = scene("edx", 100, 3, seed=0, size=16)
    bad = np.roll(made.maps, 1, axis=-1)
    assert maps_not_optimal(evidence_of(made.counts, bad, made.spectra, **POISSON)) is not None
    for other in (
        {"priors_on_maps": True},
        {"signed": True},
        {"loss": ""},
        {"settings": {"missing": True}},
        {"settings": {"fixed": "given"}},
        {"offset": np.ones(500)},
    ):
        assert maps_not_optimal(evidence_of(made.counts, bad, made.spectra, **{**POISSON, **other})) is None
    textbook = evidence_of(made.counts, bad, made.spectra, loss="poisson", settings={"solver": "mu"})
    assert maps_not_optimal(textbook).remedy == 'solver="exact"'  # type: ignore[union-attr]


@pytest.mark.parametrize("shape", [(32, 32), (7, 5), (1, 40)])
@pytest.mark.parametrize("share", [0.6, 0.97])
def test_a_component_of_one_pixel(shape: tuple[int, int], share: float) -> None:
    n = shape[0] * shape[1]
    for seed in range(3):
        rng = np.random.default_rng(seed)
        c, pixel = rng.uniform(0.5, 1, (*shape, 3)), int(rng.integers(n))
        others = np.delete(c[..., 1].ravel() ** 2, pixel).sum()
        c[..., 1].flat[pixel] = np.sqrt(share / (1 - share) * others)
        found = one_pixel_component(evidence_of(np.ones((*shape, 4)), c, np.ones((3, 4))))
        assert found is not None
        y, x = divmod(pixel, shape[1])
        assert found.text == f"Component 2 rests on one pixel ({100 * share:.0f} %), x = {x}, y = {y}."
        cube = hsi.make_cube(np.ones((*shape, 4)), energy=np.arange(4) + 1.0, energy_units="keV")
        masked = eval(found.remedy, {"hsi": hsi, "np": np, "cube": cube})
        assert np.flatnonzero(~masked["mask"].values).tolist() == [pixel]


@pytest.mark.parametrize("layout", ["smooth", "grains", "rare"])
def test_true_maps_rest_on_many_pixels(layout: str) -> None:
    for k, seed in ((1, 0), (3, 1), (5, 2)):
        made = scene("edx", 100, k, layout=layout, seed=seed)
        assert one_pixel_component(evidence_of(made.counts, made.maps, made.spectra)) is None


@pytest.mark.parametrize(
    ("side", "counts", "bins", "warned"),
    [(2, 60, 12, True), (2, 60, 4, True), (3, 300, 4, False), (6, 300, 4, False)],
)
def test_bins_larger_than_the_particles(side: int, counts: float, bins: int, *, warned: bool) -> None:
    """No bin holds a particle of 2 pixels alone, and 60 counts do not repair it; bins of 4 hold those of 3 and 6."""
    for seed in range(2):
        made = particles(side, counts, seed)
        result = hsi.fit(made.cube, hsi.PSNMF(3, bin_factor=bins), seed=0)
        c, s = np.moveaxis(result["abundances"].values, 0, -1), result["endmembers"].values
        found = bins_too_large(evidence_of(made.counts, c, s, simplex=True, **MIXTURE))
        assert (angles(made.spectra, s).max() > 10) == warned
        assert (found is not None) == warned
        if found is not None:
            assert found.remedy == 'NMF(3, loss="poisson")'
            assert "2 x 2 pixels" in found.text


def particles(side: int, counts: float, seed: int) -> Scene:
    """Particles of two phases in a matrix, ``side`` pixels wide, 12 pixels apart; all share a background."""
    maps = np.zeros((36, 36, 3))
    maps[..., 0] = 1
    for y in range(2, 34, 12):
        for x in range(2, 34, 12):
            maps[y : y + side, x : x + side] = np.eye(3)[1]
            maps[y + 6 : y + 6 + side, x + 6 : x + 6 + side] = np.eye(3)[2]
    e = np.arange(80)
    peaks = [[np.exp(-0.5 * ((e - at) / width) ** 2) for at, width in pair] for pair in PEAKS]
    s = np.array([0.4 * np.exp(-e / 60) + strong + 0.6 * weak for strong, weak in peaks])
    s *= counts / s[0].sum()
    return Scene(np.random.default_rng(seed).poisson(maps @ s).astype("u2"), maps, s, "EDS")


def test_purity_matters_to_the_mixture_alone() -> None:
    made = scene("edx", 100, 3, seed=0, size=16)
    mixed = 0.5 * made.maps + 0.5 * made.maps.mean(axis=-1, keepdims=True)
    found = evidence_of(made.counts, mixed, made.spectra, **MIXTURE)
    assert bins_too_large(found) is not None
    for settings in ({"loss": "frobenius", "settings": "default"}, {"loss": "poisson", "settings": "paper"}):
        assert bins_too_large(replace(found, settings=settings)) is None
    assert bins_too_large(replace(found, model="NMF")) is None
    assert bins_too_large(replace(found, purity=np.array([0.9, 0.7, 1.0]))) is None
    assert "component 2 (at most 69 %)" in bins_too_large(replace(found, purity=np.array([0.9, 0.69, 1.0]))).text  # type: ignore[union-attr]


def emptied(bins: Bins) -> Bins:
    """The same width without a bin."""
    return Bins(bins.width, bins.index[:0], bins.pixels[:0], bins.data[:0], bins.abundances[:0])


def degenerate() -> dict[str, Evidence]:
    made = scene("edx", 100, 2, seed=0, size=16)
    x, c, s = made.counts, made.maps, made.spectra
    clean = evidence_of(x, c, s)
    hole = replace(clean.bins[0], data=np.full_like(clean.bins[0].data, np.nan))
    return {
        "one component": evidence_of(x, c.sum(-1, keepdims=True), s.mean(0, keepdims=True)),
        "one pixel": evidence_of(x[:1, :1], c[:1, :1], s),
        "one channel": evidence_of(x[..., :1], c, s[:, :1]),
        "zeros": evidence_of(0 * x, 0 * c, 0 * s),
        "zero maps": evidence_of(x, 0 * c, s),
        "zero spectra": evidence_of(x, c, 0 * s),
        "copies": evidence_of(x, c, s[[0, 0]]),
        "an empty component": evidence_of(x, c * [1, 0], s * [[1], [0]]),
        "NaN maps": evidence_of(x, np.nan * c, s),
        "NaN spectra": evidence_of(x, c, np.nan * s),
        "NaN in the sample": replace(clean, bins=(hole,)),
        "no variance index": replace(clean, variance_index=float("nan")),
        "no noise": replace(clean, variance_index=0.0),
        "no bins": replace(clean, bins=()),
        "only wide bins": replace(clean, bins=clean.bins[1:]),
        "empty bins": replace(clean, bins=tuple(emptied(b) for b in clean.bins)),
        "NaN shares": replace(clean, peak_share=np.full(2, np.nan), purity=np.full(2, np.nan)),
        "nothing in use": evidence_of(x, c, s, mask=np.zeros((16, 16), bool)),
        "negative": evidence_of(x.astype(float) - 5, c, s),
    }


DEGENERATE = degenerate()


@pytest.mark.parametrize("name", DEGENERATE)
def test_nothing_raises(name: str) -> None:
    detectors = (maps_not_optimal, one_pixel_component, bins_too_large)
    for given, simplex, detector in itertools.product((POISSON, WEIGHTED, PLAIN, MIXTURE), (False, True), detectors):
        found = detector(replace(DEGENERATE[name], simplex=simplex, **given))
        assert found is None or "nan" not in found.text


def test_the_weighting_that_was_chosen_is_that_of_the_check() -> None:
    """With loss="auto" the settings name no weighting; the maps of its fit are the best ones under what it chose."""
    rng = np.random.default_rng(0)
    energy = np.arange(100.0, 600.0, 5.0)
    spectra = np.stack([3e7 * energy**-2.0, 6e9 * energy**-3.0])
    counts = rng.poisson(rng.random((12, 12, 2)) @ spectra).astype("u2")
    cube = hsi.make_cube(counts, energy=energy, energy_units="eV", signal="EELS")
    result = hsi.fit(cube, hsi.NMF(1), seed=0)
    assert result.attrs["weighting"] == "poisson"
    assert "maps_not_optimal" not in [w.code for w in result_warnings(result)]
