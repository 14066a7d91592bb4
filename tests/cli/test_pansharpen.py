"""Two acquisitions on the command line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import scalehsi as hsi
from scalehsi.cli import main

pytestmark = pytest.mark.long

SCENE = ("--set", "shape=24,36", "--set", "n_channels=60", "--set", "footprint=4", "--set", "image_counts=100")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two acquisitions, an image and the truth of a scene."""
    folder = tmp_path_factory.mktemp("pair")
    assert main(["simulate", "acquisitions", str(folder / "fine.zarr"), *SCENE, "--quiet"]) == 0
    return folder


def fit(folder: Path, name: str, *words: str) -> int:
    own = ("--model", "pansharpen", "-k", "4", "--set", "remix=false", "--quiet")
    return main(["fit", str(folder / "fine.zarr"), str(folder / name), *own, *words])


def test_simulate_writes_every_acquisition(folder):
    cubes = hsi.simulate.acquisitions((24, 36), n_channels=60, footprint=4, image_counts=100).cubes
    np.testing.assert_array_equal(hsi.open_cube(folder / "fine.zarr"), cubes["spatial"])
    np.testing.assert_array_equal(hsi.open_cube(folder / "fine_spectral.zarr"), cubes["spectral"])
    image = hsi.open_image(folder / "fine_image.zarr")
    np.testing.assert_array_equal(image, cubes["image"])
    np.testing.assert_allclose(image["x"], cubes["image"]["x"])


def test_fit_is_that_of_python(folder):
    words = ("--spectral", str(folder / "fine_spectral.zarr"), "--image", str(folder / "fine_image.zarr"))
    assert fit(folder, "result.zarr", *words, "--report", str(folder / "page")) == 0
    data = {
        "spatial": hsi.open_cube(folder / "fine.zarr"),
        "spectral": hsi.open_cube(folder / "fine_spectral.zarr"),
        "image": hsi.open_image(folder / "fine_image.zarr"),
    }
    direct = hsi.fit(data, hsi.PanSharpen(4, remix=False), seed=0)
    result = hsi.open_result(folder / "result.zarr")
    np.testing.assert_array_equal(result["abundances"], direct["abundances"])
    assert "fine_spectral.zarr" in result.attrs["sources"]
    assert "fine_image.zarr" in result.attrs["sources"]
    assert (folder / "page" / "registration.png").is_file()
    assert main(["reconstruct", str(folder / "result.zarr"), str(folder / "fused.zarr"), "--quiet"]) == 0
    assert hsi.open_cube(folder / "fused.zarr").shape == (24, 36, 60)


def test_plan_takes_both_cubes(answer, folder):
    spectral = folder / "fine_spectral.zarr"
    found = answer("plan", folder / "fine.zarr", "--model", "pansharpen", "-k", "4", "--spectral", spectral)
    assert found["model"] == "PanSharpen"
    assert found["passes"] == 4


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--model", "pansharpen"), "PanSharpen takes a spectral cube beside the spatial one; add --spectral CUBE"),
        (
            ("--spectral", "fine_spectral.zarr"),
            "NMF does not take --spectral; leave it out, or fit with --model pansharpen",
        ),
        (("--image", "fine_image.zarr"), "NMF does not take --image; leave it out"),
        (("--model", "pansharpen", "--spectral", "fine_image.zarr"), "fine_image.zarr"),
        (
            ("--model", "pansharpen", "--spectral", "fine_spectral.zarr", "--image", "fine.zarr"),
            "holds no image, a variable of dims ('y', 'x')",
        ),
    ],
    ids=str,
)
def test_what_is_wrong_is_said_in_one_line(folder, monkeypatch, capsys, words, said):
    monkeypatch.chdir(folder)
    assert main(["fit", "fine.zarr", "bad.zarr", "-k", "4", *words]) == 2
    error = capsys.readouterr().err.strip()
    assert said in error
    assert len(error.splitlines()) == 1
    assert not (folder / "bad.zarr").exists()
