"""PSNMF on the command line: every command takes its results."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import scalehsi as hsi
from scalehsi.cli import main
from scalehsi.io import open_dataset

pytestmark = pytest.mark.long

SETTINGS = ("--set", "bin_factor=12", "--set", "settings=paper")


@pytest.fixture(scope="module")
def minerals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a map of minerals, its truth, and results by the paper, by default, and by PCA."""
    folder = tmp_path_factory.mktemp("minerals")
    scene = ("--set", "shape=72,60", "--set", "n_channels=500", "--set", "seed=3")
    commands = [
        ("simulate", "phases", folder / "map.zarr", *scene),
        ("fit", folder / "map.zarr", folder / "paper.zarr", "--model", "psnmf", "-k", "3", *SETTINGS),
        ("fit", folder / "map.zarr", folder / "result.zarr", "--model", "psnmf", "-k", "3"),
        ("fit", folder / "map.zarr", folder / "pca.zarr", "--model", "pca", "-k", "3"),
    ]
    for words in commands:
        assert main([*map(str, words), "--quiet"]) == 0
    return folder


def test_fit_by_the_paper_is_that_of_python(minerals):
    result = hsi.open_result(minerals / "paper.zarr")
    direct = hsi.fit(hsi.open_cube(minerals / "map.zarr"), hsi.PSNMF(3, bin_factor=12, settings="paper"), seed=0)
    np.testing.assert_array_equal(result["endmembers"].values, direct["endmembers"].values)
    np.testing.assert_array_equal(result["abundances"].values, direct["abundances"].values)
    assert result["bin_factor"].values.tolist() == [12, 12]
    assert json.loads(result.attrs["settings"])["settings"] == "paper"
    assert "bin_score" not in result


def test_bins_that_were_compared_are_in_the_result(minerals):
    result = hsi.open_result(minerals / "result.zarr")
    scan = hsi.scan_bins(hsi.open_cube(minerals / "map.zarr"), n_components=3, seed=0)
    for name in ("score", "score_error", "stability"):
        np.testing.assert_allclose(result[f"bin_{name}"], scan[name], rtol=1e-6, atol=1e-9)
    assert result["bin"].values.tolist() == scan["bin"].values.tolist()
    assert result["bin_factor"].values[0] in scan["bin"].values


def test_plan_counts_its_passes(answer, minerals):
    found = answer("plan", minerals / "map.zarr", "--model", "psnmf", "-k", "3", *SETTINGS)
    assert found["model"] == "PSNMF"
    assert found["passes"] >= 2


def test_compare_scores_what_metrics_score(answer, minerals):
    found = answer("compare", minerals / "map_truth.zarr", minerals / "paper.zarr", minerals / "result.zarr")
    truth = open_dataset(minerals / "map_truth.zarr")
    for name, each in zip(("paper", "result"), found["results"], strict=True):
        scores = hsi.metrics.score(hsi.open_result(minerals / f"{name}.zarr"), truth)
        angles = [row["spectral_angle_deg"] for row in each["components"]]
        np.testing.assert_allclose(angles, np.degrees(scores["spectral_angle"]))
        assert [row["name"] for row in each["components"]] == ["Brg", "Fp", "CaPv"]
        assert sorted(row["matched"] for row in each["components"]) == [1, 2, 3]


@pytest.mark.parametrize("name", ["paper", "result"])
def test_project_onto_its_own_cube_gives_its_own_maps(answer, minerals, tmp_path, name):
    answer("project", minerals / f"{name}.zarr", minerals / "map.zarr", tmp_path / "p.zarr")
    one, two = hsi.open_result(minerals / f"{name}.zarr"), hsi.open_result(tmp_path / "p.zarr")
    np.testing.assert_allclose(two["abundances"].values, one["abundances"].values, atol=1e-6)
    np.testing.assert_array_equal(two["endmembers"].values, one["endmembers"].values)
    answer("reconstruct", tmp_path / "p.zarr", tmp_path / "r.zarr")
    cube = hsi.open_cube(tmp_path / "r.zarr")
    expected = np.einsum("kyx,ke->yxe", one["abundances"].values, one["endmembers"].values)
    np.testing.assert_allclose(cube.values, expected, rtol=1e-4, atol=1e-5)


def test_info_and_report_of_a_result(answer, run, minerals, tmp_path):
    assert answer("info", minerals / "result.zarr")["model"] == "PSNMF"
    page = Path(answer("report", minerals / "result.zarr", tmp_path / "page")["report"])
    text = page.read_text()
    several = hsi.open_result(minerals / "result.zarr").sizes["bin"] > 1
    assert ("How large should the bins be?" in text) == several
    assert "Effect of denoising" not in text


def test_report_sets_other_methods_beside(answer, run, minerals, tmp_path):
    words = ("report", minerals / "result.zarr", tmp_path / "page", "--truth", minerals / "map_truth.zarr")
    beside = ("--beside", f"The paper={minerals / 'paper.zarr'}", "--beside", minerals / "pca.zarr")
    page = Path(answer(*words, *beside, "--cube", minerals / "map.zarr", "--line", "Nd La")["report"])
    text = page.read_text()
    for said in (
        "Comparison with other methods",
        "<td>The paper</td><td>hsi.PSNMF(3, bin_factor=12, ",
        "pca",
        "Nd Lα (5.168 to 5.288 keV)",
    ):
        assert said in text, said
    status, _, err = run(*words, "--overwrite", "--line", "Nd La")
    assert status == 2
    assert "--line 'Nd La' is drawn from the cube, as measured and as denoised; give --cube too" in err
    status, _, err = run(*words, "--overwrite", *beside, "--beside", minerals / "pca.zarr")
    assert status == 2
    assert "--beside gives 'pca' twice" in err
    assert page.is_file()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (("bin_factor=100",), "bin_factor=100 is more than the 72 x 60 pixels of the map; take smaller bins"),
        (("bin_factor=2.5",), "bin_factor is 'auto', a whole number of at least 1 or two of them (y, x), got 2.5"),
        (("settings=papr",), "did you mean 'paper'?"),
        (("settings=paper", "smoothing=1"), "settings=paper sets smoothing itself"),
    ],
)
def test_wrong_settings_are_said_in_a_line(run, minerals, tmp_path, settings, words):
    given = [word for setting in settings for word in ("--set", setting)]
    status, _, err = run("fit", minerals / "map.zarr", tmp_path / "r.zarr", "--model", "psnmf", "-k", "3", *given)
    assert status == 2
    assert words in err
    assert not (tmp_path / "r.zarr").exists()
