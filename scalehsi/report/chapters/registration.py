"""Chapter on the registration of two acquisitions: shift, scale and probe, and the agreement of their maps."""

from __future__ import annotations

from functools import partial
from typing import Final

import numpy as np
import xarray as xr

from scalehsi.plots.digest import Digest
from scalehsi.plots.registration import draw_registration
from scalehsi.plots.style import number_text
from scalehsi.report.chapters import Context
from scalehsi.report.page import Chapter, Drawing, Paragraph
from scalehsi.schema import X, Y

ORDER: Final = 100


def chapter(view: Digest, context: Context) -> Chapter | None:
    """The registration; None for results of one acquisition."""
    result = context.result
    if "registration_shift" not in result or "coarse_abundances" not in result:
        return None
    drawing = Drawing(
        "registration.png",
        partial(draw_registration, result),
        "Maps of the spectral acquisition, of the spatial one averaged over the same pixels, and their difference.",
        "Left: map of the spectral acquisition. Middle: map of the spatial acquisition, averaged over the registered "
        "pixels of the spectral one. Right: their difference. It is noise if the registration and both scans are "
        "right; rims on the same side of all features are a shift, or drift during the scans.",
    )
    return Chapter("registration", "Registration of the two acquisitions", [Paragraph(_words(result))], [drawing])


def _words(result: xr.Dataset) -> str:
    """Shift, scale, probe and agreement in a few sentences."""
    unit = str(result["registration_shift"].attrs.get("units", ""))
    shift = np.asarray(result["registration_shift"].values, dtype=float)
    error = np.asarray(result["registration_shift_error"].values, dtype=float)
    errors = [f" ± {number_text(e, 1)}" if np.isfinite(e) else "" for e in error]
    offsets = [
        " ".join(f"{'+' if s > 0 else ''}{number_text(s)}{e} {unit} along {dim}".split())
        for s, e, dim in zip(shift, errors, (Y, X), strict=True)
    ]
    residual, blur = float(result["registration_residual"]), float(result["registration_blur"])
    scale, ratio = float(result["registration_scale"]), float(result["dose_ratio"])
    probe = (
        f" Its probe is wider than its pixels by a standard deviation of {number_text(blur, 2)} {unit}."
        if blur > 0
        else ""
    )
    return (
        "The spectra come from the spectral acquisition with large pixels, the details from the spatial acquisition "
        f"with small pixels. Relative to the coordinates of both, the spectral acquisition is shifted by {offsets[0]} "
        f"and {offsets[1]}, and scaled by {scale:.4g}.{probe} A small pixel has {ratio:.2g} of the counts of a large "
        f"one. In the common area, the maps differ by {100 * residual:.0f} % of their variation."
    )
