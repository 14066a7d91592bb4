"""What the tests of figures share."""

from __future__ import annotations

import pytest
import xarray as xr

from tests.report.results import eds_result


@pytest.fixture
def good() -> xr.Dataset:
    """A good NMF result of a simulated EDS map."""
    return eds_result()[0]
