"""Non-negative matrix factorisation of EELS with its background: every component is an edge on a power law."""

from __future__ import annotations

import numbers
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any, ClassVar, Final

import numpy as np
import xarray as xr

from scalehsi.arrays import Float
from scalehsi.blocks import BlockFunction, Blocks, map_fold, open_blocks
from scalehsi.blocks.blas import one_blas_thread
from scalehsi.blocks.opening import MIN_STREAMED_BLOCK_BYTES
from scalehsi.checks import check_components, choice, is_number, require
from scalehsi.fitting.model import Cost, IterativeModel, State, Stats, Variables
from scalehsi.fitting.survey import survey
from scalehsi.kernels import least_squares
from scalehsi.kernels.extraction.successive_projection import successive_projection
from scalehsi.kernels.least_squares import edge_background as kernels
from scalehsi.kernels.least_squares import endmember_update
from scalehsi.kernels.least_squares.edge_background import Axis
from scalehsi.models.coupled.window import Window, axis_ev, find_window
from scalehsi.models.nmf import extrapolation
from scalehsi.models.nmf.losses import channel_weights
from scalehsi.prepare import bin as add_up
from scalehsi.result import ResultWarning
from scalehsi.schema import BACKGROUND, COMPONENT, ENDMEMBERS, ENERGY, MEAN_SPECTRUM

BACKGROUNDS: Final = ("tied", "free")
FREE_EXPONENTS: Final = (2.0, 4.5)
BIN_PIXELS: Final = 4
LEAST_COUNTS: Final = 0.1
"""Bins with fewer counts, relative to the mean, are no candidates for the start."""
VOLUME: Final = 10.0
"""Weight of the volume term times the counts of a pixel."""
NO_EDGE: Final = 0.02
"""Share of an edge in its component below which the component counts as one without an edge."""
EDGE_SHARE: Final = "edge_share"
EXPONENT: Final = "exponent"


