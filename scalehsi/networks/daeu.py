"""DAEU: a deep dense encoder of single pixels, and a linear decoder whose weights are the endmembers."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import numpy as np

from scalehsi.arrays import NumpyArray
from scalehsi.networks.layers import Noise, Stats, Weights, batch_norm, dense, leaky, soft_threshold, sum_to_one
from scalehsi.networks.model import Network
from scalehsi.networks.training import THRESHOLD, Schedule, glorot

SLOPE: Final = 0.1
LAYERS: Final = (9, 6, 3, 1)
"""Widths of the layers, in numbers of components."""


@dataclass(frozen=True)
class Dense:
    """Four dense layers, batch normalisation, soft threshold, sum to one.

    Attributes
    ----------
    k : int
        Number of components.
    biases : bool
        Whether the dense layers have biases.
    """

    k: int
    biases: bool

    def weights(self, channels: int, rng: np.random.Generator) -> dict[str, NumpyArray]:
        widths = [channels, *(self.k * n for n in LAYERS)]
        found: dict[str, NumpyArray] = {}
        for i, (rows, columns) in enumerate(itertools.pairwise(widths)):
            found[f"dense{i}"] = glorot(rng, rows, columns)
            if self.biases:
                found[f"dense{i}_bias"] = np.zeros(columns, dtype=np.float32)
        return found | head_weights(self.k)

    def encode(self, xp: Any, weights: Weights, x: Any, stats: Stats, known: Stats | None, noise: Noise | None) -> Any:
        h = x[:, 0] if x.ndim == 3 else x
        for i in range(len(LAYERS)):
            h = leaky(xp, dense(xp, h, weights, f"dense{i}"), SLOPE)
        return threshold_head(xp, h, weights, stats, known)


def head_weights(k: int) -> dict[str, NumpyArray]:
    """First weights of `threshold_head` for k components."""
    ones, zeros = np.ones(k, dtype=np.float32), np.zeros(k, dtype=np.float32)
    return {"norm": ones, "norm_shift": zeros.copy(), THRESHOLD: zeros}


def threshold_head(xp: Any, h: Any, weights: Weights, stats: Stats, known: Stats | None) -> Any:
    """Abundances (..., n, K) that can be exactly zero and sum to one.

    xp: module of the arrays. h (..., n, K): activations. weights: by name. stats, known: as in `batch_norm`.
    """
    h = batch_norm(xp, h, weights, "norm", stats, known)
    return sum_to_one(soft_threshold(h, weights[THRESHOLD]))


@dataclass(frozen=True)
class DAEU(Network):
    """Unmix with a deep autoencoder: abundances are its bottleneck, endmembers the weights of its linear decoder.

    Parameters
    ----------
    n_components : int
        K, the number of endmembers.
    settings : {"default", "paper"}
        "default": channels are weighted for counting noise, inputs standardised, the decoder starts from VCA vertices
        of averaged pixels, the encoder learns alone at first. "paper": the published network as its authors run it on
        data divided by their maximum, from a random decoder; for comparison, it is unreliable on EELS data.
    weighting : {None, "poisson"}, default "poisson"
        Divide channels by the square root of their mean. None: divide all data by their maximum.
    start : str or result, default "auto"
        First endmembers: "vca", "random" (train at least 5 restarts then), or a result of the same model and
        settings, whose weights are refined. "auto": "vca", or "random" with ``settings="paper"``.
    restarts : int, default 1
        Networks trained side by side from different first weights; the one with the lowest held-out loss is returned.
        With two or more, endmembers that differ between them are reported.
    pretrain, epochs : int, optional
        Epochs of the encoder alone, and of encoder and decoder. Default 60 and 40 (paper: 0 and 40).
    batch : int, optional
        Spectra a step. Default 64 (paper: 6).
    rate : float, optional
        Learning rate. Default 2e-3 (paper: 1e-3).
    patience : int, default 20
        Training ends after this many epochs without a lower held-out loss; the best weights are returned
        (paper: never).
    n_samples : int, default 20000
        Spectra of the training sample, at most 512 MiB of them (paper: 2000). One in ten is held out.
    max_iter : int, optional
        Epochs at most. By default all of them.
    tol : float, default 0
        Not used.

    Notes
    -----
    Layers: dense 9 K, 6 K, 3 K, K with leaky rectifiers, batch normalisation, a soft threshold, division by the sum.
    The loss is one minus the cosine between data and reconstruction, so the thickness of a pixel is ignored and
    abundances sum to one: where thickness varies, ``abundances . endmembers`` does not follow the intensity. Training
    needs torch (extra ``networks``); `scalehsi.project` of a stored result does not.

    Measured on scenes of three components at 1e5 counts a pixel, mean angle in rad and relative square error of the
    maps (three scenes): 0.0015 and 0.0054, with maps by FCLS 0.0033. On one scene each: with a wedge of thickness 0.044
    and 0.25 (VCA 0.028 and 0.58), without pure pixels 0.021 and 0.090 (0.028 and 0.21), with drift of six channels
    0.051 and 0.15 (0.060 and 0.62). Thickness, drift and a scene without pure pixels are warned of.
    Where nearly all pixels are pure training is unstable: 2 degrees on squares of one phase each, where `VCA` and
    `UDAS` have 0.2; ``network_collapsed`` says it.

    The result has ``weights_*`` (plain arrays of the network), ``held_out_loss`` (iteration), ``training_pixel``, and
    in ``network_checks`` what the warnings of a collapse are drawn from.

    References
    ----------
    Palsson et al. 2018, doi:10.1109/ACCESS.2018.2818280. Brun et al. 2025 (its use on EELS).

    Examples
    --------
    >>> import scalehsi as hsi
    >>> model = hsi.DAEU(3)
    >>> model.schedule.pretrain, model.schedule.epochs, model.max_iter
    (60, 40, 100)
    """

    name: ClassVar[str] = "DAEU"
    presets: ClassVar[dict[str, Schedule]] = {
        "default": Schedule(60, 40, 64, 2e-3, 1e-3, 1e-4),
        "paper": Schedule(0, 40, 6, 1e-3, 1e-3, 1e-3, "rmsprop"),
    }
    paper_samples: ClassVar[int] = 2000

    @property
    def network(self) -> Dense:
        return Dense(self.n_components, biases=self.settings == "default")
