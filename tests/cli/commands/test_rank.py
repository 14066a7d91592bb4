"""The command rank."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.long


def test_the_number_of_components_and_the_reason(run, answer, scene, tmp_path):
    found = answer("rank", scene / "map.zarr", "--most", "5", "--figure", tmp_path / "rank.png")
    assert found["significant"] == 4
    assert found["k"] == [1, 2, 3, 4, 5]
    assert found["eigenvalue"]["1"][3] > 1 > found["eigenvalue"]["1"][4]
    assert (tmp_path / "rank.png").read_bytes().startswith(b"\x89PNG")
    status, out, err = run("rank", scene / "map.zarr", "--most", "5", "--figure", tmp_path / "rank.png")
    assert status == 2
    assert "exists" in err
    status, out, _ = run("rank", scene / "map.zarr", "--most", "5")
    assert status == 0
    assert out.startswith("map.zarr: 4 components are above the noise")
    assert "Above noise, 2 x 2 pixels" in out


def test_a_wrong_figure_is_refused(run, scene, tmp_path):
    status, _, err = run("rank", scene / "map.zarr", "--figure", tmp_path / "rank.txt")
    assert status == 2
    assert "a figure ends in .png, .pdf, .svg" in err
