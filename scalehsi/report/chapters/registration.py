"""The part of the page on two acquisitions: where one lies on the other, and how well both agree there."""

from __future__ import annotations

from typing import Final

import numpy as np
import xarray as xr

from scalehsi.plots.registration import draw_registration
from scalehsi.report.page import Chapter, Drawing, paragraph
from scalehsi.schema import X, Y

POOR: Final = 0.5
"""From this residual on the registration is not to be trusted."""


def chapter(result: xr.Dataset) -> Chapter | None:
    """The part of the page; None for results of one acquisition."""
    if "registration_shift" not in result or "coarse_abundances" not in result:
        return None
    drawing = Drawing(
        "registration",
        "registration.png",
        draw_registration(result),
        "Maps of the spectral acquisition, of the spatial one averaged over the same pixels, and their difference.",
        "Left: the map that the pixels of the spectral acquisition show. Middle: the map of the spatial one, averaged "
        "over each of them where it was found to lie. Right: the difference, which is noise where the registration "
        "and both scans are right; rims on one side of everything are a shift, or drift during the scans.",
    )
    return Chapter("registration", "How two acquisitions lie on each other", paragraph(words_of(result)), [drawing])


def words_of(result: xr.Dataset) -> str:
    """Shift, scale, probe and agreement in a few sentences."""
    unit = str(result["registration_shift"].attrs.get("units", ""))
    shift = np.asarray(result["registration_shift"].values, dtype=float)
    error = np.asarray(result["registration_shift_error"].values, dtype=float)
    along = [
        f"{s:+.3g}{f' ± {e:.1g}' if np.isfinite(e) else ''} {unit} along {dim}".replace("  ", " ")
        for s, e, dim in zip(shift, error, (Y, X), strict=True)
    ]
    left, blur = float(result["registration_residual"]), float(result["registration_blur"])
    scale, ratio = float(result["registration_scale"]), float(result["dose_ratio"])
    doubt = " That is much: look at the maps below before you rely on the details." if left >= POOR else ""
    probe = f" Its probe is wider than its pixels by a standard deviation of {blur:.2g} {unit}." if blur > 0 else ""
    return (
        f"The spectra come from an acquisition of large pixels, the details from one of small pixels. By its own axes "
        f"the first lies {along[0]} and {along[1]} off, at {scale:.4g} times the size.{probe} A small pixel has "
        f"{ratio:.2g} of the counts of a large one. Where both lie, their maps differ by {100 * left:.0f} % of their "
        f"variation.{doubt}"
    )
