"""The command edges: the maps of the library, a store, a figure, and how it refuses."""

from __future__ import annotations

import numpy as np
import pytest

import scalehsi as hsi
from scalehsi.io import open_dataset
from tests.prepare.eels import edge_cube
from tests.refusals import refused

pytestmark = pytest.mark.long


@pytest.fixture
def cube(tmp_path):
    hsi.save(edge_cube(), tmp_path / "map.zarr")
    return tmp_path / "map.zarr"


def test_edges_are_mapped_stored_and_drawn(answer, run, cube, tmp_path):
    found = answer("edges", cube, tmp_path / "maps.zarr", "--figure", tmp_path / "maps.png")
    want = hsi.quantify.edge_maps(edge_cube())
    stored = open_dataset(tmp_path / "maps.zarr")
    np.testing.assert_array_equal(stored["net"].values, want["net"].values)
    assert found["edges"]["O K"]["mean_net"] == pytest.approx(float(want["net"].mean()), rel=1e-5)
    assert (tmp_path / "maps.png").read_bytes().startswith(b"\x89PNG")
    status, _, err = run("edges", cube, "--edge", "O K=532:590", "--background", "440:525", "--json")
    assert status == 0
    line = next(line for line in err.splitlines() if line.startswith("O K"))
    assert "440 to 525 eV" in line
    assert "532 to 590 eV" in line


def test_the_step_background_is_that_of_the_library(answer, cube, tmp_path):
    answer("prepare", cube, tmp_path / "net.zarr", "--step", "background:fit=440:525,share=3")
    stored = hsi.open_cube(tmp_path / "net.zarr")
    want = hsi.prepare.remove_background(edge_cube(), (440, 525), share=3)
    np.testing.assert_allclose(stored.values, want.values, rtol=1e-6)
    assert stored.attrs["history"][-1] == want.attrs["history"][-1]
    np.testing.assert_array_equal(stored["background_misfit"].values, want["background_misfit"].values)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--background", "300:350", "--edge", "O K=532:590"), "--background 300:350 is outside the axis"),
        (("--edge", "O K=532:x"), "--edge '532:x': a range is expected, such as 880:920"),
        (("--edge", "O K", "--edge", "C K=1:2"), "give all edges a window"),
        (("--figure", "a.jpg"), "a figure of maps ends in .png"),
        (("--elements", "Cu"), "no edge of Cu lies from 400 to 699 eV"),
    ],
)
def test_wrong_words_are_refused(capsys, cube, words, message):
    assert message in refused(capsys, ["edges", str(cube), *words])
