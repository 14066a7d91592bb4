"""Layers of the networks as functions of arrays, the same for torch (training) and for numpy and CuPy (inference).

Letters: n pixels, E channels, K components, R restarts. A weight has the shape (R, ...) while R networks are trained
side by side, and no leading axis afterwards. ``xp`` is the module of the arrays: numpy, cupy or torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

Weights = Mapping[str, Any]
Stats = dict[str, tuple[Any, Any]]
"""Mean and variance of each batch normalisation, by name."""
Noise = Callable[[Any], Any]
"""Dropout: multiplies activations by random numbers of mean 1."""

NORM_EPSILON: Final = 1e-3
SUM_EPSILON: Final = 1e-7
"""Added to sums that are divided by."""
SHARPNESS: Final = 3.0
"""Factor in the exponent of the softmax of MTAEU and CNNAEU."""


def dense(xp: Any, x: Any, weights: Weights, name: str) -> Any:
    """Linear layer; its bias, ``name`` + "_bias", is left out where there is none."""
    w, bias = weights[name], weights.get(f"{name}_bias")
    if bias is None:
        return x @ w
    if w.ndim == 3:  # in training each call of torch costs more than its arithmetic
        return xp.baddbmm(bias, x if x.ndim == 3 else x.expand(len(w), *x.shape), w)
    return x @ w + bias


def leaky(xp: Any, x: Any, slope: float) -> Any:
    """Leaky rectifier."""
    return xp.maximum(x, slope * x) if not hasattr(xp, "nn") else xp.nn.functional.leaky_relu(x, slope)


def batch_norm(xp: Any, x: Any, weights: Weights, name: str, stats: Stats, known: Stats | None) -> Any:
    """Normalise each column, then scale and shift it.

    xp: module of the arrays. x (..., n, K): activations. weights, name: of the scale; ``name`` + "_shift" is the other
    weight. stats: receives mean and variance of these rows. known: mean and variance to use in their place, for
    inference.
    """
    if known is None:
        variance, mean = xp.var_mean(x, dim=-2, keepdim=True, correction=0)
        stats[name] = (mean, variance)
    else:
        mean, variance = known[name]
    scale = weights[name] / (variance + NORM_EPSILON) ** 0.5
    return (x - mean) * scale + weights[f"{name}_shift"]


def soft_threshold(x: Any, threshold: Any) -> Any:
    """What exceeds the threshold of its component, else zero."""
    return (x - threshold).clip(0.0)


def sum_to_one(x: Any) -> Any:
    """Divide rows by their sum; a row of zeros, a dead pixel, is left as it is."""
    return x / (x.sum(axis=-1, keepdims=True) + SUM_EPSILON)


def softmax(xp: Any, x: Any) -> Any:
    """Softmax of three times the activations, as in MTAEU and CNNAEU."""
    x = SHARPNESS * x
    e = xp.exp(x - xp.amax(x, axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def neighbour_sums(x: Any, weights: Any, offsets: tuple[tuple[int, int], ...]) -> Any:
    """Convolution without padding: ``sum_d x[y + dy_d, x + dx_d] @ weights_d``.

    The product with all offsets comes first, on E channels; what is shifted and added has few columns.

    x (b, H, W, E): padded images. weights (..., D * E, M): rows of offset d are d * E to (d + 1) * E. offsets: D pairs
    (dy, dx), at least zero. The result has the shape (..., b, H - max dy, W - max dx, M).
    """
    b, height, width, channels = x.shape
    m = weights.shape[-1]
    lead = tuple(weights.shape[:-2])
    h, w = height - max(dy for dy, _ in offsets), width - max(dx for _, dx in offsets)
    rows, total = x.reshape(-1, channels), None
    for d, (dy, dx) in enumerate(offsets):
        part = (rows @ weights[..., d * channels : (d + 1) * channels, :]).reshape(*lead, b, height, width, m)
        part = part[..., dy : dy + h, dx : dx + w, :]
        total = part if total is None else total + part
    return total
