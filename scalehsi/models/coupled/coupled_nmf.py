"""Non-negative matrix factorisation of signals that were measured together: EELS and EDX with the same maps."""

from __future__ import annotations

import numbers
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any, ClassVar, Final

import numpy as np
import xarray as xr

from scalehsi import arrays
from scalehsi.arrays import Float
from scalehsi.blocks import BlockFunction, Blocks, branch, map_fold
from scalehsi.checks import check_components, choice, is_number, require
from scalehsi.fitting import binning
from scalehsi.fitting.model import Cost, Inputs, IterativeModel, MapPass, State, Stats, Variables
from scalehsi.kernels import least_squares, poisson
from scalehsi.kernels.coupled import passes
from scalehsi.kernels.coupled.passes import Signal
from scalehsi.kernels.pixel_rows.sparse_counts import Counts
from scalehsi.models.coupled import coupled_nmf_inputs as inputs_of
from scalehsi.models.coupled import coupled_nmf_known as known
from scalehsi.models.coupled.coupled_nmf_contrast import SETTLED_PASSES, scanned
from scalehsi.models.coupled.coupled_nmf_result import described, fine_maps, found_shift, named, remarks
from scalehsi.models.coupled.coupled_nmf_start import joint_start, noise, surveyed
from scalehsi.models.nmf import extrapolation
from scalehsi.models.nmf.losses import channel_weights
from scalehsi.result import ResultWarning
from scalehsi.schema import ENDMEMBERS, MEAN_SPECTRUM

CONTRAST: Final = "contrast"


