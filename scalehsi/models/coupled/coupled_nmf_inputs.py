"""The signals of a coupled fit: which likelihood each has, one grid for all, masks, whole shifts and pixel ratios."""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import xarray as xr

from scalehsi.blocks import Blocks, Pixels, branch, open_blocks
from scalehsi.checks import is_number, require
from scalehsi.cube import check_cube, length_factor, navigation_dims, with_history
from scalehsi.fitting.model import Inputs
from scalehsi.prepare import bin as add_up
from scalehsi.schema import ENERGY, MASK, InputError, X, Y, suggest

LIKELIHOODS: Final = ("gaussian", "poisson")
FINE: Final = "_fine"
"""Behind the name of a signal: its cube on smaller pixels."""
SIGNAL: Final = "signal"
EXPOSURE: Final = "exposure"
ORIGIN_TOLERANCE: Final = 0.05
"""Origins that differ by less of a pixel are the same."""
COUNT_SIGNALS: Final = ("EDS", "EDX")


def likelihood(cube: xr.DataArray) -> str:
    """The likelihood of a cube, by its metadata: counts of X-rays, and other unsigned integers that are no EELS."""
    kind = str(cube.attrs.get("signal", "")).upper()
    whole = cube.dtype.kind in "ui"
    return "poisson" if whole and (kind.startswith(COUNT_SIGNALS) or not kind.startswith("EELS")) else "gaussian"


def select(
    data: Any,
    *,
    n_components: int,
    loss: Mapping[str, str],
    reference: str | None,
    shift: Mapping[str, Sequence[int]],
    named: Mapping[str, Any],
) -> Inputs:
    """Check the cubes of a fit and bring them onto one grid; nothing is read.

    Parameters
    ----------
    data : mapping of str to DataArray
        The signals.
    n_components : int
    loss : mapping
        Likelihoods that are given, by signal.
    reference : str, optional
        The signal with the abundances themselves: by default the first one of counts, else the first one.
    shift : mapping
        Whole pixels along y and x by which a signal is moved.
    named : mapping
        Settings that name signals, by the name of the setting.

    Returns
    -------
    Inputs
        The reference, the other signals beside it, and each alone with its own mask among ``others``.
    """
    example = "hsi.fit({'eels': a_cube, 'edx': b_cube}, ...)"
    several = isinstance(data, Mapping) and not isinstance(data, xr.Dataset)
    got = "one cube" if isinstance(data, xr.DataArray) else type(data).__name__
    require(several, f"CoupledNMF takes two or more signals by name, got {got}; type {example}")
    require(len(data) >= 2, f"CoupledNMF takes two or more signals, got {', '.join(map(repr, data))}; type {example}")
    for name in data:
        require(
            isinstance(name, str) and name.isidentifier() and name != "cube" and not name.endswith(FINE),
            f"a signal's name is a word of letters and digits, got {name!r}; type {example}",
        )
        try:
            check_cube(data[name])
        except InputError as error:
            raise InputError(f"{name!r}: {error}") from error
        channels = data[name].sizes[ENERGY]
        require(
            n_components <= channels,
            f"n_components={n_components} is more than the {channels} channels of {name!r}; take {channels} or fewer",
        )
    for setting, names in named.items():
        for name in names:
            require(name in data, f"{setting} names no signal {name!r}; {suggest(str(name), list(data))}")
    kinds = {name: loss.get(name) or likelihood(cube) for name, cube in data.items()}
    first = reference or next((name for name, kind in kinds.items() if kind == "poisson"), next(iter(data)))
    order = [first, *(name for name in data if name != first)]
    moved = _moved({name: data[name] for name in order}, shift)
    cubes, fine = _one_grid(moved)
    mask = union(cubes)
    joint = cubes[first].drop_vars(MASK, errors="ignore")
    joint = joint if mask is None else joint.assign_coords({MASK: mask})
    beside = {name: cubes[name] for name in order[1:]}
    return Inputs(joint, {**cubes, **{name + FINE: cube for name, cube in fine.items()}}, first, beside=beside)


