"""Principal component analysis of a cube of any size, from one pass (a few for more than 2048 channels)."""

from __future__ import annotations

import math
import numbers
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar, Final

import numpy as np
import xarray as xr

from scalehsi.arrays import Float
from scalehsi.blocks import BlockFunction, Blocks, map_fold
from scalehsi.checks import check_components, choice, is_number, require
from scalehsi.cube import check_finite
from scalehsi.fitting.model import Cost, DirectModel, State, Stats, Variables
from scalehsi.fitting.survey import check_magnitude
from scalehsi.kernels.subspace import moments as kernels
from scalehsi.schema import COMPONENT, ENDMEMBERS, ENERGY, MEAN_SPECTRUM, InputError

SOLVERS: Final = ("auto", "gram", "randomized")
GRAM_CHANNELS: Final = 2048
"""With more channels the E x E moment matrix (8 E^2 bytes a block, P E^2 flops) costs more than a few sketch passes."""
WEIGHTINGS: Final = (None, "poisson", "channels")
LEAST_MEAN: Final = {"poisson": 1e-6, "channels": 1e-2}
"""Least share of the average channel that the mean of a channel counts as: empty channels get no huge weights."""
RANK: Final = "rank"
DIRECT: Final = "The components are computed directly; there is nothing to iterate."


