"""Energy axes of spectra that the user hands over."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from scalehsi.cube import make_cube, same_axis
from scalehsi.fitting import energy_axis
from scalehsi.schema import InputError

CUBE = make_cube(np.ones((2, 3, 5)), energy=np.arange(5) * 0.5, energy_units="keV")


def spectra(n: int, **coords: object) -> xr.DataArray:
    return xr.DataArray(np.ones((2, n)), dims=("component", "energy"), coords=coords)


@pytest.mark.parametrize("given", [spectra(5), spectra(5, energy=np.arange(5) * 0.5 + 0.04)], ids=["bare", "rounded"])
def test_the_axis_of_the_cube_is_accepted(given: xr.DataArray) -> None:
    energy_axis.check_axis("start", given, CUBE)


def test_other_channels_are_refused_by_name_and_with_the_repair() -> None:
    with pytest.raises(InputError, match=r"start has 4 channels, the cube 5; .*interp\(energy=cube.energy\)"):
        energy_axis.check_axis("start", spectra(4), CUBE)
    with pytest.raises(InputError, match=r"start runs from 0.06 to 2.06, the cube from 0 to 2; .*interp"):
        energy_axis.check_axis("start", spectra(5, energy=np.arange(5) * 0.5 + 0.06), CUBE)


def test_a_single_channel_has_no_step() -> None:
    assert same_axis([1.0], [1.0])
    assert not same_axis([1.0], [1.1])