def union(cubes: Mapping[str, xr.DataArray]) -> xr.DataArray | None:
    """The pixels that any of the signals has, as a mask; None where one has all of them."""
    masks = [_mask(cube) for cube in cubes.values() if MASK in cube.coords]
    if len(masks) < len(cubes):
        return None
    found = masks[0]
    for each in masks[1:]:
        found = found | each
    return found


def _mask(cube: xr.DataArray) -> xr.DataArray:
    """The mask of a cube without coordinates; ones where it has none."""
    dims = navigation_dims(cube)
    if MASK not in cube.coords:
        return xr.DataArray(np.ones([cube.sizes[d] for d in dims], dtype=bool), dims=dims)
    return xr.DataArray(cube[MASK].transpose(*dims).data, dims=dims)


def with_losses(cubes: Mapping[str, xr.DataArray], lost: Sequence[bool]) -> dict[str, xr.DataArray]:
    """The cubes with pixels of NaN masked. lost: whether a signal has any."""
    found = {}
    for (name, cube), any_lost in zip(cubes.items(), lost, strict=True):
        if any_lost:
            plain = cube.drop_vars(list(cube.coords))
            cube = cube.drop_vars(MASK, errors="ignore").assign_coords(
                {MASK: _mask(cube) & plain.notnull().all(ENERGY)}
            )
        found[name] = cube
    return found


def alone(view: Blocks, names: Sequence[str], lost: Sequence[bool]) -> dict[str, xr.DataArray]:
    """Each signal with its own mask; pixels of NaN are masked. view: of the fit. names: of the signals."""
    return with_losses({name: view.branches[name].cube for name in names}, lost)


def binned(view: Blocks, names: Sequence[str], lost: Sequence[bool], factor: int) -> Blocks:
    """The view of bins of ``factor`` x ``factor`` pixels of all signals; the view itself for 1."""
    if factor == 1:
        return view

    def make() -> Blocks:
        bins = {name: add_up(cube, y=factor, x=factor) for name, cube in alone(view, names, lost).items()}
        mask, first = union(bins), bins[names[0]].drop_vars(MASK, errors="ignore")
        joint = first if mask is None else first.assign_coords({MASK: mask})
        return open_blocks(joint, device=view.device, beside=[bins[name] for name in names[1:]])

    return branch(view, f"bin-{factor}", make)


def check_shared(cubes: Mapping[str, xr.DataArray]) -> None:
    """Refuse masks that leave no pixel with two signals."""
    masks = [_mask(cube) for cube in cubes.values()]
    if any(MASK in cube.coords for cube in cubes.values()):
        number = int((xr.concat(masks, SIGNAL).sum(SIGNAL) >= 2).sum())
        names = " and ".join(map(repr, cubes))
        require(
            number, f"the masks of {names} leave no pixel with two signals (True = use); invert one with mask=~mask"
        )


def exposures(view: Blocks, names: Sequence[str], lost: Sequence[bool], factor: int) -> tuple[Pixels, ...]:
    """Measured shares of each pixel of `binned` in each signal, aligned with it; nothing where all is measured."""
    cubes = alone(view, names, lost)
    if not any(MASK in cube.coords for cube in cubes.values()):
        return ()
    target = binned(view, names, lost, factor)
    if EXPOSURE not in target.companions:
        masks: list[Any] = [_mask(cube).astype(np.float32) for cube in cubes.values()]
        if factor > 1:
            masks = [each.coarsen({Y: factor, X: factor}, boundary="trim").mean() for each in masks]
        target.companions[EXPOSURE] = target.align(xr.concat(masks, SIGNAL).transpose(..., SIGNAL), hold=True)
    return (target.companions[EXPOSURE],)


