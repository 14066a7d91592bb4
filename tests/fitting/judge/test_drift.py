"""Energy drift: planted ramps, jitter and moving zero losses are found; scenes without are not blamed."""

from __future__ import annotations

import itertools
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import xarray as xr
from scipy.interpolate import CubicSpline
from scipy.ndimage import gaussian_filter

import scalehsi as hsi
from scalehsi.fitting.judge.drift import drift, pixel_spread, region_spread
from scalehsi.fitting.judge.evidence import Evidence, Regions
from scalehsi.physics.eels_edges import eels_spectrum
from scalehsi.physics.xray_spectra import eds_spectrum
from scalehsi.simulate.chequerboard import PHASES
from tests.fitting.judge import scenes
from tests.fitting.judge.reference import evidence_of
from tests.paths import DATA

pytestmark = pytest.mark.long

Array = np.ndarray[Any, Any]
AXES = {"EDS": (0.2 + 0.02 * np.arange(500), "keV"), "EELS": (250.0 + np.arange(512), "eV")}
SIZE = 32


@cache
def spectra(signal: str, k: int) -> Array:
    """Expected spectra of one count."""
    energy = AXES[signal][0]
    make = eds_spectrum if signal == "EDS" else eels_spectrum
    s = np.stack([make(phase, energy) for phase in list(PHASES[signal].values())[:k]])
    return s / s.sum(axis=1).mean()


def shifted(s: Array, by: float) -> Array:
    """Spectra whose features are shifted upwards by a number of channels."""
    channel = np.arange(s.shape[1])
    return np.maximum(CubicSpline(channel, s, axis=1)(np.clip(channel - by, 0, channel[-1])), 0.0)


def scene(signal: str, counts: float, k: int, seed: int, by: Array | float = 0.0) -> tuple[Array, Array, Array]:
    """Counts of smooth phases, their maps and spectra. by: shift of each pixel in channels."""
    rng = np.random.default_rng([seed, k, int(counts)])
    maps = np.stack([gaussian_filter(rng.standard_normal((SIZE, SIZE)), 4) for _ in range(k)], axis=-1)
    maps = np.exp(2.5 * maps / maps.std())
    maps /= maps.sum(axis=-1, keepdims=True)
    thickness = gaussian_filter(rng.standard_normal((SIZE, SIZE)), 6)
    maps *= (1 + 0.3 * thickness / np.abs(thickness).max())[..., None]
    s = counts * spectra(signal, k)
    by = np.broadcast_to(by, (SIZE, SIZE))
    rate = np.empty((SIZE, SIZE, s.shape[1]))
    for each in np.unique(by):
        rate[by == each] = maps[by == each] @ (shifted(s, each) if each else s)
    return rng.poisson(rate), maps, s


def ramp(rms: float) -> Array:
    """Shifts that rise down the rows, in channels."""
    return rms * np.sqrt(3) * np.linspace(-1, 1, SIZE)[:, None]


def judged(x: Array, c: Array, s: Array, signal: str, **others: Any) -> Evidence:
    energy, unit = AXES[signal]
    return evidence_of(x, c, s, signal=signal, energy=energy, energy_unit=unit, **others)


def fitted(x: Array, k: int, signal: str) -> tuple[Array, Array]:
    """Maps and spectra of the fit that suits the counts."""
    energy, unit = AXES[signal]
    cube = xr.DataArray(
        x.astype("u4"), dims=("y", "x", "energy"), coords={"energy": ("energy", energy, {"units": unit})}
    ).assign_attrs(signal=signal)
    model = hsi.NMF(k, loss="poisson") if signal == "EDS" else hsi.NMF(k, weighting="poisson")
    result = hsi.fit(cube, model, seed=0)
    return np.moveaxis(result["abundances"].values.astype(float), 0, -1), result["endmembers"].values.astype(float)


