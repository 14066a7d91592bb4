"""Compare the composition of each phase, quantified from PSNMF's spectra, with the truth."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import xarray as xr

import scalehsi as hsi
from scalehsi.simulate.minerals import MINERALS
from tests.bench.psnmf_scenes import PHASES, Float, Scene

ELEMENTS: Final = ("Mg", "Si", "Al", "Ca", "Fe", "Nd", "Sm", "U", "O", "Cu")
FOIL: Final = {"thickness_nm": 100.0, "density": 4.5}
K_FACTORS: Final = {
    "Mg": 1.080, "Si": 1.0, "Al": 1.007, "Ca": 0.839, "Fe": 0.856,
    "Nd": 0.904, "Sm": 0.888, "U": 0.402, "O": 1.892, "Cu": 0.928,
}  # fmt: skip
"""k-factors of the generator of the developers' scene, which is another program."""


def truth() -> Float:
    """Return the true atomic per cent (phase, element), normalised to 100 for each phase."""
    found = np.array([[MINERALS[phase].get(element, 0.0) for element in ELEMENTS] for phase in PHASES])
    return 100.0 * found / found.sum(axis=1, keepdims=True)


def composition(scene: Scene, spectra: Float) -> Float:
    """Return atomic per cent (phase, element) of spectra (phase, energy) in the order of the phases."""
    given = xr.DataArray(
        spectra,
        dims=("component", "energy"),
        coords={"energy": ("energy", scene.cube["energy"].values, {"units": "keV"})},
        attrs={"signal": "EDS"},
    )
    settings: dict[str, Any] = {"k_factors": K_FACTORS, "k_units": "atomic"} if scene.name == "dev" else dict(FOIL)
    return np.asarray(hsi.quantify(given, ELEMENTS, **settings)["atomic_percent"].fillna(0).values)


def largest(found: Float) -> Float:
    """Return the largest error of each phase in atomic per cent."""
    return np.abs(found - truth()).max(axis=1)


def element_of(found: Float, phase: str, element: str) -> float:
    return float(found[PHASES.index(phase), ELEMENTS.index(element)])
