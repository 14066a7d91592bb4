"""Names that all modules share: dimensions, result variables, units, statuses, and the two error classes.

All are constants or pure functions of text, so every layer may import this module.
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Iterable
from typing import Final, Literal

# Dimensions. A cube is (..., y, x, energy); leading dimensions are navigation too.
Y: Final = "y"
X: Final = "x"
ENERGY: Final = "energy"
COMPONENT: Final = "component"
ITERATION: Final = "iteration"

# The coordinate of a cube that marks the pixels to use (True = use).
MASK: Final = "mask"

# Result variables.
ENDMEMBERS: Final = "endmembers"
ABUNDANCES: Final = "abundances"
OBJECTIVE: Final = "objective"
ABUNDANCES_STD: Final = "abundances_std"
RESIDUAL: Final = "residual"
RESIDUAL_SPECTRUM: Final = "residual_spectrum"
MEAN_SPECTRUM: Final = "mean_spectrum"
BACKGROUND: Final = "background"
CORE: Final = "core"
RELATIVE_RESIDUAL: Final = "relative_residual"
MODE_FACTORS: Final = "_factors"
"""End of the names of the factors of a tensor: ``frame_factors`` (component, frame)."""

LENGTH_UNITS: Final = {
    "m": 1e9,
    "cm": 1e7,
    "mm": 1e6,
    "um": 1e3,
    "µm": 1e3,
    "μm": 1e3,
    "micron": 1e3,
    "nm": 1.0,
    "Å": 0.1,
    "A": 0.1,
    "pm": 1e-3,
}
"""Length units in nanometres."""

ENERGY_UNITS: Final = {"eV": 1.0, "keV": 1e3, "meV": 1e-3, "MeV": 1e6}
"""Energy units in electronvolts."""

_UNIT_WORDS: Final = {
    **dict.fromkeys(("angstrom", "angstroms", "ångström", "ångstrom", "ang"), "Å"),
    **dict.fromkeys(("nanometer", "nanometers", "nanometre", "nanometres"), "nm"),
    **dict.fromkeys(("micrometer", "micrometers", "micrometre", "micrometres", "microns", "um", "\u03bcm"), "µm"),
    **dict.fromkeys(("picometer", "picometers", "picometre", "picometres"), "pm"),
    **dict.fromkeys(("millimeter", "millimeters", "millimetre", "millimetres"), "mm"),
    **dict.fromkeys(("meter", "meters", "metre", "metres"), "m"),
    **dict.fromkeys(("ev", "electronvolt", "electronvolts", "electron volt", "electron volts"), "eV"),
    **dict.fromkeys(("kev", "kiloelectronvolt", "kiloelectronvolts"), "keV"),
    **dict.fromkeys(("pixel", "pixels"), "px"),
    **dict.fromkeys(("channels",), "channel"),
}
"""Spellings of other programs, in lower case."""

Status = Literal["converged", "max_iter", "stagnated", "nonfinite", "interrupted"]

ADVICE: Final[dict[str, str]] = {
    "converged": "The objective settled within the tolerance.",
    "max_iter": "The iteration limit came first; raise max_iter or accept a looser tol.",
    "stagnated": "The objective stopped improving before the tolerance was met; try another seed or n_components.",
    "nonfinite": "NaN or Inf appeared; look at the cube with scalehsi.check_finite and at the scaling of the data.",
    "interrupted": "The run was stopped; fit again with resume=True and the same checkpoint to continue.",
}
"""One sentence of advice for each status."""


class InputError(ValueError):
    """Wrong input of the user. The message names what was got, what was expected and what to type."""


class DataChanged(InputError):
    """The files of a cube changed or vanished while they were read."""


class WorkersLost(RuntimeError):
    """The scheduler or all workers of a cluster are gone; the message names the checkpoint of a fit."""


class Interrupted(KeyboardInterrupt):
    """A fit was stopped by SIGINT or SIGTERM.

    Parameters
    ----------
    message : str
        Where the state is saved and how to continue.
    checkpoint : str or None
        Folder of the saved state, or None when the fit had no checkpoint; also an attribute.
    iteration : int, default 0
        The last finished iteration; also an attribute.
    """

    def __init__(self, message: str, *, checkpoint: str | None = None, iteration: int = 0) -> None:
        super().__init__(message)
        self.checkpoint = checkpoint
        self.iteration = iteration


def suggest(name: str, known: Iterable[str]) -> str:
    """Text for the end of an error message: the known word nearest to ``name``, and all known words.

    Examples
    --------
    >>> suggest("n_component", ["n_components", "tol"])
    "did you mean 'n_components'? Known: n_components, tol"
    """
    options = sorted(known)
    close = difflib.get_close_matches(name, options, n=1, cutoff=0.5) or difflib.get_close_matches(
        name.lower(), options, n=1, cutoff=0.5
    )
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}Known: {', '.join(options)}"


def usual_unit(text: str) -> str:
    """A unit as it is spelled here; other texts are returned without their outer blanks.

    Examples
    --------
    >>> usual_unit("Angstrom"), usual_unit("Energy Loss (eV)"), usual_unit("KeV"), usual_unit("1/nm")
    ('Å', 'eV', 'keV', '1/nm')
    """
    plain = unicodedata.normalize("NFC", text).strip().replace("\u03bc", "µ")
    known = {**LENGTH_UNITS, **ENERGY_UNITS}
    found = re.fullmatch(r".*[(\[]\s*([^()\[\]]+?)\s*[)\]]", plain)
    for word in (plain, *(found.groups() if found else ())):
        usual = word if word in known else _UNIT_WORDS.get(word.lower(), "")
        if usual:
            return usual
    return plain
