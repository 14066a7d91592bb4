"""Automatic relevance determination and soft orthogonality: priors that switch off components and separate maps.

Relevance (Tan and Fevotte 2013, doi:10.1109/TPAMI.2012.240): the abundances of component k have a prior of scale
``lam_k``, which itself has an inverse-gamma prior. A component must explain more than its prior costs, so components
that the data do not need fade out. Soft orthogonality (Shiga et al. 2016, doi:10.1016/j.ultramic.2016.08.006; Muto and
Shiga 2020, doi:10.1093/jmicro/dfz036, eq. 13): a fraction ``w`` of the multiplier that would make each map exactly
orthogonal to the sum of the others. Both follow from the sums of the last pass and need no pass of their own.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from scalehsi.arrays import Float

PRIORS: Final = ("exponential", "half-normal")
MAX_COSINE: Final = 0.99
"""Spectra whose cosine reaches this value are the same component."""
MIN_RELATIVE_SCALE: Final = 1e-4
"""A component whose scale is below this fraction of the largest is switched off."""
FIRST_STEP: Final = 0.5
"""First step length of the multipliers: 1 would take the value that the last pass asks for."""
STEP_SHRINK: Final = 1.5
"""The step length is divided by this where a multiplier changes direction."""
STEP_GROWTH: Final = 1.1
"""The step length is multiplied by this, up to 1, where it does not."""
MIN_STEP: Final = 0.3
"""Smallest step length of the spectra."""


def prior_scale(mean: float, n_components: int, n_energies: int, shape: float) -> float:
    """Scale ``b`` of the inverse-gamma prior that fits the data: ``mean(x) (a - 1) sqrt(E) / K`` (Shiga et al. 2016).

    Parameters
    ----------
    mean : float
        Mean value of the data.
    n_components, n_energies : int
        K and E.
    shape : float
        Shape ``a`` of the inverse-gamma prior, above 1.
    """
    return mean * (shape - 1.0) * float(np.sqrt(n_energies)) / n_components


def scales(prior: str, used: Float, square: Float, *, pixels: float, shape: float, scale: float) -> Float:
    """Optimal scales ``lam`` (K,) of the prior for given abundances.

    Parameters
    ----------
    prior : {"exponential", "half-normal"}
        Distribution of the abundances.
    used, square : array, shape (K,)
        Sums over the pixels of ``c`` and of ``c^2``.
    pixels : float
        P.
    shape, scale : float
        ``a`` and ``b`` of the inverse-gamma prior.
    """
    if prior == "exponential":
        found = (used + scale) / (pixels + shape + 1.0)
    else:
        found = (0.5 * square + scale) / (0.5 * pixels + shape + 1.0)
    return np.asarray(np.maximum(found, 1e-12 * max(float(found.max(initial=0.0)), 1e-300)))


def cost(prior: str, lam: Float, used: Float, square: Float, *, pixels: float, shape: float, scale: float) -> float:
    """Term of the priors of abundances and scales in the negative log-posterior, at scales ``lam`` (K,).

    The other arguments are those of `scales`.
    """
    if prior == "exponential":
        return float(np.sum((used + scale) / lam + (pixels + shape + 1.0) * np.log(lam)))
    return float(np.sum((0.5 * square + scale) / lam + (0.5 * pixels + shape + 1.0) * np.log(lam)))


def needed(lam: Float, floor: float) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Say which components (K,) are not switched off; the one with the largest scale never is.

    Parameters
    ----------
    lam : array, shape (K,)
    floor : float
        Scale of a component without any abundance.

    Examples
    --------
    >>> needed(np.array([2.0, 1e-9, 1.0]), 0.0).tolist()
    [True, False, True]
    """
    above = lam - floor
    keep = above > MIN_RELATIVE_SCALE * above.max()
    keep[np.argmax(lam)] = True
    return np.asarray(keep)


