"""Expected X-ray spectra of a thin foil under a fast electron beam: lines, continuum, foil, detector.

Lines come from `scalehsi.physics.lines`, attenuation from xraylib. The other parts of the model are:

* *continuum*: the Born cross section of a screened (Yukawa) nucleus [1]_, with the angular distribution of a dipole
  that moves with the electron [2]_, so that a detector on the side of the gun sees about a third of the isotropic
  value;
* *foil*: an electron scatters once at most; photons are absorbed on their way out along the take-off angle;
* *detector*: a silicon drift detector with a dead layer, an optional window, and a Gaussian response.

Secondary fluorescence, escape peaks and sum peaks are not modelled.

References
----------
.. [1] H. W. Koch, J. W. Motz, Rev. Mod. Phys. 31 (1959) 920. doi:10.1103/RevModPhys.31.920
.. [2] E. Acosta et al., Appl. Phys. Lett. 80 (2002) 3228. doi:10.1063/1.1473684
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import exprel, ndtr

from scalehsi.arrays import Float
from scalehsi.physics.composition import mass_fractions
from scalehsi.physics.lines import ELECTRON_REST_KEV, atomic_number, atomic_weight, emission_lines
from scalehsi.physics.resolution import FWHM_PER_SIGMA, Width, detector_fwhm
from scalehsi.schema import InputError

AVOGADRO: Final = 6.02214076e23
BREMSSTRAHLUNG_CM2: Final = 16 / 3 * 7.2973525693e-3 * 7.9407877e-26  # 16/3 alpha r_e^2
GAUSSIAN_REACH_SIGMA: Final = 6.0
"""Standard deviations beyond which a Gaussian counts as zero."""
LOWEST_KEV: Final = 0.1
"""Lowest energy of xraylib's attenuation tables."""


def mass_attenuation(fractions: Mapping[str, float], energy_kev: ArrayLike) -> Float:
    """Mass attenuation coefficient in cm^2/g of a material with the given mass fractions [array, shape (E,)].

    Below 0.1 keV, where the tables begin, the value at 0.1 keV is returned.
    """
    import xraylib

    energies = np.maximum(np.asarray(energy_kev, dtype=np.float64), LOWEST_KEV)
    total = np.zeros_like(energies)
    for element, weight in fractions.items():
        z = atomic_number(element)
        total += weight * np.fromiter((xraylib.CS_Total(z, float(e)) for e in energies), np.float64, energies.size)
    return total


def detector_efficiency(
    energy_kev: ArrayLike, *, silicon_um: float = 450.0, dead_layer_nm: float = 50.0, polymer_nm: float = 0.0
) -> Float:
    """Fraction of the arriving photons that a silicon drift detector counts [array, shape (E,), 0 to 1].

    Parameters
    ----------
    energy_kev : array, shape (E,), keV
    silicon_um : float
        Active thickness in micrometres; it limits the efficiency at high energies.
    dead_layer_nm : float
        Inactive silicon in front, in nanometres; it causes the step at the Si K edge.
    polymer_nm : float
        Window in nanometres of polyimide (300 is usual), with 30 nm of aluminium against light, on a silicon grid that
        blocks 22 % of the photons below some 10 keV. Zero means a windowless detector, as in most STEMs today.

    Examples
    --------
    >>> energy = [0.525, 1.74, 20.0]  # O Ka, Si Ka, and an energy that the silicon does not stop
    >>> detector_efficiency(energy).round(2).tolist(), detector_efficiency(energy, polymer_nm=300).round(2).tolist()
    ([0.92, 1.0, 0.37], [0.45, 0.74, 0.35])
    """
    energies = np.asarray(energy_kev, dtype=np.float64)
    silicon = mass_attenuation({"Si": 1.0}, energies) * 2.33
    counted = np.exp(-silicon * dead_layer_nm * 1e-7) * -np.expm1(-silicon * silicon_um * 1e-4)
    if polymer_nm > 0:
        polyimide = mass_attenuation(mass_fractions({"C": 22, "H": 10, "N": 2, "O": 5}), energies) * 1.42
        aluminium = mass_attenuation({"Al": 1.0}, energies) * 2.70
        grid = 0.78 + 0.22 * np.exp(-silicon * 380e-4)
        counted = counted * grid * np.exp(-polyimide * polymer_nm * 1e-7 - aluminium * 30e-7)
    return np.asarray(counted, dtype=np.float64)


