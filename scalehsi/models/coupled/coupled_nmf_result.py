"""Result of a coupled fit: variables of all signals, the shift between them, maps of finer pixels, and warnings."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import xarray as xr

from scalehsi.arrays import Float
from scalehsi.blocks import Blocks, Pixels, map_fold, map_pixels
from scalehsi.fitting.last_pass import CLIENT_MAP_BYTES
from scalehsi.fitting.model import State, Variables
from scalehsi.kernels import least_squares, poisson
from scalehsi.kernels.coupled.passes import Signal
from scalehsi.kernels.pixel_rows.sparse_counts import Counts
from scalehsi.kernels.pixel_rows.strips import PIXELS_PER_STRIP
from scalehsi.kernels.priors.prior_maps import unmixing_matrix
from scalehsi.models.coupled.coupled_nmf_inputs import SIGNAL
from scalehsi.registration.images import Images
from scalehsi.registration.rasters import Raster
from scalehsi.registration.register import register
from scalehsi.result import ResultWarning
from scalehsi.schema import ABUNDANCES, COMPONENT, ENDMEMBERS, ENERGY, MEAN_SPECTRUM, InputError, X, Y

DOMINANT: Final = 0.999
"""Share of the curvature from which one signal decides the maps alone."""
MISFIT: Final = 1.05
"""Misfit of a Gaussian signal over its noise from which its maps differ."""
NEAR_PURE: Final = 0.2
"""A component is bounded away from zero when its least abundance is above this share of its largest."""
UNSURE: Final = 5.0
"""Standard errors by which the disagreement of a signal has to exceed that."""
FAINT: Final = 0.02
"""Channels in which a spectrum has less than this share of its maximum do not say whether another one contains it."""
LARGEST_TURN_DEG: Final = 5.0
"""A turn of a spectrum that changes no likelihood. 0 to 1 in simulated maps, 11 to 12 in a tilt series."""
SHIFTED: Final = 0.4
"""Shift in pixels that is said."""
LARGE_SHIFT: Final = 0.5
SURE: Final = 3.0
"""Standard errors that a shift has to exceed."""
LEAST_SIDE: Final = 16
MOST_PIXELS: Final = 2**21
"""Least side and largest number of pixels of a map whose shift is measured."""
REGISTRATION: Final = "registration_shift"


def named(name: str, signal: str, first: str) -> str:
    """The variable of a signal: without its name for the reference."""
    return name if signal == first else f"{name}_{signal}"


def described(
    signals: Sequence[Signal], cubes: Mapping[str, xr.DataArray], state: State, means: Sequence[Float]
) -> Variables:
    """Spectra, means and figures of all signals; the reference comes first.

    signals: with the endmembers of the result. cubes: by name. state: of the finished fit. means: (E,) of each signal.
    """
    first = signals[0].name
    found: Variables = {}
    for signal, mean in zip(signals, means, strict=True):
        cube = cubes[signal.name]
        dim = ENERGY if signal.name == first else f"{ENERGY}_{signal.name}"
        axis = xr.DataArray(cube[ENERGY].values, dims=(dim,), attrs=dict(cube[ENERGY].attrs))
        coords = {} if dim == ENERGY else {dim: axis}
        unit = str(cube.attrs.get("units", "counts" if cube.dtype.kind == "u" else "intensity"))
        words = {"units": unit, "signal": str(cube.attrs.get("signal", signal.name)), "name": signal.name}
        spectra = {"long_name": f"endmember spectrum of {signal.name}", **words}
        found[named(ENDMEMBERS, signal.name, first)] = xr.DataArray(
            signal.s, dims=(COMPONENT, dim), coords=coords, attrs=spectra
        )
        found[named(MEAN_SPECTRUM, signal.name, first)] = xr.DataArray(
            mean,
            dims=(dim,),
            coords=coords,
            attrs={"long_name": f"mean of {signal.name} over used pixels", "units": unit},
        )
    names = [signal.name for signal in signals]
    curvature = np.asarray(state["curvature"])
    figures: dict[str, tuple[Any, str]] = {
        "noise_variance": (state["phi"], "variance of the weighted noise; 1 for counts"),
        "curvature_share": (curvature / max(float(np.nansum(curvature)), 1e-300), "share in what determines the maps"),
        "misfit": (state["misfit"], "mean square of the residual over the noise; NaN for counts"),
        "contrast": (state["kappa"], "variation of the maps relative to the reference"),
        "counts": (state["counts"].astype(np.int8), "1 for the Poisson likelihood"),
        "weighted": (state["weighted"].astype(np.int8), "1 for weights of counts"),
        "lost": (state["lost"].astype(np.int8), "1 for pixels of NaN"),
    }
    for name, (values, text) in figures.items():
        found[name] = xr.DataArray(
            np.asarray(values), dims=(SIGNAL,), coords={SIGNAL: names}, attrs={"long_name": text}
        )
    found["mean_abundance"] = xr.DataArray(signals[0].centre, dims=(COMPONENT,), attrs={"long_name": "mean abundance"})
    if int(state["bin"]) > 1:
        text = {"long_name": "pixels of a bin along y and x for the spectra"}
        found["bin_factor"] = xr.DataArray(int(state["bin"]), attrs=text)
    return found


def fine_maps(fine: Blocks, signal: Signal, view: Blocks) -> xr.DataArray:
    """Maps (component, ..., y_NAME, x_NAME) of a signal on its own, finer pixels, lazy where they are large.

    fine: the cube of these pixels. signal: with the endmembers of the pixels of the fit. view: of the fit.
    """
    ratio = fine.shape[-1] // view.shape[-1]
    shared: dict[str, Any] = {"s": signal.s / ratio**2, "residual": False}
    solve = poisson.abundances if signal.counts else least_squares.abundances
    if not signal.counts:
        shared["w"] = signal.w
    handle = map_pixels(solve, fine, shared=shared, keep=[ABUNDANCES], name="coupled-fine-maps")[ABUNDANCES]
    maps = handle.to_dataarray({COMPONENT: len(signal.s)})
    new = {d: f"{d}_{signal.name}" for d in (Y, X)}
    maps = maps.rename({**new})
    maps.attrs = {"long_name": f"abundance on the pixels of {signal.name}"}
    return maps.compute() if maps.nbytes <= CLIENT_MAP_BYTES else maps


def found_shift(
    view: Blocks, signals: Sequence[Signal], names: Sequence[str], exposures: Sequence[Pixels]
) -> Variables:
    """Shift of the other signals relative to the reference, by the maps of each alone; one reading of all signals.

    It is left out for maps that are too small or too large. Pixel i of a signal shows what the reference has at
    i + shift. view: of the fit. names: of the signals. exposures: as in the passes.
    """
    shape = view.shape
    if len(shape) != 2 or min(shape) < LEAST_SIDE or math.prod(shape) > MOST_PIXELS:
        return {}
    back = [unmixing_matrix(each.s, each.w) for each in signals]
    shared = {"back": back}
    handles, _ = map_fold(_unmixed, view, *exposures, shared=shared, keep=["maps"], name="coupled-registration")
    k = len(signals[0].s)
    rows = handles["maps"].to_dataarray({"column": (k + 1) * len(signals)}, fill=0.0).values
    raster = Raster((0.0, 0.0), (1.0, 1.0), (shape[0], shape[1]))
    images = []
    for part in np.split(np.moveaxis(rows, 0, -1).astype(np.float64), len(signals), axis=-1):
        images.append(Images(part[..., :k], part[..., k], raster))
    # The signal with the least noise is compared with the others.
    grams = [each.weighted @ each.s.T for each in signals]
    best = int(np.argmax([np.trace(gram) for gram in grams]))
    found, error = np.zeros((len(signals), 2)), np.zeros((len(signals), 2))
    for m, gram in enumerate(grams):
        if m == best:
            continue
        whitening = np.linalg.cholesky(gram + 1e-9 * np.diag(np.diag(gram)))
        try:
            placed = register(images[best], images[m], whitening=whitening)
        except (InputError, np.linalg.LinAlgError):
            return {}
        found[m], error[m] = placed.placement.shift, placed.error
    found = found - found[0]
    coords = {SIGNAL: list(names), "axis": [Y, X]}
    return {
        REGISTRATION: xr.DataArray(
            found, dims=(SIGNAL, "axis"), coords=coords, attrs={"long_name": "shift to the reference", "units": "px"}
        ),
        f"{REGISTRATION}_error": xr.DataArray(
            error,
            dims=(SIGNAL, "axis"),
            coords=coords,
            attrs={"long_name": "standard error of the shift", "units": "px"},
        ),
    }


def _unmixed(x: Any, *rows: Any, back: Sequence[Float]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Maps of each signal alone, without bounds, and its exposure, side by side; the rows as in the passes."""
    cubes, u = (x, *rows[: len(back) - 1]), np.ones((x.shape[0], len(back)))
    if len(rows) >= len(back):
        u = np.asarray(rows[-1], dtype=np.float64)
    out = np.empty((x.shape[0], sum(each.shape[1] + 1 for each in back)), dtype=np.float32)
    for start in range(0, x.shape[0], PIXELS_PER_STRIP):
        part, column = slice(start, start + PIXELS_PER_STRIP), 0
        for m, (cube, matrix) in enumerate(zip(cubes, back, strict=True)):
            strip = cube[part].to_dense(np.float64) if isinstance(cube, Counts) else np.asarray(cube[part], np.float64)
            k = matrix.shape[1]
            out[part, column : column + k] = np.where(u[part, m : m + 1] > 0, strip, 0.0) @ matrix
            out[part, column + k] = u[part, m]
            column += k + 1
    return {"maps": out}, {}


