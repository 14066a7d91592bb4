"""The cube that the tests of preparation steps share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import xarray as xr

from tests.helpers import counts_cube

Step = Callable[[xr.DataArray], xr.DataArray]


def cube(shape: tuple[int, ...] = (6, 7, 8), **kwargs: Any) -> xr.DataArray:
    made = counts_cube(shape, **kwargs)
    made.attrs |= {"title": "a title", "beam_energy_keV": 200.0, "history": ["read"]}
    return made
