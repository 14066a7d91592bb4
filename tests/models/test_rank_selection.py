"""How many components `select_rank` finds in simulated cubes, and what it refuses."""

from __future__ import annotations

import json
from unittest import mock

import numpy as np
import pytest
import xarray as xr

import scalehsi as hsi
from scalehsi.cube import make_cube
from scalehsi.kernels.statistics.noise_edge import noise_edge
from scalehsi.kernels.subspace.biwhitening import count_above_noise, marchenko_pastur_median, scaled_sums
from tests.fitting.judge.scenes import scene

pytestmark = pytest.mark.long


def plain_cube(values: np.ndarray) -> xr.DataArray:
    return make_cube(values, energy=100.0 + np.arange(values.shape[-1]), energy_units="eV", signal="EELS")


@pytest.mark.parametrize(("kind", "counts"), [("edx", 20.0), ("edx", 100.0), ("eels", 2e3), ("eels", 2e4)])
@pytest.mark.parametrize("k", [1, 2, 4, 6])
def test_the_significant_number_is_that_of_the_phases(kind: str, counts: float, k: int) -> None:
    made = scene(kind, counts, k, seed=41, size=48)
    found = hsi.select_rank(made.cube, halves=False)
    assert found.attrs["significant"] == k
    assert found.attrs["noise_index"] == pytest.approx(1.0, abs=0.03)
    assert json.loads(found.attrs["warnings"]) == []


def test_a_gain_is_measured_and_changes_no_number() -> None:
    found = hsi.select_rank(scene("eels", 2e4, 3, seed=7, size=48, gain=5.0).cube, halves=False)
    assert found.attrs["significant"] == 3
    assert found.attrs["noise_index"] == pytest.approx(5.0, abs=0.1)


def test_both_halves_show_the_phases_and_the_other_criteria_are_beside() -> None:
    made = scene("edx", 100.0, 3, seed=5, size=48)
    found = hsi.select_rank(made.cube, range(1, 6))
    assert [found.attrs[name] for name in ("significant", "resolved", "suggested", "deviance", "malinowski")] == [3] * 5
    scores = found["score"].sel(k=3)
    assert float(scores.sel(criterion="spectra")) > 0.95
    assert float(found["score"].sel(k=4, criterion="maps")) < 0.6
    assert found.attrs["text"] == (
        "3 components are above the noise, 3 come out the same from both halves of the data: take 3."
    )


def test_noise_alone_has_no_component_and_with_a_mean_one() -> None:
    rng = np.random.default_rng(2)
    flat = plain_cube(rng.poisson(3.0, (32, 32, 100)).astype("u1"))
    found = hsi.select_rank(flat, range(1, 4))
    assert (found.attrs["significant"], found.attrs["resolved"]) == (1, 1)
    without = plain_cube(rng.standard_normal((32, 32, 100)).astype("f4"))
    assert hsi.select_rank(without, halves=False).attrs["text"] == "No component is above the noise."


def test_data_with_a_background_taken_off_keep_their_rank() -> None:
    made = scene("eels", 2e4, 3, seed=1, size=48)
    taken = plain_cube((made.counts - made.expected.mean(axis=(0, 1))).astype("f4"))
    found = hsi.select_rank(taken, range(1, 5))
    assert found.attrs["significant"] in (2, 3)
    assert found.attrs["deviance"] == -1
    assert np.isnan(found["score"].sel(criterion="maps")).all()


def test_drift_is_named() -> None:
    drifting = hsi.select_rank(scene("eels", 2e5, 1, seed=3, size=48, drift=0.5).cube, halves=False)
    assert drifting.attrs["significant"] > 1
    (warning,) = json.loads(drifting.attrs["warnings"])
    assert warning["code"] == "drift"
    assert "derivative of the mean spectrum" in warning["text"]


