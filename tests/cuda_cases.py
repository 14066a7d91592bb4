"""Fixtures and helpers for tests of the GPU passes: CuPy or its stand-in, test data, and a comparison of sums."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from numpy.testing import assert_allclose

from scalehsi import arrays
from scalehsi.arrays import Float
from tests.cuda_host import Host

SUMS_OF = {"frobenius": ("N", "M", "C", "norm"), "poisson": ("N", "H", "C", "likelihood")}


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of compiled kernels for the whole session."""
    if shutil.which("g++") is None:
        pytest.skip("needs g++ to compile kernels for the CPU")
    return tmp_path_factory.mktemp("kernels")


@pytest.fixture(params=["stand-in", pytest.param("gpu", marks=pytest.mark.gpu)])
def cupy(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """CuPy, or its stand-in."""
    if request.param == "gpu":
        module = pytest.importorskip("cupy")
        try:
            module.cuda.runtime.getDeviceCount()
        except module.cuda.runtime.CUDARuntimeError:
            pytest.skip("needs an NVIDIA GPU")
        yield module
        return
    yield _in_place(Host(request.getfixturevalue("built")), monkeypatch)


@pytest.fixture
def host(built: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    """The stand-in alone."""
    return _in_place(Host(built), monkeypatch)


def _in_place(host: Host, monkeypatch: pytest.MonkeyPatch) -> Host:
    """Install the stand-in as the module ``cupy``, after xarray has searched for CuPy, which it does only once."""
    xr.DataArray([0.0], coords={"x": [0.0]}, dims="x")
    monkeypatch.setitem(sys.modules, "cupy", host)
    return host


@pytest.fixture
def device(cupy: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """CuPy or its stand-in, which the package then accepts as a usable GPU."""
    if isinstance(cupy, Host):
        monkeypatch.setattr(arrays, "_cuda_problem", lambda: "")
    return cupy


def scene(pixels: int, channels: int, components: int, *, seed: int = 0, level: float = 20.0) -> tuple[Float, Float]:
    """Counts up to 255 (P, E) and endmembers (K, E); the first pixel and the middle channel are empty."""
    rng = np.random.default_rng(seed)
    s = rng.random((components, channels)) ** 4 + 0.01
    x = rng.poisson(rng.gamma(0.7, level, (pixels, components)) @ s).clip(0, 255).astype(np.float64)
    x[0], x[:, channels // 2] = 0, (0 if channels > 1 else x[:, 0])
    return x, s


def assert_close(found: dict[str, Any], wanted: dict[str, Any], names: tuple[str, ...], *, rtol: float) -> None:
    """Compare the entries ``names`` of two dicts, with a tolerance relative to the largest value of each."""
    assert set(names) <= set(found)
    for name in names:
        assert np.shape(found[name]) == np.shape(wanted[name]), name
        scale = np.abs(wanted[name]).max()
        assert_allclose(found[name], wanted[name], rtol=0, atol=rtol * max(scale, 1e-300), err_msg=name)
