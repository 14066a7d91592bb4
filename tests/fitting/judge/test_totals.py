"""Totals of the model that are not the data's: planted, clean, and inputs that have no answer."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from scalehsi.fitting.judge.evidence import Evidence
from scalehsi.fitting.judge.totals import thickness_in_simplex, totals
from tests.fitting.judge.reference import evidence_of
from tests.fitting.judge.scenes import scene

pytestmark = pytest.mark.long

SIMPLEX = {"simplex": True, "loss": "poisson"}


def wedge(thick: float, size: int = 24, counts: float = 60.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Counts of one phase whose thickness rises from 1 to ``thick`` along y, and its spectrum at thickness 1."""
    s = counts * scene("edx", 100, 1, seed=seed, size=8).spectra
    rise = np.linspace(1, thick, size)[:, None, None] * np.ones((1, size, 1))
    return np.random.default_rng(seed).poisson(rise * s), s


@pytest.mark.parametrize("kind", ["edx", "eels"])
@pytest.mark.parametrize(("counts", "size"), [(20, 24), (100, 20), (2000, 16)])
def test_clean_maps_are_silent(kind: str, counts: float, size: int) -> None:
    for seed in range(2):
        made = scene(kind, counts, 3, seed=seed, size=size)
        found = evidence_of(made.counts, made.maps, made.spectra)
        assert totals(found) is None
        assert thickness_in_simplex(found) is None
        flat = scene(kind, counts, 3, seed=seed, size=size, vary=0.0)
        found = evidence_of(flat.counts, flat.maps, flat.spectra, **SIMPLEX)
        assert totals(found) is None
        assert thickness_in_simplex(found) is None


@pytest.mark.parametrize("factor", [1.08, 1.8, 50.0, 0.7, 0.005])
@pytest.mark.parametrize("size", [16, 32])
def test_a_wrong_total(factor: float, size: int) -> None:
    made = scene("edx", 100, 2, seed=size, size=size)
    found = totals(evidence_of(made.counts, factor * made.maps, made.spectra, **SIMPLEX))
    assert found is not None
    assert found.code == "totals"
    assert found.remedy == "simplex=False"
    named = f"{100 * abs(factor - 1):.2g} %" if factor < 2 else f"{factor:.2g}"
    assert named[:1] in found.text
    assert ("less" in found.text) == (factor < 1)
    assert ("times" in found.text) == (factor > 2)


def test_half_a_per_cent_is_nothing_and_shrinkage_of_relevance_neither() -> None:
    for seed, factor in enumerate((0.965, 0.995, 1.005)):
        made = scene("edx", 100, 3, seed=seed, size=24)
        assert totals(evidence_of(made.counts, factor * made.maps, made.spectra)) is None


@pytest.mark.parametrize("k", [0, 2])
def test_a_component_that_is_off_is_named(k: int) -> None:
    """One phase holds a third less than its grains, the others make up for it in the total."""
    made = scene("edx", 100, 3, layout="grains", seed=1)
    c = made.maps.copy()
    mine = (c[..., k] * made.spectra[k].sum()).sum() / made.expected.sum()
    c[..., k] *= 0.68
    c[..., [i for i in range(3) if i != k]] *= (1 - 0.68 * mine) / (1 - mine)
    found = totals(evidence_of(made.counts, c, made.spectra, **SIMPLEX))
    assert found is not None
    assert f"component {k + 1}: 3" in found.text
    assert "less" in found.text


