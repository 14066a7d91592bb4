"""Apply a trained network to blocks of pixels, with the array library of the block: numpy or CuPy, without torch."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from scalehsi import arrays
from scalehsi.arrays import Int, NumpyArray
from scalehsi.blocks import Tile
from scalehsi.kernels.pixel_rows.residual import residual_of_block
from scalehsi.kernels.pixel_rows.strips import strips
from scalehsi.networks.layers import offset_products
from scalehsi.schema import ABUNDANCES, RESIDUAL, RESIDUAL_SPECTRUM

PREFIX: Final = "weights_"
EVALUATED_VALUES: Final = 2**24
"""Inputs of the network that are looked at in one call."""


def split_statistics(given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Weights by name, and the statistics of batch normalisation by the name of the layer."""
    norms = {k.removesuffix("_variance") for k in given if k.endswith("_variance")}
    known = {name: (given[f"{name}_mean"], given[f"{name}_variance"]) for name in norms}
    return {k: v for k, v in given.items() if not k.endswith(("_mean", "_variance"))}, known


def sample_maps(
    network: Any, weights: Mapping[str, NumpyArray], inputs: NumpyArray, seen: Int, wanted: Int
) -> tuple[NumpyArray, Int]:
    """Abundances of the sampled pixels, each once, and their rows.

    network: the architecture. weights: with statistics. inputs (n + 1, E): of the network. seen, wanted: of the items.
    """
    plain, known = split_statistics(weights)
    step = max(1, EVALUATED_VALUES // (seen.shape[1] * inputs.shape[1]))
    parts = [network.encode(np, plain, inputs[seen[i : i + step]], {}, known, None) for i in range(0, len(seen), step)]
    flat, rows = np.concatenate(parts), wanted.reshape(-1)
    some, first = np.unique(rows, return_index=True)
    there = some < len(inputs) - 1
    return flat[first[there]], some[there]


def block_maps(
    x: Any,
    *,
    network: Any,
    centre: Any,
    factor: Any,
    s: Any,
    halo: int,
    residual: bool = True,
    tile: Tile | None = None,
    **given: Any,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Abundances of a block, and its residual.

    x (P, E). network: the architecture. centre, factor (E,): standardise the inputs. s (K, E): endmembers. halo: pixels
    around the core in ``x``. residual: also the residual. tile: where the block lies, with a halo. given: weights.
    """
    xp = np if isinstance(x, np.ndarray) else importlib.import_module("cupy")
    weights, known = split_statistics({k.removeprefix(PREFIX): v for k, v in given.items()})
    if halo and tile is not None:
        products = _products(xp, x, tile, centre, factor, weights[network.first])
        c = network.maps(xp, weights, products, known).reshape(x.shape[0], -1)
    else:
        rows = [
            network.encode(xp, weights, (xp.asarray(strip, dtype=xp.float32) - centre) * factor, {}, known, None)
            for _, strip in strips(x)
        ]
        c = xp.concatenate(rows)
    pixels = {ABUNDANCES: c.astype(xp.float32)}
    if not residual:
        return pixels, {}
    core = slice(None) if tile is None or not halo else np.flatnonzero(tile.core)
    found, sums = residual_of_block(x[core], c[core], s=arrays.to_host(s))
    if halo and tile is not None:
        whole = xp.zeros(x.shape[0], dtype=xp.float32)
        whole[core] = found[RESIDUAL]
        found = {RESIDUAL: whole}
    return {**pixels, **found}, {RESIDUAL_SPECTRUM: sums[RESIDUAL_SPECTRUM]}


def _products(xp: Any, x: Any, tile: Tile, centre: Any, factor: Any, first: Any) -> Any:
    """`offset_products` of a tile as images (b, y, x, D * M); masked pixels look like the mean spectrum,
    as those beyond the border do.

    xp: module of the arrays. x (P, E): of the tile. centre, factor (E,): standardise. first (D * E, M): of the network.
    """
    used, rows = xp.asarray(tile.used)[:, None], []
    for part, strip in strips(x):
        z = (xp.asarray(strip, dtype=xp.float32) - centre) * factor
        rows.append(offset_products(xp, xp.where(used[part], z, xp.float32(0.0)), first))
    return xp.concatenate(rows).reshape(-1, *tile.shape[-2:], rows[0].shape[-1])
