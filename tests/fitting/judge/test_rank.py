"""Too many and too few components: planted, clean, and inputs that have no answer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import scalehsi as hsi
from scalehsi.fitting.judge.evidence import Bins, Evidence
from scalehsi.fitting.judge.rank import below_noise, missing_component, strengths
from scalehsi.result import ResultWarning
from tests.fitting.judge.reference import evidence_of
from tests.fitting.judge.scenes import Scene, angles, scene

pytestmark = pytest.mark.long

WEIGHTED, POISSON = {"weighting": "poisson"}, {"loss": "poisson"}
DOSES = [("edx", 100.0), ("eels", 2e3), ("eels", 2e4)]


def evidence(made: Scene, model: Any) -> Evidence:
    result = hsi.fit(made.cube, model, seed=0)
    c = np.moveaxis(result["abundances"].values, 0, -1)
    energy, unit = result["energy"].values, result["energy"].attrs["units"]
    s = result["endmembers"].values
    return evidence_of(made.counts, c, s, energy=energy, energy_unit=unit, signal=made.signal)


def codes(*found: ResultWarning | None) -> list[str]:
    return [each.code for each in found if each is not None]


@pytest.mark.parametrize(
    ("kind", "counts", "true", "size", "loss"),
    [
        ("edx", 100.0, 1, 20, WEIGHTED),
        ("edx", 100.0, 3, 24, POISSON),
        ("eels", 2e3, 2, 24, POISSON),
        ("eels", 2e3, 3, 20, WEIGHTED),
        ("eels", 2e4, 1, 16, POISSON),
        ("eels", 2e4, 2, 20, WEIGHTED),
    ],
)
def test_the_number_of_components(kind: str, counts: float, true: int, size: int, loss: dict[str, str]) -> None:
    """One too few: something is missing. Right: silence. One or two too many: the data hold the true number."""
    made = scene(kind, counts, true, seed=3, size=size)
    for k in range(max(1, true - 1), true + 3):
        found = evidence(made, hsi.NMF(k, **loss))
        too_many, too_few = below_noise(found), missing_component(found)
        expected = ["missing_component"] if k < true else ["below_noise"] if k > true else []
        assert codes(too_many, too_few) == expected, k
        if too_many:
            assert too_many.remedy == f"n_components={true}"
            assert f"hold {true}" in too_many.text
        if too_few:
            assert too_few.remedy == f"n_components={k + 1}"
            assert ("plural scattering" in too_few.text) == (kind == "eels")


@pytest.mark.parametrize("layout", ["smooth", "grains"])
@pytest.mark.parametrize(("kind", "counts"), DOSES)
def test_the_truth_is_not_blamed(kind: str, counts: float, layout: str) -> None:
    for k, seed in ((1, 0), (2, 1), (4, 3)):
        made = scene(kind, counts, k, layout=layout, seed=seed)
        found = evidence_of(made.counts, made.maps, made.spectra)
        assert codes(below_noise(found), missing_component(found)) == []


@pytest.mark.parametrize(("size", "seed"), [(60, 0), (48, 2)])
def test_rare_phases_with_peaks_of_their_own_are_not_missing(size: int, seed: int) -> None:
    """Noise is uneven there: without the draws of noise the truth itself shows a pattern of 1.2 to 1.4."""
    cube, truth = hsi.simulate.phases((size, size), counts_per_pixel=147, seed=seed)
    c, s = np.moveaxis(truth["abundances"].values.astype(float), 0, -1), truth["endmembers"].values.astype(float)
    assert missing_component(evidence_of(cube.values, c, s)) is None
    merged = np.stack([c[..., 0] + c[..., 1], c[..., 2]], axis=-1)
    found = missing_component(evidence_of(cube.values, merged, s[[0, 2]]))
    assert found is not None
    assert float(found.text.split("pattern ")[1].split(" times")[0]) > 2


@pytest.mark.parametrize("gain", [1.0, 4.6])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_gain_of_the_detector_changes_nothing(gain: float, seed: int) -> None:
    made = scene("eels", 2e4, 2, seed=seed, size=24)
    x = gain * np.random.default_rng(seed).poisson(made.expected / gain)
    found = evidence_of(x, made.maps, made.spectra)
    assert found.variance_index == pytest.approx(gain, rel=0.1)
    assert codes(below_noise(found), missing_component(found)) == []
    fewer = evidence_of(x, made.maps.sum(axis=-1, keepdims=True), made.spectra.mean(axis=0, keepdims=True))
    assert codes(missing_component(fewer)) == ["missing_component"]


@pytest.mark.parametrize("k", [2, 3])
@pytest.mark.parametrize("noise", ["flat", "gaussian", "one phase"])
def test_noise_alone_holds_one_component(noise: str, k: int) -> None:
    rng = np.random.default_rng(k)
    made = scene("edx", 100, 1, seed=k)
    if noise != "one phase":
        x = rng.poisson(3.0, made.counts.shape) if noise == "flat" else rng.normal(100, 10, made.counts.shape)
        made = made._replace(counts=np.maximum(x, 0))
    found = below_noise(evidence(made, hsi.NMF(k, weighting="poisson")))
    assert found is not None
    assert found.remedy == "n_components=1"


@pytest.mark.parametrize("seed", range(4))
def test_the_weak_component_is_named(seed: int) -> None:
    """A third component that holds a little noise beside two phases, at any place in the list."""
    rng = np.random.default_rng(seed)
    made = scene("edx", 100, 2, seed=seed)
    s = np.vstack([made.spectra, rng.dirichlet(np.ones(500))])
    c = np.concatenate([made.maps, 2.0 * rng.random((*made.maps.shape[:2], 1))], axis=-1)
    order = rng.permutation(3)
    found = below_noise(evidence_of(made.counts, c[..., order], s[order]))
    assert found is not None
    assert found.text.startswith(f"Component {int(np.flatnonzero(order == 2)[0]) + 1} is 0.")


def test_the_energy_of_the_pattern_is_where_the_missing_phase_differs() -> None:
    for seed in range(3):
        made = scene("edx", 500, 2, seed=seed)
        one = made.maps.sum(axis=-1, keepdims=True)
        energy = made.cube["energy"].values
        s = made.expected.sum(axis=(0, 1))[None] / one.sum()
        found = missing_component(evidence_of(made.counts, one, s, energy=energy, energy_unit="keV", signal="EDS"))
        assert found is not None
        named = float(found.text.split("largest at ")[1].split(" keV")[0])
        difference = np.abs(made.spectra[0] - made.spectra[1])
        assert difference[np.argmin(np.abs(energy - named))] > 0.5 * difference.max()


@pytest.mark.parametrize("loss", [WEIGHTED, POISSON], ids=["wls", "kl"])
@pytest.mark.parametrize(("true", "seed"), [(2, 0), (2, 1), (3, 2)])
def test_relevance_determination_that_finds_the_truth_is_not_blamed(true: int, seed: int, loss: dict[str, str]) -> None:
    made = scene("edx", 100, true, seed=seed, size=24)
    found = evidence(made, hsi.NMF(true + 2, ard="exponential", **loss))
    if len(found.endmembers) == true and angles(made.spectra, found.endmembers).max() < 15:
        assert codes(below_noise(found), missing_component(found)) == []
    shrunk = evidence_of(made.counts, 0.97 * made.maps, made.spectra)
    assert codes(below_noise(shrunk), missing_component(shrunk)) == []


def test_components_that_are_switched_off_stay_out() -> None:
    made = scene("edx", 100, 2, seed=5)
    s = np.vstack([made.spectra, made.spectra[:1]])
    c = np.concatenate([made.maps, np.full((32, 32, 1), 1e-4)], axis=-1)
    found = evidence_of(made.counts, c, s)
    assert below_noise(found) is None
    kept = strengths(found)
    assert kept is not None
    assert kept.counted.tolist() == [0, 1]


def test_a_large_map_is_judged_from_its_sample() -> None:
    made = scene("edx", 100, 3, seed=1, size=64)
    merged = np.concatenate([made.maps[..., :1] + made.maps[..., 1:2], made.maps[..., 2:]], axis=-1)
    split = np.concatenate([made.maps[..., :1] / 2, made.maps[..., :1] / 2, made.maps[..., 1:]], axis=-1)
    for c, rows, expected in (
        (merged, [0, 2], ["missing_component"]),
        (made.maps, [0, 1, 2], []),
        (split, [0, 0, 1, 2], ["below_noise"]),
    ):
        found = evidence_of(made.counts, c, made.spectra[rows])
        assert len(found.bins[0].index) == 1024
        assert codes(below_noise(found), missing_component(found)) == expected


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
        "a line": evidence_of(x[:1], c[:1], s),
        "two channels": evidence_of(x[..., :2], c, s[:, :2]),
        "zeros": evidence_of(0 * x, 0 * c, 0 * s),
        "zero maps": evidence_of(x, 0 * c, s),
        "zero spectra": evidence_of(x, c, 0 * s),
        "constant": evidence_of(np.full_like(x, 5), c, s),
        "copies": evidence_of(x, c, s[[0, 0]]),
        "more components than channels": evidence_of(x[..., :3], np.ones((16, 16, 5)), np.ones((5, 3))),
        "NaN spectra": evidence_of(x, c, np.nan * s),
        "NaN maps": evidence_of(x, np.nan * c, s),
        "NaN in the sample": replace(clean, bins=(hole,)),
        "NaN sums": replace(clean, outer=np.nan * clean.outer, mean=np.nan * clean.mean),
        "equal pixels": replace(evidence_of(np.full_like(x, 5), c, s), variance_index=1.0),
        "equal pixels, fitted": evidence_of(
            np.full((32, 32, 64), 2.0), np.ones((32, 32, 1)), np.full((1, 64), 2.0), variance_index=1.0
        ),
        "no variance index": replace(clean, variance_index=float("nan")),
        "no noise": replace(clean, variance_index=0.0),
        "no bins": replace(clean, bins=()),
        "empty bins": replace(clean, bins=tuple(emptied(b) for b in clean.bins)),
        "nothing in use": evidence_of(x, c, s, mask=np.zeros((16, 16), bool)),
        "negative": evidence_of(x.astype(float) - 5, c, s),
        "directions": replace(clean, signed=True, offset=clean.mean),
    }


DEGENERATE = degenerate()


@pytest.mark.parametrize("name", DEGENERATE)
@pytest.mark.filterwarnings("error")
def test_nothing_raises(name: str) -> None:
    for detector in (below_noise, missing_component):
        found = detector(DEGENERATE[name])
        assert found is None or "nan" not in found.text
