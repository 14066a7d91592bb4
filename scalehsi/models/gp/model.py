"""`ParallelGP`: denoise and upsample abundance maps by one exact Gaussian process for all components, tile by tile."""

from __future__ import annotations

import math
import numbers
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar, Final

import numpy as np
import xarray as xr

from scalehsi import arrays
from scalehsi.blocks import BlockFunction, Blocks
from scalehsi.checks import choice, is_number, require
from scalehsi.fitting.judge import gaussian_process
from scalehsi.fitting.last_pass import CLIENT_MAP_BYTES
from scalehsi.fitting.model import Cost, DirectModel, Inputs, State, Stats, Variables
from scalehsi.kernels.gaussian_process import missing_pixels, tile_halos
from scalehsi.kernels.gaussian_process.covariance import parse
from scalehsi.kernels.gaussian_process.likelihood import Bounds, Hyper
from scalehsi.kernels.gaussian_process.radial_kernel import RADIAL_SUFFIX, is_radial
from scalehsi.models.gp import engines, input_maps, result_variables
from scalehsi.models.gp.tiled_maps import tile_grid, tiled_maps
from scalehsi.models.gp.tiles import SEAM, seam_difference, smooth_tile
from scalehsi.models.gp.upsampling import Upsampling
from scalehsi.result import ResultWarning
from scalehsi.schema import ABUNDANCES, ABUNDANCES_STD, COMPONENT, InputError, Status, X, Y

ENGINES: Final = ("auto", "structured", "iterative", "dense")
ONE_TILE_PIXELS: Final = 512**2
"""Maps of up to this many pixels are one tile: exact, and no slower."""
ONE_WINDOW_PIXELS: Final = 128**2
"""The hyperparameters of maps of up to this many pixels are fitted to the whole."""
MAX_WINDOWS: Final = 16
"""Windows of larger maps to which the hyperparameters are fitted."""
WINDOW_SIDE_PIXELS: Final = 64
MIN_PIXELS: Final = 9
"""Fewer pixels have nothing to tell noise from structure."""


