"""A fixture for tests of kernels with three kinds of arrays: numpy, read-only numpy, and a stand-in for a GPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import array_api_strict
import numpy as np
import pytest

Put = Callable[[Any], Any]


def _writable(values: Any) -> Any:
    return values.copy() if isinstance(values, np.ndarray) else values


def _read_only(values: Any) -> Any:
    if not isinstance(values, np.ndarray):
        return values
    frozen = values.copy()
    frozen.flags.writeable = False
    return frozen


def _strict(values: Any) -> Any:
    """Move an array to "device1", where array_api_strict refuses numpy functions and CPU arrays, as CuPy does."""
    if not isinstance(values, np.ndarray):
        return values
    return array_api_strict.asarray(values, device=array_api_strict.Device("device1"))


@pytest.fixture(params=[_writable, _read_only, _strict], ids=["numpy", "read-only", "device1"])
def put(request: pytest.FixtureRequest) -> Put:
    """A function that converts a numpy array to the kind under test; other values are returned unchanged."""
    made: Put = request.param
    return made
