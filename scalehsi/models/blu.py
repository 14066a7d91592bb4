"""BLU: Bayesian linear unmixing, with the standard deviation of every endmember and every fraction."""

from __future__ import annotations

import numbers
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import numpy as np
import xarray as xr

from scalehsi import arrays
from scalehsi.arrays import Float
from scalehsi.blocks import Blocks, Tile, map_fold
from scalehsi.checks import is_number, require
from scalehsi.fitting.model import Cost, State, Stats, Variables
from scalehsi.kernels import least_squares
from scalehsi.kernels.extraction import gibbs
from scalehsi.kernels.extraction.simplex import best_vca
from scalehsi.kernels.pixel_rows.strips import strips
from scalehsi.models.geometric.base import Geometric
from scalehsi.models.geometric.cloud import Cloud, read_cloud
from scalehsi.result import ResultWarning
from scalehsi.schema import ABUNDANCES, ABUNDANCES_STD, COMPONENT, ENDMEMBERS, ENERGY, MEAN_SPECTRUM, InputError

SAMPLE: Final = 20000
"""Most pixels of a chain; they are drawn from the whole cube."""
PRIOR_VARIANCE: Final = 50.0
"""Of the endmembers' scores, in squared means of the weighted data: wide, so that the data decide."""
THINNED: Final = 100
"""Draws of the endmembers that are kept for the fractions of all pixels."""
SETTLING: Final = 10
"""First sweeps of a chain without draws of the endmembers, which fractions far from their posterior would push away."""
SKIPPED: Final = 10
SHRINK: Final = 0.02
"""Chains start from the corners of VCA, each moved by this share further to the mean."""
LARGEST_R_HAT: Final = 1.05
ENDMEMBERS_STD: Final = "endmembers_std"
R_HAT: Final = "r_hat"