@dataclass(frozen=True, eq=False)
class ParallelGP(DirectModel):
    """Reconstruct noisy maps by one Gaussian process for all of them.

    Fit it to a result, of which it takes the abundances, or to a DataArray of maps ``(component, ..., y, x)``. All maps
    have the same spatial covariance, and each its own noise. A low-rank matrix couples the maps, so that a good map
    improves a poor one of the same structure. Pixels that are NaN in a map are filled in that map, and masked pixels in
    all of them; a gap of one map costs the others nothing.

    Parameters
    ----------
    kernel : str, default "matern52"
        "matern12", "matern32", "matern52", "rbf", "periodic(p)" with a period in pixels, and sums and products of them,
        such as ``"matern52*periodic(6) + rbf"``; the covariance is the product of one for y and one for x. With the
        ending "-radial" it is a function of the distance in lengths, as in the paper, at some thirty times the cost.
    lengthscale : None or (low, high), default None
        Interval, in pixels, in which the lengths of the covariance are searched, for both axes, or ``((low, high),
        (low, high))`` for y and x. None: from half a pixel to the extent of the maps. `scalehsi.lengthscale_scan`
        recommends an interval.
    isotropic : bool, default False
        One length for y and x.
    rank : int, default 1
        Rank of the coupling between the maps, in addition to a variance of each map alone.
    engine : {"auto", "structured", "iterative", "dense"}
        - "structured": exact, by the eigenvectors of each axis; for kernels that are products.
        - "iterative": conjugate gradients with FFT products; for "-radial" kernels.
        - "dense": gpytorch as in the paper, for maps of some 50 x 50 pixels, as a reference.
        - "auto": "iterative" for "-radial" kernels, "structured" for all others.
    upsample : float or (float, float), default 1
        Points per pixel along each axis, or along y and x; any number of at least 1: pixels of 0.5 nm with 2.5 points
        give a grid of 0.2 nm.
    tile : "auto", None or int, default "auto"
        Side of a tile in pixels. "auto": the whole image up to 512 x 512 pixels and where the length is more than half
        a tile, else four halos. None: the whole image.
    halo : "auto" or float, default "auto"
        Width of the margin around a tile that enters its computation, in lengths of the covariance. "auto": wide enough
        that the tiled maps differ from those of one tile by at most 1 % of the posterior's standard deviation (2.8
        lengths for "matern52").
    uncertainty : {"auto", "draws", "density"}
        Method of the standard deviation of tiles with missing pixels. Where the maps have different gaps it is "draws".

        - "draws": that of complete maps, and what the gaps change in the mean of drawn maps.
        - "density": that of complete maps with more noise where fewer pixels were measured. Its error is 1 to 5 % for
          scattered missing pixels; it is much too small in holes and where most pixels are missing.
        - "auto": "density" where the missing pixels have enough measured neighbours, so that its error is at most 8 %;
          else "draws". See `scalehsi.kernels.gaussian_process.missing_pixels.deviation`.
    draws : int, default 64
        Number of drawn maps; the relative error of the deviation is at most ``1 / sqrt(2 draws)``.
    nonnegative : bool, default False
        Clip the mean at zero, as abundances cannot be negative.
    max_iter : int, default 200
        Training steps of "dense".
    tol : float, default 0
        Ignored, as the fit is a single step.

    Notes
    -----
    Model: covariance ``(K_y x K_x) x B + I x D`` with ``B = L L' + diag(w)`` and the noise ``D``. The hyperparameters
    are fitted once, to the whole image or to 16 windows of 64 x 64 pixels, and are the same for all tiles.

    The result has ``abundances`` and ``abundances_std`` (without the noise) on the upsampled grid. ``lengthscale``
    (axis) is in pixels, ``noise_std`` and ``map_mean`` (component) in the unit of the maps; ``coupling`` (component,
    other) is B. ``fitted_pixels`` (component) are the measured pixels on which these rest. ``evidence`` is the
    logarithm of the evidence of the windows, ``evidence_gain`` its excess over that of noise alone, ``length_scan`` its
    negative at lengths that were tried for both axes, and ``evidence_history`` and ``lengthscale_history`` record the
    search. "dense" adds ``training_loss``; conjugate gradients add ``solver_steps`` and ``solver_residual`` of the
    worst tile. The endmembers of the input result are copied, so that `scalehsi.reconstruct` returns the smoothed cube;
    its model, settings and warnings are in ``attrs["parent"]``. The objective is the negative logarithm of the evidence
    of the windows.

    One covariance cannot describe both a smooth map and a map of atomic columns: set ``lengthscale`` to the interval of
    the structure of interest.

    With several tiles, ``seam_difference`` (seam_y, seam_x) compares the maps around one corner of tiles with those of
    one tile around that corner, in standard deviations of the posterior; the default halo keeps it below 0.01.

    Warnings: ``length_at_bound``, ``noise_not_identifiable``, ``maps_too_small``; see
    `scalehsi.fitting.judge.gaussian_process`. A map that is NaN everywhere, an infinite value, and maps of fewer than 9
    measured pixels are refused.

    Cost: some 30 evaluations of the likelihood, and where pixels are missing up to 40 rounds of such fits; then for
    each map four products of a tile with the square of its side.

    References
    ----------
    Kalinin, Lupini, Vasudevan, Ziatdinov 2021, doi:10.1038/s41524-021-00611-8 (reconstruction of maps). Rakitsch et al.
    2013, NeurIPS 26 (independent maps by rotation). Saatci 2011, PhD thesis, Cambridge (Gaussian processes on grids).

    Examples
    --------
    >>> import scalehsi as hsi
    >>> rng = np.random.default_rng(0)
    >>> waves = np.sin(np.arange(24) / 3.0)
    >>> truth = xr.DataArray([np.add.outer(waves, waves), np.outer(waves, waves)], dims=("component", "y", "x"))
    >>> result = hsi.fit(truth + 0.3 * rng.standard_normal(truth.shape), hsi.ParallelGP())
    >>> bool(hsi.metrics.similarity(truth, result["abundances"]) > 0.97)
    True
    """

    kernel: str = "matern52"
    _: KW_ONLY
    lengthscale: Any = None
    isotropic: bool = False
    rank: int = 1
    engine: str = "auto"
    upsample: Any = 1
    tile: Any = "auto"
    halo: Any = "auto"
    uncertainty: str = "auto"
    draws: int = 64
    nonnegative: bool = False
    max_iter: int = 200

    name: ClassVar[str] = "ParallelGP"

    def __post_init__(self) -> None:
        super().__post_init__()
        choice("engine", self.engine, ENGINES)
        choice("uncertainty", self.uncertainty, missing_pixels.METHODS)
        radial = is_radial(self.kernel)
        parse(str(self.kernel).removesuffix(RADIAL_SUFFIX))
        require(
            not (radial and self.engine == "structured"),
            f"engine='structured' takes a product of one covariance for y and one for x, not {self.kernel!r}; type "
            "engine='iterative', or leave out '-radial'",
        )
        require(
            radial or self.engine != "iterative",
            f"engine='iterative' is for kernels of the distance, such as 'matern52-radial', not {self.kernel!r}; "
            "'structured' solves the others exactly, missing pixels too",
        )
        upsampling = Upsampling.of(self.upsample)
        require(
            self.solver != "iterative" or upsampling.uniform,
            f"upsample={self.upsample!r}: engine='iterative' takes one whole number of points a pixel",
        )
        for name in ("rank", "draws"):
            value, least = getattr(self, name), 2 if name == "draws" else 1
            good = is_number(value, numbers.Integral) and value >= least
            require(good, f"{name} is a whole number of at least {least}, got {value!r}")
        for name in ("isotropic", "nonnegative"):
            value = getattr(self, name)
            require(isinstance(value, bool), f"{name} is True or False, got {value!r}")
        side = self.tile in ("auto", None) or (is_number(self.tile, numbers.Integral) and self.tile >= 1)
        require(side, f"tile is 'auto', None for the whole, or a whole number of pixels, got {self.tile!r}")
        wide = self.halo == "auto" or (is_number(self.halo, numbers.Real) and 0 <= self.halo < math.inf)
        require(wide, f"halo is 'auto' or a number of lengths of at least 0, got {self.halo!r}")
        _ = self.bounds

    @property
    def bounds(self) -> Bounds | None:
        """Limits of the lengths along y and x, in pixels; None without an interval."""
        given = self.lengthscale
        if given is None:
            return None
        nested = isinstance(given, (list, tuple)) and all(isinstance(v, (list, tuple)) for v in given)
        pairs = tuple(given) if nested else (given, given)
        for pair in pairs:
            good = isinstance(pair, (list, tuple)) and len(pair) == 2 and len(pairs) == 2
            good = good and all(is_number(v, numbers.Real) and np.isfinite(v) and v > 0 for v in pair)
            require(
                good,
                "lengthscale is None, (low, high) in pixels, or ((low, high), (low, high)) for y and x, above 0, got "
                f"{given!r}",
            )
            require(pair[0] <= pair[1], f"lengthscale={given!r} is upside down; type ({pair[1]}, {pair[0]})")
        (a, b), (c, d) = pairs
        return (float(a), float(b)), (float(c), float(d))

    @property
    def solver(self) -> str:
        """The engine that is used: "auto" resolved."""
        if self.engine != "auto":
            return self.engine
        return "iterative" if is_radial(self.kernel) else "structured"

    @property
    def devices(self) -> tuple[arrays.Device, ...]:
        return ("cpu", "cuda") if self.solver == "structured" else ("cpu",)

    def select_inputs(self, data: Any) -> Inputs:
        cube, carried = input_maps.maps_as_cube(data)
        self.check(cube)
        _refuse_few(int(cube.sizes[Y] * cube.sizes[X]))
        frame = input_maps.result_frame(cube, carried, Upsampling.of(self.upsample))
        return Inputs(cube, carried=carried, frame=frame, name="maps")

    def solve(self, view: Blocks, seed: int) -> tuple[State, Stats]:
        tiles = input_maps.read_windows(view.cube, WINDOW_SIDE_PIXELS, MAX_WINDOWS, whole=ONE_WINDOW_PIXELS, seed=seed)
        masks = [np.isfinite(tile) for tile in tiles]
        _refuse_few(sum(int(mask.any(axis=-1).sum()) for mask in masks))
        found = engines.fit(
            self.solver,
            [np.nan_to_num(t) for t in tiles],
            masks,
            steps=self.max_iter,
            seed=seed,
            kernel=self.kernel,
            bounds=self.bounds,
            isotropic=self.isotropic,
            rank=self.rank,
        )
        new = {"seed": np.asarray(seed), **result_variables.to_state(found.hyper), "losses": found.losses}
        new |= {result_variables.SETTLED: np.asarray(found.settled), result_variables.FITTED_PIXELS: found.pixels}
        return new, Stats(found.hyper.loss, done=True, advice=found.advice)

    def finish(self, view: Blocks, state: State) -> Variables:
        hyper = result_variables.from_state(self.kernel, state)
        halo, grid = self._tiling(hyper, view.shape)
        maps, upsampling = int(view.cube.shape[-1]), Upsampling.of(self.upsample)
        shared = {
            "hyper": hyper,
            "upsampling": upsampling,
            "extent": tuple(int(n) for n in view.shape[-2:]),
            "clip": self.nonnegative,
            "engine": engines.Engine(self.solver, self.uncertainty, self.draws, int(state["seed"])),
        }
        size = 2 * 4 * maps * math.prod(view.shape) * upsampling.slots
        made, numbers_ = tiled_maps(
            smooth_tile,
            view,
            grid,
            halo=halo,
            shared=shared,
            names=(ABUNDANCES, ABUNDANCES_STD),
            components=maps,
            upsampling=upsampling,
            compute=size <= CLIENT_MAP_BYTES,
            name="gp-tile",
        )
        found = {**made, **result_variables.to_variables(hyper, numbers_, view.cube)}
        found |= result_variables.of_the_fit(state)
        if len(state["losses"]):
            said = {"long_name": "negative logarithm of the evidence before each step of the optimiser"}
            found[result_variables.TRAINING_LOSS] = xr.DataArray(state["losses"], dims=("training_step",), attrs=said)
        if max(map(len, grid[-2:])) > 1:
            found[SEAM] = seam_difference(view.cube, made[ABUNDANCES], shared, halo=halo, grid=grid)
        return found

    def _tiling(self, hyper: Hyper, shape: tuple[int, ...]) -> tuple[int, tuple[tuple[int, ...], ...]]:
        """Halo in pixels, and the sizes of tiles along each pixel dim, for maps of ``shape`` (..., y, x)."""
        length, side = max(hyper.lengths), max(shape[-2:])
        plain = hyper.kernel.removesuffix(RADIAL_SUFFIX)
        halo = tile_halos.halo_pixels(plain, length) if self.halo == "auto" else float(math.ceil(self.halo * length))
        if self.solver == "dense":
            return side, tile_grid(shape, math.inf)
        if self.tile == "auto":
            size: float = tile_halos.tile_pixels(halo) if math.isfinite(halo) else math.inf
            if math.prod(shape[-2:]) <= ONE_TILE_PIXELS or length > size / 2:
                size = math.inf
        else:
            size = math.inf if self.tile is None else float(self.tile)
        require(
            math.isfinite(halo) or not math.isfinite(size),
            f"kernel={hyper.kernel!r} does not decay with the distance, so that no halo is wide enough; type tile=None",
        )
        return int(max(1, min(halo, side))), tile_grid(shape, size)

    def final_status(self, variables: Variables, status: Status, advice: str) -> tuple[Status, str]:
        if not bool(variables.get(result_variables.SETTLED, True)):
            status, advice = "max_iter", f"{advice} Narrow their interval: set lengthscale=(low, high)."
        residual = float(variables.get(result_variables.SOLVER_RESIDUAL, 0.0))
        if residual <= missing_pixels.TOLERANCE:
            return status, advice
        steps = int(variables[result_variables.SOLVER_STEPS])
        asked = f"({missing_pixels.TOLERANCE:g} is asked for)"
        said = f"Conjugate gradients ended after {steps} steps with a relative residual of {residual:.1g} {asked}"
        return "max_iter", f"{said}. Shorter lengths need fewer steps: set lengthscale=(low, high)."

    def warnings(self, variables: Variables) -> list[ResultWarning]:
        maps = variables[ABUNDANCES]
        shape = [
            round(maps.sizes[d] / axis.factor)
            for d, axis in zip((Y, X), Upsampling.of(self.upsample).axes, strict=True)
        ]
        known = variables.get(result_variables.FITTED_PIXELS)
        return gaussian_process.judge(
            [float(v) for v in variables[result_variables.LENGTHSCALE].values],
            self.bounds,
            (shape[0], shape[1]),
            frames=math.prod(n for d, n in maps.sizes.items() if d not in (COMPONENT, Y, X)),
            pixels=known.values.tolist() if known is not None else [math.prod(shape)] * maps.sizes[COMPONENT],
            gain=float(variables[result_variables.GAIN]),
        )

    def projector(self, result: xr.Dataset) -> tuple[BlockFunction, dict[str, Any]]:
        raise InputError(
            "ParallelGP has no spectra to project; project the result that the maps came from, and fit the new maps"
        )

    def cost(self, shape: tuple[int, ...], itemsize: int) -> Cost:
        maps = shape[-1]
        columns = 2 * maps * Upsampling.of(self.upsample).slots
        return Cost(passes=2, sums_bytes=64, work_bytes=maps * 8 * 6, columns=columns)


def _refuse_few(pixels: int) -> None:
    """Refuse maps of so few ``pixels`` that noise and structure are alike."""
    require(
        pixels >= MIN_PIXELS,
        f"maps of {pixels} measured pixels cannot tell noise from structure; a Gaussian process takes at least "
        f"{MIN_PIXELS} pixels a map, and its deviations are trustworthy from 50 on",
    )
