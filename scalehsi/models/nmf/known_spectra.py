"""Fixed endmembers: spectra that are known and do not change in a fit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import xarray as xr

from scalehsi.arrays import Float
from scalehsi.checks import require
from scalehsi.fitting.energy_axis import check_axis
from scalehsi.models.nmf.settings import GIVEN
from scalehsi.schema import ABUNDANCES, COMPONENT, ENDMEMBERS, ENERGY, suggest

NAMES: Final = (ENDMEMBERS, ABUNDANCES)
"""What may be fixed; `scalehsi.models.nmf.known_maps` handles the maps."""


def check(fixed: Mapping[str, Any] | str | None, n_components: int) -> None:
    """Refuse ``fixed`` if it is not a mapping, or if its endmembers are not up to K non-negative spectra."""
    if fixed is None or (isinstance(fixed, str) and fixed == GIVEN):
        return
    require(isinstance(fixed, Mapping), f"fixed is a mapping such as {{'endmembers': spectra}}, got {fixed!r}")
    assert isinstance(fixed, Mapping)
    for name in fixed:
        require(name in NAMES, f"fixed has no {name!r}; {suggest(str(name), NAMES)}")
    require(fixed, f"fixed is empty; give one of {', '.join(NAMES)}, or leave it out")
    if ENDMEMBERS not in fixed:
        return
    spectra = fixed[ENDMEMBERS]
    require(
        isinstance(spectra, xr.DataArray) and set(spectra.dims) == {COMPONENT, ENERGY},
        "fixed['endmembers'] is a DataArray of dims (component, energy)",
    )
    values = np.asarray(spectra, dtype=np.float64)
    require(np.isfinite(values).all() and (values >= 0).all(), "fixed['endmembers'] has negative values, NaN or Inf")
    filled = spectra.sum(ENERGY) > 0
    require(bool(filled.all()), "fixed['endmembers'] has a spectrum of zeros")
    count = spectra.sizes[COMPONENT]
    require(count <= n_components, f"fixed['endmembers'] has {count} spectra, more than n_components={n_components}")


def known_endmembers(fixed: Mapping[str, Any] | str | None, cube: xr.DataArray) -> Float:
    """The fixed spectra on the cube's channels, shape (F, E); F may be 0."""
    if not isinstance(fixed, Mapping) or ENDMEMBERS not in fixed:
        return np.zeros((0, cube.shape[-1]))
    spectra: xr.DataArray = fixed[ENDMEMBERS].transpose(COMPONENT, ENERGY)
    check_axis("fixed['endmembers']", spectra, cube)
    return np.asarray(spectra.values, dtype=np.float64)