@pytest.mark.parametrize("k", [3, 5])
@pytest.mark.parametrize(
    ("signal", "counts", "rms"), [("EDS", 100, 0.5), ("EDS", 500, 0.2), ("EELS", 2e3, 0.2), ("EELS", 2e4, 0.1)]
)
def test_a_ramp_is_found(signal: str, counts: float, rms: float, k: int) -> None:
    """After a fit, and of the right size."""
    x, _, _ = scene(signal, counts, k, int(k == 5), ramp(rms))
    evidence = judged(x, *fitted(x, k, signal), signal)
    found = drift(evidence)
    assert found is not None
    assert found.code == "drift"
    assert "over the map, along the rows" in found.text
    spread = region_spread(evidence, evidence.variance_index)
    assert spread is not None
    assert spread.rms == pytest.approx(rms, rel=0.35)


@pytest.mark.parametrize(("k", "extra"), [(4, -1), (2, 0), (4, 1)])
@pytest.mark.parametrize(("signal", "counts"), [("EDS", 20), ("EDS", 500), ("EELS", 2e3), ("EELS", 2e4)])
def test_scenes_without_drift_are_not_blamed(signal: str, counts: float, k: int, extra: int) -> None:
    """Nor fits with a component too many or too few."""
    x, _, _ = scene(signal, counts, k, 7)
    assert drift(judged(x, *fitted(x, k + extra, signal), signal)) is None


@pytest.mark.parametrize(("signal", "counts"), [("EDS", 100), ("EELS", 2e3), ("EELS", 2e4)])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_chi_is_one_without_drift(signal: str, counts: float, seed: int) -> None:
    """Of the true maps and spectra, for 64 regions and 1024 pixels; and whatever the gain."""
    x, c, s = scene(signal, counts, 3, seed)
    evidence = judged(x, c, s, signal)
    regions, pixels = region_spread(evidence, evidence.variance_index), pixel_spread(evidence, evidence.variance_index)
    assert regions is not None
    assert pixels is not None
    assert regions.chi == pytest.approx(1.0, abs=0.6)
    assert pixels.chi == pytest.approx(1.0, abs=0.17)
    louder = judged(4.6 * x, 4.6 * c, s, signal)
    again = region_spread(louder, louder.variance_index)
    assert again is not None
    assert again.chi == pytest.approx(regions.chi, rel=0.05)


@pytest.mark.parametrize("counts", [2e3, 2e4])
def test_a_background_that_was_taken_off_leaves_its_noise(counts: float) -> None:
    """Chi stays near 1 where the mean is almost zero and negative values are left."""
    x, c, s = scene("EELS", counts, 3, 0)
    below = s.mean(axis=0) * np.clip(1.2 - np.arange(512) / 400, 0, 0.99)
    background = c.sum(axis=-1, keepdims=True) * below
    evidence = judged(x - background, c, s - below, "EELS", variance_index=1.0)
    assert evidence.extremes.negative > 0.01 * evidence.extremes.voxels
    spread = region_spread(evidence, 1.0)
    assert spread is not None
    assert spread.chi == pytest.approx(1.0, abs=0.6)
    assert drift(evidence) is None


@pytest.mark.parametrize(("counts", "rms"), [(2e3, 0.4), (2e4, 0.15)])
@pytest.mark.parametrize("seed", [0, 1])
def test_jitter_of_eels_is_found(counts: float, rms: float, seed: int) -> None:
    """It cancels in regions, so pixels tell it."""
    jitter = np.round(rms * np.random.default_rng(seed).standard_normal((SIZE, SIZE)), 1)
    x, _, _ = scene("EELS", counts, 3, seed, jitter)
    evidence = judged(x, *fitted(x, 3, "EELS"), "EELS")
    found = drift(evidence)
    assert found is not None
    assert "from pixel to pixel" in found.text
    spread = pixel_spread(evidence, evidence.variance_index)
    assert spread is not None
    assert spread.rms == pytest.approx(rms, rel=0.35)


def low_loss(move: float, seed: int = 0) -> Evidence:
    """A zero loss of 2 channels and a plasmon that stays; in half of the lines it is shifted upwards."""
    energy = -10 + 0.5 * np.arange(200)
    rng = np.random.default_rng(seed)
    by = np.where(np.arange(SIZE) % 2, move, 0.0)[:, None, None]
    rate = 4e4 * np.exp(-0.5 * ((energy / 0.5 - by) / 2) ** 2) + 60 * np.exp(-0.5 * ((energy - 20) / 4) ** 2) + 0.5
    x = rng.poisson(np.broadcast_to(rate, (SIZE, SIZE, energy.size)))
    s = x.mean(axis=(0, 1))[None]
    return evidence_of(x, np.ones((SIZE, SIZE, 1)), s, signal="EELS", energy=energy, energy_unit="eV")


