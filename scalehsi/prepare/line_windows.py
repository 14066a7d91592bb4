"""Windows of energy by which the maps of elements are made, by name: on X-ray lines or as given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import xarray as xr

from scalehsi.cube import energy_factor, energy_kev
from scalehsi.physics.lines import Line, line_table
from scalehsi.schema import ENERGY, InputError, suggest

Windows = Mapping[str, tuple[float, float]]

HALF_WIDTH_KEV: Final = 0.06
"""Of a window on an X-ray line: half of a peak's width at 5 keV."""
FAMILIES: Final = ("Ka", "La", "Ma")
CLEAREST_KEV: Final = 10.0
"""An element is shown by its main line of highest energy below this: neighbours are fewer there."""


def line_windows(cube: xr.DataArray | xr.Dataset, lines: Sequence[str] | None = None) -> dict[str, tuple[float, float]]:
    """Windows of energy on X-ray lines, 0.12 keV wide.

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
    known = cube.attrs.get("elements", ())
    known = known.replace(",", " ").split() if isinstance(known, str) else list(map(str, known))
    wanted = list(lines) if lines is not None else known
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
    """Those given, or those on lines."""
    if windows is None:
        return line_windows(cube, lines)
    if lines is not None:
        raise InputError("lines and windows both say which windows; give one of them")
    return windows


def channels_of(cube: xr.DataArray, windows: Windows) -> dict[str, tuple[int, int]]:
    """First channel of each window and the one behind its last."""
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


def _line(word: str, axis: tuple[float, float], beam_kev: float) -> Line | None:
    """A line by its name, or the clearest one of an element; None where it has none on the axis."""
    element, _, family = word.partition(" ")
    table = line_table([element], energy_range=axis, beam_kev=beam_kev, minimum=0.0)
    if family:
        named = [line for line in table if line.family == family]
        if not named:
            raise InputError(
                f"{element} has no line {family!r} from {axis[0]:g} to {axis[1]:g} keV; "
                f"{suggest(family, [line.family for line in table])}"
            )
        return named[0]
    main = [line for line in table if line.family in FAMILIES]
    clear = [line for line in main if line.energy_kev <= CLEAREST_KEV]
    return clear[-1] if clear else main[0] if main else None
