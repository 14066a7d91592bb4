"""What the geometric models share: their settings, the maps of the last pass, and the warning on pure pixels."""

from __future__ import annotations

import numbers
from dataclasses import KW_ONLY, dataclass
from typing import Any, Final

import numpy as np
import xarray as xr

from scalehsi import arrays
from scalehsi.blocks import BlockFunction, Blocks
from scalehsi.checks import check_components, choice, is_number, require
from scalehsi.fitting.model import Cost, DirectModel, State, Variables
from scalehsi.kernels import cuda
from scalehsi.models.geometric import cloud
from scalehsi.models.references import channel_weights, solver
from scalehsi.result import ResultWarning
from scalehsi.schema import COMPONENT, ENDMEMBERS, ENERGY, MEAN_SPECTRUM

DIRECT: Final = "The corners are searched directly; there is nothing to iterate."
OUTSIDE: Final = "share_outside"
LARGEST_SHARE: Final = 0.02
"""Share of pixels outside of the simplex from which the warning is given: scenes with pure pixels have up to 0.002."""


@dataclass(frozen=True)
class Geometric(DirectModel):
    """Settings that all geometric models have; each describes them in its own docstring."""

    n_components: int
    _: KW_ONLY
    weighting: str | None = "poisson"
    smooth: int = 3
    restarts: int = 20
    constraint: str = "fcls"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_components(self.n_components)
        require(self.n_components >= 2, f"n_components={self.n_components}: a simplex has at least 2 corners")
        require(
            self.weighting in (None, "poisson"), f"weighting={self.weighting!r} is not known; it is None or 'poisson'"
        )
        odd = (
            is_number(self.smooth, numbers.Integral) and (self.smooth == 0 or self.smooth % 2 == 1) and self.smooth >= 0
        )
        require(odd, f"smooth is 0 or an odd number of pixels such as 3, got {self.smooth!r}")
        whole = is_number(self.restarts, numbers.Integral) and self.restarts >= 1
        require(whole, f"restarts is a whole number of at least 1, got {self.restarts!r}")
        choice("constraint", self.constraint, ("fcls", "nnls"))

    @property
    def devices(self) -> tuple[arrays.Device, ...]:
        return ("cpu", "cuda") if self.n_components <= cuda.MAX_COMPONENTS else ("cpu",)

    @property
    def simplex(self) -> bool:
        """Whether the fractions of a pixel sum to one; for the judgement of the fit."""
        return self.constraint == "fcls"

    def check(self, cube: xr.DataArray) -> None:
        check_components(self.n_components, cube)

    def finish(self, view: Blocks, state: State) -> Variables:
        found = {
            ENDMEMBERS: xr.DataArray(state["s"], dims=(COMPONENT, ENERGY)),
            MEAN_SPECTRUM: xr.DataArray(state["spectrum"] / float(state["pixels"]), dims=(ENERGY,)),
        }
        if OUTSIDE in state:
            found[OUTSIDE] = xr.DataArray(
                float(state[OUTSIDE]), attrs={"long_name": "share of pixels outside the simplex"}
            )
        if "vertices" in state:
            words = {"long_name": "pixel of each corner, counted in the order of the maps"}
            found["vertex_pixel"] = xr.DataArray(state["vertices"], dims=(COMPONENT,), attrs=words)
        return found

    def projector(self, result: xr.Dataset) -> tuple[BlockFunction, dict[str, Any]]:
        weights = channel_weights(result[MEAN_SPECTRUM].values) if self.weighting else None
        return solver(np.asarray(result[ENDMEMBERS].values, dtype=np.float64), self.constraint, weights)

    def warnings(self, variables: Variables) -> list[ResultWarning]:
        share = float(variables[OUTSIDE]) if OUTSIDE in variables else 0.0
        return no_pure_pixels(share, f"SSS({self.n_components}), or constraint='nnls' for thickness")

    def cost(self, shape: tuple[int, ...], itemsize: int) -> Cost:
        return cloud.cost(self.n_components, self.weighting, shape, itemsize)


def no_pure_pixels(share: float, remedy: str) -> list[ResultWarning]:
    """The warning of endmembers that are mixtures, where a share of the pixels lies outside of their simplex.

    share: from 0 to 1. remedy: what to type.
    """
    if not share > LARGEST_SHARE:
        return []
    text = (
        f"{share:.0%} of the pixels lie outside of the simplex of the corners by more than noise: "
        "some components have no pure pixel, or the thickness varies."
    )
    return [ResultWarning("no_pure_pixels", text, remedy)]