@dataclass(frozen=True)
class PCA(DirectModel):
    """Find the principal components: the orthogonal spectra that explain most of the (weighted) variance.

    Parameters
    ----------
    n_components : int
        K, the number of components.
    weighting : {None, "poisson", "channels"}, default "poisson"
        "poisson": divide by the square root of the mean of each pixel and of each channel, which makes counting noise
        uniform (Keenan and Kotula 2004); undone in the result. "channels": of each channel alone, as mixtures stay
        mixtures then; negative values are allowed. None for data with uniform noise.
    centre : bool, default False
        Subtract the mean spectrum first. Without it, as is usual in microscopy, the first component is close to the
        mean.
    solver : {"auto", "gram", "randomized"}
        - "gram": exact, one pass that sums an E x E matrix. For up to 2048 channels.
        - "randomized": ``power + 1`` passes with a sketch of K + oversample columns. For more channels, or to save
          memory.
        - "auto": "gram" up to 2048 channels, else "randomized".
    power : int, default 2
        Power iterations of the sketch.
    oversample : int, default 16
        Additional columns of the sketch.
    max_iter : int, default 1
        Not used: the components are computed directly.
    tol : float, default 0
        Not used.

    Notes
    -----
    The result has ``endmembers`` (the components, in the cube's intensity unit), ``abundances`` (the scores, of
    either sign), and for choosing the number of components: ``eigenvalues`` (rank) for the scree plot,
    ``explained_variance_ratio`` (rank) and ``malinowski_ind`` (rank), which has its minimum there.
    ``abundances . endmembers + offset`` is the denoised cube.

    References
    ----------
    Keenan and Kotula 2004, doi:10.1002/sia.1657. Malinowski 1977, doi:10.1021/ac50012a027. Halko, Martinsson and Tropp
    2011, doi:10.1137/090771806 (randomised range finder).

    Examples
    --------
    >>> import scalehsi as hsi
    >>> cube, truth = hsi.simulate.chequerboard((24, 24), n_channels=64)
    >>> result = hsi.fit(cube, hsi.PCA(6), seed=0)
    >>> result["eigenvalues"].dims, result.attrs["status"]
    (('rank',), 'converged')
    """

    n_components: int
    _: KW_ONLY
    weighting: str | None = "poisson"
    centre: bool = False
    solver: str = "auto"
    power: int = 2
    oversample: int = 16

    name: ClassVar[str] = "PCA"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_components(self.n_components)
        require(
            self.weighting in WEIGHTINGS,
            f"weighting={self.weighting!r} is not known; it is None, 'poisson' or 'channels'",
        )
        choice("solver", self.solver, SOLVERS)
        for name in ("power", "oversample"):
            value = getattr(self, name)
            whole = is_number(value, numbers.Integral)
            require(whole and value >= 0, f"{name} is a whole number that is not negative, got {value!r}")

    def check(self, cube: xr.DataArray) -> None:
        check_components(self.n_components, cube)

    def sketched(self, channels: int) -> bool:
        """True where the randomised solver is used."""
        wide = self.n_components + self.oversample < channels
        return wide and (self.solver == "randomized" or (self.solver == "auto" and channels > GRAM_CHANNELS))

    def solve(self, view: Blocks, seed: int) -> tuple[State, Stats]:
        probe = None
        if self.sketched(view.n_energies):
            shape = view.n_energies, self.n_components + self.oversample
            probe = np.random.default_rng(seed).standard_normal(shape)
        sums = self._moments(view, probe)
        if probe is None:
            scale = self._scale(sums)
            moment = self._centred(sums, scale, np.eye(view.n_energies))
            values, vectors = np.linalg.eigh((moment + moment.T) / 2)
            values, vectors = np.maximum(values[::-1], 0.0), vectors[:, ::-1]
        else:
            scale, values, vectors = self._sketch(view, sums, probe)
        k = self.n_components
        total = float(self._trace(sums, scale))
        new = {
            "pixels": np.asarray(sums["pixels"]),
            "spectrum": np.asarray(sums["spectrum"]),
            "offset": np.asarray(sums["weighted_spectrum"] / sums["weight"] if self.centre else 0 * sums["spectrum"]),
            "scale": scale,
            "eigenvalues": values,
            "vectors": vectors[:, :k],
            "total": np.asarray(total),
            "channels": np.asarray(np.count_nonzero(sums["power"])),
            "rounding": np.asarray(self._rounding(view, sums, scale)),
        }
        return new, Stats(objective=max(total - float(values[:k].sum()), 0.0), done=True, advice=DIRECT)

    def finish(self, view: Blocks, state: State) -> Variables:
        vectors, scale, values = state["vectors"], state["scale"], state["eigenvalues"]
        signs = np.sign(vectors[np.abs(vectors).argmax(axis=0), np.arange(vectors.shape[1])])
        basis = ((vectors * np.where(signs == 0, 1.0, signs)) * scale[:, None]).T
        total = float(state["total"]) or 1.0
        known = values[: min(values.size, math.prod(view.shape))]
        rest = max(float(state["total"]) - float(known.sum()), 0.0)
        full = known if known.size == values.size == view.n_energies else np.append(known, rest)
        # Eigenvalues that are rounding would put the minimum of the indicator at random.
        rounding = float(state.get("rounding", np.asarray(0.0)))
        full = np.where(full > rounding, full, 0.0)
        indicator = kernels.malinowski(full, pixels=int(state["pixels"]), channels=int(state["channels"]))
        # Near full rank the error depends on the last few eigenvalues, and the indicator falls again without meaning.
        indicator[max(1, int(state["channels"]) // 2) :] = np.nan
        note = "of the weighted data" if self.weighting else "of the data"
        return {
            ENDMEMBERS: xr.DataArray(basis, dims=(COMPONENT, ENERGY), attrs={"long_name": "principal component"}),
            MEAN_SPECTRUM: xr.DataArray(state["spectrum"] / float(state["pixels"]), dims=(ENERGY,)),
            "offset": xr.DataArray(state["offset"], dims=(ENERGY,), attrs={"long_name": "subtracted spectrum"}),
            "scale": xr.DataArray(scale, dims=(ENERGY,), attrs={"long_name": "square root of the channel weight"}),
            "eigenvalues": _by_rank(known, long_name=f"variance {note}"),
            "explained_variance_ratio": _by_rank(known / total),
            "malinowski_ind": _by_rank(
                np.pad(indicator, (0, known.size - indicator.size), constant_values=np.nan)[: known.size],
                long_name="Malinowski's indicator; its minimum is the number of components",
            ),
        }

    def projector(self, result: xr.Dataset) -> tuple[BlockFunction, dict[str, Any]]:
        basis = np.asarray(result[ENDMEMBERS].values, dtype=np.float64)
        scale = np.asarray(result["scale"].values, dtype=np.float64)
        # Rows of basis are orthonormal after division by scale: projecting the weighted spectrum gives the scores. The
        # weight of the whole pixel cancels.
        loadings = (basis / scale**2).T
        offset = np.asarray(result["offset"].values, dtype=np.float64)
        return kernels.scores, {"loadings": loadings, "offset": offset, "basis": basis}

    def cost(self, shape: tuple[int, ...], itemsize: int) -> Cost:
        channels = shape[-1]
        sketch = self.sketched(channels)
        width = self.n_components + self.oversample if sketch else channels
        passes = (self.power + 2 if sketch else 1) + 1
        # Beside the products of a block, the sums of up to four blocks wait to be added.
        return Cost(passes, 8 * channels * (width + 3), 32 * channels * width, self.n_components + 1)

    def _moments(self, view: Blocks, probe: Float | None) -> dict[str, Any]:
        shared = {"weigh_pixels": self.weighting == "poisson", "probe": probe}
        _, sums = map_fold(kernels.moments, view, shared=shared, name="pca-moments")
        if not sums:
            raise InputError("the mask leaves no pixel (True = use); turn it round with ~mask, or drop it")
        if not np.isfinite(sums["power"]).all():
            check_finite(view.cube)
        if self.weighting == "poisson" and (sums["spectrum"] < 0).any():
            raise InputError(
                "weighting='poisson' is for counts, but the mean of some channels is negative; fit with weighting=None"
            )
        check_magnitude(float(np.sum(sums["power"])), filled=bool(np.any(sums["spectrum"]) or np.any(sums["power"])))
        return sums

    def _rounding(self, view: Blocks, sums: dict[str, Any], scale: Float) -> float:
        """Eigenvalues below this are rounding of the products of the data, which are float32 unless stored as float64.

        Roundings average out over strips of pixels. Measured on noise-free cubes of 16 x 16 to 64 x 64 pixels: up to
        2e-6 / sqrt(pixels) of the data's sum of squares.
        """
        double = view.cube.dtype == np.float64
        share = 1e-14 if double else 4e-6 / math.sqrt(max(1, int(sums["pixels"])))
        return share * float((np.asarray(sums["power"]) / scale**2).sum())

    def _scale(self, sums: dict[str, Any]) -> Float:
        """What each channel is divided by: the square root of its mean relative to the average channel."""
        spectrum = np.asarray(sums["spectrum"], dtype=np.float64)
        if self.weighting is None:
            return np.ones_like(spectrum)
        average = max(float(np.abs(spectrum).mean()), 1e-300)
        return np.asarray(np.sqrt(np.maximum(spectrum / average, LEAST_MEAN[self.weighting])))

    def _centred(self, sums: dict[str, Any], scale: Float, probe: Float) -> Float:
        """The weighted moment matrix times a probe (already multiplied into ``sums["moment"]`` when sketched)."""
        moment = sums["moment"] / scale[:, None]
        if moment.shape[1] == moment.shape[0] and probe.shape[1] == moment.shape[1]:
            moment = moment / scale
        if self.centre:
            mean = sums["weighted_spectrum"] / scale
            moment = moment - np.outer(mean, mean @ probe) / sums["weight"]
        return np.asarray(moment)

    def _trace(self, sums: dict[str, Any], scale: Float) -> float:
        power = sums["power"]
        if self.centre:
            power = power - sums["weighted_spectrum"] ** 2 / sums["weight"]
        return float((power / scale**2).sum())

    def _sketch(self, view: Blocks, sums: dict[str, Any], probe: Float) -> tuple[Float, Float, Float]:
        """Power iterations on the moment matrix, then the small eigenproblem in their range."""
        scale = self._scale(sums)
        # The first pass met the probe without channel weights, which were not known yet: as if it had been probe *
        # scale.
        found = self._centred(sums, scale, probe * scale[:, None])
        for _ in range(self.power):
            basis, _ = np.linalg.qr(found)
            found = self._centred(self._moments(view, basis / scale[:, None]), scale, basis)
        basis, _ = np.linalg.qr(found)
        small = basis.T @ self._centred(self._moments(view, basis / scale[:, None]), scale, basis)
        values, turn = np.linalg.eigh((small + small.T) / 2)
        return scale, np.maximum(values[::-1], 0.0), basis @ turn[:, ::-1]


def _by_rank(values: Float, **attrs: str) -> xr.DataArray:
    return xr.DataArray(values, dims=(RANK,), coords={RANK: np.arange(1, values.size + 1)}, attrs=attrs)
