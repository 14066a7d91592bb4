"""Non-negative matrix factorisation of a cube of any size, by least squares or by the Poisson likelihood of counts."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar, Final

import numpy as np
import xarray as xr

from scalehsi import arrays
from scalehsi.blocks import BlockFunction, Blocks, map_fold
from scalehsi.kernels import frobenius, poisson
from scalehsi.kernels.nnls import nnls
from scalehsi.kernels.starts import sampled_endmembers
from scalehsi.models.base import (
    Cost,
    Model,
    State,
    Stats,
    Variables,
    check_components,
    check_weighting,
    choice,
    register,
    require,
)
from scalehsi.models.survey import survey
from scalehsi.schema import COMPONENT, ENDMEMBERS, ENERGY, MEAN_SPECTRUM, InputError

Float = np.ndarray[Any, np.dtype[np.float64]]

LOSSES: Final = ("frobenius", "poisson")
BETA: Final = 0.5
"""First extrapolation; it grows by GROWTH while the objective falls, up to a cap that grows by CAP_GROWTH to one."""
GROWTH: Final = 1.1
CAP_GROWTH: Final = 1.05
SHRINK: Final = 1.5


@register
@dataclass(frozen=True)
class NMF(Model):
    """Unmix a cube into non-negative endmember spectra and abundance maps: ``x ~ c s`` with ``c, s >= 0``.

    Parameters
    ----------
    n_components : int
        K, the number of endmembers.
    loss : {"frobenius", "poisson"}, default "frobenius"
        - "frobenius": least squares. For intensities, background-subtracted EELS, and counts by the hundred. An
          iteration reads the cube once, at 4 P E K flops.
        - "poisson": the likelihood of counts (generalised Kullback-Leibler). For EDX and other sparse counts, where
        least
          squares follows the noise of the strong lines. An iteration costs by the channels that hold counts.
    weighting : {None, "poisson"}
        With "frobenius", divide by the mean of each pixel and of each channel, which makes counting noise uniform
        (Keenan and Kotula 2004). Costs nothing, and is worth a factor of 3 to 10 in the error of maps of counts.
    max_iter : int, default 200
        Readings of the cube, at most.
    tol : float, default 1e-6
        Stop when the objective gains less than this, relative, an iteration, judged over five of them.

    Notes
    -----
    Minimised is ``1/2 sum_pe v_p w_e (x - c s)^2`` (``v = w = 1`` without weighting) or ``sum_pe c s - x log(c s)``.
    Each iteration is a function of ``s`` alone: the abundances of each pixel are solved exactly, block by block, and
    only sums of size K x E leave a block. ``s`` is then updated from the sums, extrapolated, and taken back when the
    objective rises. So nothing per pixel is kept between iterations, and a lost worker costs its blocks of one pass.

    The start is a factorisation of a sample spread over the whole cube, never of a part of it: a start from the first
    chunk ruins maps whose phases lie apart.

    Scale: every endmember has the total of the mean spectrum, so abundances are shares of an average pixel's signal.

    References
    ----------
    Lee and Seung 1999, doi:10.1038/44565. Keenan and Kotula 2004, doi:10.1002/sia.1657. Ang and Gillis 2019,
    doi:10.1162/neco_a_01157 (extrapolation). Muto and Shiga 2020, doi:10.1093/jmicro/dfz036 (review).

    Examples
    --------
    >>> import scalehsi as hsi
    >>> cube, truth = hsi.simulate.chequerboard((24, 24), n_channels=64)
    >>> result = hsi.fit(cube, hsi.NMF(4, loss="poisson"), seed=0)
    >>> bool(hsi.metrics.score(result, truth)["spectral_angle"].max() < 0.2)
    True
    """

    n_components: int
    _: KW_ONLY
    loss: str = "frobenius"
    weighting: str | None = None
    max_iter: int = 200
    tol: float = 1e-6

    name: ClassVar[str] = "NMF"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_components(self.n_components)
        choice("loss", self.loss, LOSSES)
        check_weighting(self.weighting)
        require(
            not (self.loss == "poisson" and self.weighting),
            "weighting='poisson' belongs to loss='frobenius'; loss='poisson' weighs counts by itself",
        )

    @property
    def counts(self) -> bool:
        """True where the data must not be negative."""
        return self.loss == "poisson" or self.weighting == "poisson"

    @property
    def devices(self) -> tuple[arrays.Device, ...]:
        return ("cpu",) if self.loss == "poisson" else ("cpu", "cuda")

    def check(self, cube: xr.DataArray) -> None:
        check_components(self.n_components, cube)

    def init(self, view: Blocks, seed: int) -> State:
        seen = survey(view, seed=seed, counts=self.counts, least=4 * self.n_components)
        if len(seen.sample) == 0:
            raise InputError("every pixel of the sample is empty; mask the empty part of the cube, or bin it")
        s = sampled_endmembers(seen.sample, self.n_components, weighted=self.counts, seed=seed)
        return {
            "s": s,
            "kept": s,
            "safe": s,
            "objective": np.asarray(np.inf),
            "beta": np.asarray(BETA),
            "cap": np.asarray(1.0),
            "spectrum": seen.spectrum,
            "pixels": np.asarray(seen.pixels),
            "entropy": np.asarray(seen.entropy),
        }

    def step(self, view: Blocks, state: State) -> tuple[State, Stats]:
        """One pass at ``s``; then a better, extrapolated ``s``, or back to the last one known to be good.

        ``kept`` is the last new ``s`` before extrapolation, ``safe`` one that cannot raise the objective.
        """
        s = state["s"]
        _, sums = map_fold(self._update, view, shared=self._shared(s, state), name=f"nmf-{self.loss}")
        value = self._objective(sums, s, state)
        best = float(state["objective"])
        if value > best + self._rounding(sums):
            # Rejected. From an extrapolated point go back to the point itself, from that (a Newton step) to the safe
            # one.
            back = state["safe"] if np.array_equal(s, state["kept"]) else state["kept"]
            shrunk = np.asarray(float(state["beta"]) / SHRINK)
            new = {**state, "s": back, "kept": back, "cap": state["beta"], "beta": shrunk}
            stuck = np.array_equal(back, s)
            return new, Stats(best, done=stuck, progressing=False)
        better, safe = self._improve(sums, s)
        better, safe = _unit_rows(better, s), _unit_rows(safe, s)
        beta = float(state["beta"])
        cap = float(state["cap"])
        ahead = better + beta * (better - state["kept"]) if np.isfinite(best) else better
        value = min(value, best) if np.isfinite(value) else value
        new = {
            **state,
            "s": _unit_rows(np.maximum(ahead, 0.0), better),
            "kept": better,
            "safe": safe,
            "objective": np.asarray(value),
            "beta": np.asarray(min(cap, beta * GROWTH)),
            "cap": np.asarray(min(1.0, cap * CAP_GROWTH)),
        }
        return new, Stats(value)

    def finish(self, view: Blocks, state: State) -> Variables:
        """Endmembers, scaled to the total of the mean spectrum and sorted by what they carry in that spectrum."""
        mean = state["spectrum"] / float(state["pixels"])
        s = _unit_rows(state["kept"], state["kept"])
        order = np.argsort(-_share(mean, s), kind="stable")
        total = float(mean.sum()) or 1.0
        dims = (COMPONENT, ENERGY)
        return {
            ENDMEMBERS: xr.DataArray(s[order] * abs(total), dims=dims),
            MEAN_SPECTRUM: xr.DataArray(mean, dims=(ENERGY,), attrs={"long_name": "mean of the data over used pixels"}),
        }

    def projector(self, result: xr.Dataset) -> tuple[BlockFunction, dict[str, Any]]:
        s = np.asarray(result[ENDMEMBERS].values, dtype=np.float64)
        if self.loss == "poisson":
            return poisson.abundances, {"s": s}
        mean = np.asarray(result[MEAN_SPECTRUM].values, dtype=np.float64)
        w = channel_weights(mean) if self.weighting else None
        return frobenius.abundances, {"s": s, "w": w}

    def cost(self, shape: tuple[int, ...], itemsize: int) -> Cost:
        k, channels = self.n_components, shape[-1]
        if self.loss == "poisson":
            sums = 8 * channels * (k + k * (k + 1) // 2)
            work = 8 * channels * (poisson.STRIP + k + 3)
        else:
            sums = 8 * channels * k
            work = frobenius.STRIP * (2 * 4 * channels + 8 * k)
        # One for the survey (a second where nearly all pixels are masked or empty), one for the maps.
        return Cost(passes=self.max_iter + 2, sums_bytes=sums, work_bytes=work, columns=k + 1)

    # What differs between the losses.

    @property
    def _update(self) -> BlockFunction:
        return poisson.update if self.loss == "poisson" else frobenius.update

    def _shared(self, s: Float, state: State) -> dict[str, Any]:
        if self.loss == "poisson":
            return {"s": s}
        return {"s": s, **self._weights(state)}

    def _weights(self, state: State) -> dict[str, Any]:
        if not self.weighting:
            return {}
        return {"w": channel_weights(state["spectrum"] / float(state["pixels"])), "weigh_pixels": True}

    def _objective(self, sums: dict[str, Any], s: Float, state: State) -> float:
        if self.loss == "poisson":
            return poisson.objective(sums, s, float(state["entropy"]))
        return frobenius.objective(sums, s, self._weights(state).get("w"))

    def _rounding(self, sums: dict[str, Any]) -> float:
        """What the objective may rise by without meaning anything: a small difference of large float32 products."""
        if self.loss == "poisson":
            return 1e-13 * abs(float(sums["likelihood"]))
        return 5e-8 * float(sums["norm"])

    def _improve(self, sums: dict[str, Any], s: Float) -> tuple[Float, Float]:
        if self.loss == "poisson":
            return poisson.improve(sums, s)
        best = frobenius.improve(sums, s)
        return best, best


def channel_weights(mean: Float) -> Float:
    """One over the mean of each channel, shape (E,).

    The mean is floored at a millionth of the average channel, or an empty channel would explode.

    Examples
    --------
    >>> channel_weights(np.array([2.0, 2.0])).tolist()
    [0.5, 0.5]
    """
    return np.asarray(1.0 / np.maximum(mean, 1e-6 * max(float(mean.mean()), 1e-300)))


def _unit_rows(s: Float, fallback: Float) -> Float:
    """Rows of unit sum; a row that vanished is replaced by the fallback's."""
    total = s.sum(axis=1, keepdims=True)
    filled = np.where(total > 0, s, fallback)
    sums = filled.sum(axis=1, keepdims=True)
    scaled: Float = filled / np.where(sums > 0, sums, 1.0)
    return scaled


def _share(mean: Float, s: Float) -> Float:
    """How much of the mean spectrum each endmember explains, by non-negative least squares."""
    found = nnls(s @ s.T, (s @ mean)[None])[0]
    return np.asarray(found * s.sum(axis=1))
