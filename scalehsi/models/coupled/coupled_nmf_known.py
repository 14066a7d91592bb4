"""What is known of the endmembers of single signals: whole spectra, and channels in which a component has nothing."""

from __future__ import annotations

import numbers
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import scipy
import xarray as xr

from scalehsi.arrays import Bool, Float
from scalehsi.checks import is_number, require
from scalehsi.fitting.energy_axis import check_axis
from scalehsi.kernels import poisson
from scalehsi.kernels.coupled.passes import Signal
from scalehsi.kernels.least_squares import endmember_update
from scalehsi.kernels.poisson.channel_loops import gradient_sums
from scalehsi.kernels.poisson.passes import endmember_columns
from scalehsi.physics.line_choice import window_kev
from scalehsi.physics.lines import line_table
from scalehsi.schema import COMPONENT, ENERGY, ENERGY_UNITS

GIVEN: Final = "given"
LINE_WIDTHS: Final = 1.5
"""Channels within this many windows of a line belong to an element."""
WEAKEST_LINE: Final = 0.02


def check_known(fixed: Any, zeros: Any, n_components: int) -> None:
    """Refuse settings ``fixed`` and ``zeros`` of wrong kinds."""
    for name, given, example in (
        ("fixed", fixed, "{'edx': spectra}"),
        ("zeros", zeros, "{'edx': {0: ['Ni']}}"),
    ):
        require(
            given is None or given == GIVEN or isinstance(given, Mapping),
            f"{name} is a mapping by signal such as {example}, got {given!r}",
        )
    for name, spectra in _items(fixed):
        require(
            isinstance(spectra, xr.DataArray) and set(spectra.dims) == {COMPONENT, ENERGY},
            f"fixed[{name!r}] is a DataArray of dims (component, energy)",
        )
        values = np.asarray(spectra, dtype=np.float64)
        count = spectra.sizes[COMPONENT]
        require(count <= n_components, f"fixed[{name!r}] has {count} spectra, more than n_components={n_components}")
        require(np.isfinite(values).all() and (values >= 0).all(), f"fixed[{name!r}] has negative values, NaN or Inf")
    for name, parts in _items(zeros):
        require(isinstance(parts, Mapping), f"zeros[{name!r}] is a mapping by component, such as {{0: ['Ni']}}")
        for number in parts:
            good = str(number).isdecimal() and int(number) < n_components
            require(good, f"zeros[{name!r}] has the component {number!r}; they run from 0 to {n_components - 1}")


def _items(given: Any) -> list[tuple[str, Any]]:
    return list(given.items()) if isinstance(given, Mapping) else []


def fixed_spectra(fixed: Any, cubes: Mapping[str, xr.DataArray]) -> dict[str, Float]:
    """Fixed spectra (F, E) by signal, on the channels of its cube; they are those of the first F components."""
    require(fixed != GIVEN, "fixed='given' stands for fixed spectra in a stored result; give these themselves")
    found = {}
    for name, spectra in _items(fixed):
        rows = spectra.transpose(COMPONENT, ENERGY)
        check_axis(f"fixed[{name!r}]", rows, cubes[name])
        found[name] = np.asarray(rows.values, dtype=np.float64)
    return found


def zero_channels(zeros: Any, cubes: Mapping[str, xr.DataArray], n_components: int) -> dict[str, Bool]:
    """True where a component has nothing in a channel (K, E), by signal; only signals with any."""
    found = {}
    for name, parts in _items(zeros):
        cube = cubes[name]
        mask = np.zeros((n_components, cube.sizes[ENERGY]), dtype=bool)
        for number, what in parts.items():
            for each in [what] if isinstance(what, str) or _is_window(what) else list(what):
                mask[int(number)] |= _channels(each, cube, name)
        found[name] = mask
    return found


def _is_window(what: Any) -> bool:
    return isinstance(what, (tuple, list)) and len(what) == 2 and all(is_number(v, numbers.Real) for v in what)


