"""LatentAE: a latent space of few dimensions to see the phases in, and clusters of pixels in it."""

from __future__ import annotations

import itertools
import math
import numbers
import weakref
from dataclasses import KW_ONLY, dataclass
from functools import partial
from typing import Any, ClassVar, Final

import numpy as np
import xarray as xr

from scalehsi import arrays
from scalehsi.arrays import Float, NumpyArray
from scalehsi.blocks import BlockFunction, Blocks, map_fold
from scalehsi.checks import check_components, choice, is_number, require
from scalehsi.fitting.model import Cost, IterativeModel, State, Stats, Variables
from scalehsi.fitting.survey import survey
from scalehsi.kernels.pixel_rows.residual import residual_of_block
from scalehsi.kernels.pixel_rows.strips import PIXELS_PER_STRIP, strips
from scalehsi.kernels.subspace.singular_vectors import leading_vectors
from scalehsi.networks.clusters import METHODS, assign, bayes_information, fit_clusters
from scalehsi.networks.layers import Weights, dense, leaky
from scalehsi.networks.sample import Scaling, choose_pixels, gather, scaling_of
from scalehsi.networks.stored import SCALING, WEIGHTS, network_variables, stored_scaling, stored_weights
from scalehsi.networks.training import Items, Schedule, Trainer, glorot
from scalehsi.schema import ABUNDANCES, COMPONENT, ENDMEMBERS, ENERGY, ITERATION, MEAN_SPECTRUM, RESIDUAL

SLOPE: Final = 0.02
WIDTHS: Final = (128, 64, 32)
LAYER_NORM_EPSILON: Final = 1e-5
LARGEST_LOG_VARIANCE: Final = 10.0
LARGEST_FIRST_BIAS: Final = 3.0
"""First biases of the encoder are uniform up to this. Layers are normalised by pixel, so that without biases the noise
of pixels near the mean spectrum, whose standardised values are small, would fill the latent space."""
LATENT: Final = "latent"
DRAWN_POINTS: Final = 4000
"""Sampled pixels whose latent coordinates are part of the result."""

_samples: weakref.WeakKeyDictionary[Blocks, tuple[NumpyArray, Any]] = weakref.WeakKeyDictionary()
"""Inputs of the sample and the trainer while the blocks of a fit exist."""


@dataclass(frozen=True)
class Mirror:
    """Dense layers to a few latent numbers and back.

    Attributes
    ----------
    d : int
        Latent dimensions.
    variational : bool
        Whether means and variances of latent numbers are learned.
    """

    d: int
    variational: bool

    def weights(self, channels: int, rng: np.random.Generator) -> dict[str, NumpyArray]:
        inner = (2 if self.variational else 1) * self.d
        down, up = (channels, *WIDTHS, inner), (self.d, *reversed(WIDTHS), channels)
        found: dict[str, NumpyArray] = {}
        for side, widths in (("down", down), ("up", up)):
            for i, (rows, columns) in enumerate(itertools.pairwise(widths)):
                found[f"{side}{i}"] = glorot(rng, rows, columns)
                largest = LARGEST_FIRST_BIAS if side == "down" and i < len(WIDTHS) else 0.0
                found[f"{side}{i}_bias"] = rng.uniform(-largest, largest, columns).astype(np.float32)
                if i < len(WIDTHS):
                    found[f"{side}{i}_scale"] = np.ones(columns, dtype=np.float32)
                    found[f"{side}{i}_shift"] = np.zeros(columns, dtype=np.float32)
        return found

    def run(self, xp: Any, weights: Weights, x: Any, side: str) -> Any:
        """The encoder ("down") or the decoder ("up") on rows x."""
        for i in range(len(WIDTHS) + 1):
            x = dense(xp, x, weights, f"{side}{i}")
            if i < len(WIDTHS):
                mean = x.mean(axis=-1, keepdims=True)
                spread = (((x - mean) ** 2).mean(axis=-1, keepdims=True) + LAYER_NORM_EPSILON) ** 0.5
                x = (x - mean) / spread * weights[f"{side}{i}_scale"] + weights[f"{side}{i}_shift"]
                x = leaky(xp, x, SLOPE)
        return x

    def latent(self, xp: Any, weights: Weights, x: Any) -> Any:
        """Latent numbers (..., n, D); the means of a variational network."""
        return self.run(xp, weights, x, "down")[..., : self.d]