def _moved(cubes: dict[str, xr.DataArray], shift: Mapping[str, Sequence[int]]) -> dict[str, xr.DataArray]:
    """Crop all signals to the field that they share.

    shift: of some signals; pixel i of one belongs to pixel i + shift of the others.
    """
    if not any(any(move) for move in shift.values()):
        return cubes
    sizes = {tuple(cube.shape[:-1]) for cube in cubes.values()}
    require(len(sizes) == 1, "shift moves signals of one pixel size; bin the finer one with hsi.prepare.bin first")
    found, moves = {}, np.array([shift.get(name, (0, 0)) for name in cubes])
    for (name, cube), move in zip(cubes.items(), moves, strict=True):
        part = {}
        for axis, dim in enumerate((Y, X)):
            start = int(moves[:, axis].max() - move[axis])
            count = cube.sizes[dim] - int(np.ptp(moves[:, axis]))
            require(count > 0, f"shift={dict(shift)!r} leaves no pixel that all signals share; take smaller ones")
            part[dim] = slice(start, start + count)
        cropped = cube.isel(part)
        found[name] = with_history(cropped, f"moved by {tuple(int(v) for v in move)} pixels along y and x")
    first = next(iter(found.values()))
    return {
        name: cube.assign_coords({d: first[d] for d in (Y, X) if d in first.coords}) for name, cube in found.items()
    }


def _one_grid(cubes: dict[str, xr.DataArray]) -> tuple[dict[str, xr.DataArray], dict[str, xr.DataArray]]:
    """All signals on the grid of the coarsest one, and the cubes of those that are finer."""
    coarse = min(cubes, key=lambda name: math.prod(cubes[name].shape[:-1]))
    found, fine = {}, {}
    dims = navigation_dims(cubes[coarse])
    for name, cube in cubes.items():
        require(
            navigation_dims(cube) == dims,
            f"{name!r} has the dims {tuple(map(str, cube.dims))}, {coarse!r} {tuple(map(str, cubes[coarse].dims))}; "
            "signals of one grid have the same pixel dims",
        )
        ratios = {d: cube.sizes[d] / cubes[coarse].sizes[d] for d in dims}
        ratio = ratios[Y]
        same = all(r == (ratio if d in (Y, X) else 1) for d, r in ratios.items())
        require(
            same and ratio == int(ratio),
            f"{name!r} has {_sizes(cube)} pixels and {coarse!r} {_sizes(cubes[coarse])}, a ratio of "
            f"{', '.join(f'{r:.4g}' for r in ratios.values())}; crop them to one field with hsi.prepare.crop, so that "
            "it is one whole number",
        )
        if ratio > 1:
            fine[name] = cube
            cube = add_up(cube, y=int(ratio), x=int(ratio))
        _same_place(name, cube, coarse, cubes[coarse])
        found[name] = cube
    return found, fine


def _sizes(cube: xr.DataArray) -> str:
    return " x ".join(str(cube.sizes[d]) for d in navigation_dims(cube))


def _same_place(name: str, cube: xr.DataArray, other: str, on: xr.DataArray) -> None:
    """Refuse pixels that lie elsewhere, where both signals know where theirs lie."""
    for dim in (Y, X):
        if dim not in cube.coords or dim not in on.coords or on.sizes[dim] < 2:
            continue
        a, b = (length_factor(str(each[dim].attrs.get("units", ""))) for each in (cube, on))
        if a is None or b is None:
            continue
        step = float(on[dim][1] - on[dim][0]) * b
        off = (float(cube[dim][0]) * a - float(on[dim][0]) * b) / step
        end = (float(cube[dim][-1]) * a - float(on[dim][-1]) * b) / step
        require(
            abs(off) <= ORIGIN_TOLERANCE and abs(end) <= ORIGIN_TOLERANCE,
            f"the {dim} axis of {name!r} begins {off:.3g} and ends {end:.3g} pixels from that of {other!r}; crop both "
            f"to one field with hsi.prepare.crop, or drop the coordinates of one with cube.drop_vars({dim!r})",
        )


def check_shift(shift: Any) -> None:
    """Refuse a setting ``shift`` that is neither "auto", None nor whole pixels by signal."""
    if shift is None or shift == "auto":
        return
    good = isinstance(shift, Mapping) and all(
        isinstance(move, (tuple, list)) and len(move) == 2 and all(is_number(v, numbers.Integral) for v in move)
        for move in shift.values()
    )
    require(
        good, f"shift is 'auto', None or whole pixels along y and x by signal, got {shift!r}; type {{'edx': (1, 0)}}"
    )
