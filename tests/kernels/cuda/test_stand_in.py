"""Tests of the stand-in for a GPU: it detects missing barriers, and barriers that not all threads reach."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from scalehsi.kernels import cuda
from scalehsi.kernels.pixel_rows.sparse_counts import Counts
from tests.cuda_cases import SUMS_OF, scene
from tests.cuda_host import Host

pytestmark = pytest.mark.long


@pytest.mark.parametrize(
    ("which", "channels", "components"),
    [("frobenius", 90, 6), ("frobenius", 600, 20), ("poisson", 60, 6), ("poisson", 50, 12)],
)
def test_no_order_of_threads_and_blocks_changes_a_bit(
    built: Path, monkeypatch: pytest.MonkeyPatch, which: str, channels: int, components: int
) -> None:
    """With a missing barrier this fails: the first warp overwrites a value before another has read it."""
    x, s = scene(700 if which == "frobenius" else 90, channels, components)
    found = []
    for backwards in (False, True):
        monkeypatch.setitem(sys.modules, "cupy", host := Host(built, backwards=backwards))
        if which == "frobenius":
            found.append(cuda.frobenius_update(host.asarray(x.astype("f4")), s=s, weigh_pixels=True)[1])
        else:
            found.append(cuda.poisson_update(Counts.from_dense(x.astype("u1")), s=s)[1])
    for name in SUMS_OF[which]:
        assert_array_equal(found[0][name], found[1][name])


@pytest.mark.parametrize(
    ("kernel", "problem"),
    [
        ("if (threadIdx.x < 7) return; __syncthreads(); out[0] = 1;", "wait for others that have left"),
        ("if (threadIdx.x % 32 < 7) __syncwarp(); else __syncthreads(); out[0] = 1;", "wait for others"),
        (
            "if (threadIdx.x % 2) __syncwarp(); else __ballot_sync(0xffffffffu, true); out[0] = 1;",
            "different exchanges",
        ),
    ],
)
def test_the_stand_in_finds_barriers_that_would_hang(host: Host, kernel: str, problem: str) -> None:
    text = f'extern "C" __global__ void wrong(double* out) {{ {kernel} }}'
    wrong = host.RawModule(code=text, options=("-std=c++17",)).get_function("wrong")
    with pytest.raises(AssertionError, match=problem):
        wrong((1,), (64,), (np.zeros(1),), shared_mem=0)


def test_the_stand_in_shows_a_missing_barrier(built: Path) -> None:
    text = """extern "C" __global__ void wrong(double* out) {
        __shared__ double all[64];
        all[threadIdx.x] = threadIdx.x + blockIdx.x;
        out[blockIdx.x * 64 + threadIdx.x] = all[63 - threadIdx.x];
    }"""
    found = []
    for backwards in (False, True):
        kernel = Host(built, backwards=backwards).RawModule(code=text, options=("-std=c++17",)).get_function("wrong")
        found.append(np.zeros(128))
        kernel((2,), (64,), (found[-1],), shared_mem=0)
    assert (found[0] != found[1]).any()
