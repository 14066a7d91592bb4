"""What `scalehsi info` says of the signal of a cube: noise, zero-loss peak, sum spectrum, edges of the elements."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import xarray as xr

from scalehsi.arrays import Float
from scalehsi.cli.console import number
from scalehsi.physics.line_names import split_symbols
from scalehsi.prepare.edge_windows import propose_windows
from scalehsi.prepare.noise import estimate_noise
from scalehsi.prepare.shift_maps import zero_loss_shifts
from scalehsi.schema import ENERGY, InputError

LEVELS: Final = "▁▂▃▄▅▆▇█"
BARS: Final = 64
"""Characters of the sum spectrum in the terminal."""
DECADES: Final = 3.0
"""Of intensity that they show at most."""


def signal_of(cube: xr.DataArray, elements: Sequence[str] | None = None) -> dict[str, Any]:
    """Noise, and for EELS zero loss and edges, in plain values; what cannot be measured is left out.

    elements: of the edges; None for those that the cube names.
    """
    found: dict[str, Any] = {}
    try:
        noise = estimate_noise(cube)
        found["noise"] = {
            "gain": noise.gain,
            "readout": noise.readout,
            "index_of_sums_of_8": noise.window_gain,
            "correlation_of_neighbours": noise.correlation[0],
        }
    except InputError:
        pass
    if cube.attrs.get("signal") != "EELS":
        return found
    energy = np.asarray(cube[ENERGY].values, dtype=np.float64)
    if energy.size > 8 and energy[0] < 0 < energy[-1]:
        try:
            peak = zero_loss_shifts(cube)
        except InputError:
            peak = None
        if peak is not None and peak.positions is not None:
            found["zero_loss"] = {"mean": peak.zero, "sd": float(np.nanstd(peak.positions))}
    known = split_symbols(cube.attrs.get("elements", ())) if elements is None else elements
    if known:
        try:
            edges = propose_windows(cube, known)
        except InputError:
            return found
        found["edges"] = {
            name: {"fit": list(map(float, e.fit)), "signal": list(map(float, e.signal)), "refusal": e.refusal}
            for name, e in edges.items()
        }
    return found


def spectrum_rows(energy: Float, total: Float, marks: Sequence[tuple[float, str]]) -> list[tuple[str, str]]:
    """A sum spectrum (E,) as a row of bars, on a logarithmic scale, and the names of edges at their places below it.

    energy (E,): of the channels. marks: energies in the unit of the axis and names, rising.

    Examples
    --------
    >>> for _, text in spectrum_rows(np.arange(8.0), 10.0 ** np.arange(8.0, 0.0, -1), [(3.0, "O K")]):
    ...     print(text)
    █▆▃▁▁▁▁▁
       ^O K
    """
    count = min(BARS, energy.size)
    bins = np.array_split(np.argsort(energy, kind="stable"), count)
    heights = np.array([total[each].mean() for each in bins])
    top = float(np.nanmax(heights, initial=0.0))
    if not top > 0:
        return []
    logarithms = np.log10(np.clip(np.nan_to_num(heights), top * 10.0**-DECADES, None) / top)
    low = min(float(logarithms.min()), -0.3)
    steps = np.rint((logarithms - low) / -low * (len(LEVELS) - 1)).astype(int)
    rows = [("Sum spectrum", "".join(LEVELS[step] for step in steps))]
    ends = np.array([energy[each].max() for each in bins])
    lines: list[str] = []
    for place, name in marks:
        at, word = min(int(np.searchsorted(ends, place)), count - 1), f"^{name}"
        free = next((i for i, line in enumerate(lines) if len(line) < at), len(lines))
        lines[free:] = [*([""] if free == len(lines) else []), *lines[free:]]
        lines[free] = lines[free].ljust(at) + word + " "
    return rows + [("", line.rstrip()) for line in lines]


def signal_rows(found: dict[str, Any], unit: str) -> list[tuple[str, str]]:
    """The rows of `signal_of` for the terminal; unit: of the energy axis."""
    rows = []
    if "noise" in found:
        n = found["noise"]
        text = f"variance {number(n['gain'])} x mean"
        text += f", read-out {number(n['readout'])}" if n["readout"] else ""
        rows.append(("Noise", f"{text}; sums of 8 channels {number(n['index_of_sums_of_8'])} x mean"))
    if "zero_loss" in found:
        z = found["zero_loss"]
        rows.append(("Zero loss", f"at {number(z['mean'])} {unit}, sd over the pixels {number(z['sd'])} {unit}"))
    for name, e in found.get("edges", {}).items():
        low, high = e["fit"]
        words = e["refusal"] or f"{name}: background from {low:.5g} to {high:.5g} {unit}"
        rows.append(("Edges" if not any(r[0] == "Edges" for r in rows) else "", words))
    return rows
