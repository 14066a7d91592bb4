"""Namespaces and devices: the library follows from the arguments, and there is no silent fallback."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import array_api_strict as strict
import numpy as np
import pytest

from scalehsi import arrays
from scalehsi.arrays import array_namespace, resolve_device, to_device, to_host
from scalehsi.schema import InputError


def test_the_namespace_is_that_of_the_arrays() -> None:
    assert array_namespace(np.ones(2), None).asarray([1]).__class__ is np.ndarray
    assert array_namespace(strict.ones(2)) is strict
    with pytest.raises(TypeError, match=r"[Mm]ultiple namespaces"):
        array_namespace(np.ones(2), strict.ones(2))


def test_arrays_on_the_host_are_not_copied() -> None:
    x = np.arange(6).reshape(2, 3)[:, 1:]
    assert to_host(x) is x
    assert to_device(x, "cpu") is x


@pytest.mark.parametrize("device", ["CPU_DEVICE", "device1"])
def test_arrays_of_another_device_are_copied_to_the_host(device: str) -> None:
    host = to_host(strict.asarray([[1.5, 2.5]], device=strict.Device(device)))
    assert type(host) is np.ndarray
    assert host.tolist() == [[1.5, 2.5]]


@pytest.mark.parametrize("number", [3, 2.5, True, np.int8(3), np.float32(2.5)])
def test_numbers_are_copied_to_the_host_as_arrays_without_dims(number: Any) -> None:
    host = to_host(number)
    assert type(host) is np.ndarray
    assert host.shape == ()
    assert host == number
    assert host.dtype == np.asarray(number).dtype


def test_torch_tensors_are_copied_to_the_host() -> None:
    torch = pytest.importorskip("torch")
    host = to_host(torch.ones(2, requires_grad=True))
    assert type(host) is np.ndarray
    assert host.tolist() == [1.0, 1.0]


# Devices.


class CUDARuntimeError(RuntimeError):
    """What CuPy raises without a driver."""


def cupy_with(monkeypatch: pytest.MonkeyPatch, count: int | None) -> None:
    """Replace CuPy by one that finds this many GPUs; None: it finds no driver."""

    def devices() -> int:
        if count is None:
            raise CUDARuntimeError("no driver")
        return count

    runtime = SimpleNamespace(getDeviceCount=devices, CUDARuntimeError=CUDARuntimeError)
    fake = SimpleNamespace(cuda=SimpleNamespace(runtime=runtime), asarray=lambda x: ("on the GPU", x))
    monkeypatch.setattr(arrays.importlib, "import_module", lambda name: fake)


def without_cupy(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(arrays.importlib, "import_module", missing)


def test_a_gpu_is_taken_when_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    cupy_with(monkeypatch, 2)
    assert resolve_device("cuda") == "cuda"
    assert resolve_device("cpu") == "cpu"
    assert resolve_device("auto") == "cuda"
    x = np.ones(2)
    assert to_device(x, "cuda") == ("on the GPU", x)


def test_auto_says_what_it_chose(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    cupy_with(monkeypatch, 0)
    with caplog.at_level(logging.INFO, logger="scalehsi"):
        assert resolve_device("auto") == "cpu"
    assert caplog.messages == ["device='auto' chose cpu (CuPy finds no GPU)"]


@pytest.mark.parametrize(
    ("count", "match"), [(0, "CuPy finds no GPU"), (None, r"CuPy finds no usable GPU \(no driver\)")]
)
def test_cuda_without_a_gpu_is_an_error(monkeypatch: pytest.MonkeyPatch, count: int | None, match: str) -> None:
    cupy_with(monkeypatch, count)
    with pytest.raises(InputError, match=f"device='cuda' was asked for, but {match}; type device='cpu' or"):
        resolve_device("cuda")


def test_cuda_without_cupy_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    without_cupy(monkeypatch)
    with pytest.raises(InputError, match=r"pip install 'scalehsi\[cuda12\]'"):
        resolve_device("cuda")
    assert resolve_device("auto") == "cpu"


def test_an_unknown_device_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(InputError, match="device 'cudda' is not known; did you mean 'cuda'"):
        resolve_device("cudda")
