"""Non-negative matrix factorisation of a cube of any size, by least squares or by the Poisson likelihood of counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any, ClassVar, Final

import numpy as np
import xarray as xr

from scalehsi import arrays
from scalehsi.arrays import Float
from scalehsi.blocks import BlockFunction, Blocks, map_fold
from scalehsi.blocks.blas import one_blas_thread
from scalehsi.checks import require
from scalehsi.cube import navigation_dims
from scalehsi.fitting import binning
from scalehsi.fitting.model import Cost, IterativeModel, MapPass, State, Stats, Variables, check_components
from scalehsi.fitting.survey import Survey, survey
from scalehsi.kernels import cuda, least_squares, poisson
from scalehsi.kernels.least_squares import missing_voxels
from scalehsi.kernels.pixel_rows.strips import PIXELS_PER_STRIP
from scalehsi.kernels.priors import relevance
from scalehsi.kernels.quadratic.nnls import nnls
from scalehsi.models.nmf import carried_maps, extrapolation, known_maps, known_spectra, setting_rules, subspace
from scalehsi.models.nmf.losses import SETTLED, Counts, Incomplete, LeastSquares, Loss, channel_weights, normed
from scalehsi.models.nmf.settings import GIVEN
from scalehsi.models.nmf.starts import READINGS, brightness, first_endmembers, given_endmembers
from scalehsi.schema import ABUNDANCES, COMPONENT, ENDMEMBERS, ENERGY, MEAN_SPECTRUM, InputError

SHIFT: Final = "abundance_cost"
EXTRA: Final = "abundance_coupling"
STILL: Final = 1e-4
"""Largest change of an endmember, relative to the largest value, at which a fixed point counts as reached."""
SETTLING: Final = 0.01
"""Largest change of a pull at which it does: relative to the largest of them, or to so small a one."""


@dataclass(frozen=True, eq=False)
class NMF(IterativeModel):
    """Unmix a cube into non-negative endmember spectra and abundance maps: ``x ~ c s`` with ``c, s >= 0``.

    Parameters
    ----------
    n_components : int
        K, the number of endmembers; with ``ard`` the largest that is thought possible.
    loss : {"frobenius", "poisson"}, default "frobenius"
        - "frobenius": least squares. For intensities, background-subtracted EELS, and counts by the hundred. An
          iteration reads the cube once, at 4 P E K flops.
        - "poisson": the likelihood of counts (generalised Kullback-Leibler). For EDX and other sparse counts, where
          least squares follows the noise of the strong lines. An iteration costs by the channels that hold counts.
    weighting : {None, "poisson"}
        With "frobenius", divide by the mean of each pixel and of each channel, which makes counting noise uniform
        (Keenan and Kotula 2004). Costs nothing, and is worth a factor of 3 to 10 in the error of maps of counts.
    bin_factor : int or "auto", default "auto"
        With "poisson", fit the spectra to bins of so many pixels along y and x, and the maps to the single pixels in
        one pass. Counts are too few a pixel for spectra and maps at once: at 18 counts the spectra of the full
        likelihood are wrong by 16 to 49 degrees, those of 8 x 8 bins by 3 to 6. "auto" takes bins of 500 to 1500
        counts, and 1 where a pixel has as many. Always 1 with "frobenius".
    simplex : bool, default False
        Abundances of every pixel sum to one, exactly (not by renormalising). Endmembers then carry the intensity.
    orthogonality : float, 0 to 1, default 0
        Soft orthogonality of the maps, "frobenius" only: the weight ``w`` of Shiga et al. 2016. 0.01 to 0.1 separates
        phases that lie apart and share much of their spectra; 1 allows no overlap.
    ard : {None, "exponential", "half-normal"}
        Automatic relevance determination: a prior on the abundances whose scale is learned for each component, so that
        those that the data do not need switch off. The result holds those that are left, with their ``relevance``.
    ard_shape : float, default 1 + 1e-15
        Shape ``a`` of the inverse-gamma prior of these scales, above 1; its scale follows from the data.
    sparsity : float, default 0
        Linear cost of abundances. With "frobenius" in units of the root mean square length of a pixel's spectrum (0.01
        is mild), with "poisson" in units of one count. With ``weighting`` it is a cost of shares of the pixel's mean,
        so that bright pixels do not pay more.
    smoothness : float, default 0
        Pull between the abundances of neighbours along y and x, "frobenius" only, in units of the endmember's own
        power: 0.1 is mild, 10 strong. Carries the maps from pass to pass.
    smoothness_kind : {"quadratic", "tv"}
        "quadratic" blurs all differences; "tv" (total variation) keeps steps.
    missing : bool, default False
        Take NaN in a cube of floats for voxels that were not measured: they have no weight. With "frobenius" it goes
        without other options of the loss; with "poisson" together with ``simplex``, ``ard`` and ``sparsity``, and
        ``bin_factor`` is 1. A channel that no pixel measured becomes zero with "poisson" and keeps its start with
        "frobenius".
    solver : {"exact", "als", "mals", "hals", "mu"}, default "exact"
        "exact" solves the abundances of each pixel and extrapolates the spectra: fewest readings, nothing kept between
        them. The others are the rules of the textbooks, one cheap step of both factors a reading, for comparison:
        alternating least squares clipped at zero ("als"), held near the last step ("mals"), hierarchical ("hals"),
        multiplicative ("mu"; with "poisson" that of Lee and Seung). They carry the maps from pass to pass.
    spectral_smoothness : float, default 0
        Penalty on the second differences of endmembers, "frobenius" without weighting only; 1 halves, roughly, what
        alternates from channel to channel.
    compress : bool or "auto", default "auto"
        "frobenius" without costs and smoothness: fit in a subspace of 3 K + 8 directions and check the end
        against the cube, with four readings of it in all in place of one an iteration. When the check
        fails the fit goes on with the cube. "auto" does so for cubes that are read again each pass.
    fixed : mapping, optional
        What is known and does not change, one of these or both. In the result the fixed endmembers come first, then the
        components whose maps are fixed, then the others; a component has one or the other fixed.

        - ``"endmembers"``: DataArray (component, energy), spectra.
        - ``"abundances"``: DataArray (component, ..., y, x) on the pixels of the cube, maps, also lazy ones: they go
          along block by block. Each spectrum has the scale that the data give it; the others are the best beside them.
          With the maps of all components least squares ends after two iterations. Not with ``simplex``, ``ard``,
          ``orthogonality``, ``smoothness``, ``missing`` and textbook solvers. Maps belong to their cube:
          `scalehsi.project` to another one finds all abundances. To resume, give them again.
    start : str or result, default "sample"
        One of "sample" (a factorisation of a sample spread over the whole cube), "nndsvd", "nndsvda", "vca", "random",
        "multistart"; or a result, a DataArray (component, energy) or an array (K, E) to start from.
    restarts : int, default 10
        Starts of "multistart".
    max_iter : int, default 200
        Readings of the cube, at most.
    tol : float, default 1e-6
        Stop when the objective gains less than this, relative, an iteration, judged over five of them.

    Notes
    -----
    Minimised is ``1/2 sum_pe v_p w_e (x - c s)^2`` (``v = w = 1`` without weighting) or ``sum_pe c s - x log(c s)``,
    and the costs of priors. Each iteration is a function of ``s`` alone: the abundances of each pixel are solved
    exactly, block by block, and only sums of size K x E leave a block. ``s`` is then updated from the sums,
    extrapolated, and taken back when the objective rises. So nothing per pixel is kept between iterations, and a lost
    worker costs its blocks of one pass.

    The start is a factorisation of a sample spread over the whole cube, never of a part of it: a start from the first
    chunk ruins maps whose phases lie apart.

    With ``ard`` the objective is the negative logarithm of the posterior; with ``orthogonality`` the update is a fixed
    point, not a descent, and the objective may rise a little.

    Scale: every endmember has the total of the mean spectrum, so abundances are shares of an average pixel's signal.
    With ``simplex``, and for what is ``fixed``, the spectra have the scale that the data or the user gave them.

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

    n_components: int
    _: KW_ONLY
    loss: str = "frobenius"
    weighting: str | None = None
    bin_factor: int | str = "auto"
    simplex: bool = False
    orthogonality: float = 0.0
    ard: str | None = None
    ard_shape: float = 1.0 + 1e-15
    sparsity: float = 0.0
    smoothness: float = 0.0
    smoothness_kind: str = "quadratic"
    missing: bool = False
    solver: str = "exact"
    spectral_smoothness: float = 0.0
    compress: bool | str = "auto"
    fixed: Mapping[str, Any] | str | None = None
    start: Any = "sample"
    restarts: int = 10
    max_iter: int = 200
    tol: float = 1e-6

    name: ClassVar[str] = "NMF"

    def __post_init__(self) -> None:
        super().__post_init__()
        setting_rules.check(self)

    @property
    def costly(self) -> bool:
        """True where abundances have a cost of their own, so that spectra must keep their length."""
        return bool(self.sparsity or self.ard or self.orthogonality)

    @property
    def compressible(self) -> bool:
        """True where the iterations can run in a subspace of the data."""
        special = self.smoothness or self.missing or self.textbook or self.spectral_smoothness
        own = known_maps.numbers(self.fixed)
        # The subspace holds pixels divided by their means, which maps are not; and one step ends where all are fixed.
        given = bool(own) and (self.weighting is not None or len(own) == self.n_components)
        return self.loss == "frobenius" and not (self.costly or special or given)

    @property
    def textbook(self) -> bool:
        """True where the rules of the textbooks take the place of exact pixels."""
        return self.solver != "exact"

    @property
    def counts(self) -> bool:
        """True where the data must not be negative."""
        return self.loss == "poisson" or self.weighting == "poisson"

    @property
    def devices(self) -> tuple[arrays.Device, ...]:
        """Least squares but for what is listed, and counts alone, have kernels for a GPU; not run on one yet."""
        special = self.simplex or self.orthogonality or self.smoothness or self.missing or self.textbook
        if self.loss == "poisson":
            special = special or self.ard or self.sparsity or self.n_components > cuda.MOST
        return ("cpu",) if special or known_maps.numbers(self.fixed) else ("cpu", "cuda")

    def to_settings(self) -> dict[str, Any]:
        start = self.start if isinstance(self.start, str) else GIVEN
        plain = {k: v for k, v in vars(self).items() if k not in ("start", "fixed")}
        plain = {k: v.item() if isinstance(v, np.generic) else v for k, v in plain.items()}
        return {**plain, "start": start, "fixed": None if self.fixed is None else GIVEN}

    def check(self, cube: xr.DataArray) -> None:
        check_components(self.n_components, cube)
        require(
            not isinstance(self.fixed, str),
            f"fixed={self.fixed!r} is how a result tells of what was fixed; give the spectra or maps themselves",
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
        k = self.n_components
        seen = survey(view, seed=seed, counts=self.counts, least=4 * k, missing=self.missing)
        if len(seen.sample) == 0:
            raise InputError("every pixel of the sample is empty; mask the empty part of the cube, or bin it")
        single = self.loss == "frobenius" or self.missing or self.textbook
        factor = binning.factor(self.bin_factor, view, seen, squares=single, least=16 * k, whole=self.simplex)
        fitted, target = seen, view
        if factor > 1:
            target = binning.binned(view, factor, whole=self.simplex)
            fitted = survey(target, seed=seed, counts=self.counts, least=4 * k)
        known = known_spectra.known_endmembers(self.fixed, view.cube)
        # On the simplex a bin of so many pixels shows as many times the spectrum of one.
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
            "ease": np.full(k, relevance.EASE),
            "drift": np.zeros(k),
            "prior": np.asarray(relevance.prior_scale(mean * factor**2, k, view.n_energies, self.ard_shape)),
            "passes": np.asarray(0),
            "ridge": np.asarray(carried_maps.RIDGE),
        }
        state["s"] = s
        s = self._loss.unit(s, s, state)
        state = {**state, **extrapolation.start(s)}
        return subspace.begin(self, seen, state) if subspace.wanted(self, view) else state

    def _begin(self, view: Blocks, target: Blocks, seen: Survey, known: Float, *, factor: int, seed: int) -> Float:
        """The first endmembers, with those that are fixed, and in the scale of the maps that are."""
        rows = known_maps.along(self.fixed, view, factor)
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
        if isinstance(self.start, str):
            require(self.start != GIVEN, "start='given' is how a result tells of its start; give the start itself")
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
        """Root mean square length of a pixel's spectrum, and mean value, both as the loss weighs them."""
        spectrum = seen.spectrum / max(1, seen.pixels)
        if not self.weighting:
            return float(np.sqrt(seen.norm / max(1, seen.pixels))), float(spectrum.mean())
        w = channel_weights(spectrum)
        square = float(np.mean(seen.sample.astype(np.float64) ** 2 @ w)) * seen.filled / max(1, seen.pixels)
        # Abundances are costed as shares of their pixel's mean.
        return float(np.sqrt(square)), float(np.mean(spectrum * np.sqrt(w)) / max(float(spectrum.mean()), 1e-300))

    def step(self, view: Blocks, state: State) -> tuple[State, Stats]:
        """One pass at ``s``; then a better, extrapolated ``s``, or back to the last one known to be good."""
        if carried_maps.needed(self):
            return carried_maps.step(self, view, {**state, "passes": state["passes"] + 1})
        loss, s, phase = self._loss, state["s"], int(state.get("phase", subspace.FULL))
        if phase == subspace.SMALL:
            sums = subspace.sums_of(self, view, s, state)
        else:
            target = self._target(view, state)
            rows = known_maps.along(self.fixed, view, int(state["bin"]))
            _, sums = map_fold(loss.update, target, *rows, shared=loss.shared(s, state), name=f"nmf-{self.loss}")
        if "norm" in sums:
            state = {**state, "norm": np.asarray(sums["norm"])}
        state = {**state, "passes": state["passes"] + 1}
        value = loss.value(sums, s, state)
        if self.ard or self.orthogonality:
            return self._fixed_point(sums, value, state)
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

    def _target(self, view: Blocks, state: State) -> Blocks:
        """What the passes run over: the cube, its bins, its counts without their zeros."""
        target = binning.binned(view, int(state["bin"]), whole=self.simplex)
        return binning.without_zeros(target) if bool(state["sparse"]) else target

    def _checked(self, sums: dict[str, Any], value: float, state: State) -> tuple[State, Stats]:
        """The reading that checks a fit in the subspace: the end, or the first iteration with the cube itself."""
        loss, s = self._loss, state["s"]
        better = loss.unit(loss.improve(sums, s, state)[0], s, state)
        agreed = subspace.agreed(value, loss.value(sums, better, state), state)
        fresh = {**state, "objective": np.asarray(np.inf), "phase": np.asarray(subspace.FULL)}
        new, _ = extrapolation.ahead(value, better, better, fresh, lambda at, _: at, far=False)
        return new, Stats(value, done=agreed, settled=False)

    def _fixed_point(self, sums: dict[str, Any], value: float, state: State) -> tuple[State, Stats]:
        """With relevances and pulls of the last pass: no descent, so nothing to reject; components may leave."""
        loss, s = self._loss, state["s"]
        state = {**state, **loss.lag(sums, s, state)}
        better = loss.unit(loss.improve(sums, s, state)[0], s, state)
        still = float(np.abs(better - s).max()) <= STILL * float(s.max())
        if self.orthogonality and int(state["passes"]) >= SETTLED:
            better = loss.unit(s + relevance.pace(state["ease"]) * (better - s), s, state)
        new, _ = extrapolation.ahead(
            value, better, better, state, lambda at, fallback: loss.unit(at, fallback, state), far=False
        )
        still = still and float(np.abs(state["drift"]).max()) <= SETTLING * max(float(state["xi"].max()), SETTLING)
        if not self.ard:
            return new, Stats(value, settled=still)
        keep = self._kept(new, sums)
        for name in ("s", "kept", "safe", "free", "lam", "xi", "ease", "drift"):
            new[name] = new[name][keep]
        settled = still and bool(keep.all()) and int(state["passes"]) >= SETTLED
        left = f"The objective settled; {len(new['s'])} of {self.n_components} components are relevant."
        return new, Stats(value, settled=settled, advice=left)

    def _kept(self, state: State, sums: dict[str, Any]) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Components that stay: relevant ones, and of near copies the heavier; fixed ones always do."""
        lam = state["lam"]
        floor = relevance.scales(
            str(self.ard), 0 * lam, 0 * lam, pixels=float(state["pixels"]), shape=self.ard_shape,
            scale=float(state["prior"]),
        ).min()  # fmt: skip
        keep = relevance.needed(lam, float(floor)) if int(state["passes"]) >= SETTLED else sums["C"] > 0
        if int(state["passes"]) > 3:
            keep = keep & relevance.distinct(state["s"], sums["C"])
        if not keep.any():
            keep[np.argmax(sums["C"])] = True
        return np.asarray(keep | ~state["free"])

    def finish(self, view: Blocks, state: State) -> Variables:
        """Endmembers, scaled and sorted by what they carry in the mean spectrum; the fixed ones first, as given."""
        mean = state["spectrum"] / float(state["pixels"])
        s, free = state["kept"], normed(self, state)
        scale = np.full(len(s), 1.0 / int(state["bin"]) ** 2)
        if not self.simplex:
            total = abs(float(mean.sum())) or 1.0
            scale = np.where(free, total / np.maximum(s.sum(axis=1), 1e-300), 1.0)
        # What was given is in front already: endmembers, then maps.
        order = np.lexsort((np.where(free, -_share(mean, s), np.arange(len(s))), free))
        dims = (COMPONENT, ENERGY)
        found: Variables = {
            ENDMEMBERS: xr.DataArray((s * scale[:, None])[order], dims=dims),
            MEAN_SPECTRUM: xr.DataArray(mean, dims=(ENERGY,), attrs={"long_name": "mean of the data over used pixels"}),
        }
        if self.smoothness:
            maps = np.moveaxis(state["c"] / scale, -1, 0)[order]
            found[ABUNDANCES] = xr.DataArray(maps, dims=(COMPONENT, *navigation_dims(view.cube)))
        loss = self._loss
        # Scales that were learned from bins are those of so many pixels together.
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
            text = {"long_name": "pixels along y and x that were added up for the spectra"}
            found["bin_factor"] = xr.DataArray(int(state["bin"]), attrs=text)
        return found

    def projector(self, result: xr.Dataset) -> tuple[BlockFunction, dict[str, Any]]:
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

    def map_pass(self, view: Blocks, found: xr.Dataset) -> MapPass:
        return (*self.projector(found), known_maps.along(self.fixed, view))

    def cost(self, shape: tuple[int, ...], itemsize: int) -> Cost:
        k, channels = self.n_components, shape[-1]
        # One for the survey (a second where nearly all pixels are masked or empty), one for the maps.
        passes = self.max_iter + 2 + (READINGS.get(self.start, 0) if isinstance(self.start, str) else 0)
        own = known_maps.numbers(self.fixed)
        passes += bool(own)  # one shows which components the maps are of
        kept = 0
        if self.loss == "poisson":
            sums = 8 * channels * (k + k * (k + 1) // 2)
            work = poisson.STRIP * channels * (itemsize + 12) + 8 * channels * (16 * k + k * (k + 1))
            if self.missing:
                sums, work = sums + 8 * channels * k, work + 8 * channels * (poisson.STRIP + 3 * k)
            # The bins have a survey of their own.
            passes += self.bin_factor != 1 and not self.textbook and not self.missing
        else:
            sums = 8 * channels * k
            work = PIXELS_PER_STRIP * (2 * 4 * channels + 8 * k)
            if self.compress and self.compressible and channels > 2 * subspace.size(k):
                kept = 4 * subspace.size(k)
        if self.start in ("nndsvd", "nndsvda"):
            sums = max(sums, 8 * channels * (k + 12))
        return Cost(
            passes=passes, sums_bytes=sums, work_bytes=work, columns=k + 1, kept_bytes=kept, aligned_bytes=4 * len(own)
        )


def _share(mean: Float, s: Float) -> Float:
    """How much of the mean spectrum each endmember explains, by non-negative least squares."""
    found = nnls(s @ s.T, (s @ mean)[None])[0]
    return np.asarray(found * s.sum(axis=1))
