"""X-ray lines of the elements: their energies, and the cross sections for their production by a fast electron.

Atomic data (edges, line energies, radiative rates, fluorescence and Coster-Kronig yields) come from xraylib [1]_. The
ionisation cross section is the relativistic Bethe form [2]_ with two constants for each subshell, fitted here to
distorted-wave cross sections [3]_ between 60 and 300 keV (within 4 % for K, 10 % for L and M1 to M3, 17 % for M4 and
M5). Holes move between the subshells of one shell; holes that come from a deeper shell are neglected.

References
----------
.. [1] T. Schoonjans et al., Spectrochim. Acta B 66 (2011) 776. doi:10.1016/j.sab.2011.09.011
.. [2] C. J. Powell, Rev. Mod. Phys. 48 (1976) 33. doi:10.1103/RevModPhys.48.33
.. [3] D. Bote et al., At. Data Nucl. Data Tables 95 (2009) 871. doi:10.1016/j.adt.2009.08.001
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import cache, lru_cache
from operator import attrgetter
from typing import Final, NamedTuple

from toolz import groupby

from scalehsi.physics.line_names import pretty_family
from scalehsi.schema import InputError, suggest

ELECTRON_REST_KEV: Final = 510.99895
BETHE_CM2_KEV2: Final = 6.5133e-20  # 2 pi (e^2 / 4 pi eps0)^2

# Subshell -> electrons, Bethe b, Bethe c (fitted, see the first lines of this module).
SUBSHELLS: Final[dict[str, tuple[int, float, float]]] = {
    "K": (2, 0.673, 1.183),
    "L1": (2, 0.486, 1.707),
    "L2": (2, 0.717, 1.193),
    "L3": (4, 0.706, 1.266),
    "M1": (2, 0.352, 3.663),
    "M2": (2, 0.465, 2.468),
    "M3": (4, 0.454, 4.308),
    "M4": (4, 0.974, 0.806),
    "M5": (6, 0.978, 0.793),
}
OUTER_SUBSHELLS: Final = [
    f"{shell}{i}" for shell, count in (("L", 3), ("M", 5), ("N", 7), ("O", 7)) for i in range(1, count + 1)
]

# Initial subshell -> (final subshells, family); other transitions keep their IUPAC name, such as "M2N4".
FAMILIES: Final[dict[str, list[tuple[str, str]]]] = {
    "K": [("L2 L3", "Ka"), ("M1 M2 M3 M4 M5 N1 N2 N3 N4 N5 O2 O3", "Kb")],
    "L3": [("M4 M5", "La"), ("M1", "Ll"), ("M2 M3 N1 N2 N3 N4 N5 N6 N7 O1 O4 O5", "Lb2")],
    "L2": [("M4", "Lb1"), ("M1", "Ln"), ("M3 N1 N3 N4 O1 O4", "Lg1")],
    "L1": [("M2 M3 M4 M5", "Lb3"), ("N2 N3 N4 N5 O2 O3 O4", "Lg3")],
    "M5": [("N6 N7", "Ma"), ("N3", "Mz")],
    "M4": [("N6", "Mb"), ("N2", "Mz")],
    "M3": [("N4 N5", "Mg")],
}


class Line(NamedTuple):
    """One family of X-ray lines of one element.

    Attributes
    ----------
    element : str
        Symbol, such as ``"Ca"``.
    family : str
        Siegbahn family (``"Ka"``, ``"Kb"``, ``"La"``, ``"Lb1"``, ``"Ma"`` ...), else the IUPAC name.
    energy_kev : float
        Mean energy of the family in keV, weighted by intensity.
    intensity : float
        Cross section in cm^2 per atom, or relative to the element's strongest line: see the function that returns it.
    """

    element: str
    family: str
    energy_kev: float
    intensity: float

    @property
    def name(self) -> str:
        """Element and family, such as ``"Ca Ka"``."""
        return f"{self.element} {self.family}"

    @property
    def label(self) -> str:
        """Element and family as microscopists write them, such as ``Ca Kα``."""
        return f"{self.element} {pretty_family(self.family)}"

    @property
    def shell(self) -> str:
        """The shell of the hole: K, L or M."""
        return self.family[0]


@cache
def symbols() -> tuple[str, ...]:
    """Symbols of the elements with lines that EDX detects, boron (Z = 5) to uranium (92)."""
    import xraylib

    return tuple(map(xraylib.AtomicNumberToSymbol, range(5, 93)))


def atomic_number(symbol: str) -> int:
    """Atomic number of an element symbol.

    Raises
    ------
    InputError
        If the symbol is unknown.

    Examples
    --------
    >>> atomic_number("Fe")
    26
    """
    import xraylib

    try:
        return int(xraylib.SymbolToAtomicNumber(symbol))
    except ValueError:
        known = [xraylib.AtomicNumberToSymbol(z) for z in range(1, 99)]
        raise InputError(f"no element is called {symbol!r}; {suggest(symbol, known)}") from None


def atomic_weight(symbol: str) -> float:
    """Standard atomic weight of an element in g/mol."""
    import xraylib

    return float(xraylib.AtomicWeight(atomic_number(symbol)))


def _known(function: Callable[..., float], *arguments: object) -> float:
    """Call an xraylib function; zero where its tables have no value (it raises ValueError there)."""
    try:
        return float(function(*arguments))
    except ValueError:
        return 0.0


def ionisation_cross_section(subshell: str, edge_kev: float, beam_kev: float) -> float:
    """Cross section for the ionisation of a subshell, in cm^2 per atom.

    Parameters
    ----------
    subshell : str
        ``"K"``, ``"L1"`` to ``"L3"``, ``"M1"`` to ``"M5"``.
    edge_kev, beam_kev : float
        Binding energy and beam energy in keV; the cross section is zero for a beam below the edge.

    Examples
    --------
    >>> round(ionisation_cross_section("K", 1.839, 200) * 1e24)  # barn, Si K; distorted waves give 1745
    1757
    """
    electrons, b, c = SUBSHELLS[subshell]
    if not 0 < edge_kev < beam_kev:
        return 0.0
    beta2 = 1 - (1 + beam_kev / ELECTRON_REST_KEV) ** -2
    classical = ELECTRON_REST_KEV * beta2 / 2  # m v^2 / 2
    logarithm = math.log(c * classical / edge_kev) - math.log(1 - beta2) - beta2
    return max(BETHE_CM2_KEV2 * electrons * b / (classical * edge_kev) * logarithm, 0.0)


@lru_cache(maxsize=1024)
def emission_lines(element: str, beam_kev: float = 200.0) -> tuple[Line, ...]:
    """Every K, L and M line of an element; the intensity is the production cross section in cm^2 per atom.

    There is one line for each transition, so a family may occur several times.

    Examples
    --------
    >>> {line.family for line in emission_lines("O")}
    {'Ka'}
    """
    import xraylib

    z = atomic_number(element)
    shell_of = {name: getattr(xraylib, f"{name}_SHELL") for name in SUBSHELLS}
    vacancies: dict[str, float] = {}
    for name in SUBSHELLS:
        edge = _known(xraylib.EdgeEnergy, z, shell_of[name])
        vacancies[name] = ionisation_cross_section(name, edge, beam_kev)
        # Coster-Kronig: a hole moves outwards within its shell before it is filled. Inner subshells are done here.
        for i in range(1, int(name[1:] or 1)):
            transfer = getattr(xraylib, f"F{name[0]}{i}{name[1]}_TRANS")
            vacancies[name] += _known(xraylib.CosKronTransProb, z, transfer) * vacancies[f"{name[0]}{i}"]
    lines = []
    for name, holes in vacancies.items():
        radiative = holes * _known(xraylib.FluorYield, z, shell_of[name])
        for outer in OUTER_SUBSHELLS:
            code = getattr(xraylib, f"{name}{outer}_LINE", None)
            if code is None or radiative == 0:
                continue
            rate, energy = _known(xraylib.RadRate, z, code), _known(xraylib.LineEnergy, z, code)
            if rate > 0 and energy > 0:
                family = next((f for outers, f in FAMILIES.get(name, []) if outer in outers.split()), f"{name}{outer}")
                lines.append(Line(element, family, energy, radiative * rate))
    return tuple(lines)


def line_table(
    elements: Iterable[str],
    *,
    energy_range: tuple[float, float] = (0.1, 20.0),
    beam_kev: float = 200.0,
    minimum: float = 0.02,
) -> list[Line]:
    """X-ray line families of some elements, by rising energy; the strongest of each element has intensity one.

    Parameters
    ----------
    elements : iterable of str
        Symbols.
    energy_range : (float, float), keV
        Lines outside are omitted, and do not count as an element's strongest.
    beam_kev : float
        Beam energy in keV; it decides the balance between K, L and M.
    minimum : float, 0 to 1
        Lines weaker than this fraction of the element's strongest are omitted.

    Returns
    -------
    list of Line
        Intensities are those generated in the foil per atom, without absorption and detector.

    Raises
    ------
    InputError
        If an element is unknown.

    Examples
    --------
    >>> [line.name for line in line_table(["Ca", "Fe"], energy_range=(2, 20))]
    ['Ca Ka', 'Ca Kb', 'Fe Ka', 'Fe Kb']
    >>> round(line_table(["Nd"], energy_range=(4, 6))[1].energy_kev, 2)
    5.23
    """
    low, high = energy_range
    table: list[Line] = []
    for element in dict.fromkeys(elements):
        merged = []
        for family, lines in groupby(attrgetter("family"), emission_lines(element, beam_kev)).items():
            total = sum(line.intensity for line in lines)
            mean = sum(line.energy_kev * line.intensity for line in lines) / total
            if low <= mean <= high:
                merged.append(Line(element, family, mean, total))
        strongest = max((line.intensity for line in merged), default=1.0)
        table += [line._replace(intensity=line.intensity / strongest) for line in merged]
    return sorted((line for line in table if line.intensity >= minimum), key=lambda line: line.energy_kev)