class LatentTrainer(Trainer):
    """Training by the mean square error, with the divergence of the latent numbers where the network is variational."""

    beta: float = 0.0

    def _statistics(self, weights: Weights) -> dict[str, Any]:
        return {}

    def _loss(self, weights: Weights, rows: Any, fixed: Any, generator: Any, known: Any = None) -> Any:
        torch, network = self.torch, self.network
        x = self.inputs[self.seen[rows][:, 0]]
        z = network.run(torch, weights, x, "down")  # type: ignore[attr-defined]
        divergence: Any = 0.0
        if network.variational:  # type: ignore[attr-defined]
            mean, log_variance = z.chunk(2, dim=-1)
            log_variance = log_variance.clamp(-LARGEST_LOG_VARIANCE, LARGEST_LOG_VARIANCE)
            divergence = 0.5 * (mean**2 + log_variance.exp() - 1.0 - log_variance).sum(-1).mean(-1)
            z = mean
            if generator is not None:
                drawn = torch.randn(mean.shape, generator=generator, device=self.device)
                z = mean + drawn * (0.5 * log_variance).exp()
        error = ((network.run(torch, weights, z, "up") - x) ** 2).mean(dim=(-1, -2))  # type: ignore[attr-defined]
        return error + self.beta * divergence


@dataclass(frozen=True)
class LatentAE(IterativeModel):
    """See a cube in a latent space of few dimensions, and label its pixels by clusters in it.

    Parameters
    ----------
    n_components : int
        K, the number of clusters; with ``choose="bic"`` the largest number.
    n_latent : int, 1 to 64, optional
        Dimensions of the latent space. Default 8; K - 1 with ``encoder="pca"``. Two are for drawing: they separate
        fewer phases.
    encoder : {"dense", "pca"}
        "dense": layers of 128, 64 and 32 units, trained with torch. "pca": principal components of the weighted data,
        the baseline, which is as good or better on linear mixtures.
    variational : bool, default False
        Learn a distribution of each latent number; "dense" only.
    beta : float, default 1e-3
        Weight of the divergence with ``variational``. At 1e-2 latent numbers collapse.
    clustering : {"kmeans", "gmm"}
        "kmeans": nearest of K centres. "gmm": likeliest of K Gaussians; they follow ridges of mixed pixels.
    choose : {"given", "bic"}
        "bic": take the number of clusters with the lowest Bayes information criterion of Gaussian mixtures.
    epochs : int, default 50
        Epochs of the training.
    batch : int, default 128
        Spectra a step.
    rate : float, default 1e-3
        Learning rate of Adam; falls to zero by a cosine.
    n_samples : int, default 20000
        Spectra of the sample, at most 512 MiB of them.
    max_iter : int, optional
        Epochs at most. By default all of them.
    tol : float, default 0
        Not used.

    Notes
    -----
    Clusters are searched on the K - 1 longest axes of the latent space, scaled to a standard deviation of one: the
    other axes hold noise and curvature. Prefer ``encoder="pca"`` where spectra are linear mixtures: of the pixels
    purer than 0.6 of three scenes at 1e5 counts it labelled all right, as "dense" did (at 1e4 counts 92 to 98 %);
    variational 90, 76 and 99 % (75 to 91).

    These are labels, no fractions. ``endmembers`` are the mean spectra of the unaltered data of each label, with
    ``standard_error`` (component, energy); ``abundances`` are zero except for the label of the pixel, where they are
    its counts relative to the mean of the label. The result also has ``labels`` (..., y, x), from 0 in the order of
    their size in the sample, -1 where the mask leaves a pixel out; ``latent`` (sample, dimension), along these axes,
    ``sample_label`` and, with ``choose="bic"``, ``bic``. Clusters are fitted by scikit-learn (extra ``networks``).

    References
    ----------
    Borodinov et al. 2021, doi:10.1017/S1431927621001720.

    Examples
    --------
    >>> import scalehsi as hsi
    >>> hsi.LatentAE(3).dimensions, hsi.LatentAE(3, encoder="pca").dimensions
    (8, 2)
    """

    n_components: int
    _: KW_ONLY
    n_latent: int | None = None
    encoder: str = "dense"
    variational: bool = False
    beta: float = 1e-3
    clustering: str = "kmeans"
    choose: str = "given"
    epochs: int = 50
    batch: int = 128
    rate: float = 1e-3
    n_samples: int = 20_000
    max_iter: int = None  # type: ignore[assignment]

    name: ClassVar[str] = "LatentAE"

    def __post_init__(self) -> None:
        choice("encoder", self.encoder, ("dense", "pca"))
        choice("clustering", self.clustering, METHODS)
        choice("choose", self.choose, ("given", "bic"))
        for name in ("epochs", "batch", "n_samples"):
            value = getattr(self, name)
            whole = is_number(value, numbers.Integral) and value >= 1
            require(whole, f"{name} is a whole number of at least 1, got {value!r}")
        for name in ("beta", "rate"):
            value = getattr(self, name)
            require(is_number(value, numbers.Real) and value > 0, f"{name} is a number above 0, got {value!r}")
        given = self.n_latent is None or (is_number(self.n_latent, numbers.Integral) and 1 <= self.n_latent <= 64)
        require(given, f"n_latent is a whole number from 1 to 64, got {self.n_latent!r}")
        require(not (self.variational and self.encoder == "pca"), "variational=True is for encoder='dense'")
        if self.max_iter is None:
            object.__setattr__(self, "max_iter", 1 if self.encoder == "pca" else self.epochs)
        super().__post_init__()
        check_components(self.n_components)

    @property
    def dimensions(self) -> int:
        """Number of latent dimensions."""
        return self.n_latent or (8 if self.encoder == "dense" else max(1, self.n_components - 1))

    @property
    def network(self) -> Mirror:
        return Mirror(self.dimensions, self.variational)

    def check(self, cube: xr.DataArray) -> None:
        check_components(self.n_components, cube)

    def init(self, view: Blocks, seed: int) -> State:
        seen = survey(view, seed=seed, counts=False, least=4 * self.n_components)
        centres = choose_pixels(seen, view.shape, wanted=self.n_samples, channels=view.n_energies, seed=seed)
        _, x = gather(view, centres)
        found = scaling_of(x, seen, weighted=True, counts=view.cube.dtype.kind in "bu")
        unit = found.factor * math.sqrt(x.shape[1])
        scaling = Scaling(found.weight, found.centre, found.weight if self.encoder == "pca" else unit)
        state = {"pixels": np.asarray(seen.pixels), "spectrum": seen.spectrum, "centres": centres}
        state |= {"seed": np.asarray(seed), "epoch": np.asarray(0), "steps": np.asarray(0)}
        state |= {f"scaling_{k}": getattr(scaling, k) for k in SCALING}
        if self.encoder == "pca":
            weights = {"pca": leading_vectors(scaling.inputs(x), self.dimensions, seed=seed).astype(np.float32)}
        else:
            weights = self.network.weights(view.n_energies, np.random.default_rng([seed, 3]))
        flat = np.concatenate([np.ravel(v) for v in weights.values()])[None]
        none = np.zeros_like(flat)
        return {**state, "flat": flat, "first": none, "second": none.copy(), "held_out": np.zeros(0)}

    def step(self, view: Blocks, state: State) -> tuple[State, Stats]:
        inputs, trainer = self._data(view, state)
        number = int(state["epoch"])
        if self.encoder == "pca":
            basis = state["flat"].reshape(-1, self.dimensions)
            rest = inputs - (inputs @ basis) @ basis.T
            return {**state, "epoch": np.asarray(1)}, Stats(float((rest**2).mean()), done=True)
        given = state["flat"], state["first"], state["second"]
        flat, first, second, steps, loss = trainer.epoch(*given, number, int(state["steps"]))
        held = trainer.held_out_loss(flat)
        new = {**state, "flat": flat, "first": first, "second": second, "steps": np.asarray(steps)}
        new |= {"epoch": np.asarray(number + 1), "held_out": np.concatenate([state["held_out"], held])}
        return new, Stats(float(loss[0]), done=number + 1 >= self.epochs, settled=False)

    def _data(self, view: Blocks, state: State) -> tuple[NumpyArray, Any]:
        """Inputs of the sample (n, E) and its trainer; read again where a fit is resumed."""
        if view not in _samples:
            _, x = gather(view, state["centres"])
            inputs = Scaling(*(state[f"scaling_{k}"] for k in SCALING)).inputs(x)
            trainer = None
            if self.encoder == "dense":
                rows = np.arange(len(inputs))[:, None]
                shapes = {k: v.shape for k, v in self.network.weights(x.shape[1], np.random.default_rng(0)).items()}
                schedule = Schedule(0, self.epochs, self.batch, self.rate, self.rate, self.rate)
                how: dict[str, Any] = {"seed": int(state["seed"]), "device": view.device, "name": self.name}
                trainer = LatentTrainer(self.network, Items(inputs, inputs, rows, rows), schedule, shapes, **how)
                trainer.beta = self.beta
            _samples[view] = inputs, trainer
        return _samples[view]

    def finish(self, view: Blocks, state: State) -> Variables:
        inputs, trainer = self._data(view, state)
        flat, seed = state["flat"][0], int(state["seed"])
        weights = {"pca": flat.reshape(-1, self.dimensions)} if trainer is None else trainer.unpack(flat)
        scaling = Scaling(*(state[f"scaling_{k}"] for k in SCALING))
        z = self._latent(np, weights, inputs).astype(np.float64)
        moments = {"latent_mean": z.mean(axis=0), "latent_axes": principal_axes(z)}
        drawn = (z - moments["latent_mean"]) @ moments["latent_axes"]
        points = drawn[:, : max(1, self.n_components - 1)]
        extra: Variables = {}
        n = self.n_components
        if self.choose == "bic":
            bic = bayes_information(points, n, seed=seed)
            n = int(bic.argmin()) + 1
            extra["bic"] = xr.DataArray(bic, dims=("clusters",), coords={"clusters": np.arange(1, len(bic) + 1)})
        clusters, label = fit_clusters(points, n, method=self.clustering, seed=seed)
        _samples.pop(view, None)
        stored = {**weights, **moments, **{f"cluster_{k}": v for k, v in clusters.items()}}
        labelled, sums = self._labels(view, stored, scaling, n)
        number = np.maximum(sums["number"], 1)[:, None]
        mean = sums["sum"] / number
        spread = np.sqrt(np.maximum(sums["square"] / number - mean**2, 0.0) / np.maximum(number - 1, 1))
        held = xr.DataArray(state["held_out"], dims=(ITERATION,)) if trainer is not None else None
        return {
            ENDMEMBERS: xr.DataArray(mean, dims=(COMPONENT, ENERGY)),
            "standard_error": xr.DataArray(spread, dims=(COMPONENT, ENERGY)),
            "label_pixels": xr.DataArray(sums["number"], dims=(COMPONENT,)),
            MEAN_SPECTRUM: xr.DataArray(state["spectrum"] / float(state["pixels"]), dims=(ENERGY,)),
            "labels": labelled,
            LATENT: xr.DataArray(drawn[:DRAWN_POINTS], dims=("sample", "dimension")),
            "sample_label": xr.DataArray(label[:DRAWN_POINTS].astype(np.int32), dims=("sample",)),
            **({} if held is None else {"held_out_loss": held}),
            **network_variables(stored, scaling),
            **extra,
        }

    def _labels(self, view: Blocks, stored: dict[str, Any], scaling: Scaling, n: int) -> tuple[xr.DataArray, Any]:
        """The map of labels, and number, sum and sum of squares of the unaltered spectra of each of the n labels."""
        fn = partial(label_sums, network=self._latent)
        shared = {**stored, "centre": scaling.centre, "factor": scaling.factor, "n": n}
        handles, sums = map_fold(fn, view, shared=shared, keep=["labels"], name="latent-labels")
        maps = handles["labels"].to_dataarray(dtype=np.int32, fill=-1).compute()
        maps.attrs = {"long_name": "label of the cluster"}
        return maps, sums

    @property
    def _latent(self) -> Any:
        return partial(latent_numbers, network=None if self.encoder == "pca" else self.network)

    def projector(self, result: xr.Dataset) -> tuple[BlockFunction, dict[str, Any]]:
        whole = all(f"{WEIGHTS}{k}" in result for k in ("cluster_centres", "latent_axes"))
        require(whole, "this result of LatentAE has no clusters; fit it again, and save it")
        scaling, weights = stored_scaling(result), stored_weights(result, norms=True)
        shared = {**weights, "centre": scaling.centre, "factor": scaling.factor, "network": self._latent}
        return label_maps, {**shared, "s": np.asarray(result[ENDMEMBERS].values, dtype=np.float64)}

    def cost(self, shape: tuple[int, ...], itemsize: int) -> Cost:
        sample = itemsize * shape[-1] * min(self.n_samples, int(np.prod(shape[:-1])))
        sums = 16 * self.n_components * shape[-1]
        return Cost(5, max(sample, sums), 2**20, self.n_components + 1)


