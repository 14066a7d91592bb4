"""A full detector, dead channels, a background, the zero loss, gain and negative values: planted and clean."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

import scalehsi as hsi
from scalehsi.fitting.judge import channels, outliers
from scalehsi.fitting.judge.channels import (
    background_on,
    dead_channel,
    gain,
    has_zero_loss,
    negative_values,
    saturated,
    stands_on_background,
    zero_loss,
)
from scalehsi.fitting.judge.evidence import Evidence
from scalehsi.result import ResultWarning
from tests.fitting.judge.planted import Scene, evidence_with_outliers

pytestmark = pytest.mark.long

CLEAN = [("EDS", 20), ("EDS", 100), ("EDS", 500), ("EELS", 2e3), ("EELS", 2e4)]
ALL: tuple[Callable[[Evidence], ResultWarning | None], ...] = (
    saturated,
    dead_channel,
    background_on,
    zero_loss,
    gain,
    negative_values,
    outliers.spike,
    outliers.hot_pixel,
)


@pytest.mark.parametrize(("signal", "counts"), CLEAN)
@pytest.mark.parametrize("grains", [False, True])
def test_clean_counts_are_on_their_background_and_nothing_else(signal: str, counts: float, grains: bool) -> None:
    for seed in range(3):
        found = Scene(signal, counts, seed=seed, grains=grains).evidence(loss="poisson")
        codes = [w.code for detector in ALL if (w := detector(found)) is not None]
        assert codes == (["background_on"] if signal == "EELS" else [])


@pytest.mark.parametrize(("dtype", "seed"), [("uint16", 0), ("float32", 1)])
@pytest.mark.parametrize(("signal", "counts", "level"), [("EDS", 500, 0.7), ("EELS", 2e4, 0.7), ("EELS", 2e5, 0.8)])
def test_values_cut_at_the_largest_one(signal: str, counts: float, level: float, dtype: str, seed: int) -> None:
    scene = Scene(signal, counts, seed=seed)
    top = int(level * scene.x.max())
    scene.x = np.minimum(scene.x, top).astype(dtype)
    found = saturated(scene.evidence())
    assert found is not None
    number = int((scene.x == top).sum())
    assert found.text == (f"{number} values sit at the largest one, {top}: the detector was full; peaks are cut there.")
    cube = hsi.make_cube(scene.x, energy=scene.energy, energy_units=scene.unit)
    kept = eval(found.remedy, {"hsi": hsi, "cube": cube})
    assert int((~kept.mask).sum()) == int((scene.x == top).any(axis=-1).sum())


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_the_end_of_the_data_type_is_a_full_detector(dtype: str) -> None:
    end = np.iinfo(dtype).max
    x = np.random.default_rng(0).poisson(end / 20, (8, 8, 30))
    x[2, 3, 4], x[4, 4, 4] = end, end
    c, s = np.ones((8, 8, 1)), np.full((1, 30), end / 20)
    assert saturated(evidence_with_outliers(x.astype(dtype), c, s)) is not None
    x[2, 3, 4], x[4, 4, 4] = end - 5, end - 1
    assert saturated(evidence_with_outliers(x.astype(dtype), c, s)) is None


@pytest.mark.parametrize("scale", [1.0, 0.01, 300.0])
def test_single_counts_and_data_without_noise_are_not_saturated(scale: float) -> None:
    """Most filled voxels hold one count; a simulation repeats its values."""
    rng = np.random.default_rng(0)
    few = (rng.random((20, 20, 50)) < 0.02) * scale
    assert saturated(evidence_with_outliers(few, np.ones((20, 20, 1)), np.full((1, 50), 0.02 * scale))) is None
    two = rng.poisson(0.05, (20, 20, 50)) * scale
    assert saturated(evidence_with_outliers(two, np.ones((20, 20, 1)), np.full((1, 50), 0.05 * scale))) is None
    board = (np.indices((20, 20)).sum(axis=0) // 5 % 2).astype(float)
    c = np.stack([board, 1 - board], axis=-1)
    s = scale * rng.random((2, 50))
    assert saturated(evidence_with_outliers(c @ s, c, s)) is None


@pytest.mark.parametrize(("signal", "counts"), [("EDS", 2000), ("EELS", 2e3), ("EELS", 2e4)])
@pytest.mark.parametrize("factor", [0.0, 0.25, 3.0])
def test_a_channel_apart_from_its_neighbours(signal: str, counts: float, factor: float) -> None:
    """At least 9 of 10; the command makes exactly this channel missing."""
    right = 0
    for seed in range(10):
        scene = Scene(signal, counts, seed=seed, grains=seed % 2 == 1)
        e = int(scene.rng.integers(60, 300))
        scene.x[..., e] = scene.rng.poisson(factor * (scene.c @ scene.s)[..., e])
        found = dead_channel(scene.evidence())
        if found is None:
            continue
        kind = "hot" if factor > 1 else "dead"
        right += f"The channel at {scene.energy[e]:.4g} {scene.unit} has" in found.text and found.text.endswith(
            f"{kind}."
        )
        assert found.remedy == (f"hsi.fit(cube.where(~cube.energy.isin(cube.energy[[{e}]])), hsi.NMF(3, missing=True))")
    assert right >= 9


@pytest.mark.parametrize("phase", [False, True])
def test_a_narrow_peak_at_an_edge_is_no_hot_channel(phase: bool) -> None:
    """White lines of one channel: near a listed edge, or of a phase that is not everywhere."""
    rng = np.random.default_rng(0)
    energy = 300.0 + 3.0 * np.arange(200)
    s = np.full((2, 200), 100.0)
    e = 100 if phase else int(np.argmin(abs(energy - 459)))
    s[1, e] = 700.0
    y = np.broadcast_to(np.linspace(0, 1, 24)[:, None], (24, 24))
    c = np.stack([1 - (y > 0.5), y > 0.5], axis=-1).astype(float) if phase else np.stack([0 * y, 0 * y + 1], axis=-1)
    x = rng.poisson(c @ s)
    found = evidence_with_outliers(x, c, s, energy=energy, energy_unit="eV", signal="EELS")
    assert dead_channel(found) is None
    # The white lines of iron are 15 eV apart.
    wide, iron = 250.0 + 8.0 * np.arange(100), np.full((1, 100), 100.0)
    iron[0, int(np.argmin(abs(wide - 723)))] = 250.0
    x = rng.poisson(np.broadcast_to(iron[0], (24, 24, 100)))
    found = evidence_with_outliers(x, np.ones((24, 24, 1)), iron, energy=wide, energy_unit="eV", signal="EELS")
    assert dead_channel(found) is None
    everywhere = rng.poisson(np.broadcast_to(np.where(np.arange(200) == 26, 300.0, 100.0), (24, 24, 200)))
    assert dead_channel(evidence_with_outliers(everywhere, c, s, energy=energy, energy_unit="eV", signal="EELS"))
    assert dead_channel(evidence_with_outliers(everywhere, c, s, energy_unit="")) is None


@pytest.mark.parametrize("counts", [2e3, 2e4, 1e6])
@pytest.mark.parametrize("unit", ["eV", "keV"])
def test_a_background_is_said_until_it_is_taken_off(counts: float, unit: str) -> None:
    scene = Scene("EELS", counts, seed=0)
    axis = {"energy": scene.energy / (1000 if unit == "keV" else 1), "energy_unit": unit, "signal": "EELS"}
    found = evidence_with_outliers(scene.x, scene.c, scene.s, **axis)
    assert stands_on_background(found)
    warned = background_on(found)
    assert warned is not None
    assert "% of the largest intensity" in warned.text
    assert background_on(replace(found, model="BackgroundNMF")) is None
    assert background_on(replace(found, signal="EDS")) is None
    edges = np.maximum(scene.s - scene.s[:, :1] * (scene.energy / 360.0) ** -3.0, 0.0)
    removed = evidence_with_outliers(scene.rng.poisson(scene.c @ edges), scene.c, edges, **axis)
    assert not stands_on_background(removed)
    assert background_on(removed) is None


def test_the_crop_before_the_first_edge() -> None:
    scene = Scene("EELS", 2e5, seed=0, k=1)
    found = background_on(scene.evidence())
    assert found is not None
    start = float(found.remedy.removeprefix("scalehsi prepare SRC DST --step crop:energy=").removesuffix(":"))
    assert 430 < start < 456


@pytest.mark.parametrize(("height", "said"), [(50.0, False), (2000.0, True)])
@pytest.mark.parametrize("unit", ["eV", "keV"])
def test_the_zero_loss_peak(height: float, said: bool, unit: str) -> None:
    energy = np.arange(-10.0, 60.0, 0.5)
    s = 100.0 * (1 + height * np.exp(-0.5 * (energy / 0.5) ** 2))[None]
    x = np.random.default_rng(0).poisson(np.broadcast_to(s[0], (10, 10, len(energy))))
    factor = 1000.0 if unit == "keV" else 1.0
    found = evidence_with_outliers(x, np.ones((10, 10, 1)), s, energy=energy / factor, energy_unit=unit, signal="EELS")
    assert has_zero_loss(found) is said
    warned = zero_loss(found)
    assert (warned is not None) is said
    assert dead_channel(found) is None
    assert not stands_on_background(found)
    if warned is not None:
        assert warned.remedy == f"scalehsi prepare SRC DST --step crop:energy={20 / factor:g}:"
        assert zero_loss(replace(found, signal="EDS")) is None


@pytest.mark.parametrize(
    ("phi", "loss", "said"),
    [
        (1.0, "poisson", ""),
        (1.4, "poisson", ""),
        (4.2, "poisson", "2 times too small"),
        (4.2, "frobenius", ""),
        (0.5, "poisson", "smoothed or are correlated; Poisson errors are 1.4 times too large"),
        (np.nan, "poisson", ""),
    ],
)
def test_gain(phi: float, loss: str, said: str) -> None:
    found = gain(Scene("EDS", 500, seed=0).evidence(variance_index=phi, loss=loss))
    assert (found is not None) is bool(said)
    if found is not None:
        assert said in found.text
        assert str(phi) in found.text


@pytest.mark.parametrize("gained", [4.6, 1.0])
def test_gain_as_measured(gained: float) -> None:
    for seed in range(3):
        found = gain(Scene("EELS", 2e4, gain=gained, seed=seed).evidence(loss="poisson"))
        assert (found is not None) is (gained > 1.5)


@pytest.mark.parametrize("seed", range(3))
def test_noise_below_zero_is_normal_and_too_much_taken_off_is_not(seed: int) -> None:
    rng = np.random.default_rng(seed)
    background = 400 * np.exp(-np.arange(100) / 40)
    edge = np.where(np.arange(100) > 50, 300.0, 0.0)
    raw = rng.poisson(np.broadcast_to(background + edge, (16, 16, 100)))
    c, s = np.ones((16, 16, 1)), edge[None]
    found = evidence_with_outliers(raw - background, c, s)
    assert found.extremes.negative > 0
    assert negative_values(found) is None
    s = (edge - 0.7 * background)[None]
    warned = negative_values(evidence_with_outliers(raw - 1.7 * background, c, s))
    assert warned is not None
    assert "% of the values are negative, down to" in warned.text
    assert "clip(" not in warned.remedy


def flat(value: float, shape: tuple[int, ...]) -> Evidence:
    x = np.full(shape, value)
    with np.errstate(all="ignore"):
        return evidence_with_outliers(x, np.ones((*shape[:-1], 1)), x.reshape(-1, shape[-1])[:1])


@pytest.mark.parametrize("value", [0.0, 1.0, -2.0, 1e30, np.nan])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_degenerate_data_say_nothing_and_raise_nothing(value: float) -> None:
    shapes, signals = ((6, 7, 20), (1, 1, 1), (1, 9, 3), (2, 1, 4, 5)), (("", ""), ("EELS", "eV"), ("EDS", "keV"))
    for shape, (signal, unit) in itertools.product(shapes, signals):
        found = replace(flat(value, shape), loss="poisson", signal=signal, energy_unit=unit)
        assert [detector(found) for detector in ALL] == [None] * len(ALL)
        assert channels.background_on(replace(found, mean=np.zeros(0), energy=np.zeros(0))) is None