def remarks(variables: Variables, *, coupled: bool, known: bool) -> list[ResultWarning]:
    """What to object to. coupled: whether all maps are the same. known: whether spectra or zeros were given."""
    found = []
    shares, misfit = variables["curvature_share"], variables["misfit"]
    names = [str(name) for name in shares[SIGNAL].values]
    top = int(np.nanargmax(shares.values))
    if shares.values[top] > DOMINANT:
        others = ", ".join(name for name in names if name != names[top])
        text = (
            f"{names[top]} determines {100 * float(shares.values[top]):.2f} % of the maps: {others} has no part in "
            "them, as in a fit of one signal."
        )
        found.append(ResultWarning("one_signal", text, f"weights={{'{names[top]}': {0.1:g}}}"))
    for name, value in zip(names, misfit.values, strict=True):
        if coupled and value > MISFIT:
            text = f"Maps differ: {name} leaves a residual of {value:.2f} times its noise with the maps of all signals."
            found.append(ResultWarning("maps_differ", text, "deviation=0.1"))
    maps = variables[ABUNDANCES]
    if 4 * maps.size > CLIENT_MAP_BYTES:
        return found + _shifted(variables, names)
    said = {each.text.split()[2] for each in found if each.code == "maps_differ"}
    for name in names if coupled else []:
        values = variables[f"disagreement_{name}"].values
        n = int(np.isfinite(values).sum()) * maps.sizes[COMPONENT]
        if name not in said and n and np.nanmean(values) > MISFIT + UNSURE * math.sqrt(2 / n):
            text = (
                f"Maps differ: {name} disagrees with those of all signals by {np.nanmean(values):.2f} times its noise."
            )
            found.append(ResultWarning("maps_differ", text, "deviation=0.1"))
    found += _shifted(variables, names)
    if not known and maps.sizes[COMPONENT] > 1:
        found += _loose(variables, names)
    return found