def principal_axes(z: Float) -> Float:
    """Axes (D, D) on which points z (n, D) are uncorrelated, with a standard deviation of one, longest axis first."""
    variance, axes = np.linalg.eigh(np.atleast_2d(np.cov(z, rowvar=False, bias=True)))
    variance, axes = variance[::-1], axes[:, ::-1]
    sign = np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])
    return np.asarray(axes * sign / np.sqrt(np.maximum(variance, 1e-24)))


def latent_numbers(xp: Any, weights: Weights, x: Any, *, network: Mirror | None) -> Any:
    """Latent numbers (n, D) of standardised rows x (n, E). network: None for principal components."""
    return x @ weights["pca"] if network is None else network.latent(xp, weights, x)


def _label_rows(x: Any, network: Any, centre: Any, factor: Any, given: dict[str, Any]) -> Any:
    """Label of each pixel of a block (P,), on the host.

    x (P, E). network: gives latent numbers. centre, factor (E,): standardise. given: weights, moments and clusters.
    """
    host = {k: arrays.to_host(v) for k, v in given.items()}
    clusters = {
        k.removeprefix("cluster_"): np.asarray(v, np.float64) for k, v in host.items() if k.startswith("cluster_")
    }
    centre, factor = (arrays.to_host(v).astype(np.float32) for v in (centre, factor))
    axes = np.asarray(host["latent_axes"], np.float64)[:, : clusters["centres"].shape[1]]
    found = []
    for _, strip in strips(x):
        z = network(np, host, (arrays.to_host(strip).astype(np.float32) - centre) * factor)
        found.append(assign((z.astype(np.float64) - host["latent_mean"]) @ axes, clusters))
    return np.concatenate(found)


