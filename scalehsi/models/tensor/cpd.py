"""Canonical polyadic decomposition (CPD, PARAFAC) of a stack of maps: spectra, maps and time courses at once."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass, replace
from typing import ClassVar, Final

import numpy as np
import xarray as xr

from scalehsi.arrays import Float
from scalehsi.blocks import Blocks
from scalehsi.checks import check_components, require
from scalehsi.fitting.model import State, Stats, Variables
from scalehsi.kernels.tensor import polyadic
from scalehsi.kernels.tensor.polyadic import unit_rows
from scalehsi.kernels.tensor.products import outer, unfolded
from scalehsi.models.tensor import modes as tensor_modes
from scalehsi.models.tensor.base import GROUP_PIXELS, Read, TensorModel
from scalehsi.models.tensor.modes import MODES, split
from scalehsi.result import ResultWarning
from scalehsi.schema import COMPONENT, ENDMEMBERS, ENERGY, MODE_FACTORS, Status

CORCONDIA: Final = "corcondia"
COSINE: Final = "cosine"
SAMPLED: Final = "sampled"
"""Fits to the sample of one component less, of K, and of one more: objective and core consistency of each."""
LEAST_CONSISTENCY: Final = 80.0
"""Core consistency in per cent below which there are too many components."""
NOISE_GAINS: Final = 3.0
"""A component gains at least this many times what one of noise does (1.0 to 1.7 measured; true ones 136 and more)."""
ALIKE: Final = 0.99
"""Cosine of two factors above which they are alike, so that the other factors of their components are not unique."""
DEGENERATE_PASSES: Final = 5
DEGENERATE: Final = -0.95
"""Cosine of the products of all factors and maps of two components below which they cancel each other."""


@dataclass(frozen=True)
class CPD(TensorModel):
    """Unmix a stack of maps into components of one spectrum, one map and one time course each: ``x ~ sum c a s``.

    Parameters
    ----------
    n_components : int
        K, the number of components; `scalehsi.models.tensor.suggest_rank` helps to choose it.
    modes : list, optional
        The modes, each a dim or a group of dims, such as ``["frame", ("y", "x"), "energy"]`` or the text
        "frame,y+x,energy". y and x belong to one mode, the pixels, as maps are hardly ever products of two lines. By
        default each leading dim is a mode, and y and x together are the pixels.
    nonnegative : bool, default True
        Whether maps, spectra and time courses are 0 or more. False is for differences and other signed data; two
        components may then cancel each other.
    weighting : {"auto", "poisson", None}, default "auto"
        "poisson": divide by the mean of each frame and of each channel, which makes counting noise nearly uniform and
        keeps products products. None for data with uniform noise. "auto": "poisson" for counts.
    max_iter : int, default 100
        Readings of the cube, at most.
    tol : float, default 1e-6
        Stop when better factors would lower the objective by less, relative to itself, and turn by less than 0.006
        degrees.

    Notes
    -----
    Minimised is ``1/2 sum w (x_tpe - sum_k c_pk a_tk s_ke)^2``. A pass solves the abundances of each pixel exactly (4 P
    T E K flops) and returns sums of size K T E; from these the factors are fitted to convergence, and extrapolated.
    The start is the best of three random ones on a sample of 400 pixels, so few readings follow.

    Unlike a factorisation of a matrix, a CPD is unique without pure pixels, where no two components have the same time
    course (or tilt, or focus). Maps must not move from frame to frame: register them first.

    The result has ``endmembers`` (component, energy) with the total of the mean spectrum, ``frame_factors`` (component,
    frame) of mean one for each short mode, ``abundances`` (component, y, x), and ``corcondia``, the core consistency in
    per cent: below 80 there are too many components, or the data are no sum of products.

    References
    ----------
    Harshman 1970, UCLA Working Papers in Phonetics 16. Carroll and Chang 1970, doi:10.1007/BF02310791. Kolda and Bader
    2009, doi:10.1137/07070111X. Bro and Kiers 2003, doi:10.1002/cem.801 (core consistency). Ang and Gillis 2019,
    doi:10.1162/neco_a_01157 (extrapolation).

    Examples
    --------
    >>> import scalehsi as hsi
    >>> cube, truth = hsi.simulate.tensor_stack((24, 24), frames=6, seed=1)
    >>> result = hsi.fit(cube, hsi.CPD(3), seed=0)
    >>> result["frame_factors"].dims, bool(result["corcondia"] > 80)
    (('component', 'frame'), True)
    """

    n_components: int
    _: KW_ONLY
    max_iter: int = 100
    tol: float = 1e-6

    name: ClassVar[str] = "CPD"
    judged: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_components(self.n_components)

    @property
    def rank(self) -> int:
        return self.n_components

    def check_ranks(self, pixels: int, sizes: tuple[int, ...]) -> None:
        small = sorted((pixels, *sizes))[:2]
        most = small[0] * small[1]
        require(
            self.n_components <= most,
            f"n_components={self.n_components} is more than {small[0]} x {small[1]}, the product of the two smallest "
            f"modes; take {most} or fewer",
        )

    def first(self, rows: Float, sizes: tuple[int, ...], seed: list[int]) -> Float:
        rng = np.random.default_rng(seed)
        found = []
        for _ in range(self.n_components):
            chosen = rng.choice(len(rows), min(GROUP_PIXELS, len(rows)), replace=False)
            mean = rows[chosen].mean(axis=0).reshape((1, *sizes))
            found.append(np.concatenate([self._part(mean, axis) for axis in range(len(sizes))]))
        u = np.array(found)
        return self.unit(u, np.ones_like(u), sizes)

    def begin(self, sample: Float, sizes: tuple[int, ...], state: State, seed: int) -> tuple[Float, State]:
        own = self.best_start(sample, sizes, state, seed)
        fits = [self._neighbour(-1, sample, sizes, own, seed), own, self._neighbour(1, sample, sizes, own, seed)]
        numbers = [[float(fit["objective"]), float(fit[CORCONDIA])] for fit in fits]
        gain = least_gain(len(sample), sizes)
        return own["kept"], {SAMPLED: np.array(numbers), "least_gain": np.asarray(gain), "degenerate": np.asarray(0)}

    def _neighbour(self, more: int, sample: Float, sizes: tuple[int, ...], own: State, seed: int) -> State:
        """The fit to the sample with one component more or less; own: the fit with K."""
        k = self.n_components + more
        small = sorted((len(sample), *sizes))[:2]
        if k > small[0] * small[1]:
            return {"objective": own["objective"], CORCONDIA: np.asarray(polyadic.LEAST_CORCONDIA)}
        if k < 1:
            return {"objective": 0.5 * own["norm"], CORCONDIA: np.asarray(100.0)}
        fresh = {name: own[name] for name in ("spectrum", "pixels", "weighted", "norm", "root")}
        return replace(self, n_components=k).best_start(sample, sizes, fresh, seed)

    def _part(self, mean: Float, axis: int) -> Float:
        """Start of one factor from the mean of a group of pixels (1, n_1, ..., n_d)."""
        matrix = unfolded(mean[0], axis)
        if self.nonnegative:
            return np.maximum(matrix.mean(axis=1), 0.0)
        return np.asarray(np.linalg.svd(matrix, full_matrices=False)[0][:, 0])

    def rows(self, u: Float, sizes: tuple[int, ...]) -> Float:
        return outer(split(u, sizes))

    def improve(self, z: Float, m: Float, u: Float) -> tuple[Float, float]:
        factors = polyadic.improve(z, m, split(u, z.shape[1:]), signed=not self.nonnegative)
        rows = outer(factors)
        explained = float(np.sum(z.reshape(rows.shape) * rows) - 0.5 * np.sum(m * (rows @ rows.T)))
        return np.concatenate(factors, axis=1), explained

    def unit(self, u: Float, fallback: Float, sizes: tuple[int, ...]) -> Float:
        parts = []
        for part, other in zip(split(u, sizes), split(fallback, sizes), strict=True):
            parts.append(unit_rows(np.where(part.any(axis=1, keepdims=True), part, other)))
        return np.concatenate(parts, axis=1)

    def noted(self, z: Float, m: Float, u: Float) -> State:
        factors = split(u, z.shape[1:])
        length = np.sqrt(np.maximum(np.diag(m), 1e-300))
        cosines = polyadic.gram_of(factors) * m / np.outer(length, length)
        return {
            CORCONDIA: np.asarray(polyadic.corcondia(z, m, factors)),
            "power": np.diag(m),
            "cosines": cosines,
        }

    def advance(self, read: Read, sizes: tuple[int, ...], state: State) -> tuple[State, Stats]:
        new, stats = super().advance(read, sizes, state)
        if self.nonnegative or "degenerate" not in new:
            return new, stats
        # Two components that cancel each other grow without end; the objective falls ever more slowly.
        number = int(new["degenerate"]) + 1 if new["cosines"].min() < DEGENERATE else 0
        over = number >= DEGENERATE_PASSES
        return {**new, "degenerate": np.asarray(number)}, replace(stats, done=stats.done or over)

    def final_status(self, variables: Variables, status: Status, advice: str) -> tuple[Status, str]:
        pair = cancelling(variables)
        if pair is None:
            return status, advice
        return "stagnated", f"Components {pair[0]} and {pair[1]} cancel each other; take one component less."

    def turn(self, u: Float, before: Float, sizes: tuple[int, ...]) -> float:
        chords = [
            np.linalg.norm(a - b, axis=1).max() for a, b in zip(split(u, sizes), split(before, sizes), strict=True)
        ]
        return float(np.degrees(2 * np.arcsin(min(1.0, max(chords) / 2))))

    def spectra(self, state: State) -> Float:
        return state["kept"]

    def finish(self, view: Blocks, state: State) -> Variables:
        modes = view.cube.attrs[MODES]
        mean, found = self.described(view, state)
        roots = [np.sqrt(part) for part in self.weights(state, modes.sizes)]
        parts = [part / root for part, root in zip(split(state["kept"], modes.sizes), roots, strict=True)]
        order = np.argsort(-state["power"], kind="stable")
        factors = []
        for part in parts[:-1]:
            level = part.mean(axis=1, keepdims=True) if self.nonnegative else _signed_level(part)
            factors.append((part / np.where(level != 0, level, 1.0))[order])
        s = parts[-1][order]
        if not self.nonnegative:
            s = s * np.where(s.sum(axis=1, keepdims=True) < 0, -1.0, 1.0)
        s = s * (abs(mean) * s.shape[1] / np.maximum(np.abs(s).sum(axis=1, keepdims=True), 1e-300))
        own = tensor_modes.by_mode(factors, modes, (COMPONENT,), MODE_FACTORS)
        for each in own.values():
            each.attrs = {"long_name": "factor of the component, of mean one"}
        words = {**self.noted_settings(view, state), **self._evidence(state)}
        text = {"long_name": "cosine of two components, over all their factors and maps"}
        return {
            ENDMEMBERS: xr.DataArray(s, dims=(COMPONENT, ENERGY), attrs=words),
            **own,
            **found,
            CORCONDIA: xr.DataArray(float(state[CORCONDIA]), attrs={"long_name": "core consistency", "units": "%"}),
            COSINE: xr.DataArray(state["cosines"][np.ix_(order, order)], dims=(COMPONENT, "other"), attrs=text),
        }

    def _evidence(self, state: State) -> dict[str, float]:
        """What the fits to the sample say of K, as attributes: gains over that of a component of noise."""
        less, own, more = state[SAMPLED]
        least = float(state["least_gain"]) / NOISE_GAINS
        gains = [
            float(np.log(max(a, 1e-300) / max(b, 1e-300))) / least for a, b in ((less[0], own[0]), (own[0], more[0]))
        ]
        return {"gain": gains[0], "gain_of_one_more": gains[1], "corcondia_of_one_more": float(more[1])}

    def warnings(self, variables: Variables) -> list[ResultWarning]:
        said, k = variables[ENDMEMBERS].attrs, self.n_components
        consistency = float(variables[CORCONDIA])
        found = []
        if consistency < LEAST_CONSISTENCY or said["gain"] < NOISE_GAINS:
            text = (
                f"The core consistency is {consistency:.0f} % (80 and more are good), and the last component gains "
                f"{said['gain']:.3g} times what one of noise would (3 and more are good): there is a component "
                "too many, or the maps move from frame to frame."
            )
            found.append(ResultWarning("tensor_too_many", text, f"n_components={max(1, k - 1)}, or align the frames"))
        elif said["gain_of_one_more"] >= NOISE_GAINS and said["corcondia_of_one_more"] < LEAST_CONSISTENCY:
            text = (
                f"What {k} components leave is not noise alone: on sampled pixels a further one gains "
                f"{said['gain_of_one_more']:.3g} times what one of noise would. But it is no component either (core "
                f"consistency {said['corcondia_of_one_more']:.0f} %): maps move from frame to frame, or change at "
                "rates that vary over the map."
            )
            found.append(ResultWarning("tensor_moving", text, "align the frames before the fit"))
        elif said["gain_of_one_more"] >= NOISE_GAINS:
            text = (
                f"On sampled pixels a further component gains {said['gain_of_one_more']:.3g} times what one of noise "
                f"would, at a core consistency of {said['corcondia_of_one_more']:.0f} %."
            )
            found.append(ResultWarning("tensor_too_few", text, f"n_components={k + 1}"))
        return [*found, *_alike(variables), *_cancelling(variables)]


def least_gain(pixels: int, sizes: tuple[int, ...]) -> float:
    """Least fall of the logarithm of the squared residual by a true component of a tensor of these sizes."""
    return NOISE_GAINS * (sum(sizes) + pixels) / (math.prod(sizes) * pixels)


def cancelling(variables: Variables) -> tuple[int, int] | None:
    """Numbers, from one, of the two components that cancel each other most; None where none do."""
    cosines = variables[COSINE].values
    if cosines.min() >= DEGENERATE:
        return None
    i, j = np.unravel_index(int(cosines.argmin()), cosines.shape)
    return min(int(i), int(j)) + 1, max(int(i), int(j)) + 1


def _cancelling(variables: Variables) -> list[ResultWarning]:
    pair = cancelling(variables)
    if pair is None:
        return []
    text = (
        f"Components {pair[0]} and {pair[1]} are nearly opposite in all factors and cancel each other; their "
        "spectra mean nothing alone."
    )
    return [ResultWarning("tensor_cancelling", text, "one component less, or nonnegative=True")]


def _alike(variables: Variables) -> list[ResultWarning]:
    """A remark on the pair of components with the most similar factor of one mode."""
    worst, words = ALIKE, ""
    for name in [name for name in variables if name.endswith(MODE_FACTORS)]:
        rows = unit_rows(variables[name].values.reshape(variables[name].sizes[COMPONENT], -1))
        cosines = np.abs(rows @ rows.T) - np.eye(len(rows))
        if cosines.max() > worst:
            worst = float(cosines.max())
            i, j = np.unravel_index(int(cosines.argmax()), cosines.shape)
            words = (
                f"Components {min(i, j) + 1} and {max(i, j) + 1} have nearly the same {name.replace('_', ' ')} (cosine "
                f"{worst:.3f}): their spectra and maps can be mixed, as those of a factorisation of a matrix."
            )
    return [ResultWarning("tensor_alike", words, "one component less, or judge the two together")] if words else []


def _signed_level(part: Float) -> Float:
    """Root mean square of signed factors (K, n), of the sign of their sum."""
    level = np.sqrt((part**2).mean(axis=1, keepdims=True))
    return np.asarray(np.where(part.sum(axis=1, keepdims=True) < 0, -level, level))