def _loose(variables: Variables, names: Sequence[str]) -> list[ResultWarning]:
    """A remark where components can be mixed and fit as well: no map, and no spectrum, is zero where others are not."""
    maps = variables[ABUNDANCES].values
    c = maps.reshape(len(maps), -1)
    bounded = np.nanmin(c, axis=1) > NEAR_PURE * np.nanmax(c, axis=1)
    spectra = [variables[named(ENDMEMBERS, name, names[0])].values for name in names]
    turn = 0.0
    for i, j in itertools.permutations(range(len(c)), 2):
        # What of spectrum j spectrum i can lose in all signals.
        most = min(float(np.min(s[i, e] / s[j, e])) for s in spectra if (e := s[j] > FAINT * s[j].max()).any())
        for s in spectra:
            a, b = s[i], s[i] - most * s[j]
            size = float(np.linalg.norm(a) * np.linalg.norm(b))
            turn = max(turn, math.degrees(math.acos(min(1.0, float(a @ b) / size))) if size > 0 else 0.0)
    if bounded.sum() < 2 and turn < LARGEST_TURN_DEG:
        return []
    text = "No pixel is near pure: the components are not unique, and mixtures of them fit as well"
    text += f" (spectra may turn by {turn:.0f} degrees)." if turn >= LARGEST_TURN_DEG else "."
    return [ResultWarning("no_pure_pixel", text, f"fixed={{'{names[0]}': spectra}} or zeros=...")]


def _shifted(variables: Variables, names: Sequence[str]) -> list[ResultWarning]:
    """A remark where a signal is shifted."""
    if REGISTRATION not in variables:
        return []
    shifts, errors = variables[REGISTRATION].values, variables[f"{REGISTRATION}_error"].values
    found = []
    for name, shift, error in zip(names, shifts, errors, strict=True):
        size = float(np.abs(shift).max())
        if size < SHIFTED or not (np.abs(shift) > SURE * error).any():
            continue
        moves = tuple(int(v) for v in np.rint(shift))
        rest = float(np.abs(shift - np.rint(shift)).max())
        remedy = f"shift={{'{name}': {moves}}}" if any(moves) else ""
        if rest >= LARGE_SHIFT - 0.25 or not remedy:
            remedy += (", and " if remedy else "") + "hsi.prepare.bin(cube, y=2, x=2) of all signals"
        text = f"{name} is shifted by {shift[0]:.2f} and {shift[1]:.2f} pixels along y and x from {names[0]}."
        found.append(ResultWarning("signals_shifted", text, remedy))
    return found
