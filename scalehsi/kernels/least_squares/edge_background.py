"""Update of endmembers that are an edge on a power-law background, from the sums of a pass, without the data.

``N = c' x`` (K, E) and ``M = c' c`` (K, K) are those of `scalehsi.kernels.least_squares.passes.update`. An endmember is
``t = s + d P``: an edge s that is zero up to the onset, and a background in the cone of power laws P (R, E) with
``d >= 0``, which is not negative, falling, convex and smooth.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import scipy

from scalehsi.arrays import Bool, Float
from scalehsi.kernels.quadratic.nnls import nnls

EXPONENTS: Final = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0)
SWEEPS: Final = 5
RIDGE: Final = 1e-3
"""Added to the Gram matrix of the endmembers of unit length before its determinant is taken."""


class Axis(NamedTuple):
    """The channels of a fit.

    Attributes
    ----------
    laws : array, shape (R, E)
        Power laws of unit mean in the window.
    window, above : array of bool, shape (E,)
        Channels in front of the edge, where the background is fitted; channels from the onset on.
    weight : array, shape (E,)
        Of the channels.
    """

    laws: Float
    window: Bool
    above: Bool
    weight: Float


def power_laws(energy: Float, window: Bool) -> Float:
    """``E^-r`` for r = 1 to 6, of unit mean in the window, shape (6, E).

    energy (E,): above zero. window (E,): channels in front of the edge.
    """
    middle = float(np.exp(np.log(energy[window]).mean()))
    laws = np.array([(energy / middle) ** -r for r in EXPONENTS])
    return np.asarray(laws / laws[:, window].mean(axis=1, keepdims=True))


def split(t: Float, axis: Axis) -> tuple[Float, Float]:
    """Edges (K, E) and coefficients of the backgrounds (K, R) of endmembers t (K, E)."""
    d = np.array([_cone(row, axis) for row in t])
    return np.where(axis.above, np.maximum(t - d @ axis.laws, 0.0), 0.0), d


def improve(n: Float, m: Float, s: Float, d: Float, axis: Axis) -> tuple[Float, Float]:
    """Better edges and backgrounds for the abundances of a pass.

    The backgrounds are fitted row by row to what the data want in the window; then the edges, exactly.

    Parameters
    ----------
    n : array, shape (K, E)
        N of the pass.
    m : array, shape (K, K)
        M of the pass, with the volume term where there is one.
    s : array, shape (K, E)
        Edges of the pass; those of components that no pixel uses stay.
    d : array, shape (K, R)
        Coefficients of the backgrounds of the pass.
    axis : Axis

    Returns
    -------
    s : array, shape (K, E)
    d : array, shape (K, R)
    """
    used = np.diag(m) > 0
    new_s, new_d = s.copy(), d.copy()
    if not used.any():
        return new_s, new_d
    inner = m[np.ix_(used, used)]
    wanted = np.linalg.solve(inner + 1e-12 * np.trace(inner) * np.eye(len(inner)), n[used])
    laws, own = axis.laws[:, axis.window], new_d[used]
    gap = own @ laws - wanted[:, axis.window]
    for _ in range(SWEEPS):
        for k in range(len(own)):
            others = inner[k] @ gap - inner[k, k] * gap[k]
            own[k] = _cone_of(wanted[k, axis.window] - others / inner[k, k], axis)
            gap[k] = own[k] @ laws - wanted[k, axis.window]
    right = n[used] - inner @ (own @ axis.laws)
    found = np.zeros_like(right)
    found[:, axis.above] = nnls(inner, np.ascontiguousarray(right[:, axis.above].T)).T
    new_s[used], new_d[used] = found, own
    return new_s, new_d


def volume_matrix(t: Float, weight: Float) -> Float:
    """Derivative of half the log-determinant of the Gram matrix of endmembers of unit length, (K, K).

    t (K, E): endmembers. weight (E,): of the channels.
    """
    return np.asarray(np.linalg.inv(_gram(t, weight)))


def log_volume(t: Float, weight: Float) -> float:
    """Log-determinant of the Gram matrix of endmembers t (K, E); weight (E,): of the channels."""
    return float(np.linalg.slogdet(_gram(t, weight))[1])


def mean_exponents(d: Float, axis: Axis, energy: Float) -> Float:
    """Mean local exponent ``-d ln b / d ln E`` of each background in the window; NaN without a background. d (K, R)."""
    b = d @ axis.laws
    slope = (d * np.array(EXPONENTS)) @ axis.laws
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((slope / b)[:, axis.window].mean(axis=1))


def _gram(t: Float, weight: Float) -> Float:
    return np.asarray((t * weight) @ t.T + RIDGE * np.eye(len(t)))


def _cone(row: Float, axis: Axis) -> Float:
    return _cone_of(row[axis.window], axis)


def _cone_of(target: Float, axis: Axis) -> Float:
    """Coefficients of the background nearest to a target (window,) in the weight of the channels."""
    root = np.sqrt(axis.weight[axis.window])
    return np.asarray(scipy.optimize.nnls((axis.laws[:, axis.window] * root).T, target * root)[0])
