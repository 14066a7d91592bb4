"""Array libraries and devices: whether numpy, CuPy or another library computes, on the CPU or a GPU.

The library follows from the arguments (``xp = array_namespace(x)``), never from a global setting.
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
    """Return the array-API namespace that all given arrays share.

    Parameters
    ----------
    *arrays : arrays or None
        None entries are ignored.

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
    """Copy an array or a number to host memory as numpy; numpy arrays are returned themselves."""
    if isinstance(x, np.ndarray):
        return x
    if array_api_compat.is_cupy_array(x):
        host: np.ndarray[Any, Any] = x.get()
        return host
    if array_api_compat.is_torch_array(x):
        return np.asarray(x.detach().cpu().numpy())
    if isinstance(x, np.generic) or not array_api_compat.is_array_api_obj(x):
        return np.asarray(x)  # a number
    # Other libraries export arrays on their default device to numpy, and refuse those on others.
    default = array_api_compat.array_namespace(x).__array_namespace_info__().default_device()
    return np.asarray(x if array_api_compat.device(x) == default else array_api_compat.to_device(x, default))


def to_device(x: np.ndarray[Any, Any], device: Device) -> Array:
    """Copy a numpy array to the device of the kernels: itself on ``"cpu"``, a CuPy array on ``"cuda"``."""
    if device == "cpu":
        return x
    return importlib.import_module("cupy").asarray(x)


def is_cupy(x: Array) -> bool:
    """True for arrays on a GPU; does not import CuPy."""
    return bool(array_api_compat.is_cupy_array(x))


def to_device_like(values: np.ndarray[Any, Any], x: Array, dtype: Any) -> Array:
    """Copy a numpy array to the library and device of another array ``x``, with this dtype."""
    return array_api_compat.array_namespace(x).asarray(values, dtype=dtype, device=array_api_compat.device(x))


def resolve_device(device: str) -> Device:
    """Return the device that will be used for the user's choice.

    Parameters
    ----------
    device : {"auto", "cpu", "cuda"}
        ``"auto"`` chooses the GPU when CuPy finds one, and logs its choice at level INFO under the logger ``scalehsi``.

    Raises
    ------
    InputError
        For another word, and for ``"cuda"`` when no GPU can be used: there is no silent fallback.

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
            raise InputError(f"device='cuda' was asked for, but {problem}; type device='cpu' or device='auto'")
        return "cuda"
    chosen: Device = "cpu" if problem else "cuda"
    log.info("device='auto' chose %s%s", chosen, f" ({problem})" if problem else "")
    return chosen


def _cuda_problem() -> str:
    """The reason why the GPU cannot be used, or an empty string."""
    try:
        cupy = importlib.import_module("cupy")
    except ImportError:
        return "CuPy is not installed (pip install 'scalehsi[cuda12]' or 'scalehsi[cuda13]')"
    try:
        count = int(cupy.cuda.runtime.getDeviceCount())
    except cupy.cuda.runtime.CUDARuntimeError as error:
        return f"CuPy finds no usable GPU ({error})"
    return "" if count else "CuPy finds no GPU"
