"""MTAEU: an encoder of windows of pixels, a branch for each of them, one linear decoder for all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Final

import numpy as np

from scalehsi.arrays import Int, NumpyArray
from scalehsi.networks.daeu import head_weights, threshold_head
from scalehsi.networks.layers import (
    Noise,
    Stats,
    Weights,
    add_bias,
    add_shifted,
    batch_norm,
    dropout,
    leaky,
    softmax,
)
from scalehsi.networks.model import Network
from scalehsi.networks.sample import window_pixels
from scalehsi.networks.training import Schedule, glorot

SLOPE: Final = 0.2
HIDDEN: Final = 64
DROPOUT: Final = 0.1
OFFSETS: Final = tuple((dy, dx) for dy in range(3) for dx in range(3))
"""Rows and columns of the pixels of a window from its first one."""
PAPER_PIXELS: Final = 4
PAPER_HIDDEN_DROPOUT: Final = 0.5
PAPER_NOISE: Final = 0.05


@dataclass(frozen=True)
class Windows:
    """Hidden layer of 3 x 3 pixels, nine branches, a head that all of them share.

    Attributes
    ----------
    k : int
        Number of components.
    """

    k: int
    first: ClassVar[str] = "hidden"

    def weights(self, channels: int, rng: np.random.Generator) -> dict[str, NumpyArray]:
        n = len(OFFSETS)
        ones, zeros = np.ones(HIDDEN, dtype=np.float32), np.zeros(HIDDEN, dtype=np.float32)
        hidden = {"hidden": glorot(rng, n * channels, HIDDEN), "hidden_bias": zeros}
        norm = {"hidden_norm": ones, "hidden_norm_shift": zeros.copy()}
        branches = np.concatenate([glorot(rng, HIDDEN, self.k) for _ in range(n)], axis=1)
        bias = np.zeros(n * self.k, dtype=np.float32)
        return {**hidden, **norm, "branches": branches, "branches_bias": bias, **head_weights(self.k)}

    def encode(self, xp: Any, weights: Weights, x: Any, stats: Stats, known: Stats | None, noise: Noise | None) -> Any:
        return self._branches(xp, x.reshape(len(x), -1) @ weights["hidden"], weights, stats, known, noise)

    def _branches(
        self, xp: Any, h: Any, weights: Weights, stats: Stats, known: Stats | None, noise: Noise | None
    ) -> Any:
        """Abundances (..., n * 9, K) of all pixels of windows, from the products h (..., n, 64) of the hidden layer.

        xp: module of the arrays. The others: as in `encode`.
        """
        h = leaky(xp, add_bias(h, weights, "hidden"), SLOPE)
        h = dropout(batch_norm(xp, h, weights, "hidden_norm", stats, known), DROPOUT, noise)
        h = leaky(xp, add_bias(h @ weights["branches"], weights, "branches"), SLOPE)
        return threshold_head(xp, h.reshape(*h.shape[:-2], -1, self.k), weights, stats, known)

    def maps(self, xp: Any, weights: Weights, products: Any, known: Stats) -> Any:
        """Abundances (b, y, x, K) as the mean over all windows that hold a pixel. products (b, y, x, 9 * 64)."""
        b, height, width, _ = products.shape
        padded = xp.pad(products, ((0, 0), (1, 1), (1, 1), (0, 0)))
        h = add_shifted(padded, OFFSETS).reshape(-1, HIDDEN)
        each = self._branches(xp, h, weights, {}, known, None).reshape(b, height, width, len(OFFSETS), self.k)
        total, number = xp.zeros((b, height, width, self.k), dtype=each.dtype), xp.zeros((1, height, width, 1))
        for d, (dy, dx) in enumerate(OFFSETS):
            there, here = zip(_overlap(dy - 1, height), _overlap(dx - 1, width), strict=True)
            total[:, there[0], there[1]] += each[:, here[0], here[1], d]
            number[:, there[0], there[1]] += 1
        return total / number


def _overlap(shift: int, size: int) -> tuple[slice, slice]:
    """Where windows' predictions land along an axis, and the windows that make them."""
    return slice(max(shift, 0), size + min(shift, 0)), slice(max(-shift, 0), size - max(shift, 0))


