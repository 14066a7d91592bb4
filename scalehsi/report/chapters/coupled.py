"""Chapter on signals that share their maps, of CoupledNMF."""

from __future__ import annotations

from functools import partial
from typing import Final

import numpy as np
import xarray as xr

from scalehsi.plots.coupled import SignalSpectra, draw_coupled
from scalehsi.plots.digest import Digest
from scalehsi.report.chapters import Context
from scalehsi.report.page import Chapter, Drawing, Paragraph
from scalehsi.schema import ENDMEMBERS, ENERGY

ORDER: Final = 24
PART: Final = f"{ENDMEMBERS}_"


def chapter(view: Digest, context: Context) -> Chapter | None:
    """Spectra of all signals beside the map that they share; None for a result of one signal."""
    result = context.result
    names = [str(name).removeprefix(PART) for name in result.data_vars if str(name).startswith(PART)]
    names = [name for name in names if f"{ENERGY}_{name}" in result.coords]
    if not names or "noise_variance" not in result:
        return None
    first = str(result["noise_variance"]["signal"].values[0])
    signals = [_spectra(first, result[ENDMEMBERS], ENERGY)]
    signals += [_spectra(name, result[PART + name], f"{ENERGY}_{name}") for name in names]
    shares = ", ".join(
        f"{name} {100 * float(share):.2g} %"
        for name, share in zip(result["signal"].values, result["curvature_share"].values, strict=True)
    )
    words = [
        f"{_listed([signal.name for signal in signals])} were factorised together: each component has one map and a "
        f"spectrum in each signal. What determines the maps comes from {shares}."
    ]
    noise = [
        f"{name} {float(phi):.3g}"
        for name, phi, counts in zip(
            result["signal"].values, result["noise_variance"].values, result["counts"].values, strict=True
        )
        if not counts
    ]
    if noise:
        words.append(f"Variance of the noise, measured before the fit: {', '.join(noise)}; counts have their own.")
    if "bin_factor" in result:
        side = int(result["bin_factor"])
        words.append(f"The spectra were fitted to bins of {side} x {side} pixels, the maps to single pixels.")
    if "registration_shift" in result:
        moved = [
            f"{name} {float(y):.2f} and {float(x):.2f}"
            for name, (y, x) in zip(result["signal"].values, result["registration_shift"].values, strict=True)
            if name != first
        ]
        words.append(f"Shift against {first} along y and x, in pixels: {', '.join(moved)}.")
    contrast = result["contrast"].values
    if (contrast != 1).any():
        found = [f"{name} {float(k):.2f}" for name, k in zip(result["signal"].values, contrast, strict=True) if k != 1]
        words.append(f"Contrast of the maps against those of {first}: {', '.join(found)}.")
    drawing = Drawing(
        "coupled.png",
        partial(draw_coupled, view, signals),
        f"Maps of {', '.join(view.names)} with their spectra in {_listed([signal.name for signal in signals])}.",
        "Left: the map that all signals share. Right: the spectrum of the component in each signal, as a pixel shows "
        "it where the component alone has the mean signal; all spectra of a column have one scale.",
    )
    return Chapter("coupled", "Signals that share their maps", [Paragraph(" ".join(words))], [drawing])


def _spectra(name: str, endmembers: xr.DataArray, dim: str) -> SignalSpectra:
    """Spectra of one signal for the figure. dim: of its energies."""
    axis = endmembers[dim]
    return SignalSpectra(
        name,
        np.asarray(axis.values, dtype=np.float64),
        str(axis.attrs.get("units", "")),
        np.asarray(endmembers.values, dtype=np.float64),
        str(endmembers.attrs.get("units", "")),
    )


def _listed(names: list[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}"
