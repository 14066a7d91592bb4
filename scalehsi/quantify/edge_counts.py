"""Net counts of EELS edges and EDX lines in every pixel, with errors, from one reading and without cross sections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final, NamedTuple

import numpy as np
import xarray as xr

from scalehsi.arrays import Float
from scalehsi.cube import check_cube, navigation_dims
from scalehsi.kernels.preparation import power_law as laws
from scalehsi.physics.line_names import split_symbols
from scalehsi.prepare.background import Law, gains_of
from scalehsi.prepare.edge_windows import (
    LEAST_CHANNELS,
    EdgeWindows,
    Range,
    edge_energy,
    propose_windows,
    warn_onsets,
    window_channels,
)
from scalehsi.prepare.sums import lazy_sums, logger
from scalehsi.quantify.line_maps import line_maps
from scalehsi.schema import ENERGY, InputError

EDGE: Final = "edge"
STEP_RANGE_EV: Final = (50.0, 80.0)
"""Behind the onset: there the net counts are the step below the white lines."""
LEAST_SD: Final = 5.0
"""A ratio of white lines is given where both have this many standard deviations."""


PARTS: Final = ("net", "net_std", "exponent", "misfit")
WHITE_LINES: Final = ("white_line_ratio", "white_line_ratio_std")
"""The maps of an edge: of all, and of those with white lines."""


class _Edge(NamedTuple):
    """The channels of one edge: its fit window, and the windows whose net counts are wanted, the signal first."""

    name: str
    fit: tuple[int, int]
    windows: tuple[tuple[int, int], ...]


def edge_maps(
    cube: xr.DataArray,
    edges: Mapping[str, Range] | Sequence[str] | None = None,
    *,
    background: Range | Mapping[str, Range] | None = None,
    elements: Sequence[str] | None = None,
    share: int = 5,
    gain: float | None = None,
    window_gain: float | None = None,
    white_lines: Mapping[str, tuple[Range, Range]] | None = None,
    lazy: bool = False,
) -> xr.Dataset:
    """Net counts of EELS edges, or of X-ray lines, in every pixel, with their standard deviation.

    The background of an EELS edge is that of `scalehsi.prepare.remove_background`; that of an X-ray line is the mean of
    two windows beside it. All maps come from one reading, 0.65 s per GB, and are in memory.

    Parameters
    ----------
    cube : xarray.DataArray
        Dims ``(..., "y", "x", "energy")``. With ``attrs["signal"]`` "EDS" maps of X-ray lines.
    edges : mapping of str to (low, high), or sequence of str, optional
        Signal windows in the unit of the axis by name, ``{"Cu L3": (925, 960)}``, or names alone, ``["Cu L3"]`` or
        ``["Cu"]``. X-ray lines are named, ``["Fe Ka"]``. Default: the edges of ``elements`` that have good windows.
    background : (low, high), or mapping of str to such, optional
        Window of the fit, of 10 channels or more; one for all edges or by name. Default: proposed, from 0.8 of the
        onset (50 eV behind the previous edge) to 1 % below it (5 eV at least).
    elements : sequence of str, optional
        All elements of the sample, whose edges the proposals avoid. Default: ``attrs["elements"]``.
    share : int, default 5
        As in `scalehsi.prepare.remove_background`; 1 for atomic columns, at twice the noise.
    gain, window_gain : float, optional
        Variance over mean of a channel, and of sums of channels. Default: `scalehsi.prepare.estimate_noise`.
    white_lines : mapping of str to ((low, high), (low, high)), optional
        Windows of L3 and L2 (or M5, M4), each from its onset, by the name of the edge. A step of 2/3 and 1/3 of the
        mean net counts 50 to 80 eV behind the onset is taken off.
    lazy : bool, default False
        Do not read the sums yet, for `scalehsi.compute_together`. Gains that are not given are still estimated at once,
        which reads the cube.

    Returns
    -------
    xarray.Dataset
        Dims ``(edge, ..., y, x)``: ``net`` (data units), ``net_std``, and for EELS ``exponent``, ``misfit`` (1 for
        counting noise); with ``white_lines`` also ``white_line_ratio`` and ``white_line_ratio_std``, NaN below 5
        standard deviations. Negative net counts stay. ``fit_window``, ``signal_window`` (edge, end) in the unit of the
        axis. Pixels that are masked or have no counts are NaN.

    Raises
    ------
    InputError
        When a window is outside the axis, reversed, too short or behind its signal, or an edge has no good window.

    Examples
    --------
    >>> from scalehsi.cube import make_cube
    >>> energy = 800.0 + np.arange(200)
    >>> counts = np.random.default_rng(0).poisson(1e9 * energy**-2.5 + 20.0 * (energy > 931), (6, 6, 200))
    >>> cube = make_cube(counts, energy=energy, energy_units="eV")
    >>> maps = edge_maps(cube, {"Cu L3": (931, 980)}, background=(800, 920))
    >>> maps.net.dims, bool(abs(float(maps.net.mean()) - 20 * 49) < 60)
    (('edge', 'y', 'x'), True)
    """
    check_cube(cube)
    known = list(elements) if elements is not None else split_symbols(cube.attrs.get("elements", ()))
    if cube.attrs.get("signal") == "EDS":
        if background is not None or white_lines is not None or isinstance(edges, Mapping):
            raise InputError(
                "edge_maps: X-ray lines have windows of their own; type edges=['Fe Ka'] or elements=['Fe']"
            )
        return line_maps(cube, None if edges is None else list(edges), known, lazy=lazy)
    wanted = _edges(cube, edges, background, known, white_lines or {})
    gain, window_gain = gains_of(cube, "edge_maps", gain, window_gain)
    energy = np.asarray(cube[ENERGY].values, dtype=np.float64)
    sizes = [len(laws.SUMS) + len(edge.windows) for edge in wanted]
    shared = {"edges": [(e.fit, laws.axis_of(energy, *e.fit)[slice(*e.fit)], e.windows) for e in wanted]}
    found = lazy_sums(cube, _edge_sums, sum(sizes), shared=shared, name="edge-maps")
    settings: dict[str, Any] = {"share": share, "gain": gain, "window_gain": window_gain}
    names = (*PARTS, *(WHITE_LINES if white_lines else ()))
    make = partial(_maps_of_sums, energy=energy, edges=wanted, names=names, white=tuple(white_lines or ()), **settings)
    if not lazy:
        return _dataset(cube, wanted, dict(zip(names, make(found.values), strict=True)), settings)
    # Exponents are shared by neighbours, so all pixels are one block.
    dims = navigation_dims(cube)
    parts = xr.apply_ufunc(
        make,
        found.drop_vars(list(found.coords)).chunk(-1),
        input_core_dims=[[*dims, "column"]],
        output_core_dims=[[EDGE, *dims]] * len(names),
        dask="parallelized",
        output_dtypes=[np.float32] * len(names),
        dask_gufunc_kwargs={"output_sizes": {EDGE: len(wanted), **{d: cube.sizes[d] for d in dims}}},
    )
    return _dataset(cube, wanted, {name: part.data for name, part in zip(names, parts, strict=True)}, settings)


def _edges(
    cube: xr.DataArray, edges: Any, background: Any, elements: Sequence[str], white_lines: Mapping[str, Any]
) -> list[_Edge]:
    """The channels of the edges; the arguments are those of `edge_maps`."""
    names = None if edges is None else list(edges)
    if names is None and not elements:
        raise InputError("edge_maps: which edges? type elements=['Cu'] or edges={'Cu L3': (925, 960)}")
    for name in white_lines:
        if names is None or name not in names:
            raise InputError(f"edge_maps: white_lines names {name!r}, which is not among the edges {names}")
    given = edges if isinstance(edges, Mapping) else {}
    fits = background if isinstance(background, Mapping) else dict.fromkeys(names or (), background)
    lacking = names is None or any(fits.get(name) is None or name not in given for name in names)
    proposed = {}
    if lacking:
        named = [name.replace("_", " ").split(" ")[0] for name in names or ()]
        proposed = propose_windows(cube, list(dict.fromkeys([*elements, *named])))
    if names is None:
        refused = [p.refusal for p in proposed.values() if p.refusal]
        names = [name for name, p in proposed.items() if not p.refusal]
        if not names:
            raise InputError(f"edge_maps: {'; '.join(refused)}")
        for words in refused:
            logger.warning("edge_maps: %s", words)
    else:  # an element stands for its edges
        names = [edge for name in names for edge in ([name] if name in given else _edges_of(name, proposed))]
    found = []
    for name in names:
        one = proposed.get(name)
        fit, signal = fits.get(name, fits.get(name.split(" ")[0])), given.get(name)
        if (fit is None or signal is None) and one is None:
            raise InputError(f"edge_maps: no windows are known for {name!r}; type background=(low, high)")
        if fit is None and one is not None:
            if one.refusal:
                raise InputError(f"edge_maps: {one.refusal}")
            fit = one.fit
        signal = one.signal if signal is None and one is not None else signal
        found.append(_checked(cube, name, fit, signal, white_lines.get(name, ())))
    return found


def _edges_of(name: str, proposed: Mapping[str, EdgeWindows]) -> list[str]:
    """The edges with good windows that an element names, else the name itself. proposed: windows by edge."""
    good = [edge for edge, one in proposed.items() if edge.split(" ")[0] == name and not one.refusal]
    return good or [next((edge for edge in proposed if edge.split(" ")[0] == name), name)]


def _checked(cube: xr.DataArray, name: str, fit: Any, signal: Any, lines: Any) -> _Edge:
    """The channels of one edge; fit, signal and lines (of the white lines) are windows in the unit of the axis."""
    inside = window_channels(cube, "edge_maps", "background", fit, LEAST_CHANNELS)
    signal_channels = window_channels(cube, "edge_maps", repr(name), signal)
    if not float(fit[1]) < float(signal[0]):
        raise InputError(
            f"edge_maps: the fit window of {name!r} ends at {float(fit[1]):g}, "
            f"behind the signal's begin {float(signal[0]):g}"
        )
    if not (np.asarray(cube[ENERGY].values, dtype=np.float64)[slice(*inside)] > 0).all():
        raise InputError(
            f"edge_maps: a power law needs energies above 0; background={float(fit[0]):g}:{float(fit[1]):g} holds 0"
        )
    for words in warn_onsets(cube, "edge_maps", {"background": (float(fit[0]), float(fit[1]))}):
        logger.warning("%s", words)
    more = []
    if lines:
        onset = edge_energy(cube, name, float(signal[0]))
        ranges = [*lines, tuple(onset + v for v in edge_energy(cube, None, STEP_RANGE_EV))]
        more = [window_channels(cube, "edge_maps", f"white_lines[{name!r}]", each) for each in ranges]
    return _Edge(name, inside, (signal_channels, *more))


def _edge_sums(x: Any, *, edges: Any) -> Float:
    """Sums (P, columns) of the pixels x (P, E): of each edge those of its fit window, then of its other windows."""
    parts = []
    for fit, l, windows in edges:  # noqa: E741
        parts += [laws.window_sums(x, first=fit[0], last=fit[1], l=l), laws.channel_sums(x, windows)]
    return np.concatenate(parts, axis=1)


def _maps_of_sums(
    sums: Float,
    *,
    energy: Float,
    edges: Sequence[_Edge],
    names: Sequence[str],
    white: Sequence[str],
    share: int,
    gain: float,
    window_gain: float,
) -> tuple[Any, ...]:
    """The maps (edge, ..., y, x) of these names from the sums (..., y, x, columns); white: edges with white lines."""
    sizes = [len(laws.SUMS) + len(edge.windows) for edge in edges]
    made = [
        _net_maps(energy, edge, part, share=share, gain=gain, window_gain=window_gain, white=edge.name in white)
        for edge, part in zip(edges, np.split(sums, np.cumsum(sizes)[:-1], axis=-1), strict=True)
    ]
    empty = np.full(sums.shape[:-1], np.nan)
    return tuple(np.stack([one.get(name, empty) for one in made]).astype(np.float32) for name in names)


def _net_maps(
    energy: Float, edge: _Edge, sums: Float, *, share: int, gain: float, window_gain: float, white: bool
) -> dict[str, Float]:
    """The maps (..., y, x) of an edge from its sums (..., y, x, columns).

    energy (E,): the axis. share, gain, window_gain: as in `edge_maps`. white: whether it has white lines.
    """
    law = Law(energy, edge.fit, sums[..., : len(laws.SUMS)], share=share, window_gain=window_gain)
    counted = sums[..., len(laws.SUMS) :]
    nets = [_net(law, counted[..., k], window, window_gain) for k, window in enumerate(edge.windows)]
    maps = {"net": nets[0][0], "net_std": np.sqrt(nets[0][1]), "exponent": law.r, "misfit": law.misfit(gain)}
    if white:
        maps |= _white_line_ratio(nets[1:], [last - first for first, last in edge.windows[1:]])
    return maps


def _net(law: Law, counted: Float, window: tuple[int, int], window_gain: float) -> tuple[Float, Float]:
    """Net counts of a window and their variance; law: its background. counted (..., y, x): all counts in it."""
    outside = law.l[slice(*window)]
    r = law.table.r
    q = np.exp(-r[:, None] * outside - law.table.log_z[:, None]).sum(axis=1)
    slope = np.gradient(q, r)
    # The table is fine: a parabola would change q by 1e-6 of it.
    at, its_slope = np.interp(law.r, r, np.log(q)), np.interp(law.r, r, slope)
    ratio = np.exp(at)
    n = law.n
    net = counted - n * ratio
    variance = window_gain * (np.maximum(counted, 0.0) + ratio**2 * n) + (n * its_slope) ** 2 * law.r_variance
    return net, variance


def _white_line_ratio(nets: Sequence[tuple[Float, Float]], channels: Sequence[int]) -> dict[str, Float]:
    """Ratio of two white lines above a step, and its error.

    nets: net counts and variance of both lines, and behind them. channels: of these windows.
    """
    (first, first_var), (second, second_var), (behind, behind_var) = nets
    step, step_var = behind / channels[2], behind_var / channels[2] ** 2
    shares = (2.0 / 3.0 * channels[0], 1.0 * channels[1])
    a, b = first - shares[0] * step, second - shares[1] * step
    a_var, b_var = first_var + shares[0] ** 2 * step_var, second_var + shares[1] ** 2 * step_var
    with np.errstate(divide="ignore", invalid="ignore"):
        sure = (a > LEAST_SD * np.sqrt(a_var)) & (b > LEAST_SD * np.sqrt(b_var))
        ratio = np.where(sure, a / b, np.nan)
        error = np.abs(ratio) * np.sqrt(a_var / a**2 + b_var / b**2)
    return {"white_line_ratio": ratio, "white_line_ratio_std": error}


def _dataset(
    cube: xr.DataArray, edges: Sequence[_Edge], maps: Mapping[str, Any], settings: dict[str, Any]
) -> xr.Dataset:
    """The result of `edge_maps` from the channels of the edges, their maps by name, and the settings used."""
    dims = navigation_dims(cube)
    energy = np.asarray(cube[ENERGY].values, dtype=np.float64)
    variables: dict[str, Any] = {name: ((EDGE, *dims), values) for name, values in maps.items()}
    units = str(cube[ENERGY].attrs.get("units", ""))
    for key, channels in (("fit_window", [e.fit for e in edges]), ("signal_window", [e.windows[0] for e in edges])):
        ends = [sorted((float(energy[first]), float(energy[last - 1]))) for first, last in channels]
        variables[key] = ((EDGE, "end"), np.array(ends), {"units": units})
    coords: dict[str, Any] = {d: cube[d] for d in dims if d in cube.coords}
    coords |= {EDGE: [edge.name for edge in edges], "end": ["low", "high"]}
    attrs = {k: v for k, v in cube.attrs.items() if isinstance(v, (str, int, float)) and k != "history"}
    history = "\n".join([*map(str, cube.attrs.get("history", [])), _line(edges, settings)])
    return xr.Dataset(variables, coords, {**attrs, **settings, "history": history})


def _line(edges: Sequence[_Edge], settings: dict[str, Any]) -> str:
    """The history line of the maps."""
    words = ", ".join(f"{k}={v:g}" for k, v in settings.items())
    return f"edge_maps({', '.join(edge.name for edge in edges)}; {words})"
