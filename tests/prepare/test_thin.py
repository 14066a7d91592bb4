"""Counts divided at random between two cubes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from scalehsi import prepare
from scalehsi.cube import make_cube
from scalehsi.schema import InputError
from tests.helpers import counts_cube
from tests.prepare.cubes import Step, cube
from tests.strategies import Case, cases

pytestmark = pytest.mark.long


@given(case=cases(dtypes=("u1", "u2")), fraction=st.floats(0.05, 0.95), seed=st.integers(0, 2**33))
def test_the_parts_make_the_cube_whatever_the_chunks(case: Case, fraction: float, seed: int) -> None:
    kept, rest = prepare.thin(case.cube, fraction=fraction, seed=seed)
    assert_array_equal(kept.values.astype(int) + rest.values, case.counts)
    assert kept.dtype == rest.dtype == case.counts.dtype
    plain = make_cube(case.counts, energy=case.cube.energy.values, energy_units="keV")
    assert_array_equal(kept, prepare.thin(plain, fraction=fraction, seed=seed)[0])
    if "mask" in case.cube.coords:
        assert_array_equal(kept["mask"], case.used)


def test_a_chance_is_the_share_of_the_counts_that_is_kept() -> None:
    given_ = counts_cube((40, 40, 50))
    kept, rest = prepare.thin(given_, fraction=0.2, seed=1)
    assert float(kept.sum()) == pytest.approx(0.2 * float(given_.sum()), rel=0.01)
    assert kept.attrs["history"][-1] == "thin(fraction=0.2, seed=1), kept"
    assert rest.attrs["history"][-1] == "thin(fraction=0.2, seed=1), rest"
    assert not np.array_equal(kept, prepare.thin(given_, fraction=0.2, seed=2)[0])


@pytest.mark.parametrize(
    ("change", "fraction", "message"),
    [
        (lambda c: c.astype("f4"), 0.5, r"thin: .* unsigned integers, got float32; type cube.astype\('uint16'\)"),
        (lambda c: c.astype("i4"), 0.5, "unsigned integers, got int32"),
        (lambda c: c, 0.0, "thin: fraction=0.0; a number between 0 and 1 is expected"),
        (lambda c: c, 1, "thin: fraction=1; a number between 0 and 1"),
        (lambda c: c, True, "thin: fraction=True"),
        (lambda c: c, "half", "thin: fraction='half'"),
        (lambda c: c, math.nan, "thin: fraction=nan"),
    ],
)
def test_thin_takes_counts_and_a_chance(change: Step, fraction: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        prepare.thin(change(cube()), fraction=fraction)
