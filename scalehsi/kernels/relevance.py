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

Float = np.ndarray[Any, np.dtype[np.float64]]

PRIORS: Final = ("exponential", "half-normal")
ALIKE: Final = 0.99
"""Cosine from which on two spectra are one component."""
FAINT: Final = 1e-4
"""A component whose scale is below this part of the largest is off."""


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
