"""The stack of maps under the beam: lazy, the same for any chunks, and its truth is its expectation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from scalehsi import simulate
from scalehsi.schema import InputError


def test_chunks_do_not_change_the_data_and_large_stacks_are_lazy() -> None:
    whole = simulate.tensor_stack((20, 14), frames=3, seed=4, rate_spread=0.3, drift=0.5).cube
    parts = simulate.tensor_stack((20, 14), frames=3, seed=4, rate_spread=0.3, drift=0.5, chunk=(7, 5)).cube
    np.testing.assert_array_equal(parts.values, whole.values)
    assert whole.chunks is not None
    assert whole.chunks[0] == (1, 1, 1)
    large = simulate.tensor_stack((8_000, 6_000), frames=4).cube
    assert large.sizes == {"frame": 4, "y": 8_000, "x": 6_000, "energy": 104}
    assert large[3, 7_900, 5_900].compute().sum() > 0
    assert not np.array_equal(whole[0], whole[1])


def test_the_truth_is_the_expectation() -> None:
    cube, truth = simulate.tensor_stack((24, 24), frames=4, counts_per_pixel=1e4, seed=2)
    expected = (truth["abundances"] * truth["endmembers"] * truth["frame_factors"]).sum("component")
    chi = (cube - expected) / np.sqrt(expected)
    assert abs(float(chi.mean())) < 0.01
    assert float(chi.std()) == pytest.approx(1.0, abs=0.01)
    np.testing.assert_allclose(truth["frame_factors"].mean("frame"), 1.0)
    np.testing.assert_allclose(truth["abundances"].sum("component"), 1.0, rtol=1e-6)
    assert float(cube.sum("energy").mean()) == pytest.approx(1e4, rel=0.1)


def test_a_drift_moves_the_maps_and_rates_vary_on_request() -> None:
    still, moved = (simulate.tensor_stack((16, 40), frames=3, counts_per_pixel=1e5, drift=d).cube for d in (0.0, 4.0))
    np.testing.assert_array_equal(moved[0], still[0])
    a, b = (np.asarray(cube[2].sum("energy"), dtype=float) for cube in (still, moved))
    ahead, beside = np.corrcoef(a[:, :-8].ravel(), b[:, 8:].ravel()), np.corrcoef(a.ravel(), b.ravel())
    assert ahead[0, 1] > 0.98 > beside[0, 1]
    varied = simulate.tensor_stack((16, 40), frames=3, counts_per_pixel=1e5, rate_spread=0.5).cube
    np.testing.assert_array_equal(varied[0], still[0])
    assert float(abs(varied[2].astype(float) - still[2]).max()) > 200


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"frames": 1}, "frames must be a whole number of at least 2, got 1"),
        ({"rate_spread": 1.0}, "rate_spread must be a number from 0 to 0.9"),
        ({"purity": 0}, "purity must be a number above 0"),
        ({"drift": "far"}, "drift must be a number of pixels a frame, got 'far'"),
        ({"shape": (4,)}, "shape must be two whole numbers"),
    ],
)
def test_settings_out_of_range_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        simulate.tensor_stack(**wrong)
