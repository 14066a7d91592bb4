"""Tucker decomposition of a stack of maps: a compression to a small core, with factors for each mode."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

import numpy as np
import xarray as xr

from scalehsi.arrays import Float
from scalehsi.blocks import Blocks
from scalehsi.checks import is_number, require
from scalehsi.fitting.model import State, Variables
from scalehsi.kernels.tensor import tucker as kernels
from scalehsi.kernels.tensor.polyadic import unit_rows
from scalehsi.kernels.tensor.products import unfolded
from scalehsi.models.tensor import modes as tensor_modes
from scalehsi.models.tensor.base import GROUP_PIXELS, TensorModel
from scalehsi.models.tensor.modes import MODES
from scalehsi.schema import COMPONENT, CORE, ENDMEMBERS, ENERGY, MODE_FACTORS, X


@dataclass(frozen=True)
class Tucker(TensorModel):
    """Compress a stack of maps to a small core, with a few directions for each of frames, pixels and energies.

    Parameters
    ----------
    ranks : list of int
        The number of factors of each mode, in the order of ``modes``: for frames, pixels and energies ``(3, 4, 4)``.
    modes : list, optional
        As for `scalehsi.CPD`: by default each leading dim is a mode, y and x together are the pixels, energy is the
        last one.
    nonnegative : bool, default False
        False: the factors of each mode are orthonormal, as those of a principal component analysis. True: factors, core
        and maps are 0 or more.
    weighting : {"auto", "poisson", None}, default "auto"
        As for `scalehsi.CPD`.
    max_iter : int, default 50
        Readings of the cube, at most.
    tol : float, default 1e-7
        Stop when better factors would lower the objective by less, relative to itself.

    Notes
    -----
    Minimised is the weighted squared distance to ``sum_j c_pj sum_ab g_jab u_ta v_be``. With orthonormal factors a pass
    projects each pixel on the current spectra; the sums are the data on the subspace of the pixels, on which orthogonal
    iteration runs to its end. Two or three passes suffice. Without negative values the pass solves the abundances of
    each pixel exactly, and the host improves the factors and the core in turn.

    Factors of a Tucker decomposition can be rotated: they are a compression and a means against noise, never phases.
    For phases take `scalehsi.CPD`.

    The result has ``abundances`` (component, y, x), ``core`` (component, frame_rank, energy_rank), ``frame_factors``
    (frame_rank, frame), ``energy_factors`` (energy_rank, energy) and ``endmembers`` (component, energy), the spectra of
    the components averaged over the frames. `scalehsi.reconstruct` gives the compressed stack.

    References
    ----------
    De Lathauwer, De Moor and Vandewalle 2000, doi:10.1137/S0895479898346995 (orthogonal iteration). Kim and Choi 2007,
    doi:10.1109/CVPR.2007.383405 (non-negative).

    Examples
    --------
    >>> import scalehsi as hsi
    >>> cube, truth = hsi.simulate.tensor_stack((24, 24), frames=6)
    >>> result = hsi.fit(cube, hsi.Tucker((2, 3, 3)), seed=0)
    >>> result["core"].sizes["frame_rank"], result["energy_factors"].shape
    (2, (3, 104))
    """

    ranks: Sequence[int]
    _: KW_ONLY
    nonnegative: bool = False
    max_iter: int = 50
    tol: float = 1e-7

    name: ClassVar[str] = "Tucker"
    judged: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        good = isinstance(self.ranks, Sequence) and not isinstance(self.ranks, str) and len(self.ranks) >= 3
        good = good and all(is_number(r, numbers.Integral) and r >= 1 for r in self.ranks)
        require(good, f"ranks has a whole number for each of at least three modes, got {self.ranks!r}; type (3, 4, 4)")

    @property
    def _place(self) -> int:
        """Position of the pixels among the modes."""
        groups = tensor_modes.groups_of(self.modes)
        return len(self.ranks) - 2 if groups is None else next((i for i, g in enumerate(groups) if X in g), 0)

    @property
    def rank(self) -> int:
        return int(self.ranks[self._place])

    def _short(self) -> tuple[int, ...]:
        """Ranks of the short modes, the energies last."""
        groups = tensor_modes.groups_of(self.modes)
        last = len(self.ranks) - 1 if groups is None else groups.index((ENERGY,))
        others = [int(r) for i, r in enumerate(self.ranks) if i not in (self._place, last)]
        return (*others, int(self.ranks[last]))

    def check_ranks(self, pixels: int, sizes: tuple[int, ...]) -> None:
        require(
            len(self.ranks) == len(sizes) + 1,
            f"ranks has {len(self.ranks)} numbers for {len(sizes) + 1} modes; give one for each",
        )
        for number, size in zip((self.rank, *self._short()), (pixels, *sizes), strict=True):
            require(number <= size, f"ranks={tuple(self.ranks)} has {number} for a mode of size {size}; take less")
            most = math.prod((self.rank, *self._short())) // number
            require(
                number <= most,
                f"ranks={tuple(self.ranks)}: {number} is more than the product of the others, {most}; take less",
            )

    @property
    def extrapolated(self) -> bool:
        return self.nonnegative

    @property
    def starts(self) -> int:
        return super().starts if self.nonnegative else 1

    def first(self, rows: Float, sizes: tuple[int, ...], seed: list[int]) -> Float:
        rng = np.random.default_rng(seed)
        stack = rows.reshape((-1, *sizes))
        if self.nonnegative:
            factors = [self._groups(stack, axis, rank, rng) for axis, rank in enumerate(self._short(), start=1)]
            core = rng.uniform(0.5, 1.5, (self.rank, *self._short()))
            return self._normed(core, factors)
        factors = [kernels.leading(unfolded(stack, axis), rank) for axis, rank in enumerate(self._short(), start=1)]
        small = kernels.mode_products(stack, factors)
        directions = kernels.leading(small.reshape(len(small), -1).T, self.rank)
        return _packed(directions.reshape((self.rank, *self._short())), factors)

    def _groups(self, stack: Float, axis: int, rank: int, rng: np.random.Generator) -> Float:
        """Mean of random groups of pixels along one mode (rank, n). stack (S, n_1, ..., n_d)."""
        found = []
        for _ in range(rank):
            chosen = rng.choice(len(stack), min(GROUP_PIXELS, len(stack)), replace=False)
            mean = unfolded(stack[chosen], axis).mean(axis=1)
            found.append(np.maximum(mean, 0.0) * rng.uniform(0.5, 1.5, mean.shape))
        return np.array(found)

    def rows(self, u: Float, sizes: tuple[int, ...]) -> Float:
        return kernels.spectra(*self._parts(u, sizes))

    def improve(self, z: Float, m: Float, u: Float) -> tuple[Float, float]:
        core, factors = self._parts(u, z.shape[1:])
        if not self.nonnegative:
            core, factors = kernels.orthogonal(z, m, factors)
            return _packed(kernels.orthonormal(core), factors), 0.5 * float((core**2).sum())
        core, factors = kernels.non_negative(z, m, core, factors)
        rows = kernels.spectra(core, factors)
        explained = float(np.sum(z.reshape(rows.shape) * rows) - 0.5 * np.sum(m * (rows @ rows.T)))
        return _packed(core, factors), explained

    def unit(self, u: Float, fallback: Float, sizes: tuple[int, ...]) -> Float:
        if not self.nonnegative:
            return u
        (core, factors), (core_before, before) = self._parts(u, sizes), self._parts(fallback, sizes)
        factors = [np.where(a.any(axis=1, keepdims=True), a, b) for a, b in zip(factors, before, strict=True)]
        slices = core.reshape(len(core), -1).any(axis=1).reshape(-1, *(1,) * len(sizes))
        return self._normed(np.where(slices, core, core_before), factors)

    def _normed(self, core: Float, factors: list[Float]) -> Float:
        """Packed core and factors whose rows have unit length, and so have the slices of the core."""
        lengths = [np.linalg.norm(factor, axis=1) for factor in factors]
        core = kernels.mode_products(core, [np.diag(length) for length in lengths])
        return _packed(unit_rows(core.reshape(len(core), -1)).reshape(core.shape), [unit_rows(f) for f in factors])

    def _parts(self, u: Float, sizes: tuple[int, ...]) -> tuple[Float, list[Float]]:
        """Core (R, r_1, ..., r_d) and factors (r_i, n_i) of packed numbers (1, N)."""
        ranks = self._short()
        shapes = [(self.rank, *ranks), *zip(ranks, sizes, strict=True)]
        core, *factors = (
            part.reshape(shape)
            for part, shape in zip(tensor_modes.split(u[0], [math.prod(s) for s in shapes]), shapes, strict=True)
        )
        return core, factors

    def noted(self, z: Float, m: Float, u: Float) -> State:
        rows = self.rows(u, z.shape[1:])
        return {"power": np.diag(m) * (rows**2).sum(axis=1)}

    def finish(self, view: Blocks, state: State) -> Variables:
        modes = view.cube.attrs[MODES]
        mean, found = self.described(view, state)
        core, factors = self._parts(state["kept"], modes.sizes)
        weights = self.weights(state, modes.sizes)
        factors = [factor / np.sqrt(weight) for factor, weight in zip(factors, weights, strict=True)]
        core = core[np.argsort(-state["power"], kind="stable")]
        averages = [factor.mean(axis=1, keepdims=True).T for factor in factors[:-1]]
        means = kernels.mode_products(core, averages).reshape(len(core), -1) @ factors[-1]
        if self.nonnegative:
            scale = mean * means.shape[1] / np.maximum(means.sum(axis=1), 1e-300)
        else:
            scale = np.where(means.sum(axis=1) < 0, -1.0, 1.0)
        ranks = [f"{name}_rank" for name in modes.names]
        own: Variables = {}
        for i, rank in enumerate(ranks[:-1]):
            own |= tensor_modes.by_mode([factors[i]], modes._replace(groups=_only(modes, i)), (rank,), MODE_FACTORS)
        own[f"{ENERGY}{MODE_FACTORS}"] = xr.DataArray(factors[-1], dims=(ranks[-1], ENERGY))
        for each in own.values():
            each.attrs = {"long_name": "factor"}
        scaled = core * scale.reshape(-1, *(1,) * len(factors))
        return {
            ENDMEMBERS: xr.DataArray(
                means * scale[:, None], dims=(COMPONENT, ENERGY),
                attrs={"long_name": "spectrum of the component, averaged", **self.noted_settings(view, state)},
            ),
            CORE: xr.DataArray(scaled, dims=(COMPONENT, *ranks), attrs={"long_name": "core"}),
            **own,
            **found,
        }  # fmt: skip


def _packed(core: Float, factors: Sequence[Float]) -> Float:
    """Core and factors as one row (1, N)."""
    return np.concatenate([core.reshape(-1), *(factor.reshape(-1) for factor in factors)])[None]


def _only(modes: tensor_modes.Modes, number: int) -> Any:
    """The groups of one short mode and of the pixels."""
    return (modes.short[number], modes.pixels)