def continuum_cross_section(element: str, energy_kev: ArrayLike, *, beam_kev: float, takeoff_deg: float) -> Float:
    """Bremsstrahlung cross section of one atom towards the detector, in cm^2/keV/sr [array, shape (E,)].

    Parameters
    ----------
    element : str
    energy_kev : array, shape (E,), keV, above 0
    beam_kev : float
        Beam energy in keV.
    takeoff_deg : float
        Elevation of the detector above the foil on the side of the gun, in degrees; the foil lies across the beam.
    """
    z = atomic_number(element)
    photon = np.asarray(energy_kev, dtype=np.float64)
    gamma = 1 + beam_kev / ELECTRON_REST_KEV
    gamma_after = np.maximum(gamma - photon / ELECTRON_REST_KEV, 1.0)
    before, after = math.sqrt(gamma**2 - 1), np.sqrt(gamma_after**2 - 1)
    # Integral of q^3 / (q^2 + mu^2)^2 over the momentum transfers q that energy conservation allows.
    screen2 = (z ** (1 / 3) / 137.036 / 0.885) ** 2
    low, high = (before - after) ** 2 + screen2, (before + after) ** 2 + screen2
    transfer = 0.5 * (np.log(high / low) + screen2 / high - screen2 / low)
    beta = before / gamma
    cosine = -math.sin(math.radians(takeoff_deg))
    doppler = 1 - beta * cosine
    direction = 3 / (16 * math.pi) * (1 + ((cosine - beta) / doppler) ** 2) * (1 - beta**2) / doppler**2
    return np.asarray(BREMSSTRAHLUNG_CM2 * (z / beta) ** 2 / photon * transfer * direction * (photon < beam_kev))


def detector_response(photon_kev: Float, weights: Float, edges_kev: Float, fwhm: Width = detector_fwhm) -> Float:
    """Counts in each channel from photons of given energies, broadened by a Gaussian [array, shape (E,)].

    Parameters
    ----------
    photon_kev, weights : array, shape (N,)
        Rising energies, and the number of counted photons of each.
    edges_kev : array, shape (E + 1,)
        Limits of the channels.
    fwhm : callable
        Full width at half maximum in keV as a function of energy in keV.

    Examples
    --------
    >>> detector_response(np.array([1.0]), np.array([8.0]), np.array([0.5, 1.0, 1.5])).round(3).tolist()
    [4.0, 4.0]
    """
    sigma = fwhm(photon_kev) / FWHM_PER_SIGMA
    counted = np.zeros(edges_kev.size - 1)
    # 64 photons of similar energy reach few channels; all pairs at once would take gigabytes for long axes.
    for first in range(0, photon_kev.size, 64):
        some = slice(first, first + 64)
        margin = GAUSSIAN_REACH_SIGMA * sigma[some].max()
        near = np.searchsorted(edges_kev, [photon_kev[some][0] - margin, photon_kev[some][-1] + margin])
        low, high = max(int(near[0]) - 1, 0), min(int(near[1]) + 1, edges_kev.size)
        below = ndtr((edges_kev[low:high, None] - photon_kev[some]) / sigma[some])
        counted[low : max(high - 1, low)] += np.diff(below, axis=0) @ weights[some]
    return counted


def foil_transmission(optical_path: ArrayLike) -> Float:
    """Fraction of the photons, generated evenly in a foil, that leave it, for mu t / sin(take-off) [array, 0 to 1].

    Examples
    --------
    >>> foil_transmission([0.0, 0.1, 10.0]).round(4).tolist()
    [1.0, 0.9516, 0.1]
    """
    return np.asarray(exprel(-np.asarray(optical_path, dtype=np.float64)), dtype=np.float64)


def channel_edges(energies: Float) -> Float:
    """Limits of the channels with the given centres [array, shape (E + 1,)].

    Examples
    --------
    >>> channel_edges(np.array([1.0, 2.0, 3.0])).tolist()
    [0.5, 1.5, 2.5, 3.5]
    """
    steps = np.diff(energies)
    return np.concatenate([energies[:1] - steps[0] / 2, energies[:-1] + steps / 2, energies[-1:] + steps[-1] / 2])


def reach_kev(energies: Float, fwhm: Width = detector_fwhm) -> float:
    """Distance in keV from the ends of an axis beyond which a line adds nothing to it."""
    return GAUSSIAN_REACH_SIGMA * float(fwhm(energies[-1:])[0]) / FWHM_PER_SIGMA


