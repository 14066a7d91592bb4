"""The tables of a quantification, for inspection: X-ray lines and k-factors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from scalehsi.physics.lines import line_table
from scalehsi.quantify.options import Options, make_foil, make_setup
from scalehsi.schema import ENERGY


def lines(
    elements: Sequence[str] | str,
    *,
    energy_range: tuple[float, float] = (0.1, 20.0),
    beam_kev: float = 200.0,
    minimum: float = 0.02,
) -> xr.Dataset:
    """Return the X-ray lines of some elements, by rising energy.

    Parameters
    ----------
    elements : sequence of str, or one symbol
        Symbols of the elements.
    energy_range : (float, float), keV
        Range of the lines.
    beam_kev : float
        Beam energy in keV; it decides the balance between K, L and M.
    minimum : float, 0 to 1
        Lines weaker than this fraction of the element's strongest are omitted.

    Returns
    -------
    xarray.Dataset, dim ``line`` (names such as ``"Fe Ka"``)
        ``energy`` (keV), ``intensity`` (relative to the element's strongest, as generated), ``element``, ``family``.

    Raises
    ------
    InputError
        If an element is unknown.

    Examples
    --------
    >>> lines(["Ca", "Fe"], energy_range=(2, 20))["line"].values.tolist()
    ['Ca Ka', 'Ca Kb', 'Fe Ka', 'Fe Kb']
    """
    wanted = [elements] if isinstance(elements, str) else elements
    table = line_table(wanted, energy_range=energy_range, beam_kev=beam_kev, minimum=minimum)
    out = xr.Dataset(coords={"line": [line.name for line in table]})
    out[ENERGY] = ("line", [line.energy_kev for line in table], {"units": "keV"})
    out["intensity"] = ("line", [line.intensity for line in table], {"long_name": "relative intensity"})
    out["element"] = ("line", [line.element for line in table])
    out["family"] = ("line", [line.family for line in table])
    out.attrs = {
        "beam_energy_keV": beam_kev,
        "source": "xraylib; cross sections after Bethe, fitted to distorted waves",
    }
    return out


def k_factors(
    elements: Sequence[str],
    *,
    reference: str | None = None,
    beam_kev: float = 200.0,
    lines: Sequence[str] | Mapping[str, str] = (),
    energy: Any = None,
    counted: str = "window",
) -> xr.DataArray:
    """Compute k-factors for mass fractions from cross sections, yields and the detector's efficiency.

    Parameters
    ----------
    elements : sequence of str
        Symbols.
    reference : str, optional
        The element whose factor is one. Default: Si where it is among the elements, else the first.
    beam_kev : float
        Beam energy in keV.
    lines : sequence of str, or mapping of str to str
        Lines to use, as in `scalehsi.quantify`.
    energy : array, keV, optional
        Channel centres; 0.2 to 20 keV in steps of 10 eV by default.
    counted : {"window", "family"}
        Counts in a window of 1.2 peak widths, or of all lines of a family.

    Returns
    -------
    xarray.DataArray, dim ``element``
        With the coordinate ``line``.

    Raises
    ------
    InputError
        If an element is unknown or has no line on the axis, or an argument is not valid.

    Examples
    --------
    >>> k_factors(["Si", "O", "Fe"]).round(2).values.tolist()
    [1.0, 0.98, 1.66]
    """
    axis = np.linspace(0.2, 20, 1981) if energy is None else np.asarray(energy, dtype=np.float64)
    foil = make_foil(beam_kev=beam_kev)
    options = Options(tuple(dict.fromkeys(elements)), lines=lines, reference=reference, foil=foil, counted=counted)
    setup = make_setup(options, axis)
    return xr.DataArray(
        setup.k_factors,
        dims="element",
        coords={"element": list(options.elements), "line": ("element", [peak.name for peak in setup.peaks])},
        attrs={"long_name": "k-factor for mass fractions", "counted": counted, "beam_energy_keV": beam_kev},
        name="k_factor",
    )