def distinct(s: Float, weight: Float) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Say which components (K,) are not a near copy of one of larger weight.

    Parameters
    ----------
    s : array, shape (K, E)
        Spectra.
    weight : array, shape (K,)
        For example the sums of the abundances.

    Examples
    --------
    >>> distinct(np.array([[1.0, 0.0], [1.0, 0.01], [0.0, 1.0]]), np.array([1.0, 2.0, 1.0])).tolist()
    [False, True, True]
    """
    length = np.linalg.norm(s, axis=1)
    unit = s / np.where(length > 0, length, 1.0)[:, None]
    cosine = unit @ unit.T
    keep = np.ones(len(s), dtype=bool)
    for k in np.argsort(-weight, kind="stable"):
        if keep[k]:
            keep &= ~((cosine[k] >= MAX_COSINE) & (np.arange(len(s)) != k))
    return keep


def orthogonality_pull(sums: dict[str, Float], s: Float, gram: Float, shift: Float) -> Float:
    """Multipliers ``xi`` (K,) that would make each map orthogonal to the sum of the others.

    Parameters
    ----------
    sums : dict
        ``N``, ``M`` and ``C`` of the last pass.
    s : array, shape (K, E)
        Endmembers, weighted as the right-hand side of the pixel problem was.
    gram : array, shape (K, K)
        ``s s'`` without multipliers.
    shift : array, shape (K,)
        Linear cost of the abundances in that pass.

    Returns
    -------
    array, shape (K,)
        Not negative, so that maps are pushed apart and never towards each other.
    """
    a = sums["N"] @ s.T  # a[j, k] = sum_p c_j (x s_k')
    m, used = sums["M"], sums["C"]
    k = len(m)
    xi = np.zeros(k)
    for i in range(k):
        others = np.arange(k) != i
        below = m[np.ix_(others, others)].sum()
        if below > 0:
            wanted = (
                a[others, i].sum() - (m[np.ix_(others, others)] @ gram[others, i]).sum() - shift[i] * used[others].sum()
            )
            xi[i] = max(wanted / below, 0.0)
    return xi


def damped_multipliers(pull: Float, xi: Float, ease: Float, drift: Float) -> dict[str, Float]:
    """Move the multipliers from those of the last pass towards those that it asks for, so that they converge.

    A larger multiplier lowers the one that the next pass asks for by as much or more. Full steps would therefore
    oscillate between two values without end (Mn L2,3 of two sites, for w of at least 0.5).

    Parameters
    ----------
    pull : array, shape (K,)
        Multipliers from `orthogonality_pull`.
    xi : array, shape (K,)
        Multipliers of the last pass.
    ease : array, shape (K,)
        Step lengths from the last call, at first `FIRST_STEP`.
    drift : array, shape (K,)
        Last change of the multipliers, at first zero.

    Returns
    -------
    dict
        ``xi``, ``ease`` and ``drift`` for the next pass.

    Examples
    --------
    A multiplier that lowers the next one by 1.5 times its value, from a first value of 1 to the fixed point at 0.4:

    >>> now = {"xi": np.ones(1), "ease": np.full(1, FIRST_STEP), "drift": np.zeros(1)}
    >>> for _ in range(12):
    ...     now = damped_multipliers(1.0 - 1.5 * now["xi"], **now)
    >>> now["xi"].round(6).tolist()
    [0.4]
    """
    wanted = pull - xi
    part = np.where(wanted * drift < 0, ease / STEP_SHRINK, np.minimum(ease * STEP_GROWTH, 1.0))
    return {"xi": xi + part * wanted, "ease": part, "drift": part * wanted}


def endmember_step(ease: Float) -> float:
    """Step length of the spectra, from the step lengths ``ease`` (K,) of `damped_multipliers`.

    Full steps of the spectra together with short steps of the multipliers oscillate (measured on maps that overlap
    everywhere). The spectra therefore take short steps where the multipliers do.

    Examples
    --------
    >>> [endmember_step(np.array(ease)) for ease in ([1.0, 0.6], [1.0, 0.2], [0.05, 0.1])]
    [1.0, 0.4, 0.3]
    """
    return float(np.clip(2.0 * np.min(ease), MIN_STEP, 1.0))