@dataclass(frozen=True, eq=False)
class CoupledNMF(IterativeModel):
    """Factorise several signals of one scan together: each has its own spectra and likelihood, all share the maps.

    Fit it to ``{"eels": a, "edx": b}``. Lines of EDX fix what dense edges of EELS leave open, and the many counts of
    EELS give EDX its maps. Both signals fitted apart, or one after the other, are worse.

    Parameters
    ----------
    n_components : int
        K, the number of endmembers of each signal.
    loss : mapping of str to {"gaussian", "poisson"}, optional
        Likelihood of a signal. By default "poisson" for unsigned integers that are not called EELS, "gaussian" for all
        others; the variance of the noise of a Gaussian signal is measured before the fit.
    weighting : {"auto", "poisson", None}, default "auto"
        Of the channels and pixels of Gaussian signals: "poisson" for counts (Keenan and Kotula 2004), None for uniform
        noise. "auto" takes "poisson" for whole numbers.
    weights : mapping of str to float, optional
        Factors of single signals in the objective; 1 is the likelihood. Between 0.03 and 30 they change little.
    reference : str, optional
        The signal whose maps are the abundances, and whose spectra are ``endmembers``: by default the first one of
        counts, else the first one.
    bin_factor : int or "auto", default "auto"
        Pixels of a bin along y and x: the spectra are fitted to bins of all signals, the maps to single pixels in one
        pass. "auto" makes bins of 500 to 1500 counts in the poorest signal of counts.
    deviation : None, float or "contrast", default None
        How maps of the other signals may differ from those of the reference. None: not at all. A number: by this
        standard deviation relative to the mean abundance, 0.1 is usual; maps become better where they really differ,
        spectra worse. "contrast": as ``mean + kappa (c - mean)`` with one kappa a signal, which is found by a scan: for
        tilt series, in which one signal is less localised; only of Gaussian signals.
    fixed : mapping of str to DataArray, optional
        Known spectra (component, energy) of a signal: those of its first components. Their scale is that of the fit.
    zeros : mapping of str to mapping, optional
        What a component does not have in a signal, by the number of the component from 0: ``{"edx": {0: ["Ni"]}}``.
        Elements stand for their lines; windows ``(low, high)`` are in the unit of the axis.
    shift : "auto", None or mapping of str to (int, int), default "auto"
        "auto" measures the shift between the signals after the fit and reports it. A mapping moves signals by whole
        pixels along y and x before it: pixel i of the signal belongs to pixel i + shift of the others. Counts are never
        interpolated.
    restarts : int, default 10
        Starts of the joint factorisation of bins; the best one is taken.
    max_iter : int, default 60
        Readings of each signal, at most.
    tol : float, default 3e-7
        Stop when the mean relative gain of the objective over five iterations is smaller.

    Notes
    -----
    Minimised is ``sum_m L_m + 1/2 sum gamma n^2`` in nats. ``L`` is ``sum v w (x - y)^2 / (2 phi)`` of a Gaussian
    signal and ``sum y - x log y`` of counts, with ``y = (c + n_m) S_m``; phi is what K components leave of the moments
    of the data, and ``gamma_k = 1 / (deviation mean c_k)^2``. Each iteration reads every signal once, beside the others
    and block by block; the problem of a pixel is solved exactly. Signals may have pixels of their own that are missing
    (a mask, or NaN); finer pixels, a whole number along a side, are binned, and get maps by their signal in the end.

    The result has ``endmembers`` of the reference and ``endmembers_NAME`` (component, energy_NAME) of the others,
    ``abundances`` (component, ..., y, x), ``residual`` and ``residual_NAME``, ``deviation_NAME`` where maps deviate,
    ``disagreement_NAME`` where they do not (1 in the mean for a signal that agrees with maps that others determine),
    ``abundances_NAME`` on finer pixels, ``noise_variance`` and ``curvature_share`` (signal), ``contrast`` (signal), and
    ``registration_shift`` (signal, axis) in pixels. A component has the total of the mean spectrum, averaged over the
    signals, so it may be dark in one of them.

    Raises
    ------
    InputError
        For one signal alone, for signals on unlike grids, and for data that a likelihood does not allow.

    References
    ----------
    Muto and Shiga 2020, doi:10.1093/jmicro/dfz036 (eq. 14). Seichepine et al. 2014, doi:10.1109/TSP.2014.2360141 (soft
    coupling). Acar et al. 2014, doi:10.1186/1471-2105-15-239 (coupled factorisations).

    Examples
    --------
    >>> import scalehsi as hsi
    >>> scene = hsi.simulate.coupled((24, 24))
    >>> result = hsi.fit(scene.cubes, hsi.CoupledNMF(3), seed=0)
    >>> result["endmembers_eels"].dims, result["abundances"].dims
    (('component', 'energy_eels'), ('component', 'y', 'x'))
    """

    n_components: int
    _: KW_ONLY
    loss: Any = None
    weighting: str | None = "auto"
    weights: Any = None
    reference: str | None = None
    bin_factor: Any = "auto"
    deviation: Any = None
    fixed: Any = None
    zeros: Any = None
    shift: Any = "auto"
    restarts: int = 10
    max_iter: int = 60
    tol: float = 3e-7

    name: ClassVar[str] = "CoupledNMF"
    named_signals: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_components(self.n_components)
        for name, value in (("loss", self.loss), ("weights", self.weights)):
            require(value is None or isinstance(value, Mapping), f"{name} is a mapping by signal, got {value!r}")
        for name, value in (self.loss or {}).items():
            choice(f"loss[{name!r}]", value, inputs_of.LIKELIHOODS)
        for name, value in (self.weights or {}).items():
            good = is_number(value, numbers.Real) and np.isfinite(value) and value > 0
            require(good, f"weights[{name!r}] is a number above 0, got {value!r}")
        require(
            self.weighting in ("auto", "poisson", None),
            f"weighting is 'auto', 'poisson' or None, got {self.weighting!r}",
        )
        soft = is_number(self.deviation, numbers.Real) and np.isfinite(self.deviation) and self.deviation > 0
        require(
            soft or self.deviation in (None, CONTRAST),
            f"deviation is None, a number above 0 or 'contrast', got {self.deviation!r}; type deviation=0.1",
        )
        binning.check(self.bin_factor, squares=False)
        whole = is_number(self.restarts, numbers.Integral) and self.restarts >= 1
        require(whole, f"restarts is a whole number of at least 1, got {self.restarts!r}")
        known.check_known(self.fixed, self.zeros, self.n_components)
        inputs_of.check_shift(self.shift)

    @property
    def devices(self) -> tuple[arrays.Device, ...]:
        return ("cpu",)

    def select_inputs(self, data: Any) -> Inputs:
        settings: dict[str, Any] = {
            name: value
            for name in ("loss", "weights", "fixed", "zeros", "shift")
            if isinstance(value := getattr(self, name), Mapping)
        }
        if self.reference is not None:
            settings["reference"] = [self.reference]
        found = inputs_of.select(
            data,
            n_components=self.n_components,
            loss=self.loss or {},
            reference=self.reference,
            shift=settings.get("shift", {}),
            named=settings,
        )
        check_components(self.n_components, found.cube)
        cubes = {name: found.others[name] for name in (found.name, *found.beside)}
        known.fixed_spectra(self.fixed, cubes)
        known.zero_channels(self.zeros, cubes, self.n_components)
        contrasted = [name for name in found.beside if self._counts(name, cubes[name])]
        require(
            self.deviation != CONTRAST or not contrasted,
            f"deviation='contrast' is of Gaussian signals, and {', '.join(map(repr, contrasted))} holds counts; "
            "make it the reference, or give a number",
        )
        return found

    def _counts(self, name: str, cube: xr.DataArray) -> bool:
        """Whether a signal has the likelihood of counts."""
        return ((self.loss or {}).get(name) or inputs_of.likelihood(cube)) == "poisson"

    def _names(self, view: Blocks) -> tuple[str, ...]:
        """The signals in the order of the passes: the reference first. The fit opens each as a branch of its own."""
        return tuple(view.branches)[: len(view.cuts.cubes)]

    def init(self, view: Blocks, seed: int) -> State:
        names = self._names(view)
        counts = [self._counts(name, view.branches[name].cube) for name in names]
        k = self.n_components
        seen = [
            surveyed(view.branches[n], n, counts=c, seed=seed, n_components=k)
            for n, c in zip(names, counts, strict=True)
        ]
        lost = np.array([each.lost > 0 for each in seen])
        means = [each.spectrum / max(1, each.pixels) for each in seen]
        cubes = inputs_of.alone(view, names, lost)
        inputs_of.check_shared(cubes)
        whole = [
            self.weighting == "poisson" or (self.weighting == "auto" and cubes[n].dtype.kind in "ui") for n in names
        ]
        weighted = np.array([w and not c for w, c in zip(whole, counts, strict=True)])
        phi = np.ones(len(names))
        for m, name in enumerate(names):
            if not counts[m]:
                w = channel_weights(means[m]) if weighted[m] else None
                phi[m] = noise(view, cubes[name], self.n_components, w)
        state: State = {
            "spectrum": seen[0].spectrum,
            "pixels": np.asarray(seen[0].pixels),
            "means": np.concatenate(means),
            "share": np.concatenate([np.full(len(m), 1.0 / (len(means) * float(m.sum()))) for m in means]),
            "phi": phi,
            "counts": np.array(counts),
            "weighted": weighted,
            "lost": lost,
            "level": np.full(self.n_components, 1.0 / self.n_components),
            "kappa": np.ones(len(names)),
            "norm": np.full(len(names), np.nan),
            "misfit": np.full(len(names), np.nan),
            "curvature": np.full(len(names), np.nan),
            "passes": np.asarray(0),
            "bin": np.asarray(1),
        }
        poorest = min(
            (each for each, c in zip(seen, counts, strict=True) if c),
            key=lambda each: float(each.spectrum.sum()) / max(1, each.filled),
            default=None,
        )
        if poorest is not None or not isinstance(self.bin_factor, str):
            about = poorest or seen[0]
            factor = binning.factor(self.bin_factor, view, about, squares=False, least=16 * self.n_components)
            state["bin"] = np.asarray(factor)
        dense = poorest is None or not all(binning.sparse(view, s) for s, c in zip(seen, counts, strict=True) if c)
        state["sparse"] = np.asarray(view.resident and not dense and int(state["bin"]) == 1)
        s = self._first(view, state, names, seed)
        state |= extrapolation.start(self._unit(s, s, state))
        return scanned(self, view, state, names, seed=seed) if self.deviation == CONTRAST else state

    def _first(self, view: Blocks, state: State, names: tuple[str, ...], seed: int) -> Float:
        """Joint start (K, E of all signals), in the order and with the values that are known."""
        scales = {}
        for m, (name, mean) in enumerate(zip(names, self._split(state["means"], view), strict=True)):
            if state["counts"][m]:
                scales[name] = np.sqrt(channel_weights(mean))
            else:
                w = channel_weights(mean) / float(mean.mean()) if state["weighted"][m] else np.ones(len(mean))
                scales[name] = np.sqrt(w / state["phi"][m])
        rows = inputs_of.exposures(view, names, state["lost"], 1)
        s = joint_start(view, rows, scales, n_components=self.n_components, seed=seed, restarts=self.restarts)
        cubes = {name: view.branches[name].cube for name in names}
        fixed, zeros = known.fixed_spectra(self.fixed, cubes), self._zeros(view)
        found = known.assigned(s, fixed, zeros)
        return np.concatenate([found[name] for name in names], axis=1)

    def _zeros(self, view: Blocks) -> dict[str, Any]:
        cubes = {name: view.branches[name].cube for name in self._names(view)}
        return known.zero_channels(self.zeros, cubes, self.n_components)

    def _split(self, rows: Float, view: Blocks) -> list[Float]:
        """The parts of the signals of an array whose last dim has the channels of all."""
        return np.split(rows, np.cumsum([each.shape[-1] for each in view.cuts.cubes])[:-1], axis=-1)

    def _signals(self, view: Blocks, state: State, s: Float, factor: int) -> tuple[Signal, ...]:
        """What a pass knows of the signals. s (K, E of all): endmembers. factor: pixels of a bin along y and x."""
        found, place = [], 0
        soft = self.deviation not in (None, CONTRAST)
        means = self._split(state["means"], view)
        level = state["level"]
        for m, (name, rows) in enumerate(zip(self._names(view), self._split(s, view), strict=True)):
            weight = float((self.weights or {}).get(name, 1.0))
            place += bool(soft and m)
            weighted, kappa = bool(state["weighted"][m]), float(state["kappa"][m])
            common = {"place": place if soft else 0, "contrast": kappa, "centre": level}
            if state["counts"][m]:
                found.append(Signal(name, rows, counts=True, factor=weight, **common))
                continue
            w = channel_weights(means[m]) if weighted else None
            phi = float(state["phi"][m]) / weight * (1 if weighted else factor**2)
            found.append(Signal(name, rows, counts=False, w=w, weigh_pixels=weighted, phi=phi, **common))
        return tuple(found)

    def _gamma(self, state: State) -> Float | None:
        """Precision of the deviations (K,); None without any."""
        if self.deviation in (None, CONTRAST):
            return None
        return np.asarray(1.0 / (float(self.deviation) * np.maximum(state["level"], 1e-6 * state["level"].max())) ** 2)

    def _unit(self, s: Float, fallback: Float, state: State) -> Float:
        """Rows whose total, relative to that of the mean spectrum and averaged over the signals, is one."""
        filled = np.where(s.any(axis=1, keepdims=True), s, fallback)
        size = filled @ state["share"]
        return np.asarray(filled / np.where(size > 0, size, 1.0)[:, None])

    def step(self, view: Blocks, state: State) -> tuple[State, Stats]:
        names, s, factor = self._names(view), state["s"], int(state["bin"])
        signals, gamma = self._signals(view, state, s, factor), self._gamma(state)
        rows = inputs_of.exposures(view, names, state["lost"], factor)
        shared = {"signals": signals, "gamma": gamma, "norm": not np.isfinite(state["norm"][~state["counts"]]).all()}
        _, sums = map_fold(passes.update, self._target(view, state), *rows, shared=shared, name="coupled-nmf")
        norm = [float(sums.get(f"norm_{n}", known_norm)) for n, known_norm in zip(names, state["norm"], strict=True)]
        sums |= {f"norm_{name}": value for name, value in zip(names, norm, strict=True)}
        value = passes.objective(sums, signals, gamma)
        young = int(state["passes"]) < SETTLED_PASSES and self.deviation is not None
        scale = sum(n / each.phi for n, each in zip(norm, signals, strict=True) if not each.counts)
        slack = 1e-11 * scale + 1e-13 * abs(float(sums["likelihood"])) + (float(sums["pixels"]) if young else 0.0)
        state = {**state, "norm": np.array(norm), "passes": state["passes"] + 1}
        if not extrapolation.accepted(value, slack, state):
            return extrapolation.back(state)
        misfits = [np.nan if each.counts else passes.misfit(sums, each) for each in signals]
        values = [each.s.shape[1] * max(1.0, float(sums["seen_" + each.name])) for each in signals]
        state["misfit"] = 2 * np.array(misfits) / np.array(values)
        state["curvature"] = np.array([passes.curvature(sums, each) for each in signals])
        fixed = known.fixed_spectra(self.fixed, {name: view.branches[name].cube for name in names})
        better, safe = (self._unit(at, s, state) for at in known.improved(sums, signals, fixed, self._zeros(view)))
        if young or self.deviation is None:
            state["level"] = sums["C"] / float(sums["pixels"])
            if gamma is not None and np.isfinite(value):
                value += 0.5 * float((self._gamma(state) - gamma) @ sums["D"])
        new, stats = extrapolation.ahead(
            value, better, safe, state, lambda at, fallback: self._unit(at, fallback, state)
        )
        return new, replace(stats, done=bool(np.array_equal(better, s)), settled=not young)

    def _target(self, view: Blocks, state: State) -> Blocks:
        """The data of the passes: pixels or bins, counts without zeros where that is smaller."""
        names = self._names(view)
        target = inputs_of.binned(view, names, state["lost"], int(state["bin"]))
        if not bool(state["sparse"]):
            return target
        shared = {"counts": tuple(map(bool, state["counts"]))}
        return branch(target, "sparse", lambda: target.derive(_packed, shared=shared, name="coupled-counts"))

    def spectra(self, state: State) -> Float:
        return state["kept"] * state["share"]

    def finish(self, view: Blocks, state: State) -> Variables:
        names = self._names(view)
        fixed = known.fixed_spectra(self.fixed, {name: view.branches[name].cube for name in names})
        s = np.asarray(state["kept"])
        signals = self._signals(view, state, s, 1)
        # What is known keeps its scale, and its number.
        for signal in signals:
            rows = fixed.get(signal.name, ())
            for k, row in enumerate(rows):
                s[k] = s[k] * (row.sum() / max(float(signal.s[k].sum()), 1e-300))
        plain = not (fixed or self.zeros)
        order = np.argsort(-state["level"], kind="stable") if plain else np.arange(len(s))
        signals = self._signals(view, state, s[order], 1)
        centre = state["level"][order] / int(state["bin"]) ** 2
        signals = tuple(each._replace(centre=centre) for each in signals)
        cubes = {name: view.branches[name].cube for name in names}
        found = described(signals, cubes, state, self._split(state["means"], view))
        if self.deviation is not None and self.deviation != CONTRAST:
            found["deviation_precision"] = xr.DataArray(
                self._gamma({**state, "level": centre}),
                dims=("component",),
                attrs={"long_name": "precision of deviations"},
            )
        if self.shift == "auto":
            found |= found_shift(view, signals, names, inputs_of.exposures(view, names, state["lost"], 1))
        for name in names:
            if name + inputs_of.FINE in view.branches:
                signal = signals[names.index(name)]
                found[f"abundances_{name}"] = fine_maps(view.branches[name + inputs_of.FINE], signal, view)
        return found

    def map_pass(self, view: Blocks, found: xr.Dataset) -> MapPass:
        names = self._names(view)
        state = {
            "means": np.concatenate([found[named(MEAN_SPECTRUM, name, names[0])].values for name in names]),
            "phi": found["noise_variance"].values,
            "counts": found["counts"].values.astype(bool),
            "weighted": found["weighted"].values.astype(bool),
            "kappa": found["contrast"].values,
            "level": found["mean_abundance"].values,
        }
        s = np.concatenate([found[named(ENDMEMBERS, name, names[0])].values for name in names], axis=1)
        shared = {"signals": self._signals(view, state, s, 1)}
        if "deviation_precision" in found:
            shared["gamma"] = found["deviation_precision"].values
        return passes.abundances, shared, inputs_of.exposures(view, names, found["lost"].values.astype(bool), 1)

    def further_maps(self, variables: Variables) -> Mapping[str, bool]:
        others = [str(name) for name in variables["noise_variance"]["signal"].values[1:]]
        maps = {f"residual_{name}": False for name in others}
        if self.deviation is None:
            return maps | {f"disagreement_{name}": False for name in variables["noise_variance"]["signal"].values}
        return maps | {f"deviation_{name}": True for name in others}

    def attributes(self, variables: Variables) -> dict[str, str]:
        kinds = variables["counts"]
        return {
            "loss": "poisson" if bool(kinds.values[0]) else "frobenius",
            "signals": ", ".join(map(str, kinds["signal"].values)),
        }

    def projector(self, result: xr.Dataset) -> tuple[BlockFunction, dict[str, Any]]:
        s = np.asarray(result[ENDMEMBERS].values, dtype=np.float64)
        if bool(result["counts"].values[0]):
            return poisson.abundances, {"s": s}
        weighted = bool(result["weighted"].values[0])
        return least_squares.abundances, {
            "s": s,
            "w": channel_weights(result[MEAN_SPECTRUM].values) if weighted else None,
        }

    def projection_note(self, result: xr.Dataset) -> str:
        first, *others = map(str, result["counts"]["signal"].values)
        return f"The maps of the fit are also those of {', '.join(others)}; here {first} is solved alone."

    def warnings(self, variables: Variables) -> list[ResultWarning]:
        return remarks(variables, coupled=self.deviation is None, known=bool(self.fixed or self.zeros))

    def to_settings(self) -> dict[str, Any]:
        return {name: known.in_words(value) for name, value in super().to_settings().items()}

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> CoupledNMF:
        plain = {
            k: v
            for k, v in settings.items()
            if not (k == "fixed" and isinstance(v, Mapping) and known.GIVEN in v.values())
        }
        return super().from_settings(plain)

    def cost(self, shape: tuple[int, ...], itemsize: int) -> Cost:
        k, channels = self.n_components, shape[-1]
        blocks = 2 if self.deviation not in (None, CONTRAST) else 1
        sums = 8 * channels * (k + (blocks * k) * (blocks * k + 1) // 2 + 2) + 8 * min(channels, 512) ** 2
        work = passes.PIXELS_PER_STRIP * channels * 8 * 4
        return Cost(self.max_iter + 6, sums, work, blocks * k + 2, aligned_bytes=16, keeps_counts=True)


def _packed(*cubes: Any, counts: tuple[bool, ...]) -> tuple[Any, ...]:
    """The rows of all signals, those of counts without their zeros. counts: whether a signal has them."""
    return tuple(Counts.from_dense(x) if c else x for x, c in zip(cubes, counts, strict=True))
