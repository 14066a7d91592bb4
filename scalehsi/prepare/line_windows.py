"""Energy windows for maps of elements, on X-ray lines or as given by the user."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import xarray as xr

from scalehsi.cube import energy_factor, energy_kev
from scalehsi.physics.line_choice import choose_line
from scalehsi.physics.line_names import split_name, split_symbols
from scalehsi.physics.lines import Line, line_table
from scalehsi.schema import ENERGY, InputError, suggest

Windows = Mapping[str, tuple[float, float]]

HALF_WIDTH_KEV: Final = 0.06
"""Half width of a window on an X-ray line: half of a peak's width at 5 keV."""


def line_windows(cube: xr.DataArray | xr.Dataset, lines: Sequence[str] | None = None) -> dict[str, tuple[float, float]]:
    """Return energy windows on X-ray lines, 0.12 keV wide.

    Parameters
    ----------
    cube : xarray.DataArray or result
        Its energy axis and ``attrs["elements"]`` are used.
    lines : sequence of str, optional
        ``"Nd La"``, or ``"Nd"`` for the element's clearest line: of Ka, La and Ma on the axis the one of highest energy
        below 10 keV. Default: every element of the cube that has one.

    Returns
    -------
    dict of str to (low, high)
        By line, in the unit of the energy axis.

    Raises
    ------
    InputError
        If the axis has no unit of energy, no elements are known, or an element or a line is not on the axis.

    Examples
    --------
    >>> import scalehsi as hsi
    >>> cube, _ = hsi.simulate.phases((4, 4))
    >>> found = line_windows(cube)
    >>> list(found)[5:8], [round(end, 2) for end in found["Nd La"]]
    (['Nd La', 'Sm La', 'O Ka'], [5.17, 5.29])
    """
    axis = energy_kev(cube)
    if axis is None:
        raise InputError("lines need an energy axis in eV or keV; give windows={'name': (low, high)} instead")
    wanted = list(lines) if lines is not None else split_symbols(cube.attrs.get("elements", ()))
    if not wanted or (lines is None and cube.attrs.get("signal", "EDS") != "EDS"):
        raise InputError(
            "which windows of energy? type lines=['Fe Ka'] or cube.attrs['elements'] = ['Fe', 'O'] for X-ray maps, "
            "windows={'Fe L': (700, 730)} for others"
        )
    ends, beam = (float(axis.min()), float(axis.max())), float(cube.attrs.get("beam_energy_keV", 200.0))
    chosen = [_line(word, ends, beam) for word in wanted]
    if lines is not None and None in chosen:
        element = wanted[chosen.index(None)]
        raise InputError(f"{element} has no main line from {ends[0]:g} to {ends[1]:g} keV; leave it out")
    per_kev = 1e3 / float(energy_factor(str(cube[ENERGY].attrs["units"])) or 1e3)
    return {
        line.name: ((line.energy_kev - HALF_WIDTH_KEV) * per_kev, (line.energy_kev + HALF_WIDTH_KEV) * per_kev)
        for line in chosen
        if line is not None
    }


def chosen_windows(cube: xr.DataArray, lines: Sequence[str] | None, windows: Windows | None) -> Windows:
    """Return the windows that were given, else those on the lines (names as in `line_windows`) of the cube."""
    if windows is None:
        return line_windows(cube, lines)
    if lines is not None:
        raise InputError("lines and windows both say which windows; give one of them")
    return windows


def channels_of(cube: xr.DataArray, windows: Windows) -> dict[str, tuple[int, int]]:
    """Return the first channel of each window and the channel after its last."""
    axis = np.asarray(cube[ENERGY].values, dtype=np.float64)
    found = {}
    for name, (low, high) in windows.items():
        inside = np.flatnonzero((axis >= low) & (axis <= high))
        if not inside.size:
            raise InputError(
                f"the window {name!r} from {low:g} to {high:g} holds no channel; the axis runs from {axis[0]:g} to "
                f"{axis[-1]:g} {cube[ENERGY].attrs.get('units', '')}".rstrip()
            )
        found[name] = (int(inside[0]), int(inside[-1]) + 1)
    return found


def _line(word: str, axis_kev: tuple[float, float], beam_kev: float) -> Line | None:
    """The line of this name on the axis, or the line that shows an element best; None where it has none there."""
    element, family = split_name(word)
    if not family:
        return choose_line(element, axis_kev, "show", beam_kev=beam_kev)
    table = line_table([element], energy_range=axis_kev, beam_kev=beam_kev, minimum=0.0)
    named = next((line for line in table if line.family == family), None)
    if named is None:
        raise InputError(
            f"{element} has no line {family!r} from {axis_kev[0]:g} to {axis_kev[1]:g} keV; "
            f"{suggest(family, [line.family for line in table])}"
        )
    return named