@pytest.mark.parametrize("move", [1.0, 3.0])
def test_a_zero_loss_that_moves_is_found(move: float) -> None:
    """With its distance, and without a word of chemical shifts."""
    found = drift(low_loss(move))
    assert found is not None
    assert float(found.text.split(" eV")[0].split()[-1]) == pytest.approx(0.5 * move, rel=0.05)
    assert "chemical" not in found.text


def test_a_zero_loss_that_stays() -> None:
    assert drift(low_loss(0.0)) is None


@pytest.mark.parametrize("line", [(1, 200), (200, 1)])
def test_line_scans(line: tuple[int, int]) -> None:
    """25 regions along the line."""
    s = 2e4 * spectra("EELS", 2)
    share = np.linspace(0.2, 0.8, 200)
    moves = np.round(0.4 * np.sin(np.arange(200) / 12), 2)
    rng = np.random.default_rng(0)
    c = np.stack([share, 1 - share], axis=-1)
    drifting = np.stack([c[i] @ shifted(s, moves[i]) for i in range(200)])
    for rate, said in ((c @ s, False), (drifting, True)):
        x = rng.poisson(rate).reshape(*line, -1)
        found = drift(judged(x, c.reshape(*line, 2), s, "EELS"))
        assert (found is not None) == said
    assert found is not None
    assert "along the line" in found.text


def test_other_directions_name_the_places() -> None:
    """A ramp along x is between the left and the right side."""
    x, c, s = scene("EDS", 500, 3, 0, ramp(1.0).T)
    coords = {"y": (2.0 * np.arange(SIZE), "nm"), "x": (2.0 * np.arange(SIZE), "nm")}
    found = drift(judged(x, c, s, "EDS", coords=coords))
    assert found is not None
    assert "most between x = " in found.text
    assert "rows" not in found.text
    assert found.remedy == "scalehsi prepare SRC DST --step bin:energy=4"


def test_the_size_in_the_text() -> None:
    """A ramp of 1 channel (rms) has 3.3 channels from 3 to 97 % of the regions' means, which are 20 eV each."""
    x, c, s = scene("EDS", 500, 2, 0, ramp(1.0))
    found = drift(judged(x, c, s, "EDS"))
    assert found is not None
    words = found.text.split()
    assert float(words[words.index("eV") - 1]) == pytest.approx(65, rel=0.1)
    assert float(words[words.index("eV") + 1].strip("(")) == pytest.approx(3.25, rel=0.1)


@pytest.mark.parametrize(("kind", "counts", "size"), [("edx", 20.0, 1.0), ("eels", 2e3, 0.15)])
def test_the_size_is_right_with_spectra_of_counts(kind: str, counts: float, size: float) -> None:
    """Edges are as sharp as the channels here, and the noise of the spectra is as large as their slope.

    Ratios over six seeds are 0.51 to 1.08 with a mean of 0.82 (EELS), and 0.67 to 0.98 with 0.84 (EDX).
    """
    ratio = []
    for seed in range(5):
        made = scenes.scene(kind, counts, 3, seed=seed, drift=size)
        c, x = made.maps.reshape(-1, 3), made.counts.reshape(-1, made.counts.shape[-1])
        s = np.linalg.lstsq(c / np.sqrt(c.sum(axis=1))[:, None], x / np.sqrt(c.sum(axis=1))[:, None], rcond=None)[0]
        evidence = evidence_of(made.counts, made.maps, s, signal=made.signal)
        spread = region_spread(evidence, evidence.variance_index)
        assert spread is not None
        ratio.append(spread.rms / size)
    assert np.median(ratio) == pytest.approx(1.0, abs=0.2)


