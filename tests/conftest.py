"""Fixtures and settings that all tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
import xarray as xr
from hypothesis import HealthCheck, settings

from tests.cuda_cases import built, cupy, device, host  # noqa: F401 - fixtures
from tests.helpers import counts_cube, random_mask

settings.register_profile(
    "default",
    max_examples=25,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.register_profile("thorough", settings.get_profile("default"), max_examples=500)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


@pytest.fixture
def small_cube() -> xr.DataArray:
    """Counts of shape (12, 10, 8) in memory, about a third of the pixels masked."""
    return counts_cube((12, 10, 8), mask=random_mask((12, 10)))


@pytest.fixture(scope="session")
def two_processes() -> Iterator[Any]:
    """A local cluster of two worker processes, started once."""
    import dask
    from distributed import Client, LocalCluster

    options = {
        # The scheduler's own logs grow up to their limit; a small one lets tests see what else grows.
        "distributed.admin.low-level-log-length": 100,
        # A killed worker may take long to restart on a busy machine; after 15 s its nanny would be closed.
        "distributed.deploy.lost-worker-timeout": "300s",
    }
    with dask.config.set(options):
        cluster = LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
            worker_dashboard_address="127.0.0.1:0",
            memory_limit="1GiB",
        )
        with cluster, Client(cluster, set_as_default=False) as client:
            yield client


@pytest.fixture
def client(two_processes: Any) -> Iterator[Any]:
    """The client of two worker processes, current while the test runs; mark the test ``cluster``."""
    two_processes.wait_for_workers(2, timeout=300)
    with two_processes.as_current():
        yield two_processes


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests of emulated CUDA kernels, and run those that start processes first.

    pytest-xdist keeps the tests of a file in one process (``--dist loadfile``), so that its fixtures and compiled
    kernels are made once.
    """
    for item in items:
        if {"host", "cupy"} & set(getattr(item, "fixturenames", ())) or "nvcc" in item.name:
            item.add_marker(pytest.mark.emulated)
    items.sort(key=lambda item: item.get_closest_marker("cluster") is None)
