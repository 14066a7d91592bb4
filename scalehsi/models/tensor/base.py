"""What the tensor models share: modes, weights, the start on a sample, the pass over the pixels, and when to stop.

A tensor model is a factorisation of the pixels whose spectra have a structure: a row of all frames and energies that is
made of small factors. The pass is that of least-squares NMF, with these rows for endmembers; the factors then follow
from its sums, without the data.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
import xarray as xr

from scalehsi import arrays
from scalehsi.arrays import Float
from scalehsi.blocks import BlockFunction, Blocks, map_fold
from scalehsi.blocks.blas import one_blas_thread
from scalehsi.checks import check_weighting, require
from scalehsi.fitting.model import Cost, Inputs, IterativeModel, State, Stats, Variables
from scalehsi.fitting.survey import Survey, survey
from scalehsi.fitting.turning import LARGEST_TURN_DEG, TURN_ITERATIONS
from scalehsi.kernels import least_squares
from scalehsi.models.nmf import extrapolation
from scalehsi.models.nmf.losses import channel_weights
from scalehsi.models.tensor import modes as tensor_modes
from scalehsi.models.tensor.modes import MODES, modes_of
from scalehsi.result import model_spectra
from scalehsi.schema import COMPONENT, ENDMEMBERS, ENERGY, MEAN_SPECTRUM, RELATIVE_RESIDUAL

AUTO: Final = "auto"
MEANS: Final = "_mean"
"""End of the names of the means of the data along a mode: ``frame_mean`` (frame)."""
STARTS: Final = 3
SAMPLE_PIXELS: Final = 400
GROUP_PIXELS: Final = 20
"""Pixels of a random group, whose mean starts a component."""
SHORT_PASSES: Final = 20
LONG_PASSES: Final = 100

Read = Callable[..., dict[str, Any]]
"""A pass over some pixels: takes the shared arguments, returns the sums."""


@dataclass(frozen=True)
class TensorModel(IterativeModel):
    """What the tensor models share; its fields are settings of each of them."""

    modes: Any = field(default=None, kw_only=True)
    nonnegative: bool = field(default=True, kw_only=True)
    weighting: str | None = field(default=AUTO, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        tensor_modes.groups_of(self.modes)
        require(isinstance(self.nonnegative, bool), f"nonnegative is True or False, got {self.nonnegative!r}")
        if self.weighting != AUTO:
            check_weighting(self.weighting)

    @property
    def devices(self) -> tuple[arrays.Device, ...]:
        return ("cpu", "cuda") if self.nonnegative else ("cpu",)

    def select_inputs(self, data: Any) -> Inputs:
        cube = super().select_inputs(data).cube
        return Inputs(self.rows_of(cube), frame=cube)

    def rows_of(self, cube: xr.DataArray, result: xr.Dataset | None = None) -> xr.DataArray:
        if result is not None:
            modes = tensor_modes.stored_modes(result)
            tensor_modes.check_lengths(cube, modes)
            return tensor_modes.stacked(cube, modes)
        modes = modes_of(self.modes, cube, model=self.name)
        self.check_ranks(math.prod(cube.sizes[d] for d in modes.pixels), modes.sizes)
        return tensor_modes.stacked(cube, modes)

    # What a subclass defines.

    def check_ranks(self, pixels: int, sizes: tuple[int, ...]) -> None:
        """Refuse ranks that a tensor of these sizes cannot have."""
        raise TypeError(f"{type(self).__name__} does not define check_ranks")

    @property
    def rank(self) -> int:
        """Number of maps."""
        raise TypeError(f"{type(self).__name__} does not define rank")

    def first(self, rows: Float, sizes: tuple[int, ...], seed: list[int]) -> Float:
        """Random packed factors in the weights of the fit.

        rows (S, n_1 ... n_d): sampled pixels. sizes: of the short modes.
        """
        raise TypeError(f"{type(self).__name__} does not define first")

    def rows(self, u: Float, sizes: tuple[int, ...]) -> Float:
        """Spectra (K, n_1 ... n_d) of packed factors."""
        raise TypeError(f"{type(self).__name__} does not define rows")

    def improve(self, z: Float, m: Float, u: Float) -> tuple[Float, float]:
        """Better packed factors for the abundances of a pass, and half the squared length that they explain.

        z (K, n_1, ..., n_d), m (K, K): sums of the pass at ``u``.
        """
        raise TypeError(f"{type(self).__name__} does not define improve")

    def unit(self, u: Float, fallback: Float, sizes: tuple[int, ...]) -> Float:
        """Packed factors in their norm; those of components without any are replaced by those of the fallback."""
        return u

    @property
    def extrapolated(self) -> bool:
        """Whether factors are extrapolated beyond the better ones."""
        return True

    def noted(self, z: Float, m: Float, u: Float) -> State:
        """What the state keeps of an accepted pass; arguments as for `improve`."""
        return {}

    def turn(self, u: Float, before: Float, sizes: tuple[int, ...]) -> float:
        """Largest angle in degrees between factors of two iterations; 0 where the objective alone decides."""
        return 0.0

    @property
    def starts(self) -> int:
        """Starts on the sample; the best one after some passes is continued."""
        return STARTS

    # The fit.

    def init(self, view: Blocks, seed: int) -> State:
        sample, state = self.sampled(view, seed)
        step = max(1, len(sample) // SAMPLE_PIXELS)
        with one_blas_thread():
            found, more = self.begin(np.ascontiguousarray(sample[::step]), view.cube.attrs[MODES].sizes, state, seed)
        return {**state, **more, **extrapolation.start(found)}

    def sampled(self, view: Blocks, seed: int) -> tuple[Float, State]:
        """Read the cube once: sampled pixels (S, n_1 ... n_d), and the part of the state that all starts share."""
        seen = survey(view, seed=seed, counts=False, least=4 * self.rank, missing=True, entropy=False)
        require(
            not seen.lost,
            f"{seen.lost} values are NaN or Inf, and {self.name} needs every value; repair them with "
            "cube.fillna(0), or leave their pixels out with cube.assign_coords(mask=np.isfinite(cube).all('energy'))",
        )
        require(len(seen.sample), "every pixel of the sample is empty; mask the empty part of the cube")
        mean = seen.spectrum / max(1, seen.pixels)
        state: State = {
            "spectrum": seen.spectrum,
            "pixels": np.asarray(seen.pixels),
            "weighted": np.asarray(self._weighted(view, seen, mean)),
            "norm": np.asarray(np.nan),
        }
        return seen.sample, {**state, "root": np.sqrt(joint_weights(self.weights(state, view.cube.attrs[MODES].sizes)))}

    def _weighted(self, view: Blocks, seen: Survey, mean: Float) -> bool:
        """Whether modes are weighted for counting noise."""
        if self.weighting != AUTO:
            poor = bool(self.weighting) and bool((mean < 0).any())
            require(
                not poor, "weighting='poisson' is for counts, but means of the data are negative; type weighting=None"
            )
            return bool(self.weighting)
        return not seen.negative and (view.cube.dtype.kind in "bu" or seen.whole)

    def weights(self, state: State, sizes: tuple[int, ...]) -> list[Float]:
        """Weights of the positions along each mode."""
        parts = tensor_modes.marginals(state["spectrum"] / float(state["pixels"]), sizes)
        return [channel_weights(part) if state["weighted"] else np.ones_like(part) for part in parts]

    def begin(self, sample: Float, sizes: tuple[int, ...], state: State, seed: int) -> tuple[Float, State]:
        """Packed factors to start from, by a fit to sampled pixels, and what the state keeps of it."""
        return self.best_start(sample, sizes, state, seed)["kept"], {}

    def best_start(self, sample: Float, sizes: tuple[int, ...], state: State, seed: int) -> State:
        """The state at the end of the best of several fits to sampled pixels (S, n_1 ... n_d)."""
        scaled = np.asarray(sample * state["root"], dtype=np.float64)
        ends = []
        for number in range(self.starts):
            u = self.first(scaled, sizes, [seed, number])
            ends.append(self.fit_rows(sample, sizes, {**state, **extrapolation.start(u)}, SHORT_PASSES))
        best = min(ends, key=lambda end: float(end["objective"]))
        return self.fit_rows(sample, sizes, best, LONG_PASSES)

    def fit_rows(self, sample: Float, sizes: tuple[int, ...], state: State, passes: int) -> State:
        """Fit to pixels in memory, from a state to its end or for this many passes."""

        def read(**shared: Any) -> dict[str, Any]:
            return least_squares.update(sample, **shared)[1]

        state = {**state, "pixels": np.asarray(len(sample))}
        for _ in range(passes):
            state, stats = self.advance(read, sizes, state)
            if stats.done:
                break
        return state

    def step(self, view: Blocks, state: State) -> tuple[State, Stats]:
        def read(**shared: Any) -> dict[str, Any]:
            return map_fold(least_squares.update, view, shared=shared, name=f"{self.name.lower()}-pass")[1]

        return self.advance(read, view.cube.attrs[MODES].sizes, state)

    def advance(self, read: Read, sizes: tuple[int, ...], state: State) -> tuple[State, Stats]:
        """One pass at the factors of the state; then better and extrapolated ones, or back to the last good ones."""
        u, root = state["s"], state["root"]
        rows = self.rows(u, sizes)
        shared: dict[str, Any] = {"s": rows / root, "norm": not np.isfinite(state["norm"])}
        if bool(state["weighted"]):
            shared["w"] = root**2
        sums = read(**shared, signed=not self.nonnegative)
        if "norm" in sums:
            state = {**state, "norm": np.asarray(sums["norm"])}
        norm, m = float(state["norm"]), sums["M"]
        z = np.reshape(sums["N"] * root, (len(rows), *sizes))
        value = 0.5 * norm - _explained(z, m, rows)
        # A small difference of large sums of float32 products, whose roundings average out over tiles of pixels.
        slack = (1e-9 + 1e-7 / math.sqrt(max(1.0, float(state["pixels"]) / 64))) * norm
        if not extrapolation.accepted(value, slack, state):
            return extrapolation.back(state)
        raw, explained = self.improve(z, m, u)
        better, before = self.unit(raw, u, sizes), state["kept"]
        new, stats = extrapolation.ahead(
            value, better, better, {**state, **self.noted(z, m, u)}, lambda at, other: self.unit(at, other, sizes),
            far=self.extrapolated, lowest=0.0 if self.nonnegative else -math.inf,
        )  # fmt: skip
        gain = value - (0.5 * norm - explained)
        steady = self.turn(better, before, sizes) <= LARGEST_TURN_DEG / TURN_ITERATIONS
        return new, replace(stats, done=steady and gain <= max(self.tol * value, 0.0))

    # The result.

    def described(self, view: Blocks, state: State) -> tuple[float, Variables]:
        """Mean of the data, and the means along each mode as variables of the result."""
        modes = view.cube.attrs[MODES]
        mean = state["spectrum"] / float(state["pixels"])
        parts = tensor_modes.marginals(mean, modes.sizes)
        found = tensor_modes.by_mode(parts, modes, (), MEANS)
        for each in found.values():
            each.attrs = {"long_name": "mean of the data over pixels and energies"}
        text = {"long_name": "mean of the data over used pixels and the other modes"}
        left = np.sqrt(max(0.0, 2 * float(state["objective"])) / float(state["norm"]))
        found[RELATIVE_RESIDUAL] = xr.DataArray(
            left, attrs={"long_name": "length of the residual over that of the data"}
        )
        return float(mean.mean()), {**found, MEAN_SPECTRUM: xr.DataArray(parts[-1], dims=(ENERGY,), attrs=text)}

    def noted_settings(self, view: Blocks, state: State) -> dict[str, str]:
        """Attributes of the endmembers that the projector needs."""
        return {MODES: str(view.cube.attrs[MODES]), "weighting": "poisson" if state["weighted"] else "none"}

    def projector(self, result: xr.Dataset) -> tuple[BlockFunction, dict[str, Any]]:
        modes = tensor_modes.stored_modes(result)
        spectra = model_spectra(result).transpose(COMPONENT, *(d for group in modes.short for d in group), ENERGY)
        s = np.asarray(spectra.values, dtype=np.float64).reshape(result.sizes[COMPONENT], -1)
        w = None
        if result[ENDMEMBERS].attrs["weighting"] == "poisson":
            means = (*tensor_modes.flat_rows(result, modes, MEANS), result[MEAN_SPECTRUM].values)
            w = joint_weights([channel_weights(mean) for mean in means])
        return least_squares.abundances, {"s": s, "w": w, "signed": not self.nonnegative}

    def cost(self, shape: tuple[int, ...], itemsize: int) -> Cost:
        return Cost(self.max_iter + 2, 8 * shape[-1] * self.rank, 4 * shape[-1] * self.rank, self.rank + 1)


def joint_weights(parts: list[Float]) -> Float:
    """Weights of all channels (n_1 ... n_d) from those of the modes, of mean one."""
    w = np.ones(1)
    for part in parts:
        w = np.outer(w, part).reshape(-1)
    return np.asarray(w / w.mean())


def _explained(z: Float, m: Float, rows: Float) -> float:
    """Half the squared length of the data that spectra explain: ``<z, w> - 1/2 <m, w w'>``."""
    return float(np.sum(z.reshape(rows.shape) * rows) - 0.5 * np.sum(m * (rows @ rows.T)))
