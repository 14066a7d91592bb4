"""What `scalehsi info` says of the signal of a cube: noise, zero-loss peak, edges of the elements."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from scalehsi.cli.console import number
from scalehsi.physics.line_names import split_symbols
from scalehsi.prepare.edge_windows import propose_windows
from scalehsi.prepare.noise import estimate_noise
from scalehsi.prepare.shift_maps import zero_loss_shifts
from scalehsi.schema import ENERGY, InputError


def signal_of(cube: xr.DataArray) -> dict[str, Any]:
    """Noise, and for EELS zero loss and edges, in plain values; what cannot be measured is left out."""
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
    elements = split_symbols(cube.attrs.get("elements", ()))
    if elements:
        try:
            edges = propose_windows(cube, elements)
        except InputError:
            return found
        found["edges"] = {
            name: {"fit": list(map(float, e.fit)), "signal": list(map(float, e.signal)), "refusal": e.refusal}
            for name, e in edges.items()
        }
    return found


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
