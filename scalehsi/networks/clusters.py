"""Clusters of points in a latent space: fitted by scikit-learn on a sample, applied by our own arithmetic to blocks."""

from __future__ import annotations

import importlib
from typing import Any, Final

import numpy as np

from scalehsi.arrays import Float, Int
from scalehsi.schema import InputError

METHODS: Final = ("kmeans", "gmm")
KMEANS_STARTS: Final = 10
GMM_STARTS: Final = 3

Clusters = dict[str, Float]
"""``centres`` (K, D); for a mixture also ``factors`` (K, D, D), roots of the precisions, and ``offsets`` (K,)."""


def fit_clusters(points: Float, n: int, *, method: str, seed: int) -> tuple[Clusters, Int]:
    """Fit n clusters to points (S, D); largest cluster first. Returns the clusters and the label of each point.

    points: standardised. method: of `METHODS`. seed: of the starts.
    """
    if method == "kmeans":
        found = _sklearn("cluster").KMeans(n, n_init=KMEANS_STARTS, random_state=seed).fit(points)
        clusters: Clusters = {"centres": np.asarray(found.cluster_centers_, dtype=np.float64)}
    else:
        clusters = _mixture_of(_mixture(points, n, seed=seed, starts=GMM_STARTS))
    size = np.bincount(assign(points, clusters), minlength=n)
    order = np.argsort(-size, kind="stable")
    clusters = {k: v[order] for k, v in clusters.items()}
    return clusters, assign(points, clusters)


def bayes_information(points: Float, most: int, *, seed: int) -> Float:
    """Bayes' information criterion of Gaussian mixtures of 1 to ``most`` clusters, (most,); the lowest is best."""
    return np.asarray([_mixture(points, n, seed=seed, starts=1).bic(points) for n in range(1, most + 1)])


def assign(points: Any, clusters: Clusters) -> Any:
    """Label of each point (P, D): its nearest centre, or its likeliest Gaussian. Works on numpy and CuPy arrays."""
    rest = points[:, None, :] - clusters["centres"][None]
    if "factors" not in clusters:
        return (rest**2).sum(axis=-1).argmin(axis=1)
    white = (rest[:, :, None, :] @ clusters["factors"][None])[:, :, 0]
    return (clusters["offsets"] - 0.5 * (white**2).sum(axis=-1)).argmax(axis=1)


def _mixture(points: Float, n: int, *, seed: int, starts: int) -> Any:
    return _sklearn("mixture").GaussianMixture(n, n_init=starts, random_state=seed).fit(points)


def _mixture_of(found: Any) -> Clusters:
    factors = np.asarray(found.precisions_cholesky_, dtype=np.float64)
    roots = np.log(np.diagonal(factors, axis1=1, axis2=2)).sum(axis=1)
    return {
        "centres": np.asarray(found.means_, dtype=np.float64),
        "factors": factors,
        "offsets": np.asarray(np.log(found.weights_) + roots),
    }


def _sklearn(part: str) -> Any:
    try:
        return importlib.import_module(f"sklearn.{part}")
    except ImportError as error:
        raise InputError(
            f"clusters are fitted by scikit-learn ({error}); type pip install 'scalehsi[networks]'"
        ) from error
