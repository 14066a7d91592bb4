"""uDAS: a shallow denoising autoencoder, fitted by alternating least squares and a few gradient steps."""

from __future__ import annotations

import math
import numbers
import weakref
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar, Final

import numpy as np
import scipy
import xarray as xr

from scalehsi.arrays import Float, NumpyArray
from scalehsi.blocks import BlockFunction, Blocks
from scalehsi.checks import check_components, check_weighting, choice, is_number, require
from scalehsi.fitting.model import Cost, IterativeModel, State, Stats, Variables
from scalehsi.fitting.survey import survey
from scalehsi.kernels.extraction.vca import vca
from scalehsi.kernels.quadratic.nnls import nnls
from scalehsi.kernels.subspace.singular_vectors import leading_vectors
from scalehsi.networks.checks import CHECKS, collapse_warnings, measure
from scalehsi.networks.layers import Noise, Weights, sum_to_one
from scalehsi.networks.layers import Stats as NormStats
from scalehsi.networks.sample import Scaling, choose_pixels, gather, scaling_of, vertices
from scalehsi.networks.stored import network_variables, stored_projector
from scalehsi.networks.training import DECODER
from scalehsi.result import ResultWarning
from scalehsi.schema import COMPONENT, ENDMEMBERS, ENERGY, MEAN_SPECTRUM

OUTER_STEPS: Final = 10
GRADIENT_STEPS: Final = 2
"""More of them fit noise: 5 and 10 steps have 1.1 and 1.6 times the error of the maps (three scenes)."""
SUM_WEIGHT: Final = 4.0
"""Weight of the sum-to-one rows, in units of the mean squared norm of the data."""
PAPER_SUM_ROW: Final = 20.0
PAPER_SPARSITY: Final = 1e-6
MDA_PASSES: Final = 12
MDA_CORRUPTION: Final = 1e-5
MDA_RIDGE: Final = 1.0

_samples: weakref.WeakKeyDictionary[Blocks, tuple[Float, Float]] = weakref.WeakKeyDictionary()
"""Data (n, E) and its denoised copy while the blocks of a fit exist."""


@dataclass(frozen=True)
class Shallow:
    """One rectified layer; ``normalised`` divides its K outputs by their sum."""

    k: int
    normalised: bool

    def weights(self, channels: int, rng: np.random.Generator) -> dict[str, NumpyArray]:
        return {"encoder": np.zeros((channels, self.k), dtype=np.float32)}

    def encode(
        self, xp: Any, weights: Weights, x: Any, stats: NormStats, known: NormStats | None, noise: Noise | None
    ) -> Any:
        h = (x @ weights["encoder"]).clip(0.0)
        return sum_to_one(h) if self.normalised else h


