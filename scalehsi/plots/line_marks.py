"""Labels over the spectra of a result: X-ray lines at the peaks of EDX spectra, edges of the elements in EELS."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from scalehsi.arrays import NumpyArray
from scalehsi.physics.identify import Mark, name_peaks
from scalehsi.physics.lines import symbols
from scalehsi.physics.peaks import find_peaks, rise_at
from scalehsi.plots.digest import Digest, intensity_spectra

EDGE_ATOMIC_NUMBERS: Final[dict[str, tuple[int, int]]] = {
    "K": (1, 92),
    "L3": (11, 92),
    "L2": (11, 92),
    "M5": (29, 92),
    "M4": (29, 92),
    "M3": (19, 36),
    "N5": (47, 80),
}
"""Edges that are marked, and the first and last atomic number for which they are strong enough."""


def component_marks(view: Digest) -> list[list[Mark]]:
    """Find the labels of each component, in order of rising energy (keV).

    For EDS they name the peaks above noise and continuum. For EELS they are the edges of the given elements, and `net`
    is the rise of the spectrum at the edge, 0 without a rise. Other signals and signed components have none.
    """
    if view.signed or view.energy.size < 16:
        return [[] for _ in view.names]
    # Smoothed noise resembles peaks, so peaks are found in the spectra before smoothing.
    spectra = np.nan_to_num(intensity_spectra(view, smoothed=False))
    if view.signal == "EDS" and view.energy_unit in ("keV", "eV"):
        whole = [] if view.elements else name_peaks(find_peaks(view.energy_kev, spectra.sum(axis=0)), ())
        likely = dict.fromkeys(part.split()[0] for mark in whole for part in mark.label.split(" or "))
        return [name_peaks(find_peaks(view.energy_kev, row), view.elements, likely=tuple(likely)) for row in spectra]
    if view.signal == "EELS" and view.energy_unit in ("keV", "eV"):
        return [_edge_marks(view, row) for row in spectra]
    return [[] for _ in view.names]


def strongest(marks: Sequence[Mark], count: int = 4) -> list[str]:
    """Labels of the highest peaks, or of the edges with a rise, highest first and without repeats.

    Lines of the given elements come before others, such as the copper of the grid.
    """
    seen = sorted((mark for mark in marks if mark.net > 0), key=lambda mark: (not mark.certain, -mark.net))
    return list(dict.fromkeys(mark.label for mark in seen))[:count]


def edges(elements: tuple[str, ...], low_kev: float, high_kev: float) -> list[Mark]:
    """List the edges of elements between two energies in keV, by rising energy.

    Examples
    --------
    >>> [(mark.label, round(mark.energy * 1000)) for mark in edges(("C", "Ca"), 0.2, 0.6)]
    [('C K', 284), ('Ca L3', 346), ('Ca L2', 350)]
    """
    import xraylib

    found = []
    for element in dict.fromkeys(elements):
        if element not in symbols() and element not in ("Li", "Be"):
            continue
        z = xraylib.SymbolToAtomicNumber(element)
        for shell, (first, last) in EDGE_ATOMIC_NUMBERS.items():
            if first <= z <= last:
                energy = _edge_kev(z, shell)
                if low_kev < energy < high_kev:
                    found.append(Mark(energy, f"{element} {shell}", 0.0, certain=True))
    return sorted(found)


def _edge_kev(z: int, shell: str) -> float:
    """Tabulated energy of an edge in keV; 0 where there is none."""
    import xraylib

    try:
        return float(xraylib.EdgeEnergy(z, getattr(xraylib, f"{shell}_SHELL")))
    except ValueError:
        return 0.0


def _edge_marks(view: Digest, spectrum: NumpyArray) -> list[Mark]:
    """Edges of the known elements, with the rise of the spectrum at each."""
    axis = view.energy_kev * 1e3
    marks = []
    for mark in edges(view.elements, float(axis.min()) / 1e3, float(axis.max()) / 1e3):
        onset = mark.energy * 1e3
        # L2 and M4 overlap with L3 and M5: the rise is measured at the first edge of the pair only.
        if mark.label[-2:] not in ("L2", "M4"):
            mark = mark._replace(net=rise_at(axis, spectrum, onset))
        marks.append(mark)
    return marks
