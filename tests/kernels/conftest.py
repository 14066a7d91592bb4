"""Where kernels must run: numpy, numpy that nobody may write to, and the stand-in for a GPU."""

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
    """On "device1" the strict namespace refuses numpy functions and arithmetic with arrays of the CPU, like CuPy."""
    if not isinstance(values, np.ndarray):
        return values
    return array_api_strict.asarray(values, device=array_api_strict.Device("device1"))


@pytest.fixture(params=[_writable, _read_only, _strict], ids=["numpy", "read-only", "device1"])
def put(request: pytest.FixtureRequest) -> Put:
    """Puts a numpy array where a kernel shall run; passes everything else through."""
    made: Put = request.param
    return made
