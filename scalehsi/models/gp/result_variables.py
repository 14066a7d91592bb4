"""What a Gaussian process learned: as the state of a fit, and as variables of its result."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import xarray as xr

from scalehsi.cube import pixel_size_nm
from scalehsi.fitting.model import State, Variables
from scalehsi.kernels.gaussian_process.likelihood import Hyper
from scalehsi.schema import COMPONENT, X, Y

LENGTHS: Final = "lengthscale"
LENGTHS_NM: Final = "lengthscale_nm"
NOISE: Final = "noise_std"
LEVEL: Final = "map_mean"
COUPLING: Final = "coupling"
OTHER: Final = "other"
EVIDENCE: Final = "evidence"
STEPS: Final = "solver_steps"
RESIDUAL_LEFT: Final = "solver_residual"
HISTORY: Final = "lengthscale_history"
EVIDENCES: Final = "evidence_history"
SCANNED: Final = "length_scan"
LOSSES: Final = "training_loss"


def packed(hyper: Hyper) -> State:
    return {
        "lengths": np.asarray(hyper.lengths),
        "signal": hyper.signal,
        "noise": hyper.noise,
        "mean": hyper.mean,
        "loss": np.asarray(hyper.loss),
        "scan": hyper.scan,
        "evaluations": np.asarray(hyper.evaluations),
        "history": hyper.history,
    }


def unpacked(kernel: str, state: State) -> Hyper:
    y, x = state["lengths"]
    return Hyper(
        kernel=kernel,
        lengths=(float(y), float(x)),
        signal=state["signal"],
        noise=state["noise"],
        mean=state["mean"],
        loss=float(state["loss"]),
        scan=state["scan"],
        evaluations=int(state["evaluations"]),
        history=state["history"],
    )


def described(hyper: Hyper, solved: dict[str, Any], cube: xr.DataArray) -> Variables:
    """What was learned, as variables of the result."""
    axis = xr.DataArray([Y, X], dims=("axis",))
    unit = str(cube.attrs.get("units", ""))
    found: Variables = {
        LENGTHS: xr.DataArray(list(hyper.lengths), dims=("axis",), coords={"axis": axis}, attrs={"units": "px"}),
        NOISE: xr.DataArray(hyper.noise, dims=(COMPONENT,), attrs={"units": unit}),
        LEVEL: xr.DataArray(hyper.mean, dims=(COMPONENT,), attrs={"units": unit}),
        COUPLING: xr.DataArray(hyper.signal, dims=(COMPONENT, OTHER)),
        EVIDENCE: xr.DataArray(-hyper.loss),
        SCANNED: xr.DataArray(
            hyper.scan[:, 1], dims=("length",), coords={"length": ("length", hyper.scan[:, 0], {"units": "px"})}
        ),
    }
    if len(hyper.history):
        found[HISTORY] = xr.DataArray(hyper.history[:, :2], dims=("evaluation", "axis"), attrs={"units": "px"})
        found[EVIDENCES] = xr.DataArray(-hyper.history[:, 2], dims=("evaluation",))
    words = {
        HISTORY: "length of the covariance in each evaluation of the search",
        EVIDENCES: "logarithm of the evidence in each evaluation of the search",
        LENGTHS: "length of the covariance along y and x",
        NOISE: "standard deviation of the noise",
        LEVEL: "mean of the map",
        COUPLING: "covariance between the maps at one pixel",
        EVIDENCE: "logarithm of the evidence of the windows",
        SCANNED: "negative logarithm of the evidence with one length for both axes",
    }
    sizes = [pixel_size_nm(cube, d) for d in (Y, X)]
    if all(sizes):
        nm = [length * float(size or 0.0) for length, size in zip(hyper.lengths, sizes, strict=True)]
        found[LENGTHS_NM] = xr.DataArray(nm, dims=("axis",), coords={"axis": axis}, attrs={"units": "nm"})
        words[LENGTHS_NM] = words[LENGTHS]
    for name, key, said in (
        (STEPS, "steps", "most steps of conjugate gradients of a tile"),
        (RESIDUAL_LEFT, "residual", "largest residual of conjugate gradients, relative to the right side"),
    ):
        if key in solved:
            found[name] = xr.DataArray(solved[key])
            words[name] = said
    for name, said in words.items():
        if name not in found:
            continue
        found[name].attrs = {"long_name": said, **found[name].attrs}
    return found