def test_chunks_and_masks_change_nothing_but_what_they_leave_out() -> None:
    made = scene("edx", 100.0, 3, seed=9, size=40).cube
    whole = hsi.select_rank(made, range(1, 4))
    for chunks in ({"y": 7, "x": 11}, {"y": 40, "x": 3}, {"energy": 100, "y": 9}):
        found = hsi.select_rank(made.chunk(chunks), range(1, 4))
        np.testing.assert_allclose(found["eigenvalue"], whole["eigenvalue"], rtol=1e-4)
        np.testing.assert_allclose(found["score"], whole["score"], rtol=2e-2, atol=1e-3)
        assert found.attrs == {
            **whole.attrs,
            "readings": found.attrs["readings"],
            "noise_index": found.attrs["noise_index"],
        }
    mask = xr.DataArray(np.ones((40, 40), dtype=bool), dims=("y", "x"))
    mask[:, 30:] = False
    masked = hsi.select_rank(made.assign_coords(mask=mask), halves=False)
    cut = hsi.select_rank(made.isel(x=slice(0, 30)), halves=False)
    # Bins that begin before the cut and end behind it are in neither.
    np.testing.assert_allclose(masked["eigenvalue"].values[:, :5], cut["eigenvalue"].values[:, :5], rtol=1e-4)


def test_a_cube_that_does_not_fit_is_read_four_times() -> None:
    lazy = scene("edx", 100.0, 2, seed=9, size=48).cube.chunk({"y": 16})
    with mock.patch("scalehsi.blocks.compute.free_memory", return_value=int(1.5 * lazy.nbytes)):
        found = hsi.select_rank(lazy, range(1, 3), halves=False)
    assert found.attrs["readings"] == 4
    assert found.attrs["significant"] == 2


def test_leading_dims_and_line_scans() -> None:
    made = scene("edx", 100.0, 2, seed=9, size=32).cube
    stack = xr.concat(hsi.prepare.thin(made), "time")
    assert hsi.select_rank(stack, halves=False).attrs["significant"] == 2
    line = made.stack(p=("y", "x")).transpose("p", "energy").values[None, :, :]
    assert hsi.select_rank(plain_cube(line), range(1, 3)).attrs["significant"] == 2


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"ranks": range(0, 3)}, "ranks are whole numbers of at least 1"),
        ({"ranks": [1.5]}, "ranks are whole numbers"),
        ({"ranks": []}, "ranks are whole numbers"),
        ({"ranks": [1, 60]}, "60 components are more than half of the 64 pixels or 100 channels; end at 32"),
        ({"size": 7, "ranks": [1]}, "49 pixels are too few"),
        ({"value": np.nan}, "NaN or Inf"),
        ({"scale": 0}, "every value of the cube is zero"),
        ({"denoised": True}, "no noise .* before it was denoised or filtered"),
    ],
    ids=str,
)
def test_refusals(change: dict[str, object], match: str) -> None:
    size = int(change.get("size", 8))  # type: ignore[call-overload]
    values = np.random.default_rng(0).poisson(9.0, (size, size, 100)).astype("f4")
    if "denoised" in change:
        values = np.outer(values.sum(axis=-1), values.sum(axis=(0, 1))).reshape(values.shape).astype("f4")
    if "value" in change:
        values[2, 3, 4] = change["value"]
    cube = plain_cube(values * np.float32(change.get("scale", 1)))  # type: ignore[arg-type]
    with pytest.raises(hsi.InputError, match=match):
        hsi.select_rank(cube, change.get("ranks", [1, 2]))  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(400, 60), (60, 400), (100, 100)])
def test_the_median_of_noise_is_that_of_marchenko_and_pastur(shape: tuple[int, int]) -> None:
    x = np.random.default_rng(1).standard_normal(shape)
    values = np.linalg.svd(x, compute_uv=False) ** 2
    assert np.median(values) == pytest.approx(marchenko_pastur_median(*shape), rel=0.05)
    assert values.max() < 1.05 * noise_edge(*shape)
    assert count_above_noise(values, rows=shape[0], columns=shape[1]).above == 0


def test_scaled_counts_have_rows_and_columns_of_variance_one() -> None:
    rng = np.random.default_rng(0)
    mean = np.outer(rng.uniform(1, 20, 300), rng.uniform(0.2, 3, 80))
    scale = np.ones(80)
    for _ in range(20):
        sums = scaled_sums(mean, scale=scale, weigh_rows=True, moment=False)
        scale = sums["rows"] / sums["columns"]
    u = 80 / (mean @ scale)
    white = u[:, None] * mean * scale
    np.testing.assert_allclose(white.sum(axis=1), 80, rtol=1e-5)
    np.testing.assert_allclose(white.sum(axis=0), 300, rtol=1e-5)