def _channels(what: Any, cube: xr.DataArray, name: str) -> Bool:
    """Channels of the lines of an element, or of a window (low, high) in the unit of the axis."""
    axis = np.asarray(cube[ENERGY].values, dtype=np.float64)
    if isinstance(what, str):
        unit = ENERGY_UNITS.get(str(cube[ENERGY].attrs.get("units", "")))
        require(unit, f"zeros[{name!r}]: lines of {what} need an axis in eV or keV; give windows (low, high) instead")
        kev = axis * float(unit or 1.0) / 1000
        inside = np.zeros(len(axis), dtype=bool)
        for line in line_table([what], energy_range=(kev.min(), kev.max()), minimum=WEAKEST_LINE):
            low, high = window_kev(line.energy_kev)
            wide = LINE_WIDTHS * (high - low) / 2
            inside |= abs(kev - (low + high) / 2) <= wide
        require(inside.any(), f"zeros[{name!r}]: {what} has no line from {kev.min():g} to {kev.max():g} keV")
        return inside
    require(_is_window(what), f"zeros[{name!r}] holds elements or windows (low, high), got {what!r}")
    inside = (axis >= min(what)) & (axis <= max(what))
    require(inside.any(), f"zeros[{name!r}]: the window {tuple(what)!r} holds no channel")
    return inside


def assigned(s: Mapping[str, Float], fixed: Mapping[str, Float], zeros: Mapping[str, Bool]) -> dict[str, Float]:
    """Endmembers of a start in the order that suits what is known best, with that put into them.

    s: (K, E) by signal.
    """
    k = len(next(iter(s.values())))
    cost = np.zeros((k, k))
    for name, rows in s.items():
        unit = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-300)
        if name in fixed:
            known = fixed[name] / np.maximum(np.linalg.norm(fixed[name], axis=1, keepdims=True), 1e-300)
            cost[: len(known)] += 1 - known @ unit.T
        if name in zeros:
            cost += zeros[name] @ (unit**2).T
    order = scipy.optimize.linear_sum_assignment(cost)[1] if cost.any() else np.arange(k)
    found = {}
    for name, rows in s.items():
        new = rows[order]
        if name in zeros:
            new = np.where(zeros[name], 0.0, new)
        if name in fixed:
            known = fixed[name]
            scale = new[: len(known)].sum(axis=1) / np.maximum(known.sum(axis=1), 1e-300)
            new[: len(known)] = known * scale[:, None]
        found[name] = new
    return found


def least_squares(n: Float, m: Float, s: Float, free: Bool, zero: Bool | None) -> Float:
    """The best non-negative endmembers with some that are fixed, and with zeros.

    n (K, E), m (K, K): sums of a pass. s (K, E): its endmembers. free (K,): False for fixed ones. zero (K, E): where a
    component has nothing.
    """
    new = endmember_update.least_squares(n, m, s, free=free)
    if zero is None:
        return new
    for pattern in np.unique(zero[:, zero.any(axis=0)], axis=1).T:
        here = (zero == pattern[:, None]).all(axis=0)
        held = np.where(pattern[:, None], 0.0, s[:, here])
        new[:, here] = endmember_update.least_squares(n[:, here], m, held, free=free & ~pattern)
    return new


def improved(
    sums: Mapping[str, Any], signals: Sequence[Signal], fixed: Mapping[str, Float], zeros: Mapping[str, Bool]
) -> tuple[Float, Float]:
    """Better endmembers (K, E of all signals), and ones that cannot raise the objective; not scaled.

    sums: of the pass at the endmembers of the signals. fixed, zeros: what is known.
    """
    better, safe = [], []
    for signal in signals:
        free = np.arange(len(signal.s)) >= len(fixed.get(signal.name, ()))
        zero = zeros.get(signal.name)
        if signal.counts:
            big_h = np.asarray(sums["H_" + signal.name])
            columns = np.ascontiguousarray(endmember_columns(signal.s))
            own = {"N": gradient_sums(big_h, columns), "H": big_h, "C": sums["C_" + signal.name]}
            new, plain = (np.where(free[:, None], each, signal.s) for each in poisson.improve(own, signal.s))
            if zero is not None:
                new, plain = (np.where(zero, 0.0, each) for each in (new, plain))
        else:
            new = plain = least_squares(sums["N_" + signal.name], sums["M_" + signal.name], signal.s, free, zero)
        better.append(new)
        safe.append(plain)
    return np.concatenate(better, axis=1), np.concatenate(safe, axis=1)


def in_words(values: Any) -> Any:
    """A setting as JSON can hold it; spectra are replaced by a word."""
    if isinstance(values, Mapping):
        return {str(name): in_words(value) for name, value in values.items()}
    if isinstance(values, Sequence) and not isinstance(values, str):
        return [in_words(value) for value in values]
    return GIVEN if isinstance(values, xr.DataArray) else values
