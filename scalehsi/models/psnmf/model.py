"""PSNMF of sparse counts: endmembers from bins of pixels, abundances of single pixels, from one acquisition."""

from __future__ import annotations

import numbers
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar, Final

import numpy as np
import xarray as xr

from scalehsi import arrays
from scalehsi.arrays import Float
from scalehsi.blocks import BlockFunction, Blocks
from scalehsi.checks import check_components, choice, is_number, require
from scalehsi.cube import energy_kev
from scalehsi.fitting import binning
from scalehsi.fitting.loop import fit_inner
from scalehsi.fitting.model import Cost, IterativeModel, State, Stats, Variables
from scalehsi.fitting.survey import survey
from scalehsi.kernels import least_squares, poisson
from scalehsi.kernels.poisson import mixture
from scalehsi.kernels.quadratic.nnls import nnls
from scalehsi.kernels.resampling.smoothing import smooth_spectra
from scalehsi.models.nmf import NMF
from scalehsi.models.psnmf import mixture_fit
from scalehsi.models.psnmf.bin_scan import choose_bins
from scalehsi.models.psnmf.pixel_maps import NEIGHBOUR_WIDTHS, mixture_maps, simplex_maps
from scalehsi.physics.resolution import detector_fwhm
from scalehsi.result import ResultWarning
from scalehsi.schema import COMPONENT, ENDMEMBERS, ENERGY, MEAN_SPECTRUM

SETTINGS: Final = ("default", "paper")
LOSSES: Final = ("poisson", "frobenius")
RAW: Final = "unsmoothed_endmembers"
EMPTY: Final = "empty_fraction"
SMOOTHING_PEAK_WIDTHS: Final = 1.3
"""Smoothing window in peak widths: it removes half of the noise variance and changes a peak by less than 1 %."""
SCANNED: Final = {
    "score": "logarithm of the likelihood of held-out counts above that of the best bins, per thousand counts",
    "score_error": "standard error of the difference to the best bins",
    "stability": "largest angle between spectra of both halves of the counts",
}
"""Variables of the bin-size scan in the result, as ``bin_score`` and so on."""


