"""The command convert."""

from __future__ import annotations

import json

import numpy as np
import pytest

import scalehsi as hsi

pytestmark = pytest.mark.long


def test_convert(run, scene, tmp_path):
    status, out, _ = run("convert", scene / "map.zarr", tmp_path / "c.zarr", "--chunk-mb", "0.004", "--json")
    found = json.loads(out)
    cube = hsi.open_cube(tmp_path / "c.zarr")
    assert status == 0
    assert found["written"] == str(tmp_path / "c.zarr")
    assert found["dtype"] == str(cube.dtype) == "uint8"
    assert cube.data.npartitions > 1
    np.testing.assert_array_equal(cube.values, hsi.open_cube(scene / "map.zarr").values)