@pytest.mark.parametrize("shape", [(32, 32), (1, 200), (200, 1)])
def test_a_region_that_is_off_is_placed(shape: tuple[int, int]) -> None:
    s = scene("edx", 100, 1, size=8).spectra
    x = np.random.default_rng(0).poisson(400 * s * np.ones((*shape, 1)))
    c = np.full((*shape, 1), 400.0)
    brighter = np.s_[-25:] if shape[1] == 1 else np.s_[:, -shape[1] // 8 :]
    c[brighter] *= 1.4
    c *= x.sum() / (c @ s).sum()
    found = totals(evidence_of(x, c, s, variance_index=1.0))
    assert found is not None
    assert "around x = " in found.text
    assert found.text.count("more") + found.text.count("less") >= 2
    # On the simplex regions are the business of the other detector.
    assert totals(evidence_of(x, c, s, component_total=np.ones((2, 1)), **SIMPLEX)) is None


@pytest.mark.parametrize(("thick", "warned"), [(1.0, False), (1.03, False), (1.2, True), (1.5, True), (3.0, True)])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_wedge_on_the_simplex(thick: float, warned: bool, seed: int) -> None:
    x, s = wedge(thick, seed=seed)
    mean = s * (1 + thick) / 2
    found = thickness_in_simplex(evidence_of(x, np.ones((*x.shape[:2], 1)), mean, **SIMPLEX))
    assert (found is not None) == warned
    if found is not None:
        assert found.remedy == "simplex=False"
        spread = int(found.text.split("vary by ")[1].split(" %")[0])
        # 90 % of the regions of a wedge are 8/8 of 7/8 of its range apart.
        assert spread == pytest.approx(100 * (thick - 1) / (thick + 1) * 2 * 7 / 8, rel=0.2)
    free = evidence_of(x, x.sum(axis=-1, keepdims=True) / mean.sum(), mean)
    assert thickness_in_simplex(free) is None
    assert totals(free) is None


@pytest.mark.parametrize("counts", [3.0, 10.0, 30.0])
def test_few_counts_are_no_thickness(counts: float) -> None:
    """Regions of 4 pixels with 12 to 120 counts vary by more than 25 % although nothing is there."""
    for seed in range(10):
        x, s = wedge(1.0, size=16, counts=counts, seed=seed)
        ratio = x.reshape(8, 2, 8, 2, -1).sum(axis=(1, 3, 4)) / (4 * s.sum())
        found = evidence_of(x, np.ones((16, 16, 1)), s, variance_index=1.0, **SIMPLEX)
        assert counts > 10 or np.ptp(np.percentile(ratio, [5, 95])) > 0.25
        assert thickness_in_simplex(found) is None


def test_remedies_exist() -> None:
    made = scene("edx", 100, 2, size=16)
    found = evidence_of(made.counts, 1.3 * made.maps, made.spectra, loss="frobenius")
    assert totals(found).remedy == 'loss="poisson"'  # type: ignore[union-attr]
    assert totals(replace(found, settings={"sparsity": 0.1})).remedy == "sparsity=0"  # type: ignore[union-attr]
    assert totals(replace(found, loss="poisson")).remedy == ""  # type: ignore[union-attr]


def degenerate() -> dict[str, Evidence]:
    made = scene("edx", 100, 2, seed=0, size=16)
    x, c, s = made.counts, made.maps, made.spectra
    clean = evidence_of(x, c, s)
    return {
        "one component": evidence_of(x, c.sum(-1, keepdims=True), s.mean(0, keepdims=True)),
        "one pixel": evidence_of(x[:1, :1], c[:1, :1], s),
        "a line": evidence_of(x[:1], 0.2 * c[:1], s),
        "one channel": evidence_of(x[..., :1], c, s[:, :1]),
        "zeros": evidence_of(0 * x, 0 * c, 0 * s),
        "zero maps": evidence_of(x, 0 * c, s),
        "a component without abundance": evidence_of(x, c * [1, 0], s),
        "NaN maps": evidence_of(x, np.nan * c, s),
        "NaN sums": replace(clean, mean=np.nan * clean.mean, total=(np.nan, np.nan)),
        "no variance index": replace(clean, variance_index=float("nan")),
        "nothing in use": evidence_of(x, c, s, mask=np.zeros((16, 16), bool)),
        "a third in use": evidence_of(x, c, s, mask=np.arange(256).reshape(16, 16) < 90),
        "cancelling": evidence_of(x - made.expected, 0.1 * c, s),
        "directions": evidence_of(x, 0.1 * c, s, signed=True),
    }


DEGENERATE = degenerate()


@pytest.mark.parametrize("name", DEGENERATE)
def test_nothing_raises(name: str) -> None:
    for simplex, detector in itertools.product((False, True), (totals, thickness_in_simplex)):
        found = detector(replace(DEGENERATE[name], simplex=simplex))
        assert found is None or "nan" not in found.text


@pytest.mark.parametrize("name", ["one component", "NaN sums", "zeros", "a third in use", "cancelling", "directions"])
def test_silence_where_nothing_can_be_said(name: str) -> None:
    assert totals(DEGENERATE[name]) is None


def test_vacuum_is_empty_in_the_model_too() -> None:
    """Half of the map is vacuum. A model without counts there is right, one with a tenth of the mean is not."""
    for seed in range(3):
        made = scene("edx", 100, 2, seed=seed)
        c = made.maps.copy()
        c[:16] = 0
        x = np.where(np.arange(32)[:, None, None] < 16, 0, made.counts)
        assert totals(evidence_of(x, c, made.spectra)) is None
        c[:16] += 0.1 * c[16:].mean()
        c *= x.sum() / (c @ made.spectra).sum()
        found = totals(evidence_of(x, c, made.spectra))
        assert found is not None
        assert "around" in found.text
