"""The latent space and its clusters: scikit-learn as the oracle, unaltered mean spectra, labels that are right."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from scipy.optimize import linear_sum_assignment

import scalehsi as hsi
from scalehsi.networks.clusters import assign, bayes_information, fit_clusters
from scalehsi.schema import InputError
from tests.networks.scenes import board

torch = pytest.importorskip("torch")
mixture = pytest.importorskip("sklearn.mixture")
pytestmark = pytest.mark.long

MODELS = {
    "pca": hsi.LatentAE(3, encoder="pca"),
    "dense": hsi.LatentAE(3, epochs=12),
    "variational": hsi.LatentAE(3, epochs=12, variational=True),
}


@pytest.fixture(scope="module")
def scene() -> tuple[xr.DataArray, xr.Dataset]:
    return board()


@pytest.fixture(scope="module")
def results(scene: Any) -> dict[str, xr.Dataset]:
    return {name: hsi.fit(scene[0], model, seed=1) for name, model in MODELS.items()}


def accuracy(result: xr.Dataset, truth: xr.Dataset) -> float:
    """Share of right labels among pixels purer than 0.6."""
    maps, label = truth["abundances"].values, result["labels"].values
    pure = maps.max(axis=0) > 0.6
    hits = np.array([[((label == i) & (maps.argmax(axis=0) == j) & pure).sum() for j in range(3)] for i in range(3)])
    return float(hits[linear_sum_assignment(-hits)].sum() / pure.sum())


@pytest.mark.parametrize(("name", "least"), [("pca", 0.97), ("dense", 0.85), ("variational", 0.85)])
def test_labels_are_right(scene: Any, results: dict[str, xr.Dataset], name: str, least: float) -> None:
    assert accuracy(results[name], scene[1]) >= least


@pytest.mark.parametrize("name", MODELS)
def test_mean_spectra_are_those_of_the_unaltered_data(scene: Any, results: dict[str, xr.Dataset], name: str) -> None:
    result, data = results[name], scene[0].values.astype(float)
    for k in range(3):
        spectra = data[result["labels"].values == k]
        np.testing.assert_allclose(result["endmembers"][k], spectra.mean(axis=0), rtol=1e-12)
        error = spectra.std(axis=0, ddof=1) / np.sqrt(len(spectra))
        np.testing.assert_allclose(result["standard_error"][k], error, rtol=1e-9)
        assert int(result["label_pixels"][k]) == len(spectra)
    np.testing.assert_array_equal(result["abundances"].values.argmax(axis=0), result["labels"])


@pytest.mark.parametrize("name", ["pca", "dense"])
def test_chunks_change_nothing(scene: Any, results: dict[str, xr.Dataset], name: str) -> None:
    cut = hsi.fit(scene[0].chunk({"y": 7, "x": 9}), MODELS[name], seed=1)
    np.testing.assert_array_equal(cut["labels"], results[name]["labels"])
    np.testing.assert_array_equal(cut["endmembers"], results[name]["endmembers"])


def test_training_resumes_to_the_same_weights(tmp_path: Path, scene: Any) -> None:
    whole = hsi.fit(scene[0], hsi.LatentAE(3, epochs=4, variational=True))
    hsi.fit(scene[0], hsi.LatentAE(3, epochs=4, variational=True, max_iter=2), checkpoint=tmp_path / "run")
    again = hsi.fit(scene[0], hsi.LatentAE(3, epochs=4, variational=True), checkpoint=tmp_path / "run", resume=True)
    np.testing.assert_array_equal(whole["weights_down0"], again["weights_down0"])


def test_a_stored_result_labels_without_torch_and_scikit_learn(
    tmp_path: Path, scene: Any, results: dict[str, xr.Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    hsi.save(results["dense"], tmp_path / "net.zarr")
    monkeypatch.setitem(sys.modules, "torch", None)
    for part in ("sklearn", "sklearn.cluster", "sklearn.mixture"):
        monkeypatch.setitem(sys.modules, part, None)
    maps = hsi.project(hsi.open_result(tmp_path / "net.zarr"), scene[0].chunk({"y": 5}))
    np.testing.assert_allclose(maps, results["dense"]["abundances"], rtol=1e-6)
    with pytest.raises(InputError, match=r"clusters are fitted by scikit-learn .* pip install 'scalehsi\[networks\]'"):
        hsi.fit(scene[0], MODELS["pca"])


@pytest.mark.parametrize("method", ["kmeans", "gmm"])
def test_clusters_are_assigned_as_scikit_learn_does(method: str) -> None:
    rng = np.random.default_rng(0)
    points = np.concatenate([rng.standard_normal((n, 2)) * 0.5 + at for n, at in ((300, 0.0), (200, 3.0), (100, -3.0))])
    clusters, label = fit_clusters(points, 3, method=method, seed=0)
    assert np.bincount(label).tolist() == sorted(np.bincount(label).tolist(), reverse=True)
    new = rng.standard_normal((500, 2)) * 3
    if method == "kmeans":
        expected = ((new[:, None] - clusters["centres"]) ** 2).sum(axis=2).argmin(axis=1)
    else:
        found = mixture.GaussianMixture(3, n_init=3, random_state=0).fit(points)
        order = [int(assign(mean[None], clusters)[0]) for mean in found.means_]
        expected = np.asarray(order)[found.predict(new)]
    np.testing.assert_array_equal(assign(new, clusters), expected)
    assert bayes_information(points, 5, seed=0).argmin() + 1 == 3


def test_the_number_of_clusters_is_chosen_by_bic(scene: Any) -> None:
    result = hsi.fit(scene[0], hsi.LatentAE(5, encoder="pca", n_latent=2, choose="bic"), seed=1)
    best = int(result["bic"].values.argmin()) + 1
    assert result.sizes["component"] == best
    assert result.sizes["clusters"] == 5


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"encoder": "umap"}, "encoder='umap' is not known"),
        ({"clustering": "dbscan"}, "clustering='dbscan' is not known"),
        ({"n_latent": 0}, "n_latent is a whole number from 1 to 64, got 0"),
        ({"encoder": "pca", "variational": True}, "variational=True is for encoder='dense'"),
        ({"beta": -1.0}, r"beta is a number above 0, got -1\.0"),
    ],
    ids=str,
)
def test_wrong_settings_are_refused(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        hsi.LatentAE(3, **wrong)