@dataclass(frozen=True)
class BLU(Geometric):
    """Sample endmembers and fractions from their posterior, which gives each a standard deviation.

    Dobigeon et al. 2009: fractions have a Dirichlet prior, endmembers are not negative and little known before, the
    noise has one variance in weighted channels. Chains run on the scores of at most 20000 pixels, in memory;
    fractions of all pixels follow block by block from 100 draws of the endmembers.

    Parameters
    ----------
    n_components : int
        K, at least 2.
    sweeps : int, default 600
        Draws of each chain, those of the burn-in included. The time is proportional to it: 4096 pixels and K = 3 take
        about 6 s with two chains.
    burn_in : int, default 200
        First draws of each chain that are dropped.
    chains : int, default 2
        Independent chains, from different starts. R-hat compares them; 1 compares the halves of one chain.
    concentration : float, default 0.2
        Of the Dirichlet prior: below 1 for maps that are mostly pure, 1 (as published) for a uniform prior, which
        pushes corners outwards where pixels lie on the faces of the simplex. On the benchmark's 3 components 0.2 has
        endmembers within 0.0016 rad and 95 % bands that cover 94 % of the true fractions; 1 has 0.007 rad and 56 %.
    weighting : {"poisson", None}, default "poisson"
        Divide each channel by the square root of its mean, as `VCA` does. None for data with uniform noise.
    smooth : int, default 3
        Pixels of the mean before the search of the corners that chains start from; the chains see single pixels.
    restarts : int, default 20
        Runs of VCA for the start.
    constraint : {"fcls"}, default "fcls"
        Fractions sum to one; the method has no other.
    max_iter : int, default 1
        Not used: see ``sweeps``.
    tol : float, default 0
        Not used.

    Notes
    -----
    The result has ``endmembers`` and ``abundances``, posterior means, ``endmembers_std`` and ``abundances_std``,
    ``noise_std`` (of weighted channels) and ``r_hat``, the largest of all endmember scores (Vehtari et al. 2021).
    The warning ``chains_differ`` follows from 1.05; with 600 sweeps it comes on the benchmark (R-hat 1.13), with
    ``sweeps=1200, burn_in=400`` not (1.05). ``endmembers_std`` is too small: 15 to 68 % of the channels of the
    benchmark lie within two of it, and 35 to 56 % where the maps follow the prior. Do not take it for an error bar.
    Random numbers are counted on seed, sweep and pixel.

    References
    ----------
    Dobigeon, Moussaoui, Coulon, Tourneret and Hero 2009, doi:10.1109/TSP.2009.2025797. Vehtari, Gelman, Simpson,
    Carpenter and Buerkner 2021, doi:10.1214/20-BA1221.

    Examples
    --------
    >>> import scalehsi as hsi
    >>> cube, truth = hsi.simulate.chequerboard((16, 16), n_channels=64, wedge=0.0, counts_per_pixel=5000)
    >>> result = hsi.fit(cube, hsi.BLU(4, sweeps=60, burn_in=20), seed=0)
    >>> bool((result["abundances_std"] > 0).all())
    True
    """

    sweeps: int = 600
    burn_in: int = 200
    chains: int = 2
    concentration: float = 0.2

    name: ClassVar[str] = "BLU"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.constraint == "fcls", "BLU has fractions that sum to one; leave constraint at 'fcls'")
        for name, least in (("sweeps", 20), ("burn_in", 0), ("chains", 1)):
            value = getattr(self, name)
            whole = is_number(value, numbers.Integral) and value >= least
            require(whole, f"{name} is a whole number of at least {least}, got {value!r}")
        real = is_number(self.concentration, numbers.Real) and 0 < self.concentration <= 10
        require(real, f"concentration is a number above 0 and at most 10, got {self.concentration!r}")
        kept = self.sweeps - self.burn_in
        require(kept >= 10, f"burn_in={self.burn_in} leaves {kept} of {self.sweeps} sweeps; 10 are needed")

    @property
    def devices(self) -> tuple[arrays.Device, ...]:
        return ("cpu",)

    def solve(self, view: Blocks, seed: int) -> tuple[State, Stats]:
        cloud, kept = read_cloud(view, self.n_components, weighting=self.weighting, seed=seed)
        scores = cloud.smoothed(self.smooth)
        found = best_vca(cloud.lifted(scores), self.n_components, restarts=self.restarts, seed=seed)
        start = scores[found, :-1] - cloud.centre[:-1]
        chosen = np.arange(len(cloud.scores))
        if len(chosen) > SAMPLE:
            chosen = np.sort(np.random.default_rng(seed).choice(len(chosen), SAMPLE, replace=False))
        chains = [
            _chain(self, cloud, chosen, start * (1 - SHRINK * i), seed=seed, number=i) for i in range(self.chains)
        ]
        draws = np.stack([each[0] for each in chains])
        variances = np.stack([each[1] for each in chains])
        flat = draws.reshape(-1, *draws.shape[2:])
        mean = flat.mean(axis=0)
        basis = cloud.basis[:, :-1]
        covariance = np.stack([np.atleast_2d(np.cov(flat[:, r].T)) for r in range(self.n_components)])
        inside = np.maximum(np.einsum("ei,kij,ej->ke", basis, covariance, basis), 0.0)
        # The subspace itself is known as far as its channels' noise allows: the variance of least squares.
        squares = np.mean([each[2] for each in chains], axis=0) * (len(cloud.scores) / len(chosen))
        outside = variances.mean() * np.diag(np.linalg.pinv(squares, hermitian=True))
        spread = np.sqrt(inside + outside[:, None]) * cloud.scale
        every = np.linspace(0, len(flat) - 1, min(THINNED, len(flat))).astype(np.int64)
        state = {
            **kept,
            "s": (mean @ basis.T + cloud.mean / cloud.scale) * cloud.scale,
            "s_std": spread,
            "draws": flat[every],
            "variances": variances.ravel()[every],
            "basis": basis,
            "scale": cloud.scale,
            "seed": np.asarray(seed),
            R_HAT: np.asarray(largest_r_hat(draws)),
        }
        return state, Stats(float(variances.mean()), done=True, advice="The chains ran to their end.")

    def finish(self, view: Blocks, state: State) -> Variables:
        k = self.n_components
        names = ("basis", "scale", "draws", "variances", "seed")
        shared = {
            **{name: state[name] for name in names},
            "concentration": self.concentration,
            "mean": state["spectrum"] / float(state["pixels"]),
        }
        keep = [ABUNDANCES, ABUNDANCES_STD]
        handles, _ = map_fold(_fractions, view, shared=shared, keep=keep, tile=True, name="blu-fractions")
        found = {name: handles[name].to_dataarray({COMPONENT: k}) for name in keep}
        if view.cube.chunks is None:
            found = {name: each.compute() for name, each in found.items()}
        words = {"long_name": "standard deviation of the endmembers"}
        return {
            ENDMEMBERS: xr.DataArray(state["s"], dims=(COMPONENT, ENERGY)),
            ENDMEMBERS_STD: xr.DataArray(state["s_std"], dims=(COMPONENT, ENERGY), attrs=words),
            MEAN_SPECTRUM: xr.DataArray(shared["mean"], dims=(ENERGY,)),
            "noise_std": xr.DataArray(float(np.sqrt(state["variances"].mean()))),
            R_HAT: xr.DataArray(float(state[R_HAT]), attrs={"long_name": "largest R-hat of the endmembers"}),
            **found,
        }

    def projection_note(self, result: xr.Dataset) -> str:
        return "those of BLU are posterior means, these the best fractions for its mean spectra"

    def warnings(self, variables: Variables) -> list[ResultWarning]:
        value = float(variables[R_HAT])
        if not value >= LARGEST_R_HAT:
            return []
        text = (
            f"The chains still differ: R-hat is {value:.2f}, where {LARGEST_R_HAT} is the limit. Deviations of the "
            "endmembers are too small."
        )
        return [ResultWarning("chains_differ", text, f"BLU({self.n_components}, sweeps={3 * self.sweeps})")]

    def cost(self, shape: tuple[int, ...], itemsize: int) -> Cost:
        found = super().cost(shape, itemsize)
        return Cost(found.passes + 1, found.sums_bytes, found.work_bytes, 2 * self.n_components + 1)