def test_order_of_the_components() -> None:
    """It changes nothing."""
    x, c, s = scene("EELS", 2e4, 4, 0, ramp(0.3))
    found = drift(judged(x, c, s, "EELS"))
    assert found is not None
    assert drift(judged(x, c[..., ::-1], s[::-1], "EELS")) == found


def test_single_edges() -> None:
    """One edge, or one component, may have a chemical shift instead; several edges cannot."""
    x, c, s = scene("EELS", 2e4, 3, 0, ramp(0.5))
    several = drift(judged(x, c, s, "EELS"))
    assert several is not None
    assert "chemical" not in several.text
    assert "copies" in several.text
    x, c, s = scene("EELS", 2e4, 1, 0, ramp(0.5))
    single = drift(judged(x, c, s, "EELS"))
    assert single is not None
    assert "chemical" in single.text
    assert "copies" not in single.text


def test_five_channels_over_a_small_map() -> None:
    """Of 80 channels, two components: what a fit makes two copies of."""
    e = np.arange(80)

    def peak(at: float, width: float) -> Array:
        return np.exp(-0.5 * ((e - at) / width) ** 2)

    s = np.stack([0.4 * np.exp(-e / 60) + peak(a, 3) + 0.6 * peak(b, 4) for a, b in ((20, 60), (35, 90))])
    rng = np.random.default_rng(0)
    maps = np.exp(2 * gaussian_filter(rng.standard_normal((24, 24, 2)), (3, 3, 0)) / 0.1)
    maps /= maps.sum(axis=-1, keepdims=True)
    for drifting in (0, 5):
        rate = [200 * maps[i] @ np.stack([np.interp(e - drifting * i / 23, e, q) for q in s]) for i in range(24)]
        x = rng.poisson(np.stack(rate))
        cube = hsi.simulate.chequerboard((24, 24), n_channels=80, signal="EDS")[0].copy(data=x.astype("u2"))
        result = hsi.fit(cube, hsi.NMF(2, loss="poisson"), seed=0)
        c, found = np.moveaxis(result["abundances"].values, 0, -1), result["endmembers"].values
        assert (drift(evidence_of(x, c, found, signal="EDS")) is not None) == bool(drifting)


def test_large_drift_of_a_broad_feature() -> None:
    """A derivative sees only shifts below the width of a feature: sums of channels see this one."""
    e = np.arange(1024)
    s = 20 * np.stack([1 / (1 + np.exp(-(e - 500) / 4)) + 0.2, np.full(1024, 0.7)])
    rng = np.random.default_rng(0)
    share = 0.3 + 0.4 * rng.random((SIZE, SIZE))
    c = np.stack([share, 1 - share], axis=-1)
    rate = np.stack([c[i] @ np.stack([np.interp(e - 3 * (i - 15.5), e, q) for q in s]) for i in range(SIZE)])
    x = rng.poisson(rate)
    evidence = evidence_of(x, c, np.stack([x.mean(axis=(0, 1)), s[1]]), signal="EELS")
    fine, coarse = (region_spread(evidence, evidence.variance_index, scale) for scale in (1, 16))
    assert fine is not None
    assert coarse is not None
    assert coarse.rms > 2 * fine.rms


def test_regions_without_pixels_are_left_out() -> None:
    """A mask of two corners."""
    x, c, s = scene("EDS", 500, 2, 0, ramp(0.5))
    mask = np.ones((SIZE, SIZE), bool)
    mask[:14, :14] = mask[20:, 20:] = False
    found = drift(judged(x, c, s, "EDS", mask=mask))
    assert found is not None
    assert "along the rows" in found.text
    x, c, s = scene("EDS", 500, 2, 0)
    assert drift(judged(x, c, s, "EDS", mask=mask)) is None


@pytest.mark.parametrize("shape", [(1, 1), (1, 3), (2, 2), (5, 1), (2, 3, 4)])
def test_what_cannot_be_known_is_not_said(shape: tuple[int, ...]) -> None:
    """Small maps of noise, short axes, one component."""
    sizes = [(3, 1), (31, 2), (70, 1), (70, 3), (70, 70), (1100, 2)]
    for (n_energies, k), signal in itertools.product(sizes, ("EDS", "EELS", "")):
        rng = np.random.default_rng(0)
        c, s = rng.random((*shape, k)), rng.random((k, n_energies)) * 9
        for x in (rng.poisson(c @ s), np.zeros((*shape, n_energies), int), c @ s):
            assert drift(evidence_of(x, c, s, signal=signal)) is None
            assert drift(evidence_of(x, 0 * c, 0 * s, signal=signal)) is None


