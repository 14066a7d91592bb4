"""CNNAEU: a convolutional encoder of patches, and a linear decoder of single pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Final

import numpy as np

from scalehsi.arrays import Int, NumpyArray
from scalehsi.networks.layers import (
    Noise,
    Stats,
    Weights,
    add_bias,
    add_shifted,
    batch_norm,
    dropout,
    leaky,
    offset_products,
    softmax,
)
from scalehsi.networks.model import Network
from scalehsi.networks.mtaeu import OFFSETS
from scalehsi.networks.sample import window_pixels
from scalehsi.networks.training import Schedule, glorot

SLOPE: Final = 0.02
MAPS: Final = 48
SIDE: Final = {"default": 20, "paper": 40}
PAPER_DROPOUT: Final = 0.2


@dataclass(frozen=True)
class Convolution:
    """A 3 x 3 convolution to 48 maps, a dense layer to K, softmax of three times the activations.

    Attributes
    ----------
    k : int
        Number of components.
    paper : bool
        Published first weights and dropout, and no biases.
    """

    k: int
    paper: bool = False
    first: ClassVar[str] = "convolution"

    def weights(self, channels: int, rng: np.random.Generator) -> dict[str, NumpyArray]:
        found: dict[str, NumpyArray] = {}
        for name, norm, rows, columns in (
            ("convolution", "first_norm", len(OFFSETS) * channels, MAPS),
            ("dense", "norm", MAPS, self.k),
        ):
            if self.paper:
                found[name] = rng.normal(0.0, 0.3, (rows, columns)).astype(np.float32)
            else:
                found |= {name: glorot(rng, rows, columns), f"{name}_bias": np.zeros(columns, dtype=np.float32)}
            found |= {norm: np.ones(columns, dtype=np.float32), f"{norm}_shift": np.zeros(columns, dtype=np.float32)}
        return found

    def encode(self, xp: Any, weights: Weights, x: Any, stats: Stats, known: Stats | None, noise: Noise | None) -> Any:
        b, pixels, channels = x.shape
        side = round(pixels**0.5)
        if hasattr(xp, "nn"):  # the same by torch, whose gradient of shifted products is ten times slower
            kernel = weights["convolution"].reshape(-1, 3, 3, channels, MAPS).permute(0, 4, 3, 1, 2).flatten(0, 1)
            h = xp.nn.functional.conv2d(x.reshape(b, side, side, channels).permute(0, 3, 1, 2), kernel)
            h = h.permute(0, 2, 3, 1).reshape(b * (side - 2) ** 2, -1, MAPS).transpose(0, 1)
            return self._rest(xp, h, weights, stats, known, noise)
        products = offset_products(xp, x.reshape(-1, channels), weights["convolution"])
        products = products.reshape(*products.shape[:-2], b, side, side, products.shape[-1])
        h = add_shifted(products, OFFSETS)
        return self._rest(xp, h.reshape(*h.shape[:-4], -1, MAPS), weights, stats, known, noise)

    def _rest(self, xp: Any, h: Any, weights: Weights, stats: Stats, known: Stats | None, noise: Noise | None) -> Any:
        """Abundances (..., n, K) from the convolved pixels h (..., n, 48); the others as in `encode`."""
        rate = PAPER_DROPOUT if self.paper else 0.0
        h = leaky(xp, add_bias(h, weights, "convolution"), SLOPE)
        h = dropout(batch_norm(xp, h, weights, "first_norm", stats, known), rate, noise)
        h = leaky(xp, add_bias(h @ weights["dense"], weights, "dense"), SLOPE)
        return softmax(xp, dropout(batch_norm(xp, h, weights, "norm", stats, known), rate, noise))

    def maps(self, xp: Any, weights: Weights, products: Any, known: Stats) -> Any:
        """Abundances (b, y, x, K) of images. products (b, y, x, 9 * 48)."""
        padded = xp.pad(products, ((0, 0), (1, 1), (1, 1), (0, 0)))
        h = add_shifted(padded, OFFSETS)
        a = self._rest(xp, h.reshape(-1, MAPS), weights, {}, known, None)
        return a.reshape(*h.shape[:-1], self.k)


@dataclass(frozen=True)
class CNNAEU(Network):
    """Unmix with a convolutional autoencoder that sees 3 x 3 pixels.

    Parameters
    ----------
    n_components : int
        K, the number of endmembers.
    settings : {"default", "paper"}
        "default": weights, start and schedule as in `scalehsi.DAEU`. "paper": the published encoder with its dropout,
        random start and rates, on data divided by their maximum. The published decoder of 13 x 13 pixels is one of one
        pixel here: the wide one stands for a deconvolved map, which is no abundance.
    weighting : {None, "poisson"}, default "poisson"
        Divide channels by the square root of their mean. None: divide all data by their maximum.
    start : str or result, default "auto"
        As in `scalehsi.DAEU`.
    restarts : int, default 1
        Networks trained side by side; the one with the lowest held-out loss is returned.
    pretrain, epochs : int, optional
        Epochs of the encoder alone, and of encoder and decoder. Default 40 and 20 (paper: 0 and 320).
    batch : int, optional
        Patches a step. Default 4 (paper: 15).
    rate : float, optional
        Learning rate. Default 2e-3 (paper: 3e-3).
    patience : int, default 20
        Training ends after this many epochs without a lower held-out loss.
    n_samples : int, default 60
        Patches of 20 x 20 pixels (paper: 250 of 40 x 40); their pixels are at most 512 MiB.
    max_iter : int, optional
        Epochs at most. By default all of them.
    tol : float, default 0
        Not used.

    Notes
    -----
    Its endmembers are good and its maps are not: 0.0019 rad and a relative square error of 0.022 on the scene of
    `scalehsi.DAEU` (seed 0), in 29 s of one core; other rates and batches gave 0.04 to 0.06. Maps by
    ``project(result["endmembers"], cube, constraint="fcls")`` had 0.0027. A block is
    read with one pixel around it. See `scalehsi.DAEU` for the loss and what the result holds.

    References
    ----------
    Palsson et al. 2021, doi:10.1109/TGRS.2020.2992743. Brun et al. 2025 (its use on EELS).

    Examples
    --------
    >>> import scalehsi as hsi
    >>> hsi.CNNAEU(3).halo
    1
    """

    name: ClassVar[str] = "CNNAEU"
    presets: ClassVar[dict[str, Schedule]] = {
        "default": Schedule(40, 20, 4, 2e-3, 1e-3, 1e-4),
        "paper": Schedule(0, 320, 15, 3e-3, 3e-3, 3e-3, "rmsprop"),
    }
    paper_samples: ClassVar[int] = 250

    n_samples: int = 60

    @property
    def halo(self) -> int:
        return 1

    @property
    def network(self) -> Convolution:
        return Convolution(self.n_components, paper=self.settings == "paper")

    @property
    def wanted_samples(self) -> int:
        return self.paper_samples if self.settings == "paper" and self.n_samples == 60 else self.n_samples

    def windows(self, index: Int, shape: tuple[int, ...]) -> tuple[Int, Int]:
        """Patches that lie inside of the image, around each pixel, and one pixel more on each side to see."""
        height, width = (min(SIDE[self.settings], n) for n in shape[-2:])
        side = min(height, width)
        *lead, y, x = np.unravel_index(index, shape)
        top, left = (np.clip(at - side // 2, 0, n - side) for at, n in ((y, shape[-2]), (x, shape[-1])))
        found = []
        for margin in (1, 0):
            steps = np.arange(-margin, side + margin)
            corner = np.ravel_multi_index((*lead, top, left), shape)
            found.append(window_pixels(corner, shape, np.repeat(steps, len(steps)), np.tile(steps, len(steps))))
        return found[0], found[1]
