"""The command compare."""

from __future__ import annotations

import json

import numpy as np
import pytest

import scalehsi as hsi
from scalehsi.io import open_dataset

pytestmark = pytest.mark.long


def test_compare(run, scene):
    status, out, err = run("compare", scene / "map_truth.zarr", scene / "result.zarr", scene / "result.zarr", "--json")
    found = json.loads(out)
    result, truth = hsi.open_result(scene / "result.zarr"), open_dataset(scene / "map_truth.zarr")
    scores = hsi.metrics.score(result, truth)
    assert status == 0
    assert len(found["results"]) == 2
    rows = found["results"][0]["components"]
    assert [row["name"] for row in rows] == ["C", "TiO2", "CrN", "Fe3O4"]
    assert [row["spectral_angle"] for row in rows] == scores["spectral_angle"].values.tolist()
    degrees = np.degrees(scores["spectral_angle"].values)
    assert [row["spectral_angle_deg"] for row in rows] == pytest.approx(degrees.tolist())
    line = next(line for line in err.splitlines() if line.startswith("TiO2"))
    assert f"{degrees[1]:.2f}°" in line
    assert f"{scores['map_similarity'].values[1]:.3f}" in line