@dataclass(frozen=True)
class UDAS(IterativeModel):
    """Unmix with a shallow denoising autoencoder: abundances are a rectified linear function of the spectrum.

    Parameters
    ----------
    n_components : int
        K, the number of endmembers.
    settings : {"default", "paper"}
        "default": channels weighted for counting noise, data denoised by projection on their signal subspace, decoder
        from VCA vertices of averaged pixels, abundances divided by their sum. "paper": the constants of the published
        code on data divided by their maximum, for comparison: its denoiser takes 1 as small, and removes components of
        EELS data whose variance is about that.
    weighting : {None, "poisson"}, default "poisson"
        Divide channels by the square root of their mean. None: divide all data by their maximum.
    n_samples : int, default 20000
        Spectra that it is fitted to, at most 512 MiB of them.
    max_iter : int, default 10
        Outer steps: endmembers by least squares, then a few gradient steps of the encoder.
    tol : float, default 0
        Not used.

    Notes
    -----
    No torch is needed. The inference is one product of K x E numbers a pixel. The result has ``weights_encoder``,
    ``network_checks`` and ``training_pixel``; see `scalehsi.DAEU` for abundances that sum to one.

    References
    ----------
    Qu and Qi 2019, doi:10.1109/TGRS.2018.2868690. Brun et al. 2025 (its use on EELS).

    Examples
    --------
    >>> import scalehsi as hsi
    >>> cube, truth = hsi.simulate.chequerboard((24, 24), n_components=3, n_channels=64)
    >>> result = hsi.fit(cube, hsi.UDAS(3), seed=0)
    >>> result.sizes["iteration"], result["weights_encoder"].shape
    (10, (64, 3))
    """

    n_components: int
    _: KW_ONLY
    settings: str = "default"
    weighting: str | None = "poisson"
    n_samples: int = 20_000
    max_iter: int = OUTER_STEPS

    name: ClassVar[str] = "UDAS"
    simplex: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_components(self.n_components)
        check_weighting(self.weighting)
        choice("settings", self.settings, ("default", "paper"))
        whole = is_number(self.n_samples, numbers.Integral) and self.n_samples >= 2
        require(whole, f"n_samples is a whole number of at least 2, got {self.n_samples!r}")

    @property
    def network(self) -> Shallow:
        return Shallow(self.n_components, normalised=self.settings == "default")

    @property
    def scaled(self) -> bool:
        """Whether channels are weighted."""
        return self.weighting is not None and self.settings == "default"

    def check(self, cube: xr.DataArray) -> None:
        check_components(self.n_components, cube)

    def init(self, view: Blocks, seed: int) -> State:
        seen = survey(view, seed=seed, counts=False, least=4 * self.n_components)
        wanted = choose_pixels(seen, view.shape, wanted=self.n_samples, channels=view.n_energies, seed=seed)
        _, x = gather(view, wanted)
        scaling = scaling_of(x, seen, weighted=self.scaled, counts=view.cube.dtype.kind in "bu")
        decoder, corners, outside = np.zeros((self.n_components, x.shape[1])), np.zeros(0, dtype=np.int64), 0.0
        if self.settings == "default":
            decoder, corners, outside = vertices(view, x, scaling.weight, self.n_components, seed=seed)
        state = {
            "pixels": np.asarray(seen.pixels),
            "spectrum": seen.spectrum,
            "centres": np.unique(np.concatenate([wanted, corners])),
            "seed": np.asarray(seed),
            "scaling_weight": scaling.weight,
            "decoder": np.asarray(decoder, dtype=np.float64),
            "outside": np.asarray(outside),
            "epoch": np.asarray(0),
        }
        z, clean = self._data(view, state)
        if self.settings == "paper":
            _, found = vca(clean, self.n_components, seed=seed)
            state["decoder"][: len(found)] = found
        h = simplex_rows(z if self.settings == "default" else clean, state["decoder"])
        gram = z.T @ z
        ridge = 1e-9 * float(np.trace(gram)) / len(gram)
        return {**state, "encoder": np.linalg.solve(gram + ridge * np.eye(len(gram)), z.T @ h)}

    def step(self, view: Blocks, state: State) -> tuple[State, Stats]:
        z, clean = self._data(view, state)
        h = (z @ state["encoder"]).clip(0.0)
        decoder = nnls(h.T @ h, (h.T @ clean).T).T
        if self.settings == "paper":
            decoder = np.minimum(decoder, 1.0)
            row, sparsity, steps = PAPER_SUM_ROW**2, PAPER_SPARSITY * math.sqrt(len(z) / 1000), 1
        else:
            row, sparsity, steps = SUM_WEIGHT * float((clean**2).sum(axis=1).mean()), 0.0, GRADIENT_STEPS
        encoder, objective = descend(z, clean, decoder, state["encoder"], row=row, sparsity=sparsity, steps=steps)
        number = int(state["epoch"]) + 1
        new = {**state, "encoder": encoder, "decoder": decoder, "epoch": np.asarray(number)}
        return new, Stats(objective, done=number >= OUTER_STEPS, settled=False, advice=f"All {number} steps are done.")

    def _data(self, view: Blocks, state: State) -> tuple[Float, Float]:
        """Scaled spectra (n, E) of the sample, and the same denoised; read again where a fit is resumed."""
        if view not in _samples:
            _, x = gather(view, state["centres"])
            z = x.astype(np.float64) * state["scaling_weight"]
            z = z[np.linalg.norm(z, axis=1) > 0]
            require(len(z) >= 2, f"{self.name} needs at least two pixels with counts; got {len(z)}")
            seed = int(state["seed"])
            clean = in_subspace(z, self.n_components, seed=seed) if self.settings == "default" else marginalised(z)
            _samples[view] = z, clean
        return _samples[view]

    def finish(self, view: Blocks, state: State) -> Variables:
        z, _ = self._data(view, state)
        weight = state["scaling_weight"]
        scaling = Scaling(weight, np.zeros_like(weight), weight)
        spectra = scaling.counts(state["decoder"])
        encoder = state["encoder"].astype(np.float32)
        a = self.network.encode(np, {"encoder": encoder}, z.astype(np.float32), {}, None, None)
        ones = np.ones_like(weight)
        how = {"best": 0, "weight": ones, "seed": int(state["seed"])}
        checks = measure(z, a, [state["decoder"]], outside=float(state["outside"]), **how)
        _samples.pop(view, None)
        return {
            ENDMEMBERS: xr.DataArray(spectra, dims=(COMPONENT, ENERGY)),
            MEAN_SPECTRUM: xr.DataArray(state["spectrum"] / float(state["pixels"]), dims=(ENERGY,)),
            "training_pixel": xr.DataArray(state["centres"], dims=("sample",)),
            "network_checks": xr.DataArray(checks, dims=("check",), coords={"check": list(CHECKS)}),
            **network_variables({"encoder": encoder, DECODER: state["decoder"].astype(np.float32)}, scaling),
        }

    def warnings(self, variables: Variables) -> list[ResultWarning]:
        remedy = "settings='default'" if self.settings == "paper" else f"hsi.VCA({self.n_components})"
        return collapse_warnings(variables["network_checks"], model=self.name, restarts=1, remedy=remedy)

    def projector(self, result: xr.Dataset) -> tuple[BlockFunction, dict[str, Any]]:
        return stored_projector(self.network, result, halo=0)

    def cost(self, shape: tuple[int, ...], itemsize: int) -> Cost:
        sample = itemsize * shape[-1] * min(self.n_samples, int(np.prod(shape[:-1])))
        return Cost(5, sample, 2**20, self.n_components + 1)


