"""Hyperparameters of maps with missing pixels: Monte Carlo expectation maximisation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
from scipy.ndimage import distance_transform_edt

from scalehsi.arrays import Bool, Float
from scalehsi.kernels.gaussian_process import likelihood, missing_pixels, radial_kernel, radial_solver
from scalehsi.kernels.gaussian_process.gaps import by_map, choose_tiles
from scalehsi.kernels.gaussian_process.likelihood import Bounds, Hyper
from scalehsi.kernels.gaussian_process.radial_kernel import cut_evenly, is_radial

DRAWS_PER_ROUND: Final = 4
MAX_ROUNDS: Final = 40
COMPARED_ROUNDS: Final = 4
"""Rounds of expectation maximisation whose mean is compared with that of as many rounds before."""
MAX_DRIFT: Final = 0.02
"""Relative change between these means below which the rounds end."""
SCANNED_ROUNDS: Final = 4
"""First rounds, in which all lengths are scanned; the others descend from the lengths of the one before."""
MAX_RADIAL_TILES: Final = 4
"""Dense tiles to which a kernel of distance is fitted."""


def fit_missing(
    tiles: list[Float],
    masks: list[Bool],
    *,
    kernel: str = "matern52",
    bounds: Bounds | None = None,
    isotropic: bool = False,
    rank: int = 1,
    seed: int = 0,
    rounds: int = MAX_ROUNDS,
) -> Hyper:
    """Fit the hyperparameters to tiles with missing pixels, by Monte Carlo expectation maximisation.

    Each round draws the missing pixels a few times from the posterior of the previous round, noise included, and fits
    the hyperparameters to the completed tiles.

    Parameters
    ----------
    tiles, bounds, isotropic, rank
        As in `scalehsi.kernels.gaussian_process.likelihood.fit`; values at missing pixels are ignored.
    masks : sequence of bool arrays, shape (H, W), or (H, W, T) where the maps have different gaps
        True where the maps were measured.
    kernel : str
        A product of axes, or a kernel of distance: then the tiles are cut, and four dense ones are used.
    seed : int
    rounds : int, default 40
        At most.

    Notes
    -----
    The rounds end when lengths and noise of the last four agree with those of the four before, within 2 %. The loss is
    that of the completed tiles, of one draw. Cost of a round: a fit of four times as many complete tiles, and 4 draws
    of each tile.
    """
    fit: Any = likelihood.fit
    draw: Any = missing_pixels.draw
    if is_radial(kernel):
        fit, draw = radial_kernel.fit, radial_solver.draw
        tiles, masks = _cut(tiles, masks)
    how = {"kernel": kernel, "bounds": bounds, "isotropic": isotropic, "rank": rank}
    if all(mask.all() for mask in masks):
        complete: Hyper = fit(tiles, **how)
        return complete
    found: Hyper = fit(_from_nearest(tiles, masks), **how)
    history = []
    for number in range(rounds):
        rng = np.random.default_rng([seed, number])
        completed = []
        for tile, mask in zip(tiles, masks, strict=True):
            drawn = draw(tile, mask, found, count=DRAWS_PER_ROUND, seed=int(rng.integers(2**31)))
            for values in drawn:
                noisy = values + found.noise * rng.standard_normal(values.shape)
                completed.append(np.where(by_map(mask), tile, noisy))
        found = fit(completed, **how, start=found.lengths if number >= SCANNED_ROUNDS else None)
        history.append((*found.lengths, found.loss / DRAWS_PER_ROUND, *found.noise))
        if _settled(np.array(history)):
            break
    loss, plain = found.loss / DRAWS_PER_ROUND, found.plain / DRAWS_PER_ROUND
    return replace(found, loss=loss, plain=plain, history=np.array(history)[:, :3])


def _settled(history: Float) -> bool:
    """Whether lengths and noise, a row each round, no longer drift from one group of rounds to the next."""
    if len(history) < 2 * COMPARED_ROUNDS:
        return False
    values = np.log(np.maximum(np.delete(history, 2, axis=1), 1e-300))
    late, early = values[-COMPARED_ROUNDS:].mean(axis=0), values[-2 * COMPARED_ROUNDS : -COMPARED_ROUNDS].mean(axis=0)
    return bool(np.abs(late - early).max() <= MAX_DRIFT)


def _cut(tiles: Sequence[Float], masks: Sequence[Bool]) -> tuple[list[Float], list[Bool]]:
    """Cut tiles and their masks into dense ones, and choose those with most measured pixels."""
    parts = [part for tile in tiles for part in cut_evenly(tile, radial_kernel.MAX_TILE_PIXELS)]
    seen = [part for mask in masks for part in cut_evenly(mask, radial_kernel.MAX_TILE_PIXELS)]
    most = np.argsort([-int(by_map(part).mean(axis=-1).sum()) for part in seen], kind="stable")
    chosen = choose_tiles([seen[i] for i in most], MAX_RADIAL_TILES)
    return [parts[most[i]] for i in chosen], [seen[most[i]] for i in chosen]


def _from_nearest(tiles: Sequence[Float], masks: Sequence[Bool]) -> list[Float]:
    """Replace each missing pixel by the nearest measured one of its map, or by the map's mean, as a first estimate."""
    _, mean, _ = likelihood.standardised(tiles, masks)
    found = []
    for tile, mask in zip(tiles, masks, strict=True):
        whole = np.empty_like(tile)
        for t, seen in enumerate(np.moveaxis(np.broadcast_to(by_map(mask), tile.shape), -1, 0)):
            if seen.any():
                _, (y, x) = distance_transform_edt(~seen, return_indices=True)
                whole[..., t] = tile[y, x, t]
            else:
                whole[..., t] = mean[t]
        found.append(whole)
    return found