@dataclass(frozen=True)
class PaperWindows:
    """The published layers: four pixels of a row in training, one pixel four times in inference."""

    k: int

    def weights(self, channels: int, rng: np.random.Generator) -> dict[str, NumpyArray]:
        def normal(*shape: int) -> NumpyArray:
            return rng.normal(0.01, 0.1, shape).astype(np.float32)

        found = {
            "hidden": normal(PAPER_PIXELS * channels, channels),
            "branches": normal(channels, PAPER_PIXELS * self.k),
        }
        for name, size in (("hidden_norm", channels), ("norm", PAPER_PIXELS * self.k)):
            found |= {name: np.ones(size, dtype=np.float32), f"{name}_shift": np.zeros(size, dtype=np.float32)}
        return found

    def encode(self, xp: Any, weights: Weights, x: Any, stats: Stats, known: Stats | None, noise: Noise | None) -> Any:
        single, w = x.ndim == 2, weights["hidden"]
        if single:
            w = w.reshape(PAPER_PIXELS, -1, w.shape[-1]).sum(axis=0)
        x = x.reshape(len(x), -1)
        if noise is not None:  # the sum of twelve uniform numbers is nearly normal
            x = x + PAPER_NOISE * (sum(noise(x) for _ in range(12)) - 6.0)
        h = dropout(leaky(xp, x @ w, SLOPE), PAPER_HIDDEN_DROPOUT, noise)
        h = batch_norm(xp, h, weights, "hidden_norm", stats, known)
        h = batch_norm(xp, leaky(xp, h @ weights["branches"], SLOPE), weights, "norm", stats, known)
        h = dropout(h, DROPOUT, noise)
        a = softmax(xp, h.reshape(*h.shape[:-1], PAPER_PIXELS, self.k))
        return a.mean(axis=-2) if single else a.reshape(*h.shape[:-2], -1, self.k)


@dataclass(frozen=True)
class MTAEU(Network):
    """Unmix with an autoencoder of windows of 3 x 3 pixels, whose maps are means over all windows of a pixel.

    Parameters
    ----------
    n_components : int
        K, the number of endmembers.
    settings : {"default", "paper"}
        "default": weights, start and schedule as in `scalehsi.DAEU`. "paper": the published network as its authors run
        it: four pixels of a row in training, one pixel four times in inference, so that it uses no neighbours.
    weighting : {None, "poisson"}, default "poisson"
        Divide channels by the square root of their mean. None: divide all data by their maximum.
    start : str or result, default "auto"
        As in `scalehsi.DAEU`.
    restarts : int, default 1
        Networks trained side by side; the one with the lowest held-out loss is returned.
    pretrain, epochs : int, optional
        Epochs of the encoder alone, and of encoder and decoder. Default 60 and 40 (paper: 0 and 60).
    batch : int, optional
        Windows a step. Default 64 (paper: 15).
    rate : float, optional
        Learning rate. Default 2e-3 (paper: 1e-3).
    patience : int, default 20
        Training ends after this many epochs without a lower held-out loss.
    n_samples : int, default 20000
        Windows of the training sample (paper: 2000); their pixels are at most 512 MiB.
    max_iter : int, optional
        Epochs at most. By default all of them.
    tol : float, default 0
        Not used.

    Notes
    -----
    Smooth maps are its strength; features of one pixel are diluted. A block is read with two pixels around it. See
    `scalehsi.DAEU` for the loss and what the result holds.

    References
    ----------
    Palsson et al. 2019, doi:10.1109/ACCESS.2019.2944072 (multitask learning). Brun et al. 2025 (its use on EELS).

    Examples
    --------
    >>> import scalehsi as hsi
    >>> hsi.MTAEU(3).halo, hsi.MTAEU(3, settings="paper").halo
    (2, 0)
    """

    name: ClassVar[str] = "MTAEU"
    presets: ClassVar[dict[str, Schedule]] = {
        "default": Schedule(60, 40, 64, 2e-3, 1e-3, 1e-4),
        "paper": Schedule(0, 60, 15, 1e-3, 1e-3, 1e-3, "rmsprop"),
    }

    @property
    def halo(self) -> int:
        return 0 if self.settings == "paper" else 2

    @property
    def network(self) -> Any:
        return PaperWindows(self.n_components) if self.settings == "paper" else Windows(self.n_components)

    def windows(self, index: Int, shape: tuple[int, ...]) -> tuple[Int, Int]:
        paper = self.settings == "paper"
        at = np.asarray([(0, x) for x in range(PAPER_PIXELS)] if paper else [(y - 1, x - 1) for y, x in OFFSETS])
        found = window_pixels(index, shape, at[:, 0], at[:, 1])
        return found, found