def test_values_that_are_no_numbers() -> None:
    """They are left out, or nothing is said."""
    x, c, s = scene("EELS", 2e3, 2, 0)
    evidence = judged(x, c, s, "EELS")
    regions = evidence.regions
    data = regions.data.copy()
    data[5, 7] = np.nan
    broken: list[dict[str, Any]] = [
        {"regions": regions._replace(data=data)},
        {"regions": regions._replace(data=0 * data, abundances=np.full_like(regions.abundances, np.nan))},
        {"regions": Regions((8, 8), 0 * regions.pixels, 0 * regions.data, 0 * regions.abundances)},
        {"endmembers": np.full_like(s, np.nan)},
        {"mean": np.full_like(evidence.mean, np.nan)},
        {"mean": -evidence.mean},
        {"variance_index": float("nan")},
        {"variance_index": 0.0},
        {"bins": ()},
        {"signed": True},
        {"energy_unit": ""},
    ]
    for change in broken:
        assert drift(replace(evidence, **change)) is None


needs_data = pytest.mark.skipif(not DATA.exists(), reason="measured spectrum images are not there")


def measured(x: Array, energy: Array, unit: str, signal: str, model: Any) -> Any:
    """What is said of a fit of measured data."""
    cube = xr.DataArray(x, dims=("y", "x", "energy"), coords={"energy": ("energy", energy, {"units": unit})})
    result = hsi.fit(cube.assign_attrs(signal=signal), model, seed=0)
    c, s = np.moveaxis(result["abundances"].values.astype(float), 0, -1), result["endmembers"].values.astype(float)
    return drift(evidence_of(x, c, s, signal=signal, energy=energy, energy_unit=unit))


@needs_data
def test_oxide_interface() -> None:
    """A simulation of others with a drift of 1.5 channels."""
    stored = np.load(DATA / "sim_with_truth/oxide_interface_d1000.npz")
    energy = stored["energy_ev"].astype(float)
    found = measured(stored["cube"], energy, "eV", "EELS", hsi.NMF(3, weighting="poisson"))
    assert found is not None
    assert "along the rows" in found.text


@needs_data
@pytest.mark.parametrize(("name", "axis"), [("T3_A3_region1_HL_SI", (130, 0.5)), ("T3_B3_region1_SI_HL", (380, 0.3))])
def test_round_robin(name: str, axis: tuple[float, float]) -> None:
    """Series of one spectrum, in which the axis moves."""
    x = np.load(DATA / "eels_roundrobin/compact.npz")[name][None]
    found = measured(x, axis[0] + axis[1] * np.arange(1024), "eV", "EELS", hsi.NMF(2, weighting="poisson"))
    assert found is not None
    assert "along the line" in found.text


@needs_data
@pytest.mark.parametrize("weighting", ["poisson", None])
def test_no_drift_of_copper_and_zinc(weighting: str | None) -> None:
    """On its background, three components."""
    x = np.load(DATA / "eels_CuZn_HAADF/compact.npz")["counts"]
    assert measured(x, 700 + 8.0 * np.arange(162), "eV", "EELS", hsi.NMF(3, weighting=weighting)) is None


@needs_data
def test_no_drift_of_manganese_oxide() -> None:
    """Two valences are two components, not drift."""
    stored = np.load(DATA / "eels_Mn3O4/SI_data.npz")
    assert measured(stored["X"], stored["ev"], "eV", "EELS", hsi.NMF(2, weighting="poisson")) is None


@needs_data
def test_no_drift_of_iron_platinum() -> None:
    x = np.load(DATA / "edx_FePt/compact.npz")["core_shell"]
    assert measured(x, 0.16 + 0.02 * np.arange(992), "keV", "EDS", hsi.NMF(3, loss="poisson")) is None
