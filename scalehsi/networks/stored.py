"""A network as plain arrays of a result: how they are named, checked, read and applied."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import xarray as xr

from scalehsi.arrays import NumpyArray
from scalehsi.blocks import BlockFunction
from scalehsi.checks import require
from scalehsi.networks.inference import block_maps
from scalehsi.networks.sample import Scaling
from scalehsi.networks.training import DECODER, Architecture
from scalehsi.schema import ENDMEMBERS, ENERGY

WEIGHTS: Final = "weights_"
"""Beginning of the names of the network's arrays in a result."""
SCALING: Final = ("weight", "centre", "factor")
STATISTICS: Final = ("_mean", "_variance")


def network_variables(weights: Mapping[str, NumpyArray], scaling: Scaling) -> dict[str, xr.DataArray]:
    """The variables of a result that hold a network."""
    found = {
        f"{WEIGHTS}{k}": xr.DataArray(np.asarray(v), dims=tuple(f"{WEIGHTS}{k}_{axis}" for axis in range(np.ndim(v))))
        for k, v in weights.items()
    }
    return found | {f"{WEIGHTS}scaling_{k}": xr.DataArray(getattr(scaling, k), dims=(ENERGY,)) for k in SCALING}


def stored_scaling(result: xr.Dataset) -> Scaling:
    """The scaling of a stored network."""
    return Scaling(*(np.asarray(result[f"{WEIGHTS}scaling_{k}"].values, dtype=np.float64) for k in SCALING))


def stored_weights(result: xr.Dataset, *, norms: bool = False) -> dict[str, NumpyArray]:
    """The weights of a stored network by name, in order; ``norms``: also the statistics of batch normalisation."""
    names = [str(k).removeprefix(WEIGHTS) for k in result.data_vars if str(k).startswith(WEIGHTS)]
    names = [k for k in names if not k.startswith("scaling_") and (norms or not k.endswith(STATISTICS))]
    return {k: result[f"{WEIGHTS}{k}"].values.astype(np.float32) for k in names}


def stored_projector(network: Architecture, result: xr.Dataset, *, halo: int) -> tuple[BlockFunction, dict[str, Any]]:
    """The block function of a stored network and its shared arguments.

    network: the architecture that the settings of the result name. result: with the network. halo: pixels that it sees.

    Raises
    ------
    InputError
        When arrays of the network are missing or damaged.
    """
    name = result.attrs.get("model")
    whole = f"{WEIGHTS}{DECODER}" in result and all(f"{WEIGHTS}scaling_{k}" in result for k in SCALING)
    require(whole, f"this result of {name} has no weights of its network; fit it again, and save it")
    scaling, weights = stored_scaling(result), stored_weights(result, norms=True)
    for k, v in network.weights(len(scaling.factor), np.random.default_rng(0)).items():
        require(
            k in weights and weights[k].shape == v.shape and np.isfinite(weights[k]).all(),
            f"the array {WEIGHTS}{k} of this result is missing, of another shape or not finite, {v.shape} is "
            "expected; the store is damaged or of another model: fit again",
        )
    shared: dict[str, Any] = {f"{WEIGHTS}{k}": v for k, v in weights.items() if k != DECODER}
    shared |= {"centre": scaling.centre.astype(np.float32), "factor": scaling.factor.astype(np.float32)}
    shared["s"] = np.asarray(result[ENDMEMBERS].values, dtype=np.float64)
    return block_maps, {**shared, "network": network, "halo": halo}
