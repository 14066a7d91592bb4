"""Spectra as texts that other programs read: tables (.csv) and the EMSA/MAS format (.msa, ISO 22029)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import xarray as xr

from scalehsi.arrays import Float
from scalehsi.cube import energy_factor
from scalehsi.schema import ENERGY

SIGNAL_TYPES: Final = {"EDS": "EDS", "EELS": "ELS", "CL": "CLS"}
LONGEST_TITLE: Final = 64
"""Letters of a title in the EMSA/MAS format."""


def table_text(spectra: xr.DataArray, names: Sequence[str], *, units: str) -> str:
    """A table with one column a spectrum, which `scalehsi.project` reads as references.

    spectra (component, energy). names: of the components. units: of the intensity, in the header behind each name.

    Examples
    --------
    >>> rows = xr.DataArray([[1.0, 2.5]], dims=("component", "energy"), coords={"energy": [5.0, 6.0]})
    >>> rows["energy"].attrs["units"] = "eV"
    >>> print(table_text(rows, ["oxide"], units="counts"), end="")
    energy (eV),oxide (counts)
    5,1
    6,2.5
    """
    energy, unit = _axis(spectra)
    head = f"energy ({unit})" if unit else "channel"
    lines = [",".join([head, *(f"{name} ({units})" for name in names)])]
    for place, row in zip(energy, np.asarray(spectra.values, dtype=np.float64).T, strict=True):
        lines.append(",".join(f"{value:.9g}" for value in (place, *row)))
    return "\n".join(lines) + "\n"


def emsa_text(spectrum: xr.DataArray, *, title: str, units: str, attrs: Mapping[str, Any]) -> str:
    """One spectrum (energy,) in the EMSA/MAS format, with the energies beside the values where steps are not equal.

    title: of the spectrum. units: of the intensity. attrs: of the result; signal and beam energy are written.
    """
    energy, unit = _axis(spectrum)
    values = np.asarray(spectrum.values, dtype=np.float64)
    step = (energy[-1] - energy[0]) / (energy.size - 1) if energy.size > 1 else 1.0
    even = np.allclose(energy, energy[0] + step * np.arange(energy.size), rtol=0, atol=1e-4 * abs(step))
    head = {
        "FORMAT": "EMSA/MAS Spectral Data File",
        "VERSION": "1.0",
        "TITLE": title[:LONGEST_TITLE],
        "DATE": "",
        "TIME": "",
        "OWNER": "",
        "NPOINTS": f"{values.size}.",
        "NCOLUMNS": "1.",
        "XUNITS": unit or "channel",
        "YUNITS": units,
        "DATATYPE": "Y" if even else "XY",
        "XPERCHAN": f"{step:.9g}",
        "OFFSET": f"{energy[0]:.9g}",
    }
    if (kind := SIGNAL_TYPES.get(str(attrs.get("signal", "")))) is not None:
        head["SIGNALTYPE"] = kind
    head |= {"XLABEL": "Energy" if unit else "Channel", "YLABEL": "Intensity"}
    if "beam_energy_keV" in attrs:
        head["BEAMKV"] = f"{float(attrs['beam_energy_keV']):g}"
    head["SPECTRUM"] = "Spectral Data Starts Here"
    lines = [f"#{key:<12}: {text}" for key, text in head.items()]
    columns = values[:, None] if even else np.stack([energy, values], axis=1)
    lines += [", ".join(f"{value:.9g}" for value in row) + ("," if even else "") for row in columns]
    return "\n".join([*lines, "#ENDOFDATA   : "]) + "\n"


def _axis(spectra: xr.DataArray) -> tuple[Float, str]:
    """The energies (E,) and their unit; channel numbers and no unit where there are no energies."""
    if ENERGY not in spectra.coords:
        return np.arange(spectra.sizes[ENERGY], dtype=np.float64), ""
    unit = str(spectra[ENERGY].attrs.get("units", ""))
    return np.asarray(spectra[ENERGY].values, dtype=np.float64), unit if energy_factor(unit) else ""
