"""Hyperparameters of a Gaussian process as the state of a fit, and as variables of its result."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import xarray as xr

from scalehsi.cube import pixel_size_nm
from scalehsi.fitting.model import State, Variables
from scalehsi.kernels.gaussian_process.likelihood import Hyper
from scalehsi.schema import COMPONENT, X, Y

SOLVER_STEPS: Final = "solver_steps"
SOLVER_RESIDUAL: Final = "solver_residual"
TRAINING_LOSS: Final = "training_loss"
FITTED_PIXELS: Final = "fitted_pixels"
LENGTHSCALE: Final = "lengthscale"
GAIN: Final = "evidence_gain"
SETTLED: Final = "settled"


def to_state(hyper: Hyper) -> State:
    """Store hyperparameters as arrays of a fit's state."""
    return {name: np.asarray(value) for name, value in vars(hyper).items() if name != "kernel"}


def from_state(kernel: str, state: State) -> Hyper:
    """Restore hyperparameters from a fit's state."""
    arrays = {name: state[name] for name in ("signal", "noise", "mean", "scan", "history")}
    y, x = map(float, state["lengths"])
    loss, plain = float(state["loss"]), float(state.get("plain", np.nan))
    return Hyper(kernel, (y, x), loss=loss, plain=plain, evaluations=int(state["evaluations"]), **arrays)


def of_the_fit(state: State) -> Variables:
    """Variables that say on how many pixels the hyperparameters rest, and whether their search ended.

    Checkpoints of earlier versions do not know it.
    """
    if FITTED_PIXELS not in state:
        return {}
    pixels = {"long_name": "measured pixels of the windows of the fit"}
    settled = {"long_name": "whether the search for lengths and noise ended by itself"}
    return {
        FITTED_PIXELS: xr.DataArray(state[FITTED_PIXELS], dims=(COMPONENT,), attrs=pixels),
        SETTLED: xr.DataArray(bool(state[SETTLED]), attrs=settled),
    }


def to_variables(hyper: Hyper, solved: dict[str, Any], cube: xr.DataArray) -> Variables:
    """Make the variables of the result: hyperparameters, evidence, and the course of the search.

    Parameters
    ----------
    hyper : Hyper
    solved : dict
        ``steps`` and ``residual`` of the solver; empty where the maps are lazy.
    cube : xarray.DataArray
        The maps, for their unit and pixel sizes.
    """

    def variable(values: Any, *dims: str, long_name: str, **attrs: str) -> xr.DataArray:
        coords = {"axis": [Y, X]} if dims == ("axis",) else None
        return xr.DataArray(values, dims=dims, coords=coords, attrs={"long_name": long_name, **attrs})

    unit = str(cube.attrs.get("units", ""))
    scan = variable(
        hyper.scan[:, 1], "length", long_name="negative logarithm of the evidence with one length for both axes"
    )
    length = "length of the covariance along y and x"
    found: Variables = {
        LENGTHSCALE: variable(list(hyper.lengths), "axis", long_name=length, units="px"),
        "noise_std": variable(hyper.noise, COMPONENT, long_name="standard deviation of the noise", units=unit),
        "map_mean": variable(hyper.mean, COMPONENT, long_name="mean of the map", units=unit),
        "coupling": variable(hyper.signal, COMPONENT, "other", long_name="covariance between the maps at one pixel"),
        GAIN: variable(
            hyper.plain - hyper.loss, long_name="logarithm of the evidence above that of noise alone", units="nat"
        ),
        "evidence": variable(-hyper.loss, long_name="logarithm of the evidence of the windows"),
        "length_scan": scan.assign_coords(length=("length", hyper.scan[:, 0], {"units": "px"})),
    }
    if len(hyper.history):
        said = "in each evaluation of the search"
        found["lengthscale_history"] = variable(
            hyper.history[:, :2], "evaluation", "axis", long_name=f"length of the covariance {said}", units="px"
        )
        found["evidence_history"] = variable(
            -hyper.history[:, 2], "evaluation", long_name=f"logarithm of the evidence {said}"
        )
    sizes = [pixel_size_nm(cube, d) for d in (Y, X)]
    if all(sizes):
        nm = [one * float(size or 0.0) for one, size in zip(hyper.lengths, sizes, strict=True)]
        found["lengthscale_nm"] = variable(nm, "axis", long_name=length, units="nm")
    if solved:
        found[SOLVER_STEPS] = variable(solved["steps"], long_name="most steps of conjugate gradients of a tile")
        found[SOLVER_RESIDUAL] = variable(
            solved["residual"], long_name="largest residual of conjugate gradients, relative to the right side"
        )
    return found
