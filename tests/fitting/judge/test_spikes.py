"""Spikes and hot pixels: planted ones are found at the right place, clean scenes have none."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest

import scalehsi as hsi
from scalehsi.fitting.judge.evidence import Evidence
from scalehsi.fitting.judge.outliers import hot_pixel, spike
from scalehsi.result import result_warnings
from tests.fitting.judge.planted import Scene, evidence_with_outliers
from tests.paths import DATA

pytestmark = pytest.mark.long

CASES = [
    ("EDS", 100, 1.0, 30),
    ("EDS", 500, 1.0, 30),
    ("EELS", 2e3, 1.0, 30),
    ("EELS", 2e4, 1.0, 20),
    ("EELS", 2e4, 4.6, 20),
]
CLEAN = [("EDS", 20), ("EDS", 100), ("EDS", 500), ("EELS", 2e3), ("EELS", 2e4)]


@pytest.mark.parametrize(("signal", "counts", "gain", "sigmas"), CASES)
@pytest.mark.parametrize("seed", range(3))
def test_a_spike_is_found_where_it_is(signal: str, counts: float, gain: float, sigmas: float, seed: int) -> None:
    scene = Scene(signal, counts, seed=seed, gain=gain, grains=seed == 1)
    y, x, e = scene.rng.integers(0, 24), scene.rng.integers(0, 24), scene.rng.integers(0, len(scene.energy))
    mean = float(scene.c[y, x] @ scene.s[:, e])
    scene.x[y, x, e] = mean + sigmas * np.sqrt(gain * max(mean, gain))
    found = spike(scene.evidence())
    assert found is not None
    assert found.code == "spike"
    unit = "keV" if signal == "EDS" else "eV"
    assert f"{scene.energy[e]:.4g} {unit} at x = {x}, y = {y}" in found.text
    assert found.remedy == f"hsi.prepare.mask(cube, where=np.arange(576).reshape(24, 24) != {24 * y + x})"
    assert hot_pixel(scene.evidence()) is None or counts < 500


@pytest.mark.parametrize(("signal", "counts"), CLEAN)
@pytest.mark.parametrize(("k", "grains"), [(1, False), (3, True)])
def test_clean_scenes_have_neither(signal: str, counts: float, k: int, grains: bool) -> None:
    for seed in range(2):
        found = Scene(signal, counts, seed=seed, k=k, grains=grains).evidence()
        assert spike(found) is None
        assert hot_pixel(found) is None


HOT = [("EDS", 100), ("EDS", 500), ("EELS", 2e3), ("EELS", 2e4)]


@pytest.mark.parametrize(("factor", "wanted"), [(2.0, 0), (3.0, 10), (10.0, 12)])
def test_hot_pixels_are_found_from_three_times_their_neighbours_on(factor: float, wanted: int) -> None:
    """At least 10 of 12 at three times, and a hot pixel is no set of spikes."""
    right = 0
    for (signal, counts), seed in itertools.product(HOT, range(3)):
        scene = Scene(signal, counts, seed=seed)
        scene.x[5, 7] = scene.rng.poisson(factor * scene.c[5, 7] @ scene.s)
        evidence = scene.evidence()
        found = hot_pixel(evidence)
        if found is not None:
            right += bool(re.search(r"The pixel x = 7, y = 5 is [\d.]+ times as bright as its neighbours", found.text))
            assert spike(evidence) is None
    assert right >= wanted
    assert wanted or not right


def test_a_grain_of_one_pixel_is_no_spike() -> None:
    """Its white line stands out of all around it, but the model has it by a component of other pixels."""
    scene = Scene("EELS", 1e5, seed=0)
    total = scene.c.sum(axis=-1)
    scene.c = np.zeros_like(scene.c)
    scene.c[..., 0] = total
    scene.c[15:, :, 1], scene.c[15:, :, 0] = total[15:], 0.0
    scene.c[5, 6] = [0.0, total[5, 6], 0.0]
    scene.x = scene.rng.poisson(scene.c @ scene.s).astype(float)
    found = scene.evidence()
    assert found.spikes.number > 0
    assert spike(found) is None
    alone = scene.evidence(peak_share=np.array([0.01, 0.6, 0.01]), peak_index=np.array([0, 5 * 24 + 6, 0]))
    assert spike(alone) is not None


def test_many_spikes_are_counted_and_all_their_pixels_left_out() -> None:
    scene = Scene("EELS", 2e3, seed=0)
    where = [30, 111, 290]
    scene.x.reshape(-1, 400)[where, [100, 200, 300]] += [90, 300, 60]
    found = spike(scene.evidence())
    assert found is not None
    assert re.match(
        r"3 values are [\d.]+ to \d+ times their noise above all around them, most of all 560 eV", found.text
    )
    assert found.remedy.endswith(", [30, 111, 290]))")
    cube = hsi.make_cube(scene.x, energy=scene.energy, energy_units="eV")
    assert eval(found.remedy, {"hsi": hsi, "np": np, "cube": cube}).mask.values.sum() == 573


def test_a_spike_that_the_data_alone_do_not_show_is_seen_beside_the_model_but_not_in_a_simplex() -> None:
    """Neighbours on a steep peak hide a spike of 6 standard deviations; the model does not have them."""
    scene = Scene("EELS", 2e4, seed=1)
    y, x, e = 11, 12, 40
    beside = scene.x[y, [x - 1, x + 1], e].max()
    scene.x[y, x, e] = (np.sqrt(beside) + 3.1) ** 2
    scene.x[y - 1, x, e] = scene.x[y + 1, x, e] = scene.x[y, x - 1, e] = beside
    before = scene.evidence(simplex=True)
    assert before.spikes.number >= 1
    assert spike(before) is None
    lower = scene.c * 0.8
    after = evidence_with_outliers(scene.x, lower, scene.s, energy=scene.energy, energy_unit="eV", signal="EELS")
    assert spike(after) is not None


@pytest.mark.parametrize("gain", [0.001, 1e3])
def test_the_unit_of_the_data_does_not_matter(gain: float) -> None:
    scene = Scene("EELS", 2e3, seed=4)
    scene.x[3, 4, 50] += 80
    scene.x[9, 9] = scene.rng.poisson(5 * scene.c[9, 9] @ scene.s)
    plain = scene.evidence()
    scene.x, scene.s = scene.x * gain, scene.s * gain
    scaled = scene.evidence()
    for detector in (spike, hot_pixel):
        assert detector(scaled) == detector(plain)
        assert detector(plain) is not None


def test_shifts_of_the_zero_loss_are_no_spikes() -> None:
    rng = np.random.default_rng(0)
    energy = np.arange(-20.0, 80.0, 0.5)
    s = 1e6 * np.exp(-0.5 * (energy / 0.6) ** 2) + 200.0
    x = rng.poisson(np.broadcast_to(s, (16, 16, 200))).astype(float)
    x[4, 4] = np.roll(x[4, 4], 3)
    c = np.ones((16, 16, 1))
    found = evidence_with_outliers(x, c, s[None], energy=energy, energy_unit="eV", signal="EELS", variance_index=1.0)
    assert found.spikes.number > 0
    assert spike(found) is None
    x[8, 8, 180] += 400
    found = evidence_with_outliers(x, c, s[None], energy=energy, energy_unit="eV", signal="EELS", variance_index=1.0)
    warned = spike(found)
    assert warned is not None
    assert "70 eV at x = 8, y = 8" in warned.text


def flat(value: float, shape: tuple[int, ...] = (6, 7, 20)) -> Evidence:
    x = np.full(shape, value)
    with np.errstate(all="ignore"):
        return evidence_with_outliers(x, np.ones((*shape[:-1], 1)), x.reshape(-1, shape[-1])[:1])


@pytest.mark.parametrize("found", [flat(0.0), flat(1.0), flat(-2.0), flat(3.0, (1, 1, 1)), flat(3.0, (1, 9, 3))])
def test_degenerate_data_say_nothing(found: Evidence) -> None:
    assert spike(found) is None
    assert hot_pixel(found) is None


@pytest.mark.parametrize("chunks", [{"y": 5, "x": 7}, {"y": 1, "x": 20}, {"y": 20, "x": 20}])
def test_a_fit_says_the_same_for_all_chunks(chunks: dict[str, int]) -> None:
    cube, _ = hsi.simulate.chequerboard((20, 20), n_channels=64, counts_per_pixel=2000, seed=1)
    cube = cube.compute()
    cube.values[5, 6, 30] += 200
    cube.values[14, 0] *= 4
    result = hsi.fit(cube.chunk({**chunks, "energy": -1}), hsi.NMF(4, loss="poisson", max_iter=5), seed=0)
    found = {w.code: w.text for w in result_warnings(result)}
    place = f"x = {float(cube.x[6]):.4g} nm, y = {float(cube.y[5]):.4g} nm"
    assert place in found["spike"]
    assert f"x = {float(cube.x[0]):.4g} nm, y = {float(cube.y[14]):.4g} nm" in found["hot_pixel"]


@pytest.mark.skipif(not DATA.exists(), reason="needs the measured data")
def test_the_cosmic_ray_in_a_measured_map() -> None:
    """Its twin on simulated data: the first test here."""
    counts = np.load(DATA / "eels_CuZn_HAADF" / "compact.npz")["counts"]
    cube = hsi.make_cube(counts, energy=700.0 + 8.0 * np.arange(162), energy_units="eV", signal="EELS")
    result = hsi.fit(cube, hsi.NMF(3, weighting="poisson", max_iter=10), seed=0)
    found = {w.code: w.text for w in result_warnings(result)}
    assert "1076 eV at x = 11 nm, y = 42 nm" in found["spike"]
    assert "90 % of the largest intensity" in found["background_on"]


@pytest.mark.skipif(not DATA.exists(), reason="needs the measured data")
@pytest.mark.parametrize("name", ["core_shell", "bare_core"])
def test_a_measured_edx_map_has_no_outliers(name: str) -> None:
    """Its twin on simulated data: the clean scenes above."""
    counts = np.load(DATA / "edx_FePt" / "compact.npz")[name][:40, :40]
    cube = hsi.make_cube(counts, energy=0.16 + 0.02 * np.arange(992), energy_units="keV", signal="EDS")
    result = hsi.fit(cube, hsi.NMF(2, weighting="poisson", max_iter=3), seed=0)
    codes = {w.code for w in result_warnings(result)}
    assert not codes & {"spike", "hot_pixel", "saturated", "dead_channel", "gain"}