@dataclass(frozen=True)
class BackgroundNMF(IterativeModel):
    """Unmix EELS with the background in the model: ``x ~ c (s + n)``, edges s on backgrounds n that fall as power laws.

    Taking a background off pixel by pixel brings the noise of each extrapolation into the data. Here K backgrounds are
    fitted to the whole cube, together with the edges, from raw counts.

    Parameters
    ----------
    n_components : int
        K, the number of phases; at few pixels and many counts a background taken off each pixel is as good.
    onset : float, optional
        Energy in eV up to which edges are zero and backgrounds are fitted. Default: 6 eV below the steepest rise of the
        mean spectrum.
    window_start : float, optional
        Energy in eV from which backgrounds are fitted. Default: the first of the axis.
    background : {"tied", "free"}, default "tied"
        - "tied": each component has its own background, a sum of power laws of exponents 1 to 6, and its abundance
          scales both. Backgrounds then help to tell phases apart.
        - "free": each pixel has its own mixture of two power laws (exponents 2 and 4.5); only edges tell phases apart.
          For maps of few edges. The result has two components more, without an edge.
    volume : float, optional
        Weight of the volume of the simplex, which keeps endmembers from lying outside of the data. Default: 10 over the
        counts of a pixel, which is right within a factor of 3; 0 switches it off. Not with "free".
    max_iter : int, default 60
        Readings of the cube, at most.
    tol : float, default 1e-6
        Stop when the mean relative gain of the objective over five iterations is smaller.

    Notes
    -----
    Minimised is ``1/2 sum w (x - c t)^2 + volume log det(t t')`` with ``t = s + n`` and weights ``w`` of one over the
    mean spectrum. A pass is that of least-squares NMF (4 P E K flops); edges and backgrounds follow from its sums.
    The start is a successive projection of bins of 4 x 4 pixels.

    The result has ``endmembers`` (the edges), ``background`` (component, energy), ``exponent`` (component), the mean
    local exponent of each background, and ``edge_share`` (component), the share of the edge in the component's signal
    above the onset. ``endmembers + background`` are the spectra of the raw data.

    References
    ----------
    Muto and Shiga 2020, doi:10.1093/jmicro/dfz036 (eq. 15). Gillis and Vavasis 2014, doi:10.1109/TPAMI.2013.226
    (start). Fu et al. 2016, doi:10.1109/TSP.2016.2602800 (volume).

    Examples
    --------
    >>> import scalehsi as hsi
    >>> cube, truth = hsi.simulate.oxide_particle((32, 32))
    >>> result = hsi.fit(cube, hsi.BackgroundNMF(3), seed=0)
    >>> bool((result["endmembers"].sel(energy=slice(None, 520)) == 0).all())
    True
    """

    n_components: int
    _: KW_ONLY
    onset: float | None = None
    window_start: float | None = None
    background: str = "tied"
    volume: float | None = None
    max_iter: int = 60
    tol: float = 1e-6

    name: ClassVar[str] = "BackgroundNMF"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_components(self.n_components)
        choice("background", self.background, BACKGROUNDS)
        for name in ("onset", "window_start", "volume"):
            value = getattr(self, name)
            good = value is None or (is_number(value, numbers.Real) and np.isfinite(value) and value >= 0)
            require(bool(good), f"{name} is a number that is not negative, or None, got {value!r}")
        require(not (self.volume and self.free), "volume belongs to background='tied'; leave it out")

    @property
    def free(self) -> bool:
        """True where every pixel has its own background."""
        return self.background == "free"

    def check(self, cube: xr.DataArray) -> None:
        check_components(self.n_components, cube)
        axis_ev(cube)

    def init(self, view: Blocks, seed: int) -> State:
        seen = survey(view, seed=seed, counts=False, least=4 * self.n_components, entropy=False)
        mean = seen.spectrum / max(1, seen.pixels)
        energy = axis_ev(view.cube)
        window = find_window(energy, mean, self.window_start, self.onset)
        index = seen.variance_index if np.isfinite(seen.variance_index) and seen.variance_index > 0 else 1.0
        volume = VOLUME * index / max(float(mean.sum()), 1e-300) if self.volume is None else self.volume
        state: State = {
            "spectrum": seen.spectrum,
            "pixels": np.asarray(seen.pixels),
            "norm": np.asarray(np.nan),
            "window": np.array([window.start, window.onset, window.rise]),
            "volume": np.asarray(0.0 if self.free else volume),
            "volume_weight": np.asarray(np.nan),
        }
        axis = self._axis(state, energy)
        s, d = kernels.split(self._start(view, mean, seed), axis)
        if self.free:
            d = np.zeros_like(d)
        return {**state, **extrapolation.start(self._unit(np.hstack([s, d]), None, axis))}

    def _start(self, view: Blocks, mean: Float, seed: int) -> Float:
        """Spectra of nearly pure bins (K, E), projected on the strongest directions. mean (E,): of the cube."""
        sides = [min(BIN_PIXELS, n) for n in view.shape[-2:]]
        while sides != [1, 1] and self._bins(view, sides) < 4 * self.n_components:
            sides = [max(1, side // 2) for side in sides]
        target = view
        if max(sides) > 1:
            bins = add_up(view.cube, y=sides[0], x=sides[1])
            # A block of bins holds all of its pixels while it is made, so it is as much smaller as the bins are.
            share = bins.dtype.itemsize / (view.cube.dtype.itemsize * sides[0] * sides[1])
            size = max(1, int(MIN_STREAMED_BLOCK_BYTES * share))
            target = open_blocks(bins, device=view.device, resident=False, block_bytes=size)
        sample = survey(target, seed=seed, counts=False, least=4 * self.n_components, entropy=False).sample
        rows = np.asarray(sample, dtype=np.float64)
        total = rows.sum(axis=1)
        rows = rows[total > LEAST_COUNTS * float(np.median(total))]
        root = np.sqrt(channel_weights(mean))
        with one_blas_thread():
            white = rows * root
            _, _, right = np.linalg.svd(white, full_matrices=False)
            near = (white @ right[: self.n_components].T) @ right[: self.n_components] / root
        near = near / np.maximum(near.sum(axis=1, keepdims=True), 1e-300)
        chosen = successive_projection(near * root, min(self.n_components, len(near)))
        found = np.maximum(near[chosen], 0.0)
        missing = np.tile(mean / float(mean.sum()), (self.n_components - len(found), 1))
        return np.concatenate([found, missing])

    def _bins(self, view: Blocks, sides: list[int]) -> int:
        return int(np.prod(view.shape[:-2])) * (view.shape[-2] // sides[0]) * (view.shape[-1] // sides[1])

    def _axis(self, state: State, energy: Float) -> Axis:
        """Channels, power laws and weights of a fit. energy (E,): in eV."""
        start, onset, _ = state["window"]
        window = (energy >= start) & (energy < onset)
        weight = channel_weights(state["spectrum"] / float(state["pixels"]))
        return Axis(kernels.power_laws(energy, window), window, energy >= onset, weight)

    def _laws(self, energy: Float, axis: Axis) -> Float:
        """The two backgrounds that every pixel mixes (2, E), of unit weighted length; none for tied ones."""
        if not self.free:
            return np.zeros((0, len(energy)))
        laws = np.array([(energy / energy[axis.window].mean()) ** -r for r in FREE_EXPONENTS])
        return np.asarray(laws / np.sqrt((laws**2 * axis.weight).sum(axis=1, keepdims=True)))

    def _unit(self, u: Float, fallback: Float | None, axis: Axis) -> Float:
        """Edges and coefficients (K, E + R) scaled so that the spectra have unit weighted length.

        fallback: rows in place of those that are zero. axis: of the fit.
        """
        t = _spectra_of(u, axis)
        length = np.sqrt((t**2 * axis.weight).sum(axis=1, keepdims=True))
        scaled = u / np.where(length > 0, length, 1.0)
        return scaled if fallback is None else np.where(length > 0, scaled, fallback)

    def step(self, view: Blocks, state: State) -> tuple[State, Stats]:
        energy = axis_ev(view.cube)
        axis = self._axis(state, energy)
        u, k = state["s"], self.n_components
        t = np.vstack([_spectra_of(u, axis), self._laws(energy, axis)])
        shared = {"s": t, "w": axis.weight, "norm": not np.isfinite(state["norm"])}
        _, sums = map_fold(least_squares.update, view, shared=shared, name="background-nmf")
        if "norm" in sums:
            state = {**state, "norm": np.asarray(sums["norm"])}
        if not np.isfinite(state["volume_weight"]):
            weight = float(state["volume"]) * float(np.trace(sums["M"])) / k
            state = {**state, "volume_weight": np.asarray(weight)}
        power = float(state["volume_weight"])
        value = least_squares.objective({**sums, "norm": state["norm"]}, t, axis.weight)
        value += 0.5 * power * kernels.log_volume(t, axis.weight)
        slack = (1e-9 + 1e-7 / float(np.sqrt(max(1.0, float(state["pixels"]) / 64)))) * float(state["norm"])
        if not extrapolation.accepted(value, slack, state):
            return extrapolation.back(state)
        better = self._unit(self._improved(sums, u, t, power, axis), u, axis)
        new, stats = extrapolation.ahead(
            value, better, better, state, lambda at, fallback: self._unit(at, fallback, axis)
        )
        return new, replace(stats, done=bool(np.array_equal(better, u)))

    def _improved(self, sums: dict[str, Any], u: Float, t: Float, power: float, axis: Axis) -> Float:
        """Better edges and coefficients, not scaled.

        sums: of the pass. u (K, E + R): edges and coefficients of the pass. t: the spectra of the pass. power: of the
        volume term. axis: of the fit.
        """
        k, e = self.n_components, t.shape[1]
        if not self.free:
            m = sums["M"] + power * kernels.volume_matrix(t, axis.weight) if power else sums["M"]
            return np.hstack(kernels.improve(sums["N"], m, u[:, :e], u[:, e:], axis))
        new = np.zeros_like(t)
        above = axis.above
        free = np.arange(len(t)) < k
        new[:, above] = endmember_update.least_squares(sums["N"][:, above], sums["M"], t[:, above], free=free)
        return np.hstack([new[:k], u[:, e:]])

    def spectra(self, state: State) -> Float:
        u = state["kept"]
        return u[:, : u.shape[1] - len(kernels.EXPONENTS)]

    def finish(self, view: Blocks, state: State) -> Variables:
        energy = axis_ev(view.cube)
        axis = self._axis(state, energy)
        mean = state["spectrum"] / float(state["pixels"])
        u, e = state["kept"], len(energy)
        laws = self._laws(energy, axis)
        s = np.vstack([u[:, :e], np.zeros_like(laws)])
        n = np.vstack([u[:, e:] @ axis.laws, laws])
        total = (s + n).sum(axis=1, keepdims=True)
        scale = np.where(total > 0, float(mean.sum()) / np.where(total > 0, total, 1.0), 1.0)
        s, n = s * scale, n * scale
        own = (s[:, axis.above].sum(axis=1) / np.maximum((s + n)[:, axis.above].sum(axis=1), 1e-300)) if len(s) else s
        exponents = kernels.mean_exponents(u[:, e:], axis, energy)
        exponents = np.concatenate([exponents, FREE_EXPONENTS[: len(laws)]])
        share = least_squares.abundances(mean[None], s=s + n, w=axis.weight)[0]["abundances"][0]
        order = np.argsort(-np.asarray(share)[: len(u)], kind="stable")
        order = np.concatenate([order, np.arange(len(u), len(s))])
        dims = (COMPONENT, ENERGY)
        start, onset, rise = (float(v) for v in state["window"])
        words = {"window_start_ev": start, "onset_ev": onset, "rise_ev": rise}
        return {
            ENDMEMBERS: xr.DataArray(s[order], dims=dims, attrs=words),
            BACKGROUND: xr.DataArray(n[order], dims=dims, attrs={"long_name": "background of the endmember"}),
            EXPONENT: xr.DataArray(
                exponents[order], dims=(COMPONENT,), attrs={"long_name": "mean exponent of the background"}
            ),
            EDGE_SHARE: xr.DataArray(
                own[order], dims=(COMPONENT,), attrs={"long_name": "share of the edge above the onset"}
            ),
            MEAN_SPECTRUM: xr.DataArray(mean, dims=(ENERGY,), attrs={"long_name": "mean of the data over used pixels"}),
        }

    def projector(self, result: xr.Dataset) -> tuple[BlockFunction, dict[str, Any]]:
        t = np.asarray((result[ENDMEMBERS] + result[BACKGROUND]).values, dtype=np.float64)
        return least_squares.abundances, {"s": t, "w": channel_weights(result[MEAN_SPECTRUM].values)}

    def warnings(self, variables: Variables) -> list[ResultWarning]:
        said = variables[ENDMEMBERS].attrs
        window = Window(said["window_start_ev"], said["onset_ev"], said["rise_ev"])
        return [*window.warnings(), *_without_edges(variables, self.n_components)]

    def cost(self, shape: tuple[int, ...], itemsize: int) -> Cost:
        k, channels = self.n_components + 2 * self.free, shape[-1]
        return Cost(self.max_iter + 3, 8 * channels * k, 256 * (8 * channels + 8 * k), k + 1)


def _spectra_of(u: Float, axis: Axis) -> Float:
    """Edges plus backgrounds (K, E) of rows of edges and coefficients."""
    e = axis.laws.shape[1]
    return np.asarray(u[:, :e] + u[:, e:] @ axis.laws)


def _without_edges(variables: Variables, k: int) -> list[ResultWarning]:
    """A remark where all components lack an edge. k: number of components with an edge."""
    share = variables[EDGE_SHARE].values[:k]
    if (share >= NO_EDGE).any():
        return []
    text = f"No component has an edge above the onset (at most {share.max():.1%} of its signal): is the onset right?"
    return [ResultWarning("no_edge", text, "onset=...")]
