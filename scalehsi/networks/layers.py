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
"""Gives uniform random numbers of the shape of an array, for dropout."""

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


def offset_products(xp: Any, rows: Any, weights: Any) -> Any:
    """Products of pixels with the weights of all offsets of a convolution, (..., n, D * M).

    This is done before shifting: E channels are read once, and what is shifted and added has few columns.

    xp: module of the arrays. rows (n, E). weights (..., D * E, M): rows of offset d are d * E to (d + 1) * E.
    """
    *lead, columns, m = weights.shape
    channels = rows.shape[-1]
    each = weights.reshape(*lead, columns // channels, channels, m)
    return rows @ xp.moveaxis(each, -3, -2).reshape(*lead, channels, -1)


def add_shifted(products: Any, offsets: tuple[tuple[int, int], ...]) -> Any:
    """The convolution from its products: ``sum_d products[y + dy_d, x + dx_d, d]``, without padding.

    products (..., H, W, D * M): images. offsets: D pairs (dy, dx), at least zero.
    """
    *_, height, width, columns = products.shape
    m = columns // len(offsets)
    h, w = height - max(dy for dy, _ in offsets), width - max(dx for _, dx in offsets)
    total = None
    for d, (dy, dx) in enumerate(offsets):
        part = products[..., dy : dy + h, dx : dx + w, d * m : (d + 1) * m]
        total = part if total is None else total + part
    return total


def dropout(x: Any, rate: float, noise: Noise | None) -> Any:
    """Set a share of the activations to zero and enlarge the others; ``noise`` gives uniform numbers, None for none."""
    return x if noise is None or not rate else x * (noise(x) >= rate) / (1.0 - rate)


def add_bias(x: Any, weights: Weights, name: str) -> Any:
    """Add the bias ``name`` + "_bias" where there is one; x (..., n, M)."""
    bias = weights.get(f"{name}_bias")
    return x if bias is None else x + bias