def _chain(
    model: BLU, cloud: Cloud, chosen: Any, start: Float, *, seed: int, number: int
) -> tuple[Float, Float, Float]:
    """Draws (S, K, D) of the endmembers' scores and (S,) of the noise variance after the burn-in, and a mean of a' a.

    model: with the settings. cloud: of the cube. chosen (P,): rows of its scores that the chain sees. start (K, D):
    first endmembers, relative to the mean. seed, number: of the chain.
    """
    rng = np.random.default_rng([seed, number])
    key = np.uint64(rng.integers(0, 2**63))
    y = np.ascontiguousarray(cloud.scores[chosen, :-1] - cloud.centre[:-1])
    pixels = cloud.index[chosen].astype(np.uint64)
    mean, basis = cloud.mean / cloud.scale, np.ascontiguousarray(cloud.basis[:, :-1])
    used = mean > 1e-9 * np.abs(mean).max()  # elsewhere signed noise would decide
    if not used.any():
        raise InputError("BLU: the mean spectrum is nowhere above 0; keep the background, or take ICA")
    bounds = np.ascontiguousarray(basis[used]), mean[used]
    k, (count, size) = model.n_components, y.shape
    corners = _inside(start, *bounds)
    prior = corners.copy()
    prior_variance = PRIOR_VARIANCE * float(mean.mean()) ** 2
    # Energy outside of the subspace, which the chain never sees again.
    outside = count * (cloud.power - float(mean @ mean)) - float((y**2).sum()) * (count / len(chosen))
    outside = max(outside, count * (len(mean) - size) * cloud.noise**2 * 1e-3)
    a = least_squares.abundances(y, s=start, simplex=True, residual=False)[0]["abundances"].astype(np.float64)
    variance, state = cloud.noise**2, np.array([rng.integers(0, 2**63)], dtype=np.uint64)
    draws, variances, squares = [], [], np.zeros((k, k))
    for sweep in range(model.sweeps):
        gibbs.draw_fractions(
            y, corners, variance, int(rng.integers(k)), model.concentration, a, pixels, key, np.uint64(sweep)
        )
        if sweep >= SETTLING:
            gibbs.draw_corners(corners, a.T @ a, a.T @ y, variance, prior, prior_variance, *bounds, state)
        misfit = float(((y - a @ corners) ** 2).sum()) + outside
        variance = 0.5 * misfit / rng.gamma(0.5 * count * len(mean))
        if sweep >= model.burn_in:
            draws.append(corners.copy())
            variances.append(variance)
            squares += a.T @ a / (model.sweeps - model.burn_in)
    return np.array(draws), np.array(variances), squares


def _inside(start: Float, basis: Float, mean: Float) -> Float:
    """Endmembers (K, D) moved towards the mean until no channel of ``basis t + mean`` is negative.

    basis (E, D), mean (E,): above zero.
    """
    change = start @ basis.T
    with np.errstate(divide="ignore"):
        reach = np.where(change < 0, mean / -np.where(change < 0, change, -1.0), np.inf).min(axis=1)
    return np.ascontiguousarray(start * np.minimum(1.0, 0.999 * reach)[:, None])


def largest_r_hat(draws: Float) -> float:
    """The largest split R-hat of draws (chains, S, K, D): the halves of all chains against each other."""
    half = draws.shape[1] // 2
    parts = np.concatenate([draws[:, :half], draws[:, half : 2 * half]])
    within = parts.var(axis=1, ddof=1).mean(axis=0)
    between = half * parts.mean(axis=1).var(axis=0, ddof=1)
    total = (half - 1) / half * within + between / half
    return float(np.sqrt(np.max(total / np.maximum(within, 1e-300))))


def _fractions(
    x: Any,
    *,
    basis: Any,
    scale: Any,
    draws: Any,
    variances: Any,
    seed: Any,
    mean: Any,
    concentration: float,
    tile: Tile,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Posterior means and deviations of the fractions of a block.

    concentration: of the prior. basis (E, D), scale (E,), mean (E,): of the cloud. draws (S, K, D) and variances (S,):
    of the chains. seed: of the fit. tile: with the pixels' numbers.
    """
    loadings = (basis / scale[:, None]).astype(np.float64)
    y = np.concatenate([strip.astype(np.float64) @ loadings for _, strip in strips(x)]) - mean @ loadings
    k = draws.shape[1]
    first, square = np.empty((len(y), k)), np.empty((len(y), k))
    pixels = np.asarray(tile.index).astype(np.uint64)
    dropped = np.arange(len(draws)) % k
    skip = min(SKIPPED, len(draws) // 2)
    seed64 = np.uint64(int(seed))
    gibbs.posterior_fractions(y, draws, variances, dropped, float(concentration), pixels, seed64, skip, first, square)
    deviation = np.sqrt(np.maximum(square - first**2, 0.0))
    return {ABUNDANCES: first.astype(np.float32), ABUNDANCES_STD: deviation.astype(np.float32)}, {"pixels": len(y)}