def simplex_rows(z: Float, decoder: Float) -> Float:
    """Abundances (n, K) of least squares that are not negative and nearly sum to one, for endmembers (K, E)."""
    level = float((decoder**2).sum(axis=1).mean()) * 1e4
    ones = np.ones((len(decoder), 1))
    return np.asarray(nnls(decoder @ decoder.T + level * ones @ ones.T, z @ decoder.T + level))


def in_subspace(z: Float, n_components: int, *, seed: int) -> Float:
    """Rows (n, E) projected on the affine subspace of K - 1 dimensions. seed: of the search of its directions."""
    mean = z.mean(axis=0)
    if n_components == 1:
        return np.repeat(mean[None], len(z), axis=0)
    basis = leading_vectors(z - mean, n_components - 1, seed=seed)
    return np.asarray(mean + (z - mean) @ basis @ basis.T)


def marginalised(z: Float) -> Float:
    """Rows (n, E) after the passes of a marginalised denoising autoencoder with the published constants."""
    clean = z
    for _ in range(MDA_PASSES):
        wide = np.column_stack([clean, np.ones(len(clean))])
        kept = np.append(np.full(clean.shape[1], 1 - MDA_CORRUPTION), 1.0)
        scatter = wide.T @ wide
        corrupted = scatter * np.outer(kept, kept)
        np.fill_diagonal(corrupted, kept * np.diag(scatter))
        ridge = np.append(np.full(clean.shape[1], MDA_RIDGE), 0.0)
        mapping = np.linalg.solve(corrupted + np.diag(ridge), (scatter * kept[:, None])[:, :-1])
        clean = (1 - MDA_CORRUPTION) * (wide @ mapping)
    return clean


def descend(
    z: Float, clean: Float, decoder: Float, encoder: Float, *, row: float, sparsity: float, steps: int
) -> tuple[Float, float]:
    """A few quasi-Newton steps of the encoder (E, K), and the objective where they end.

    z, clean (n, E): inputs and targets. decoder (K, E). row: weight of the sum to one. sparsity: of the norms of the
    encoder's columns. steps: their number.
    """
    n, shape = len(z), encoder.shape
    gram, products, power = decoder @ decoder.T, clean @ decoder.T, float((clean**2).sum())

    def value(flat: Float) -> tuple[float, Float]:
        w = flat.reshape(shape)
        h = (z @ w).clip(0.0)
        rest = h.sum(axis=1, keepdims=True) - 1.0
        norms = np.linalg.norm(w, axis=0)
        loss = power - 2 * float((h * products).sum()) + float(((h @ gram) * h).sum()) + row * float((rest**2).sum())
        slope = z.T @ ((h @ gram - products + row * rest) * (h > 0)) / n
        slope += 0.5 * sparsity * w / np.where(norms > 0, norms, 1.0)
        return loss / (2 * n) + 0.5 * sparsity * float(norms.sum()), slope.ravel()

    found = scipy.optimize.minimize(value, encoder.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": steps})
    return np.asarray(found.x).reshape(shape), float(found.fun)
