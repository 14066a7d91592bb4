"""Edges, white lines and background of core-loss spectra."""

from __future__ import annotations

import numpy as np
import pytest

from scalehsi.physics.eels_edges import EDGES, eels_spectrum
from scalehsi.schema import InputError

ENERGY = np.arange(150.0, 950.0, 0.5)


@pytest.mark.parametrize("element", EDGES)
def test_an_edge_rises_at_its_onset(element):
    spectrum = eels_spectrum({element: 100}, ENERGY, background=0.0)
    onset = EDGES[element].onset_ev
    assert spectrum[ENERGY < onset - 3].max() < 1e-6 * spectrum.max()
    assert abs(ENERGY[spectrum.argmax()] - onset) < 12
    tail = spectrum[ENERGY > onset + 60]
    assert (np.diff(tail) < 0).all()


def test_white_lines_are_split_by_the_spin_orbit_energy():
    spectrum = eels_spectrum({"Mn": 100}, ENERGY, background=0.0)
    inner = spectrum[1:-1]
    peaks = ENERGY[1:-1][(inner > spectrum[:-2]) & (inner > spectrum[2:]) & (inner > 0.3 * spectrum.max())]
    np.testing.assert_allclose(peaks, [642.2, 653.2], atol=1.0)


def test_the_background_is_a_power_law():
    spectrum = eels_spectrum({"Ni": 100}, ENERGY, background=2.0, exponent=3.0)
    before = ENERGY < 800
    slope = np.polyfit(np.log(ENERGY[before]), np.log(spectrum[before]), 1)[0]
    assert slope == pytest.approx(-3.0, abs=1e-6)
    assert np.interp(532.0, ENERGY, spectrum) == pytest.approx(2.0, rel=1e-3)


def test_spectra_add_up_by_atoms():
    both = eels_spectrum({"Ti": 1, "O": 3}, ENERGY, background=0.0)
    alone = [eels_spectrum({e: 1}, ENERGY, background=0.0) for e in ("Ti", "O")]
    np.testing.assert_allclose(both, 0.25 * alone[0] + 0.75 * alone[1])


def test_a_worse_resolution_widens_the_white_lines_and_keeps_their_area():
    sharp, wide = (eels_spectrum({"Ti": 1}, ENERGY, background=0.0, resolution_ev=r) for r in (0.3, 3.0))
    assert wide.max() < 0.8 * sharp.max()
    assert wide.sum() == pytest.approx(sharp.sum(), rel=0.05)


def test_an_element_without_an_edge_is_refused_with_the_known_ones():
    with pytest.raises(InputError, match=r"no edge is known here for the element 'Fr'; .*Known: B, C, Ca"):
        eels_spectrum({"Fr": 100}, ENERGY)


@pytest.mark.parametrize("composition", [{}, {"O": -1.0}, {"O": 0.0}])
def test_an_invalid_composition_is_refused(composition):
    with pytest.raises(InputError, match="at least one element and no negative share"):
        eels_spectrum(composition, ENERGY)
