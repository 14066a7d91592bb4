"""Net counts of X-ray lines in every pixel: a window on the line, minus the mean of two beside it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import xarray as xr

from scalehsi.arrays import Float
from scalehsi.cube import energy_kev, navigation_dims
from scalehsi.kernels.preparation.power_law import channel_sums
from scalehsi.physics.line_choice import choose_lines
from scalehsi.physics.line_names import split_name
from scalehsi.physics.lines import line_table
from scalehsi.physics.resolution import detector_fwhm
from scalehsi.prepare.sums import lazy_sums
from scalehsi.schema import ENERGY, InputError

FURTHEST: Final = 12.0
"""Side windows are sought up to this many FWHM from a line."""
STEP: Final = 0.25
WEAK: Final = 0.02
"""Lines below this fraction of an element's strongest may lie in a side window."""


def line_maps(
    cube: xr.DataArray, names: Sequence[str] | None, elements: Sequence[str], *, lazy: bool = False
) -> xr.Dataset:
    """Net counts ``S - c_S (L / c_L + R / c_R) / 2`` of X-ray lines, and their standard deviation.

    The signal window is one FWHM to each side of the line; a side window is one FWHM wide and is moved away from every
    line of the elements. Overlapping lines are not separated: `scalehsi.quantify` does that.

    Parameters
    ----------
    cube : xarray.DataArray
        EDX counts.
    names : sequence of str, optional
        ``["Fe Ka", "Pt La"]`` or elements; by default a line of each element.
    elements : sequence of str
        All elements of the sample.
    lazy : bool
        Read nothing yet.

    Returns
    -------
    xarray.Dataset
        ``net``, ``net_std`` (edge, ..., y, x), ``signal_window``, ``low_window``, ``high_window`` (edge, end).

    Raises
    ------
    InputError
        When the axis has no unit of energy, no element is named, or there is no room for side windows.
    """
    axis = energy_kev(cube)
    if axis is None:
        raise InputError("edge_maps: lines need an energy axis in eV or keV; type cube.energy.attrs['units'] = 'keV'")
    named = [split_name(name) for name in names or ()]
    all_elements = list(dict.fromkeys([*elements, *(element for element, _ in named)]))
    if not all_elements:
        raise InputError("edge_maps: which lines? type elements=['Fe'] or edges=['Fe Ka']")
    beam = float(cube.attrs.get("beam_energy_keV", 200.0))
    ends = (float(axis.min()), float(axis.max()))
    wanted = [element for element, _ in named] or all_elements
    lines = choose_lines(
        wanted, energy_range=ends, beam_kev=beam, lines=[f"{e}_{f}" for e, f in named if f], others=all_elements
    )
    others = np.array(
        [line.energy_kev for line in line_table(all_elements, energy_range=ends, beam_kev=beam, minimum=WEAK)]
    )
    windows = [_windows(axis, line.energy_kev, others, line.name) for line in lines]
    shared = {"windows": [channels for one in windows for channels in one]}
    found = lazy_sums(cube, _sums, 3 * len(lines), shared=shared, name="line-maps")
    sums = found.chunk(column=-1).data if lazy else found.values
    net, std = zip(*(_net(sums[..., 3 * k : 3 * k + 3], one) for k, one in enumerate(windows)), strict=True)
    dims = navigation_dims(cube)
    data: dict[str, Any] = {
        "net": (("edge", *dims), np.stack(net).astype(np.float32)),
        "net_std": (("edge", *dims), np.stack(std).astype(np.float32)),
    }
    energy, units = np.asarray(cube[ENERGY].values, dtype=np.float64), str(cube[ENERGY].attrs["units"])
    for k, key in enumerate(("signal_window", "low_window", "high_window")):
        both = [sorted((float(energy[one[k][0]]), float(energy[one[k][1] - 1]))) for one in windows]
        data[key] = (("edge", "end"), np.array(both), {"units": units})
    coords: dict[str, Any] = {d: cube[d] for d in dims if d in cube.coords}
    coords |= {"edge": [line.name for line in lines], "end": ["low", "high"]}
    attrs = {k: v for k, v in cube.attrs.items() if isinstance(v, (str, int, float)) and k != "history"}
    history = [*map(str, cube.attrs.get("history", [])), f"edge_maps({', '.join(line.name for line in lines)})"]
    return xr.Dataset(data, coords, {**attrs, "history": "\n".join(history)})


def _windows(axis: Float, line: float, others: Float, name: str) -> list[tuple[int, int]]:
    """Channels of the signal and of both side windows.

    axis (E,), line, others (n,): keV. name: of the line, for messages.
    """
    fwhm = float(np.asarray(detector_fwhm(line)))
    # Lines of the same window are part of it, not in the way of it.
    around = others[np.abs(others - line) > 0.5 * fwhm]

    def channels(low: float, high: float) -> tuple[int, int] | None:
        inside = np.flatnonzero((axis >= low) & (axis <= high))
        whole = axis.min() <= low and high <= axis.max()
        return (int(inside[0]), int(inside[-1]) + 1) if inside.size and whole else None

    def side(sign: float) -> tuple[int, int] | None:
        for away in np.arange(1.5, FURTHEST, STEP):
            ends = sorted((line + sign * away * fwhm, line + sign * (away + 1.0) * fwhm))
            if ((around > ends[0] - fwhm) & (around < ends[1] + fwhm)).any():
                continue
            return channels(*ends)
        return None

    found = [channels(line - fwhm, line + fwhm), side(-1.0), side(1.0)]
    missing = [word for word, one in zip(("signal", "low side", "high side"), found, strict=True) if one is None]
    if missing:
        raise InputError(
            f"edge_maps: {name} has no room for its {missing[0]} window; use hsi.quantify, which fits lines"
        )
    return [one for one in found if one is not None]


def _sums(x: Any, *, windows: Any) -> Float:
    return channel_sums(x, windows)


def _net(sums: Float, windows: Sequence[tuple[int, int]]) -> tuple[Float, Float]:
    """Net counts and standard deviation (..., y, x) from the sums (..., y, x, 3) of the windows."""
    width = [last - first for first, last in windows]
    signal, low, high = np.moveaxis(sums, -1, 0)
    net = signal - 0.5 * width[0] * (low / width[1] + high / width[2])
    variance = signal + 0.25 * width[0] ** 2 * (low / width[1] ** 2 + high / width[2] ** 2)
    return net, np.sqrt(np.maximum(variance, 0.0))