def label_sums(
    x: Any, *, network: Any, centre: Any, factor: Any, n: int, **given: Any
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Labels of a block, and sums of its unaltered spectra by label; arguments as in `_label_rows`. n: of labels."""
    label = _label_rows(x, network, centre, factor, given)
    one = (label[:, None] == np.arange(n)).astype(np.float64)
    sums = {"number": one.sum(axis=0).astype(np.int64), "sum": 0.0, "square": 0.0}
    for start in range(0, len(label), PIXELS_PER_STRIP):
        part = slice(start, start + PIXELS_PER_STRIP)
        values = arrays.to_host(x[part]).astype(np.float64)
        sums["sum"] += one[part].T @ values
        sums["square"] += one[part].T @ values**2
    return {"labels": label.astype(np.int32)}, sums


def label_maps(
    x: Any, *, network: Any, centre: Any, factor: Any, s: Any, residual: bool = True, **given: Any
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Abundances of a block: the counts of a pixel relative to the mean of its label; arguments as in `_label_rows`.

    s (K, E): mean spectra. residual: also the residual.
    """
    label, spectra = _label_rows(x, network, centre, factor, given), arrays.to_host(s)
    total: Float = arrays.to_host(x).sum(axis=1, dtype=np.float64)
    level = spectra.sum(axis=1)
    relative = total / np.where(level != 0, level, 1.0)[label]
    c = ((label[:, None] == np.arange(len(spectra))) * relative[:, None]).astype(np.float32)
    if not residual:
        return {ABUNDANCES: c}, {}
    found, sums = residual_of_block(arrays.to_host(x), c, s=spectra)
    return {ABUNDANCES: c, RESIDUAL: found["residual"]}, sums
