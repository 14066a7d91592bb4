"""Array namespaces and devices: which library computes, and where.

The namespace always comes from the arguments (``xp = array_namespace(x)``), never from a global switch.
"""

from __future__ import annotations

import importlib
import logging
from typing import Any, Final, Literal

import array_api_compat
import numpy as np

from scalehsi.schema import InputError, suggest

Device = Literal["cpu", "cuda"]
Array = Any
"""An array of any supported library: numpy, CuPy, torch or another array-API implementation."""
NumpyArray = np.ndarray[Any, Any]
Float = np.ndarray[Any, np.dtype[np.float64]]
Int = np.ndarray[Any, np.dtype[np.int64]]
Bool = np.ndarray[Any, np.dtype[np.bool_]]

DEVICES: Final = ("auto", "cpu", "cuda")

log = logging.getLogger("scalehsi")


def array_namespace(*arrays: Array) -> Any:
    """Give the array-API namespace that all the given arrays share.

    Parameters
    ----------
    *arrays : arrays or None
        None entries are passed over.

    Raises
    ------
    TypeError
        When the arrays come from different libraries.

    Examples
    --------
    >>> array_namespace(np.ones(3)).__name__.split(".")[-1]
    'numpy'
    """
    return array_api_compat.array_namespace(*[a for a in arrays if a is not None])


def to_host(x: Array) -> np.ndarray[Any, Any]:
    """Bring an array or a number to host memory as numpy (no copy when it is there already)."""
    if isinstance(x, np.ndarray):
        return x
    if array_api_compat.is_cupy_array(x):
        host: np.ndarray[Any, Any] = x.get()
        return host
    if array_api_compat.is_torch_array(x):
        return np.asarray(x.detach().cpu().numpy())
    if isinstance(x, np.generic) or not array_api_compat.is_array_api_obj(x):
        return np.asarray(x)  # a number
    # Other libraries hand numpy what lies on their default device, and refuse the rest.
    default = array_api_compat.array_namespace(x).__array_namespace_info__().default_device()
    return np.asarray(x if array_api_compat.device(x) == default else array_api_compat.to_device(x, default))


def to_device(x: np.ndarray[Any, Any], device: Device) -> Array:
    """Put a numpy array where the kernels run: itself on ``"cpu"``, a CuPy array on ``"cuda"``."""
    if device == "cpu":
        return x
    return importlib.import_module("cupy").asarray(x)


def is_cupy(x: Array) -> bool:
    """True for arrays on a GPU; CuPy is not imported to find out."""
    return bool(array_api_compat.is_cupy_array(x))


def to_device_like(values: np.ndarray[Any, Any], x: Array, dtype: Any) -> Array:
    """Put a numpy array beside another array: the same library and device."""
    return array_api_compat.array_namespace(x).asarray(values, dtype=dtype, device=array_api_compat.device(x))


def resolve_device(device: str) -> Device:
    """Turn the user's choice into the device that will be used.

    Parameters
    ----------
    device : {"auto", "cpu", "cuda"}
        ``"cpu"`` and ``"cuda"`` are taken at their word. ``"auto"`` takes the GPU when CuPy finds one and logs
        what it chose at level INFO under the logger ``scalehsi``.

    Raises
    ------
    InputError
        For another word, and for ``"cuda"`` when no GPU is usable: there is no silent fallback.

    Examples
    --------
    >>> resolve_device("cpu")
    'cpu'
    """
    if device not in DEVICES:
        raise InputError(f"device {device!r} is not known; {suggest(device, DEVICES)}")
    if device == "cpu":
        return "cpu"
    problem = _cuda_problem()
    if device == "cuda":
        if problem:
            raise InputError(f"device='cuda' was asked for, but {problem}; use device='cpu' or device='auto'")
        return "cuda"
    chosen: Device = "cpu" if problem else "cuda"
    log.info("device='auto' chose %s%s", chosen, f" ({problem})" if problem else "")
    return chosen


def _cuda_problem() -> str:
    """Why the GPU cannot be used, or an empty string when it can."""
    try:
        cupy = importlib.import_module("cupy")
    except ImportError:
        return "CuPy is not installed (pip install 'scalehsi[cuda12]' or 'scalehsi[cuda13]')"
    try:
        count = int(cupy.cuda.runtime.getDeviceCount())
    except cupy.cuda.runtime.CUDARuntimeError as error:
        return f"CuPy finds no usable GPU ({error})"
    return "" if count else "CuPy finds no GPU"