@dataclass(frozen=True, eq=False)
class PSNMF(IterativeModel):
    """Unmix a map of few counts: spectra from bins of many pixels, maps from single pixels (pan-sharpening by NMF).

    Single pixels have too few counts for spectra and maps at once. Therefore the spectra are fitted to bins of pixels.
    They are then fixed, and the abundances of each single pixel are solved with them. The product has the spectra of
    the bins and the resolution of the pixels.

    Parameters
    ----------
    n_components : int
        K, the number of endmembers. `scan_bins` estimates how many the counts show.
    bin_factor : "auto", int or (int, int), default "auto"
        Pixels of a bin along y and x. Large bins have good statistics, but the rarest phase must fill at least
        one. "auto" uses `scan_bins`, which scores sizes by the likelihood of held-out counts. It costs one reading and
        one or two seconds.
    loss : {"poisson", "frobenius"}, default "poisson"
        - "poisson": for counts (whole numbers). The spectra of the bins are refined on smaller bins of some 400 counts
          by a mixture model with a Dirichlet prior for mostly pure pixels.
        - "frobenius": least squares for both stages, for intensities such as EELS.
    simplex : bool, default True
        Abundances of every pixel sum to one: fractions of phases of one thickness. The model has the total counts of
        the data, in all and of each component, but not those of a pixel. A pixel with less than a twentieth of the
        counts of the faintest endmember is NaN, because there is no specimen. A component that covers
        others, and does not replace them, has the endmember of the pixels that hold most of it. False: every pixel has
        its own total (thickness, diffraction contrast), and abundances are fractions of an average pixel's signal.
    settings : {"default", "paper"}
        "paper": the method of the reference; spectra by least squares on the bins alone, without smoothing, maps by the
        Poisson likelihood pixel by pixel. All settings except ``n_components``, ``bin_factor`` and ``simplex`` must
        then have their defaults.
    neighbours : float, default 1
        Strength of the spatial prior. The neighbours' fractions, averaged with a Gaussian of 1.25 pixels standard
        deviation, act as ``neighbours * sqrt(n)`` additional counts in a pixel of n counts. 0 switches it off. 1
        preserves particles of 2 x 2 pixels; 3 is for smooth maps.
    smoothing : "auto" or float, default "auto"
        Width of the smoothing window of the spectra, in peak widths (full width at half maximum). These are measured in
        the sum spectrum, where peaks are narrower than those of a usual detector, 0.01 E + 0.065 keV. Channels in which
        nothing is counted are left out. "auto" is 1.3 for X-ray maps and 0 (off) for all others.
    concentration : float, default 0.02
        Parameter of the Dirichlet prior; below one for mostly pure pixels.
    max_iter : int, default 400
        Passes over the bins, at most.
    tol : float, default 1e-6
        Stop when the mean relative gain of the objective per iteration is smaller.

    Notes
    -----
    The result has ``bin_factor`` (of the first stage) and ``fine_bin_factor`` (of the mixture), each along y and x,
    ``unsmoothed_endmembers``, and where bins were chosen ``bin_score``, ``bin_score_error`` and ``bin_stability`` of
    all tested sizes (see `scan_bins`; draw them with `scalehsi.plots.bins`). ``empty_fraction`` is the fraction of the
    bins without specimen, where there are any; the warning ``no_specimen`` says it. With "poisson" the objective is the
    negative variational bound of the logarithm of the evidence, of the bins. Readings of the cube: one for the survey,
    one or two for the bins, one for the maps.

    References
    ----------
    Chen, Alexander and Hebert 2024, arXiv:2405.14649 (PSNMF). Blei, Ng and Jordan 2003, J. Mach. Learn. Res. 3, 993
    (the mixture). Keenan and Kotula 2004, doi:10.1002/sia.1657 (weighting of the first stage).

    Examples
    --------
    >>> import scalehsi as hsi
    >>> cube, truth = hsi.simulate.phases((72, 72), counts_per_pixel=60, seed=1)
    >>> result = hsi.fit(cube, hsi.PSNMF(3, bin_factor=6), seed=0)
    >>> bool(abs(result["abundances"].sum("component") - 1).max() < 1e-5)
    True
    """

    n_components: int
    _: KW_ONLY
    bin_factor: Any = "auto"
    loss: str = "poisson"
    simplex: bool = True
    settings: str = "default"
    neighbours: float = 1.0
    smoothing: Any = "auto"
    concentration: float = 0.02
    max_iter: int = 400
    tol: float = 1e-6

    name: ClassVar[str] = "PSNMF"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_components(self.n_components)
        choice("loss", self.loss, LOSSES)
        choice("settings", self.settings, SETTINGS)
        binning.check_pair(self.bin_factor)
        require(isinstance(self.simplex, bool), f"simplex is True or False, got {self.simplex!r}")
        for name in ("neighbours", "concentration"):
            value = getattr(self, name)
            good = is_number(value, numbers.Real) and np.isfinite(value) and value >= 0
            require(good, f"{name} is a number that is not negative, got {value!r}")
        require(self.concentration > 0, "concentration is above 0")
        known = self.smoothing == "auto" or (is_number(self.smoothing, numbers.Real) and 0 <= self.smoothing <= 5)
        require(known, f"smoothing is 'auto' or a number of peak widths from 0 (off) to 5, got {self.smoothing!r}")
        if self.settings == "paper":
            for name in ("loss", "neighbours", "smoothing", "concentration"):
                plain = type(self).__dataclass_fields__[name].default
                require(
                    getattr(self, name) == plain,
                    f"settings='paper' sets {name} itself; leave out {name} or settings='paper'",
                )

    @property
    def mixed(self) -> bool:
        """True where the spectra are refined by the mixture model."""
        return self.loss == "poisson" and self.settings == "default"

    @property
    def priors_on_maps(self) -> bool:
        return self.mixed

    @property
    def devices(self) -> tuple[arrays.Device, ...]:
        return ("cpu",)

    @property
    def halo(self) -> int:
        return mixture.halo(NEIGHBOUR_WIDTHS) if self.mixed and self.neighbours > 0 else 0

    @property
    def takes_sparse_counts(self) -> bool:
        return self.mixed

    @property
    def coarse(self) -> NMF:
        """The factorisation of the bins."""
        if self.settings == "paper":
            return NMF(self.n_components, loss="frobenius", solver="hals", start="nndsvd", max_iter=200, tol=1e-6)
        weighting = "poisson" if self.mixed else None
        return NMF(
            self.n_components, loss="frobenius", weighting=weighting, start="nndsvd", max_iter=300, tol=1e-7,
            compress=False,
        )  # fmt: skip

    def check(self, cube: xr.DataArray) -> None:
        check_components(self.n_components, cube)
        binning.check_room(self.bin_factor, cube)
        require(
            self.loss == "frobenius" or cube.dtype.kind in "ui",
            f"PSNMF needs counts, which are whole numbers, and this cube holds {cube.dtype}; if they are counts type "
            "cube.round().astype('uint16'), if they are intensities loss='frobenius'",
        )

    def init(self, view: Blocks, seed: int) -> State:
        seen = survey(view, seed=seed, counts=self.loss == "poisson", least=4 * self.n_components)
        plain: State = {
            "spectrum": seen.spectrum,
            "pixels": np.asarray(seen.pixels),
            "filled": np.asarray(seen.filled),
            "density": np.asarray(seen.density),
        }
        sides = binning.sides(self.bin_factor)
        if sides is None:
            scan = choose_bins(view.cube, self.n_components, seed=seed)
            sides = (int(scan.attrs["chosen"]),) * 2
            # Sizes that follow from a rule have no scores.
            plain |= {f"scan_{name}": scan[name].values for name in ("bin", *SCANNED) if "stability" in scan}
        if not self.mixed:
            found = self.coarse.init(binning.binned(view, *sides), seed)
            # "pixels" stays the number of pixels of the cube; "bins" is the number that the factorisation needs.
            given = {"sides": np.asarray(sides), "fine": np.asarray(sides)}
            return {**found, **plain, "bins": found["pixels"], **given}
        counts = float(seen.spectrum.sum()) / max(1, seen.filled)
        first = self._start(view, sides, counts, plain, seed)
        if not mixture_fit.is_sample(first):
            return first
        best = fit_inner(view, self, seed, purpose="mixture on a sample of the bins", state=first).state
        return mixture_fit.extend_to_all_bins(self.concentration, self._fine(view, best), best)

    def _start(self, view: Blocks, sides: Any, counts: float, state: State, seed: int) -> State:
        """First state of the mixture on small bins, from a factorisation of large ones.

        view: the cube. sides: pixels of a large bin along y and x. counts: of a pixel. state: sums of the survey.
        """
        found = fit_inner(binning.binned(view, *sides), self.coarse, seed, purpose="endmembers of the bins").state
        fine = binning.mixture_sides(sides, counts, self.n_components, view.shape)
        state = {**state, "sides": np.asarray(sides), "fine": np.asarray(fine)}
        return mixture_fit.anneal(self.concentration, self._fine(view, state), found["kept"], state)

    def step(self, view: Blocks, state: State) -> tuple[State, Stats]:
        if self.mixed:
            return mixture_fit.step(self.concentration, self._fine(view, state), state)
        bins = binning.binned(view, *map(int, state["sides"]))
        found, stats = self.coarse.step(bins, {**state, "pixels": state["bins"]})
        return {**found, "pixels": state["pixels"]}, stats

    def spectra(self, state: State) -> Float:
        return state["kept"]

    def _fine(self, view: Blocks, state: State) -> Blocks:
        bins = binning.binned(view, *map(int, state["fine"]))
        # Both forms give the same numbers. Checkpoints of earlier versions have no density.
        small = binning.fits_without_zeros(view, float(state.get("density", 0.0)))
        return binning.without_zeros(bins) if small else bins

    def finish(self, view: Blocks, state: State) -> Variables:
        if self.mixed:
            raw, empty = mixture_fit.spectra(view, state, self.concentration)
        else:
            raw, empty = mixture_fit.scaled_spectra(
                view, state["kept"], (int(state["sides"][0]), int(state["sides"][1]))
            )
        mean = state["spectrum"] / float(state["pixels"])
        if not self.simplex:
            total = abs(float(mean.sum())) or 1.0
            raw = raw * (total / np.maximum(raw.sum(axis=1, keepdims=True), 1e-300))
        share = nnls(raw @ raw.T, (raw @ mean)[None])[0] * raw.sum(axis=1)
        raw = raw[np.argsort(-share, kind="stable")]
        smooth = self._smoothed(raw, state["spectrum"], view.cube)
        dims = (COMPONENT, ENERGY)
        found: Variables = {
            ENDMEMBERS: xr.DataArray(raw if smooth is None else smooth, dims=dims),
            MEAN_SPECTRUM: xr.DataArray(mean, dims=(ENERGY,), attrs={"long_name": "mean of the data over used pixels"}),
        }
        if smooth is not None:
            found[RAW] = xr.DataArray(raw, dims=dims, attrs={"long_name": "endmembers before smoothing"})
        if self.simplex and empty > 0:
            found[EMPTY] = xr.DataArray(empty, attrs={"long_name": "fraction of the bins without specimen"})
        return found | self._described_bins(state)

    def _described_bins(self, state: State) -> Variables:
        """The sizes of the bins, and the scan that chose them, for the result."""
        words = {
            "bin_factor": "pixels of a bin of the first stage",
            "fine_bin_factor": "pixels of a bin of the mixture",
        }
        found: Variables = {}
        for name, key in (("bin_factor", "sides"), ("fine_bin_factor", "fine")):
            if name == "bin_factor" or self.mixed:
                found[name] = xr.DataArray(state[key], dims=("axis",), attrs={"long_name": f"{words[name]}, y and x"})
        for name, said in SCANNED.items() if "scan_bin" in state else ():
            tried = xr.DataArray(state["scan_bin"], dims=("bin",), attrs={"long_name": "pixels of a bin along y and x"})
            units = {"units": "deg"} if name == "stability" else {}
            given = {"long_name": said, **units}
            found[f"bin_{name}"] = xr.DataArray(
                state[f"scan_{name}"], dims=("bin",), coords={"bin": tried}, attrs=given
            )
        return found

    def warnings(self, variables: Variables) -> list[ResultWarning]:
        if EMPTY not in variables:
            return []
        share = float(variables[EMPTY])
        text = (
            f"{100 * share:.2g} % of the map holds no specimen. Abundances that sum to one are not defined there: "
            "they are NaN."
        )
        return [ResultWarning("no_specimen", text, "simplex=False")]

    def _smoothed(self, raw: Float, total: Float, cube: xr.DataArray) -> Float | None:
        """Smoothed spectra (K, E); None without smoothing. raw (K, E): spectra. total (E,): counts of all pixels."""
        energy = energy_kev(cube)
        automatic = self.smoothing == "auto"
        usual = SMOOTHING_PEAK_WIDTHS if cube.attrs.get("signal") == "EDS" and self.mixed else 0.0
        windows = usual if automatic else self.smoothing
        if not windows or self.settings == "paper":
            return None
        require(
            automatic or energy is not None,
            "smoothing needs an energy axis in eV or keV; type smoothing=0 to switch it off",
        )
        if energy is None or len(energy) < 3:
            return None
        step = float(np.abs(np.diff(energy)).mean())
        widths = SMOOTHING_PEAK_WIDTHS * detector_fwhm(np.maximum(energy, 0.0)) / step
        factor, counts = windows / SMOOTHING_PEAK_WIDTHS, self.loss == "poisson"
        return smooth_spectra(raw, total=total, widths=widths, factor=factor, measure=counts)

    def projector(self, result: xr.Dataset) -> tuple[BlockFunction, dict[str, Any]]:
        s = np.asarray(result[ENDMEMBERS].values, dtype=np.float64)
        if not self.mixed:
            likely = self.settings == "paper"
            if self.simplex:
                return simplex_maps, {"s": s, "likely": likely}
            return (poisson.abundances if likely else least_squares.abundances), {"s": s}
        return mixture_maps, {
            "s": s,
            "simplex": self.simplex,
            "alpha": self.concentration,
            "neighbours": self.neighbours,
        }

    def cost(self, shape: tuple[int, ...], itemsize: int) -> Cost:
        k, channels = self.n_components, shape[-1]
        sums, work = 16 * channels * k, 64 * 16 * channels
        return Cost(6, sums, work, k + 1, keeps_counts=float(self.mixed))