def beyond_ends(energies: Float, reach: float) -> Float:
    """Extend an axis by channels on both sides, up to the distance `reach` [array, shape (E + more,), keV].

    A smooth spectrum is sampled there too, because the detector spreads part of it onto the axis.
    """
    step = float(np.diff(energies).min())
    below = np.arange(energies[0] - step, max(LOWEST_KEV, energies[0] - reach), -step)[::-1]
    return np.concatenate([below, energies, np.arange(energies[-1] + step, energies[-1] + reach, step)])


def eds_spectrum(
    composition: Mapping[str, float],
    energy_kev: ArrayLike,
    *,
    beam_kev: float = 200.0,
    thickness_nm: float = 100.0,
    density: float = 4.5,
    takeoff_deg: float = 35.0,
    fwhm: Width = detector_fwhm,
    continuum: float = 1.0,
) -> Float:
    """Expected counts in each channel from a thin foil, for one electron and a detector of one steradian.

    Parameters
    ----------
    composition : mapping of str to float
        Atomic per cent by element; any positive sum.
    energy_kev : array, shape (E,), keV
        Channel centres, rising and above 0.1 keV.
    beam_kev : float
        Beam energy in keV.
    thickness_nm, density : float
        Foil thickness in nm and density in g/cm^3.
    takeoff_deg : float
        Detector elevation in degrees, above 0 up to 90; the foil lies across the beam.
    fwhm : callable
        Full width at half maximum in keV as a function of energy in keV.
    continuum : float, default 1
        Multiplies the continuum. Measured spectra have more of it than the foil alone produces (2 is common), because
        the holder, the grid and the apertures contribute.

    Returns
    -------
    array, shape (E,)
        Counts; multiply them with the number of electrons and the solid angle of the detector.

    Raises
    ------
    InputError
        If an element is unknown, the axis does not rise or starts below 0.1 keV, or a quantity is not positive.

    Examples
    --------
    >>> energy = np.linspace(0.2, 20, 1980)
    >>> spectrum = eds_spectrum({"Mg": 50, "O": 50}, energy)
    >>> round(float(energy[spectrum.argmax()]), 2)  # Mg Ka
    1.25
    """
    energies = np.asarray(energy_kev, dtype=np.float64)
    if energies.ndim != 1 or energies.size < 2 or energies[0] < LOWEST_KEV or not (np.diff(energies) > 0).all():
        raise InputError(
            "the energy axis must be one-dimensional, rising and in keV from 0.1 up; "
            "type something like np.linspace(0.2, 20, 1980)"
        )
    if min(beam_kev, thickness_nm, density) <= 0 or continuum < 0 or not 0 < takeoff_deg <= 90:
        raise InputError(
            "beam_kev, thickness_nm and density must be above 0, continuum not below 0 and takeoff_deg in (0, 90], got "
            f"{beam_kev}, {thickness_nm}, {density}, {continuum} and {takeoff_deg}"
        )
    fractions = mass_fractions(composition)
    mass_thickness = density * thickness_nm * 1e-7  # g/cm^2
    atoms_per_cm2 = {
        element: weight * mass_thickness * AVOGADRO / atomic_weight(element) for element, weight in fractions.items()
    }

    def arriving(photon: Float) -> Float:
        """Fraction of the photons generated in the foil that the detector counts."""
        path = mass_attenuation(fractions, photon) * mass_thickness / math.sin(math.radians(takeoff_deg))
        return foil_transmission(path) * detector_efficiency(photon)

    edges, reach = channel_edges(energies), reach_kev(energies, fwhm)

    lines = [line for element in fractions for line in emission_lines(element, beam_kev)]
    lines = [line for line in lines if max(LOWEST_KEV, edges[0] - reach) < line.energy_kev < edges[-1] + reach]
    lines.sort(key=lambda line: line.energy_kev)
    centres = np.array([line.energy_kev for line in lines])
    heights = np.array([line.intensity * atoms_per_cm2[line.element] for line in lines]) / (4 * math.pi)
    spectrum = detector_response(centres, heights * arriving(centres), edges, fwhm)
    if continuum == 0:
        return spectrum

    sampled = beyond_ends(energies, reach)
    generated = np.zeros_like(sampled)
    for element, count in atoms_per_cm2.items():
        generated += count * continuum_cross_section(element, sampled, beam_kev=beam_kev, takeoff_deg=takeoff_deg)
    generated *= continuum * arriving(sampled) * np.gradient(sampled)
    return spectrum + detector_response(sampled, generated, edges, fwhm)
