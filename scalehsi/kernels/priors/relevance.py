"""Automatic relevance determination and soft orthogonality: small numbers that bend the problem of every pixel.

Relevance: the abundances of component k have a prior of scale ``lam_k``, which itself has an inverse-gamma prior
(Tan and Fevotte 2013, doi:10.1109/TPAMI.2012.240). What a component adds must outweigh what its prior costs, so those
that the data do not need fade out. Soft orthogonality (Shiga et al. 2016, doi:10.1016/j.ultramic.2016.08.006; Muto and
Shiga 2020, doi:10.1093/jmicro/dfz036, eq. 13): a share ``w`` of the pull that would make each map exactly orthogonal to
the sum of the others. All of it follows from the sums of the last pass, so neither needs a pass of its own.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from scalehsi.arrays import Float

PRIORS: Final = ("exponential", "half-normal")
ALIKE: Final = 0.99
"""Cosine from which on two spectra are one component."""
FAINT: Final = 1e-4
"""A component whose scale is below this part of the largest is off."""
EASE: Final = 0.5
"""Part of the way that a pull goes, at first, to the one that the last pass asks for."""
CALM: Final = 1.5
BOLD: Final = 1.1
"""It goes so much less far where it came from the other side; so much farther, up to all the way, where it did not."""

SLOWEST: Final = 0.3
"""Spectra go at least this part of the way to their next values."""


def prior_scale(mean: float, n_components: int, n_energies: int, shape: float) -> float:
    """The inverse-gamma scale ``b`` that fits the data: ``mean(x) (a - 1) sqrt(E) / K`` (Shiga et al. 2016).

    Parameters
    ----------
    mean : float
        Mean value of the data.
    n_components, n_energies : int
    shape : float
        ``a``, above 1.
    """
    return mean * (shape - 1.0) * float(np.sqrt(n_energies)) / n_components


def scales(prior: str, used: Float, square: Float, *, pixels: float, shape: float, scale: float) -> Float:
    """The best ``lam`` for given abundances, shape (K,).

    Parameters
    ----------
    prior : {"exponential", "half-normal"}
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
    """What the priors of abundances and scales add to the negative logarithm of the posterior."""
    if prior == "exponential":
        return float(np.sum((used + scale) / lam + (pixels + shape + 1.0) * np.log(lam)))
    return float(np.sum((0.5 * square + scale) / lam + (0.5 * pixels + shape + 1.0) * np.log(lam)))


def needed(lam: Float, floor: float) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Components that are not off; the largest never is.

    Parameters
    ----------
    lam : array, shape (K,)
    floor : float
        The scale that a component without any abundance has.

    Examples
    --------
    >>> needed(np.array([2.0, 1e-9, 1.0]), 0.0).tolist()
    [True, False, True]
    """
    above = lam - floor
    keep = above > FAINT * above.max()
    keep[np.argmax(lam)] = True
    return np.asarray(keep)


def distinct(s: Float, weight: Float) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Components that are not a near copy of a heavier one.

    Parameters
    ----------
    s : array, shape (K, E)
    weight : array, shape (K,)

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
            keep &= ~((cosine[k] >= ALIKE) & (np.arange(len(s)) != k))
    return keep


def orthogonality_pull(sums: dict[str, Float], s: Float, gram: Float, shift: Float) -> Float:
    """The multipliers ``xi`` (K,) that would make each map orthogonal to the sum of the others.

    Parameters
    ----------
    sums : dict
        ``N``, ``M`` and ``C`` of the last pass.
    s : array, shape (K, E)
        Weighted as the problem's right hand side was.
    gram : array, shape (K, K)
        ``s s'`` without any pull.
    shift : array, shape (K,)
        Linear cost of the abundances in that pass.

    Returns
    -------
    array, shape (K,)
        Not negative: a map is pushed away from the others, never towards them.
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


def eased(pull: Float, xi: Float, ease: Float, drift: Float) -> dict[str, Float]:
    """Multipliers that settle: between those of the last pass and those that it asks for.

    The more a component is pulled away from the others the less pull its maps ask for, by as much and more. So taken
    at their word the multipliers swing between two values for ever (Mn L2,3 of two sites, from w = 0.5 on).

    Parameters
    ----------
    pull, xi : array, shape (K,)
        As `orthogonality_pull` gives them, and those of the last pass.
    ease, drift : array, shape (K,)
        Part of the way to go, and the last step; as given back the last time, at first `EASE` and zero.

    Returns
    -------
    dict
        ``xi``, ``ease`` and ``drift`` for the next pass.

    Examples
    --------
    A pull of which half as much again is taken back, from a first guess of 1 to where both agree, at 0.4:

    >>> now = {"xi": np.ones(1), "ease": np.full(1, EASE), "drift": np.zeros(1)}
    >>> for _ in range(12):
    ...     now = eased(1.0 - 1.5 * now["xi"], **now)
    >>> now["xi"].round(6).tolist()
    [0.4]
    """
    wanted = pull - xi
    part = np.where(wanted * drift < 0, ease / CALM, np.minimum(ease * BOLD, 1.0))
    return {"xi": xi + part * wanted, "ease": part, "drift": part * wanted}


def pace(ease: Float) -> float:
    """Part of the way that spectra go to their next values, beside multipliers that are `eased`.

    Spectra that run ahead of the multipliers are called back by them, and both turn in circles (measured on maps that
    overlap everywhere); so where the multipliers go in small steps the spectra do too.

    Examples
    --------
    >>> pace(np.array([1.0, 0.6])), pace(np.array([1.0, 0.2])), pace(np.array([0.05, 0.1]))
    (1.0, 0.4, 0.3)
    """
    return float(np.clip(2.0 * np.min(ease), SLOWEST, 1.0))
