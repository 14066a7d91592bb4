"""What speaks against a trained network, without a truth: collapsed maps, dead components, restarts that disagree."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import scipy
import xarray as xr

from scalehsi.arrays import Float, NumpyArray
from scalehsi.kernels.subspace.singular_vectors import leading_vectors
from scalehsi.models.geometric.base import no_pure_pixels
from scalehsi.result import ResultWarning

CHECKS: Final = (
    "misfit",
    "zero_one_share",
    "dead_pixel_share",
    "dead_components",
    "restart_angle_deg",
    "share_outside",
)
"""Names along ``network_checks`` of a result, in the order of `measure`."""
LARGEST_MISFIT: Final = 1.3
LARGEST_DEAD_PIXEL_SHARE: Final = 0.01
DEAD_MAXIMUM: Final = 0.1
"""A component is dead when its abundance stays below this in 99.9 % of the pixels."""
LARGEST_RESTART_ANGLE_DEG: Final = 1.0


def measure(
    x: NumpyArray, a: NumpyArray, spectra: list[Float], *, best: int, weight: Float, seed: int, outside: float
) -> Float:
    """The numbers of `CHECKS` from the training sample.

    x (n, E), a (n, K): its spectra and abundances. spectra: endmembers (K, E) of each restart. best: number of the one
    that is returned. weight (E,): of the channels. seed: of the subspace. outside: share of pixels outside of the
    simplex of the start.
    """
    z = (x * weight).astype(np.float64)
    keep = np.linalg.norm(z, axis=1) > 0
    z, a = z[keep], a[keep].astype(np.float64)
    k = a.shape[1]
    model = a @ (spectra[best] * weight)
    basis = leading_vectors(z.astype(np.float32), min(k, z.shape[1]), seed=seed)
    plane = (z @ basis) @ basis.T
    least = float((1.0 - _cosine(z, plane)).mean())
    alive = a.sum(axis=1) >= 0.5
    misfit = float((1.0 - _cosine(z, model))[alive].mean()) / max(least, 1e-12) if alive.any() else np.inf
    dead = float(1.0 - alive.mean())
    ends = float(((a < 0.01) | (a > 0.99)).mean())
    top = np.quantile(a, 0.999, axis=0)
    angles = [_largest_angle(each, spectra[best], weight) for i, each in enumerate(spectra) if i != best]
    turned = max(angles, default=0.0)
    return np.array([misfit, ends, dead, float((top < DEAD_MAXIMUM).sum()), turned, outside])


def collapse_warnings(checks: Any, *, model: str, restarts: int, remedy: str) -> list[ResultWarning]:
    """Warnings from the numbers of `measure`.

    checks: along ``check``. model: its name. restarts: number of networks. remedy: what to type.
    """
    value = dict(zip(CHECKS, np.asarray(checks.values, dtype=float), strict=True))
    found = []
    if not value["misfit"] <= LARGEST_MISFIT or value["dead_pixel_share"] > LARGEST_DEAD_PIXEL_SHARE:
        found.append(
            ResultWarning(
                "network_collapsed",
                f"The {model} leaves {value['misfit']:.2g} times the misfit of the best plane of as many dimensions; "
                f"{100 * value['zero_one_share']:.0f} % of its abundances are 0 or 1, and "
                f"{100 * value['dead_pixel_share']:.1f} % of the pixels have none.",
                remedy,
            )
        )
    if value["dead_components"]:
        number = int(value["dead_components"])
        found.append(
            ResultWarning(
                "dead_component",
                f"{number} component{'s' if number > 1 else ''} of the {model} stay{'' if number > 1 else 's'} below "
                f"an abundance of {DEAD_MAXIMUM:g} in 99.9 % of the pixels.",
                f"{remedy}; or fewer components",
            )
        )
    if value["restart_angle_deg"] > LARGEST_RESTART_ANGLE_DEG:
        found.append(
            ResultWarning(
                "restarts_disagree",
                f"Endmembers of the {restarts} networks of the {model} differ by up to "
                f"{value['restart_angle_deg']:.2g} degrees; the one of lowest held-out loss is returned.",
                remedy,
            )
        )
    return found + no_pure_pixels(value["share_outside"], "SSS(k), which needs no pure pixels")


def _cosine(x: Float, y: Float) -> Float:
    size = np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)
    return np.asarray((x * y).sum(axis=1) / np.where(size > 0, size, 1.0))


def _largest_angle(left: Float, right: Float, weight: Float) -> float:
    """Largest angle in degrees between two sets of endmembers (K, E), matched one to one. weight (E,): of channels."""
    a, b = left * weight, right * weight
    unit = [each / np.maximum(np.linalg.norm(each, axis=1, keepdims=True), 1e-300) for each in (a, b)]
    angle = np.degrees(np.arccos(np.clip(unit[0] @ unit[1].T, -1.0, 1.0)))
    return float(angle[scipy.optimize.linear_sum_assignment(angle)].max())


def checks_of(result: xr.Dataset) -> dict[str, float]:
    """The numbers of `measure` of a stored result by name."""
    values = np.asarray(result["network_checks"].values, dtype=float)
    return dict(zip(CHECKS, values.tolist(), strict=True))
