"""Composition from net counts: against plain numpy, known foils, and properties for any numbers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scalehsi.physics.cliff_lorimer import atomic_fractions, fraction_errors, mixture_composition, to_mass_fractions
from scalehsi.physics.composition import mass_fractions
from scalehsi.physics.lines import atomic_weight
from scalehsi.physics.xray_spectra import foil_transmission, mass_attenuation

ELEMENTS = ("Mg", "Al", "Si", "O")
LINES_KEV = (1.254, 1.487, 1.740, 0.525)
MASSES = np.array([atomic_weight(e) for e in ELEMENTS])
TABLE = np.stack([mass_attenuation({e: 1.0}, LINES_KEV) for e in ELEMENTS], axis=1)


def test_counts_times_factors_are_normalised():
    counts = np.array([[100.0, 50.0, 25.0, 10.0], [1.0, 0.0, 0.0, 0.0]])
    k = np.array([1.0, 2.0, 4.0, 10.0])
    np.testing.assert_allclose(atomic_fractions(counts, k, masses=MASSES), [[0.25] * 4, [1, 0, 0, 0]])


def test_no_counts_give_no_composition():
    counts = np.array([[0.0] * 4, [-1.0] * 4, [np.nan, 1, 1, 1], [-5.0, 1, 1, 2]])
    for path in (0.0, 1e-4):
        found = atomic_fractions(counts, np.ones(4), masses=MASSES, attenuation=TABLE, mass_path=path)
        assert np.isnan(found[:3]).all()
        assert found[3, 0] == 0
        assert found[3].sum() == pytest.approx(1)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_absorption_is_corrected(dtype):
    truth = {"Mg": 20.0, "Al": 15.0, "Si": 15.0, "O": 50.0}
    path = 6e-4
    table = mass_attenuation(mass_fractions(truth), LINES_KEV)
    counts = (np.array([list(truth.values())]) * foil_transmission(table * path) * 1e4).astype(dtype)
    found = atomic_fractions(counts, np.ones(4), masses=MASSES, attenuation=TABLE, mass_path=path)
    assert found.dtype == dtype
    np.testing.assert_allclose(100 * found[0], list(truth.values()), atol=1e-3)
    # Without the correction oxygen, whose line is the softest, is far too low.
    assert 100 * atomic_fractions(counts, np.ones(4), masses=MASSES)[0, 3] < 42


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.lists(st.floats(0, 1e6), min_size=4, max_size=4), min_size=1, max_size=5),
    st.floats(1e-3, 1e3),
    st.sampled_from([0.0, 1e-4]),
)
def test_fractions_sum_to_one_at_any_scale(rows, scale, path):
    counts = np.array(rows)
    options = {"masses": MASSES, "attenuation": TABLE, "mass_path": path}
    k = np.array([1.0, 1.1, 1.2, 1.9])
    one, other = atomic_fractions(counts, k, **options), atomic_fractions(counts * scale, 3 * k, **options)
    filled = counts.sum(axis=1) > 1e-200
    np.testing.assert_allclose(one[filled].sum(axis=1), 1.0, rtol=1e-9)
    np.testing.assert_allclose(one[filled], other[filled], atol=1e-6)


def test_mass_fractions():
    fractions = np.array([[0.25, 0.25, 0.25, 0.25], [1.0, 0, 0, 0]])
    np.testing.assert_allclose(to_mass_fractions(fractions, MASSES)[0], MASSES / MASSES.sum())
    assert to_mass_fractions(fractions, MASSES)[1, 0] == 1


def test_mixtures_against_plain_numpy():
    rng = np.random.default_rng(0)
    c, atoms, counts = rng.random((50, 3)), rng.random((3, 4)), rng.random((3, 4))
    c[7] = 0
    found = mixture_composition(c, atoms, counts, MASSES)
    amounts = c @ atoms
    with np.errstate(invalid="ignore"):
        np.testing.assert_allclose(found[:, 0], amounts / amounts.sum(1, keepdims=True), rtol=1e-5)
        grams = amounts * MASSES
        np.testing.assert_allclose(found[:, 1], grams / grams.sum(1, keepdims=True), rtol=1e-5)
    np.testing.assert_allclose(found[:, 2], c @ counts, rtol=1e-5)
    assert np.isnan(found[7, :2]).all()


def test_errors_against_many_draws():
    rng = np.random.default_rng(0)
    mean, a = np.array([4000.0, 1000.0, 400.0]), np.array([1.0, 2.0, 0.5])
    covariance = np.diag(mean) + 300.0
    draws = rng.multivariate_normal(mean, covariance, 20_000) * a
    scatter = (draws / draws.sum(axis=1, keepdims=True)).std(axis=0)
    total = (mean * a).sum()
    np.testing.assert_allclose(fraction_errors(mean * a / total, a / total, covariance), scatter, rtol=0.03)
