"""Non-negative matrix factorisation of a cube of any size, by least squares or by the Poisson likelihood of counts."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Final

import numpy as np
import xarray as xr

from scalehsi.arrays import Float
from scalehsi.blocks import BlockFunction, Blocks, map_fold
from scalehsi.blocks.blas import one_blas_thread
from scalehsi.checks import check_components, require
from scalehsi.cube import navigation_dims
from scalehsi.fitting import binning
from scalehsi.fitting.model import Cost, MapPass, State, Stats, Variables
from scalehsi.fitting.survey import Survey, survey
from scalehsi.kernels import least_squares, poisson
from scalehsi.kernels.least_squares import missing_voxels
from scalehsi.kernels.priors import relevance
from scalehsi.kernels.quadratic.nnls import nnls
from scalehsi.models.nmf import (
    carried_maps,
    extrapolation,
    fixed_point,
    known_maps,
    known_spectra,
    setting_rules,
    subspace,
)
from scalehsi.models.nmf.cost import cost_of
from scalehsi.models.nmf.loss_choice import CHOICE, CHOSEN, choose
from scalehsi.models.nmf.losses import (
    Counts,
    Incomplete,
    LeastSquares,
    Loss,
    channel_weights,
    normed,
)
from scalehsi.models.nmf.settings import AUTO, GIVEN, Settings
from scalehsi.models.nmf.starts import brightness, first_endmembers, given_endmembers
from scalehsi.schema import ABUNDANCES, COMPONENT, ENDMEMBERS, ENERGY, MEAN_SPECTRUM, InputError

SHIFT: Final = "abundance_cost"
EXTRA: Final = "abundance_coupling"
log = logging.getLogger("scalehsi")


@dataclass(frozen=True, eq=False)
class NMF(Settings):
    """Unmix a cube into non-negative endmember spectra and abundance maps: ``x ~ c s`` with ``c, s >= 0``.

    Parameters
    ----------
    n_components : int
        K, the number of endmembers; with ``ard`` the largest number that is possible.
    loss : {"auto", "frobenius", "poisson"}, default "auto"
        - "auto": "poisson" for counts, "frobenius" with ``weighting`` for counts by the hundred (100 a voxel) and for
          whole numbers that are no single counts, plain "frobenius" for all other values. The first reading decides,
          from dtype, share of zeros, and the variance of neighbouring pixels; the log and the attributes ``loss``,
          ``weighting`` and ``loss_reason`` of the result say it. An option that only one loss allows decides the loss.
        - "frobenius": least squares. For intensities, background-subtracted EELS, and counts in the hundreds. An
          iteration reads the cube once and needs 4 P E K flops.
        - "poisson": the likelihood of counts (generalised Kullback-Leibler). For EDX and other sparse counts, where
          least squares follows the noise of the strong lines. The cost of an iteration is proportional to the number of
          channels with counts.
    weighting : {None, "poisson"}
        With "frobenius", divide by the mean of each pixel and of each channel, which makes counting noise uniform
        (Keenan and Kotula 2004). Costs nothing, and is worth a factor of 3 to 10 in the error of maps of counts.
    bin_factor : int or "auto", default "auto"
        With "poisson", pixels of a bin along y and x: the spectra are fitted to bins, the maps to single pixels in one
        pass. Single pixels have too few counts for spectra and maps at once: at 18 counts the spectra of the full
        likelihood are wrong by 16 to 49 degrees, those of 8 x 8 bins by 3 to 6. "auto" uses bins of 500 to 1500
        counts, and 1 where a pixel has as many. Always 1 with "frobenius".
    simplex : bool, default False
        Abundances of every pixel sum to one, exactly (not by renormalising). Endmembers then carry the intensity.
    orthogonality : float, 0 to 1, default 0
        Soft orthogonality of the maps, "frobenius" only: the weight ``w`` of Shiga et al. 2016. 0.01 to 0.1 separates
        phases that do not overlap but have similar spectra; 1 allows no overlap.
    ard : {None, "exponential", "half-normal"}
        Automatic relevance determination: a prior on the abundances with a scale for each component, which is
        estimated; components that the data do not need vanish. The result has the others, with their ``relevance``.
    ard_shape : float, default 1 + 1e-15
        Shape ``a`` of the inverse-gamma prior of these scales, above 1; its scale follows from the data.
    sparsity : float, default 0
        Linear cost of abundances. With "frobenius" in units of the root mean square length of a pixel's spectrum (0.01
        is mild), with "poisson" in units of one count. With ``weighting`` it is a cost of shares of the pixel's mean,
        so that bright pixels do not pay more.
    smoothness : float, default 0
        Penalty on the differences of neighbouring abundances along y and x, "frobenius" only, in units of the
        endmember's own power: 0.1 is mild, 10 strong. The maps become part of the state.
    smoothness_kind : {"quadratic", "tv"}
        "quadratic" blurs all differences; "tv" (total variation) keeps edges.
    missing : bool, default False
        NaN in a cube of floats marks voxels that were not measured; they have no weight, and maps and residual are NaN
        in a pixel without any other voxel. With "frobenius" no other option of the loss is possible; with "poisson"
        ``simplex``, ``ard`` and ``sparsity`` are, and ``bin_factor`` is 1. A channel without any measured voxel becomes
        zero with "poisson" and keeps its start with "frobenius".
    solver : {"exact", "als", "mals", "hals", "mu"}, default "exact"
        "exact" solves the abundances of each pixel and extrapolates the spectra: it needs the fewest readings and keeps
        nothing between them. The others are the textbook rules, one cheap step of both factors per reading, for
        comparison: alternating least squares clipped at zero ("als"), the same with a penalty on the distance to the
        last step ("mals"), hierarchical ("hals"), multiplicative ("mu"; with "poisson" that of Lee and Seung). Their
        maps are part of the state.
    spectral_smoothness : float, default 0
        Penalty on the second differences of endmembers, "frobenius" without weighting only; 1 roughly halves the part
        that alternates from channel to channel.
    compress : bool or "auto", default "auto"
        "frobenius" without costs and smoothness: fit in a subspace of 3 K + 8 directions, and compare the end with the
        cube; four readings in all instead of one per iteration. If they disagree, the fit continues on the cube. "auto"
        does this for cubes that are read again each pass.
    fixed : mapping, optional
        Known spectra, known maps, or both. In the result the fixed endmembers come first, then the components whose
        maps are fixed, then the others; a component has either its spectrum or its map fixed.

        - ``"endmembers"``: DataArray (component, energy), spectra.
        - ``"abundances"``: DataArray (component, ..., y, x) on the pixels of the cube, maps, which may be lazy. Each
          spectrum has the scale of the data; the other components explain the rest. With the maps of all components
          least squares ends after two iterations. Not with ``simplex``, ``ard``,
          ``orthogonality``, ``smoothness``, ``missing`` and textbook solvers. Maps belong to their cube:
          `scalehsi.project` to another cube fits all abundances. To resume, give them again.
    start : str or result, default "sample"
        One of "sample" (a factorisation of a sample spread over the whole cube), "nndsvd", "nndsvda", "vca", "random",
        "multistart"; or a result, a DataArray (component, energy) or an array (K, E) to start from.
    restarts : int, default 10
        Starts of "multistart".
    max_iter : int, default 400
        Readings of the cube, at most.
    tol : float, default 1e-6
        Stop when the mean relative gain of the objective over five iterations is smaller.

    Notes
    -----
    Minimised is ``1/2 sum_pe v_p w_e (x - c s)^2`` (``v = w = 1`` without weighting) or ``sum_pe c s - x log(c s)``,
    and the costs of priors. Each iteration is a function of ``s`` alone: the abundances of each pixel are solved
    exactly, block by block, and only sums of size K x E leave a block. ``s`` is then updated from the sums and
    extrapolated; a step that raises the objective is rejected. Nothing per pixel is kept between iterations, and a
    lost worker costs its blocks of one pass.

    The start is a factorisation of a sample spread over the whole cube, never of a part of it: a start from the first
    chunk ruins maps whose phases are in separate places.

    With ``ard`` the objective is the negative logarithm of the posterior; with ``orthogonality`` the update is a fixed
    point, not a descent, and the objective may rise a little.

    Scale: every endmember has the total of the mean spectrum, so abundances are fractions of an average pixel's signal.
    With ``simplex`` the spectra have the scale of the data; ``fixed`` spectra keep their own.

    References
    ----------
    Lee and Seung 1999, doi:10.1038/44565. Keenan and Kotula 2004, doi:10.1002/sia.1657. Ang and Gillis 2019,
    doi:10.1162/neco_a_01157 (extrapolation). Shiga et al. 2016, doi:10.1016/j.ultramic.2016.08.006 (relevance and soft
    orthogonality). Muto and Shiga 2020, doi:10.1093/jmicro/dfz036 (review).

    Examples
    --------
    >>> import scalehsi as hsi
    >>> cube, truth = hsi.simulate.chequerboard((24, 24), n_channels=64)
    >>> result = hsi.fit(cube, hsi.NMF(4, loss="poisson"), seed=0)
    >>> bool(hsi.metrics.score(result, truth)["spectral_angle"].max() < 0.2)
    True
    """

    name: ClassVar[str] = "NMF"

    def __post_init__(self) -> None:
        super().__post_init__()
        setting_rules.check(self)

    def check(self, cube: xr.DataArray) -> None:
        check_components(self.n_components, cube)
        require(
            not isinstance(self.fixed, str),
            f"fixed={self.fixed!r} stands for fixed spectra or maps in a stored result; give these themselves",
        )
        known_spectra.known_endmembers(self.fixed, cube)
        known_maps.check_grid(self.fixed, cube)
        carried_maps.check(self, cube)
        if not isinstance(self.start, str):
            given_endmembers(self.start, cube, self.n_components)

    @property
    def _loss(self) -> Loss:
        if self.loss == "poisson":
            return Counts(self)
        return Incomplete(self) if self.missing else LeastSquares(self)

    def init(self, view: Blocks, seed: int) -> State:
        auto = self.loss == AUTO
        seen = survey(
            view, seed=seed, counts=self.counts, least=4 * self.n_components, missing=self.missing,
            entropy="poisson" in self.possible_losses or self.counts,
        )  # fmt: skip
        if len(seen.sample) == 0:
            raise InputError("every pixel of the sample is empty; mask the empty part of the cube, or bin it")
        if not auto:
            return self._begin_fit(view, seen, seed)
        found = choose(self, seen)
        log.info(found.reason)
        words = np.asarray([found.loss, found.weighting or "", found.reason])
        return {**self._with(found.loss, found.weighting)._begin_fit(view, seen, seed), CHOICE: words}

    def _with(self, loss: str, weighting: str | None) -> NMF:
        """These settings with a loss that was chosen."""
        return replace(self, loss=loss, weighting=weighting)

    def _chosen(self, state: State) -> NMF:
        """These settings with the loss that the first reading chose."""
        loss, weighting = map(str, state[CHOICE][:2])
        return self._with(loss, weighting or None)

    def _begin_fit(self, view: Blocks, seen: Survey, seed: int) -> State:
        """The state before the first step. seen: survey of the cube. seed: of the start."""
        k = self.n_components
        single = self.loss == "frobenius" or self.missing or self.textbook
        factor = binning.factor(self.bin_factor, view, seen, squares=single, least=16 * k, whole=self.simplex)
        fitted, target = seen, view
        if factor > 1:
            target = binning.binned(view, factor, whole=self.simplex)
            fitted = survey(target, seed=seed, counts=self.counts, least=4 * k)
        known = known_spectra.known_endmembers(self.fixed, view.cube)
        # On the simplex the spectrum of a bin is that of a pixel times the number of its pixels.
        known = known * (factor**2 if self.simplex else 1)
        s = self._begin(view, target, fitted, known, factor=factor, seed=seed)
        level, mean = self._scale(seen)
        state: State = {
            "spectrum": seen.spectrum,
            "pixels": np.asarray(seen.pixels),
            "entropy": np.asarray(fitted.entropy),
            "bin": np.asarray(factor),
            "sparse": np.asarray(self.loss == "poisson" and not seen.lost and binning.sparse(target, fitted)),
            "norm": np.asarray(np.nan),
            "level": np.asarray(level),
            "free": np.arange(k) >= len(known),
            "lam": np.full(k, np.nan),
            "sigma2": np.asarray(np.nan),
            "xi": np.zeros(k),
            "ease": np.full(k, relevance.FIRST_STEP),
            "drift": np.zeros(k),
            "prior": np.asarray(relevance.prior_scale(mean * factor**2, k, view.n_energies, self.ard_shape)),
            "passes": np.asarray(0),
            "ridge": np.asarray(carried_maps.FIRST_RIDGE),
        }
        state["s"] = s
        s = self._loss.unit(s, s, state)
        state = {**state, **extrapolation.start(s)}
        return subspace.begin(self, seen, state) if subspace.wanted(self, view) else state

    def _begin(self, view: Blocks, target: Blocks, seen: Survey, known: Float, *, factor: int, seed: int) -> Float:
        """The starting endmembers, including fixed ones, in the scale of fixed maps.

        view: the cube. target: the cube or its bins. seen: survey of the target. known: fixed endmembers (F, E).
        factor: pixels of a bin along y and x. seed: of the start.
        """
        rows = known_maps.aligned_maps(self.fixed, view, factor)
        sought = self.n_components - len(known) - len(known_maps.numbers(self.fixed))
        s = None
        if sought or not rows or not isinstance(self.start, str):
            s = self._first(target, seen, view.cube, seed)
            s[: len(known)] = known
        if rows:
            s = known_maps.begin(
                self.fixed, target, rows, s, mean=seen.spectrum / max(1, seen.pixels),
                n_components=self.n_components, pair=isinstance(self.start, str),
                solve=poisson.abundances if self.loss == "poisson" else least_squares.abundances,
            )  # fmt: skip
            s[: len(known)] = known
        assert s is not None
        return s

    def _first(self, target: Blocks, seen: Survey, cube: xr.DataArray, seed: int) -> Float:
        """Start of all endmembers. target: cube or bins. seen: its survey. cube: for its axis. seed: of the start."""
        if isinstance(self.start, str):
            require(
                self.start != GIVEN,
                "start='given' stands for a given start in a stored result; give the start itself",
            )
            with one_blas_thread():  # skinny products: more threads take three times as long
                s = first_endmembers(
                    target, seen, self.start, self.n_components, counts=self.counts, seed=seed, restarts=self.restarts
                )
        else:
            s = given_endmembers(self.start, cube, self.n_components)
        if self.simplex:
            s = s * brightness(seen, s, counts=self.counts)[:, None]
        return np.array(s, dtype=np.float64)

    def _scale(self, seen: Survey) -> tuple[float, float]:
        """Root mean square length of a pixel's spectrum, and mean value, both in the weights of the loss."""
        spectrum = seen.spectrum / max(1, seen.pixels)
        if not self.weighting:
            return float(np.sqrt(seen.norm / max(1, seen.pixels))), float(spectrum.mean())
        w = channel_weights(spectrum)
        square = float(np.mean(seen.sample.astype(np.float64) ** 2 @ w)) * seen.filled / max(1, seen.pixels)
        # The cost of abundances is relative to the mean of their pixel.
        return float(np.sqrt(square)), float(np.mean(spectrum * np.sqrt(w)) / max(float(spectrum.mean()), 1e-300))

    def step(self, view: Blocks, state: State) -> tuple[State, Stats]:
        """One pass at ``s``; then an improved and extrapolated ``s``, or back to the last good one."""
        if self.loss == AUTO:
            return self._chosen(state).step(view, state)
        if carried_maps.needed(self):
            return carried_maps.step(self, view, {**state, "passes": state["passes"] + 1})
        loss, s, phase = self._loss, state["s"], int(state.get("phase", subspace.FULL))
        if phase == subspace.SMALL:
            sums = subspace.sums_of(self, view, s, state)
        else:
            target = self._target(view, state)
            rows = known_maps.aligned_maps(self.fixed, view, int(state["bin"]))
            _, sums = map_fold(loss.update, target, *rows, shared=loss.shared(s, state), name=f"nmf-{self.loss}")
        if "norm" in sums:
            state = {**state, "norm": np.asarray(sums["norm"])}
        state = {**state, "passes": state["passes"] + 1}
        value = loss.value(sums, s, state)
        if self.ard or self.orthogonality:
            return fixed_point.step(self, sums, value, state, loss)
        if phase == subspace.CHECK:
            return self._checked(sums, value, state)
        if not extrapolation.accepted(value, loss.slack(sums, state), state):
            new, stats = extrapolation.back(state)
            return subspace.followed(self, new, stats) if phase else (new, stats)
        better, safe = (loss.unit(at, s, state) for at in loss.improve(sums, s, state))
        new, stats = extrapolation.ahead(
            value, better, safe, state, lambda at, fallback: loss.unit(at, fallback, state)
        )
        if np.array_equal(better, s):
            stats = replace(stats, done=True)
        return subspace.followed(self, new, stats) if phase else (new, stats)

    def spectra(self, state: State) -> Float:
        return state["kept"]

    def _target(self, view: Blocks, state: State) -> Blocks:
        """The data of the passes: the cube, its bins, or its counts without zeros."""
        target = binning.binned(view, int(state["bin"]), whole=self.simplex)
        return binning.without_zeros(target) if bool(state["sparse"]) else target

    def _checked(self, sums: dict[str, Any], value: float, state: State) -> tuple[State, Stats]:
        """Compare a fit in the subspace with the cube: the end of the fit, or its first iteration on the cube."""
        loss, s = self._loss, state["s"]
        better = loss.unit(loss.improve(sums, s, state)[0], s, state)
        agreed = subspace.agreed(value, loss.value(sums, better, state), better, state)
        fresh = {**state, "objective": np.asarray(np.inf), "phase": np.asarray(subspace.FULL)}
        new, _ = extrapolation.ahead(value, better, better, fresh, lambda at, _: at, far=False)
        return new, Stats(value, done=agreed, settled=False)

    def finish(self, view: Blocks, state: State) -> Variables:
        """Endmembers, scaled and sorted by their share of the mean spectrum; fixed ones first and unchanged."""
        if self.loss == AUTO:
            found = self._chosen(state).finish(view, state)
            found[ENDMEMBERS].attrs["loss_reason"] = str(state[CHOICE][2])
            return found
        mean = state["spectrum"] / float(state["pixels"])
        s, free = state["kept"], normed(self, state)
        scale = np.full(len(s), 1.0 / int(state["bin"]) ** 2)
        if not self.simplex:
            total = abs(float(mean.sum())) or 1.0
            scale = np.where(free, total / np.maximum(s.sum(axis=1), 1e-300), 1.0)
        # Fixed endmembers and components with fixed maps are already first.
        share: Any = 0.0 if isinstance(self.start, xr.Dataset) else _share(mean, s)  # a result keeps its order
        order = np.lexsort((np.where(free, -share, np.arange(len(s))), free))
        dims = (COMPONENT, ENERGY)
        found = {
            ENDMEMBERS: xr.DataArray(
                (s * scale[:, None])[order], dims=dims, attrs={"loss": self.loss, "weighting": self.weighting or "none"}
            ),
            MEAN_SPECTRUM: xr.DataArray(mean, dims=(ENERGY,), attrs={"long_name": "mean of the data over used pixels"}),
        }
        if own := known_maps.numbers(self.fixed):
            found[ENDMEMBERS].attrs[known_maps.FIXED_MAPS] = len(own)
        if self.smoothness:
            maps = np.moveaxis(state["c"] / scale, -1, 0)[order]
            found[ABUNDANCES] = xr.DataArray(maps, dims=(COMPONENT, *navigation_dims(view.cube)))
        loss = self._loss
        # Scales that were estimated on bins are those of a whole bin.
        power = 2.0 if self.ard == "half-normal" else 1.0
        single = {**state, "lam": state["lam"] / float(state["bin"]) ** (2 * power)}
        shift, extra = loss.shift(single), loss.extra(s, single)
        if shift.any():
            found[SHIFT] = xr.DataArray((shift * scale)[order], dims=(COMPONENT,))
        if extra.any():
            scaled = (extra * np.outer(scale, scale))[np.ix_(order, order)]
            found[EXTRA] = xr.DataArray(scaled, dims=(COMPONENT, "coupled"))
        if self.ard:
            shown = state["lam"] / state["lam"].max()
            text = {"long_name": "scale of the abundances relative to the largest"}
            found["relevance"] = xr.DataArray(shown[order], dims=(COMPONENT,), attrs=text)
        if int(state["bin"]) > 1:
            text = {"long_name": "pixels of a bin along y and x for the spectra"}
            found["bin_factor"] = xr.DataArray(int(state["bin"]), attrs=text)
        return found

    def attributes(self, variables: Variables) -> dict[str, str]:
        chosen = variables[ENDMEMBERS].attrs
        return {name: str(chosen[name]) for name in CHOSEN if name in chosen}

    def projector(self, result: xr.Dataset) -> tuple[BlockFunction, dict[str, Any]]:
        if self.loss == AUTO:
            chosen = result[ENDMEMBERS].attrs
            return self._with(chosen["loss"], None if chosen["weighting"] == "none" else chosen["weighting"]).projector(
                result
            )
        s = np.asarray(result[ENDMEMBERS].values, dtype=np.float64)
        shift = np.asarray(result[SHIFT].values) if SHIFT in result else None
        extra = np.asarray(result[EXTRA].values) if EXTRA in result else None
        shared: dict[str, Any] = {"s": s}
        if self.simplex:
            shared["simplex"] = True
        if own := known_maps.numbers(self.fixed):
            shared["known"] = own
        if self.loss == "poisson":
            if self.missing:
                shared["missing"] = True
            if shift is not None:
                shared["tau"] = shift
            if extra is not None:
                shared["ridge"] = np.diag(extra)
            return poisson.abundances, shared
        if self.missing:
            return missing_voxels.abundances, shared
        mean = np.asarray(result[MEAN_SPECTRUM].values, dtype=np.float64)
        w = channel_weights(mean) if self.weighting else None
        if shift is not None:
            shared["shift"] = shift
        if extra is not None:
            shared["gram"] = (s if w is None else s * w) @ s.T + extra
        return least_squares.abundances, {**shared, "w": w}

    def projection_note(self, result: xr.Dataset) -> str:
        if self.smoothness:
            return f"smoothness={self.smoothness} joins neighbours in the fit; here each pixel is solved alone."
        if known_maps.FIXED_MAPS in result[ENDMEMBERS].attrs:
            return "Maps that were fixed in the fit belong to its cube; here all abundances are solved."
        return ""

    def map_pass(self, view: Blocks, found: xr.Dataset) -> MapPass:
        return (*self.projector(found), known_maps.aligned_maps(self.fixed, view))

    def cost(self, shape: tuple[int, ...], itemsize: int) -> Cost:
        return cost_of(self, shape, itemsize)


def _share(mean: Float, s: Float) -> Float:
    """Part of the mean spectrum that each endmember explains, by non-negative least squares."""
    found = nnls(s @ s.T, (s @ mean)[None])[0]
    return np.asarray(found * s.sum(axis=1))
