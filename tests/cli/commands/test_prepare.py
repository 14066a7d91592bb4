"""The command prepare: steps in their order, and masks."""

from __future__ import annotations

import json

import numpy as np
import pytest

import scalehsi as hsi

pytestmark = pytest.mark.long


def test_prepare_does_the_steps_in_order(run, scene, tmp_path):
    words = (
        "prepare",
        scene / "map.zarr",
        tmp_path / "p.zarr",
        "--step",
        "crop:energy=300:600",
        "--step",
        "bin:y=2,x=2",
    )
    status, out, err = run(*words, "--json")
    cube = hsi.open_cube(tmp_path / "p.zarr")
    expected = hsi.prepare.bin(hsi.prepare.crop(hsi.open_cube(scene / "map.zarr"), energy=(300, 600)), y=2, x=2)
    assert status == 0
    np.testing.assert_array_equal(cube.values, expected.values)
    assert cube.attrs["history"][-2:] == ["crop(energy=300:600)", "bin(y=2, x=2)"]
    assert json.loads(out)["shape"] == list(cube.shape)
    assert err.index("did crop(energy=300:600)") < err.index("did bin(y=2, x=2)")


def test_prepare_stores_a_mask(answer, scene, tmp_path):
    totals = hsi.open_cube(scene / "map.zarr").sum("energy").values
    threshold = int(np.median(totals))
    answer("prepare", scene / "map.zarr", tmp_path / "m.zarr", "--step", f"mask:min_counts={threshold}")
    np.testing.assert_array_equal(hsi.open_cube(tmp_path / "m.zarr").mask, totals >= threshold)
