"""Onset energies of the ionisation edges that EELS shows: K, L3 and M5, from xraylib's binding energies.

T. Schoonjans et al., Spectrochim. Acta B 66 (2011) 776. doi:10.1016/j.sab.2011.09.011
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from scalehsi.physics.lines import atomic_number

SHELLS: Final = ("K", "L3", "M5")


class Onset(NamedTuple):
    """An ionisation edge of an element.

    Attributes
    ----------
    element, shell : str
    energy_ev : float
    """

    element: str
    shell: str
    energy_ev: float

    @property
    def name(self) -> str:
        """Element and shell, such as ``"Cu L3"``."""
        return f"{self.element} {self.shell}"


def edge_onsets(elements: Iterable[str], energy_range: tuple[float, float]) -> list[Onset]:
    """Edges of some elements in a range, by rising energy.

    Parameters
    ----------
    elements : iterable of str
    energy_range : (float, float), eV

    Examples
    --------
    >>> [(edge.name, round(edge.energy_ev)) for edge in edge_onsets(["Zn", "Cu"], (700, 2000))]
    [('Cu L3', 931), ('Zn L3', 1020)]
    """
    import xraylib

    low, high = energy_range
    found = []
    for element in dict.fromkeys(elements):
        number = atomic_number(element)
        for shell in SHELLS:
            try:
                energy = 1e3 * float(xraylib.EdgeEnergy(number, getattr(xraylib, f"{shell}_SHELL")))
            except ValueError:
                continue
            if low <= energy <= high:
                found.append(Onset(element, shell, energy))
    return sorted(found, key=lambda edge: edge.energy_ev)
