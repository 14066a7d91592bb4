"""`scalehsi.sklearn.Unmixer`: scikit-learn's own checks, pipelines, grid search, Dask arrays, and bad input."""

from __future__ import annotations

import copy
import pickle
import re
from typing import Any

import dask.array as da
import numpy as np
import pytest
import scipy.sparse
from sklearn.base import clone
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler
from sklearn.utils.estimator_checks import check_estimator

import scalehsi as hsi
from scalehsi.schema import InputError
from tests.helpers import raise_if_dask_computes

PLAIN = hsi.NMF(3, loss="frobenius", max_iter=30)


@pytest.fixture(scope="module")
def cube() -> Any:
    return hsi.simulate.chequerboard((12, 12), n_channels=32, counts_per_pixel=2000, seed=3)[0]


@pytest.fixture(scope="module")
def rows(cube: Any) -> np.ndarray:
    return cube.values.reshape(-1, 32)


@pytest.mark.long
def test_no_check_of_scikit_learn_fails() -> None:
    found = check_estimator(hsi.sklearn.Unmixer(), on_fail=None, on_skip=None)
    assert {each["check_name"] for each in found if each["status"] not in ("passed", "skipped")} == set()
    skipped = {each["check_name"] for each in found if each["status"] == "skipped"}
    assert skipped <= {"check_array_api_input"}  # needs SCIPY_ARRAY_API=1 in the environment
    assert len(found) > 40


def test_spectra_and_maps_are_those_of_a_fit_of_the_cube(cube: Any, rows: np.ndarray) -> None:
    unmixer = hsi.sklearn.Unmixer(PLAIN, n_components=3, random_state=5)
    maps = unmixer.fit_transform(rows)
    row = hsi.make_cube(rows[None], energy=np.arange(32), energy_units="channel", pixel_units="px")
    result = hsi.fit(row, PLAIN, seed=5)
    assert np.array_equal(unmixer.components_, result["endmembers"].values.astype(np.float32))
    assert np.allclose(maps, result["abundances"].values[:, 0].T, atol=1e-4 * maps.max())
    # Without bins of neighbours, the spectra are those of the cube in its own shape.
    square = hsi.fit(cube, PLAIN, seed=5)["endmembers"].values
    assert np.degrees(hsi.metrics.spectral_angle(unmixer.components_, square)).max() < 0.1
    assert unmixer.n_iter_ == unmixer.result_.sizes["iteration"]
    assert list(unmixer.get_feature_names_out()) == ["unmixer0", "unmixer1", "unmixer2"]


def test_pipeline_and_grid_search_over_the_number_of_components(rows: np.ndarray) -> None:
    target = rows[:, 5:9].sum(axis=1)
    chain = make_pipeline(MaxAbsScaler(), hsi.sklearn.Unmixer(hsi.NMF(2, loss="frobenius", max_iter=20)), Ridge())
    search = GridSearchCV(chain, {"unmixer__n_components": [1, 3]}, cv=2, error_score="raise").fit(rows, target)
    assert search.best_params_ == {"unmixer__n_components": 3}
    assert search.best_estimator_[1].components_.shape == (3, 32)


def test_a_large_dask_array_is_not_computed_by_transform(rows: np.ndarray) -> None:
    unmixer = hsi.sklearn.Unmixer(PLAIN, n_components=3).fit(da.from_array(rows, chunks=(50, 16)))
    whole = hsi.sklearn.Unmixer(PLAIN, n_components=3).fit(rows)
    assert np.allclose(unmixer.components_, whole.components_, rtol=1e-4, atol=1e-4)
    wide = hsi.sklearn.Unmixer(PLAIN, n_components=3).fit(np.tile(rows, 32))
    with raise_if_dask_computes(max_computes=0):
        narrow = unmixer.transform(da.from_array(rows, chunks=(50, 32)))
        large = wide.transform(da.random.default_rng(0).poisson(9, (1_000_000, 1024), chunks=(50_000, 1024)))
    assert large.shape == (1_000_000, 3)
    assert large.dtype == np.float32
    assert np.allclose(narrow.compute(), whole.transform(rows), rtol=1e-4)


@pytest.mark.parametrize("model", [None, hsi.PCA, hsi.VCA(2)], ids=str)
def test_models_are_classes_objects_or_none_and_can_be_cloned(model: Any, rows: np.ndarray) -> None:
    unmixer = clone(hsi.sklearn.Unmixer(model, n_components=2))
    assert unmixer.fit(rows.astype(np.float64)).components_.dtype == np.float64
    again = pickle.loads(pickle.dumps(unmixer))
    assert np.array_equal(again.transform(rows), unmixer.transform(rows))
    assert copy.deepcopy(unmixer.model) is not None or model is None


def test_the_number_of_the_model_is_replaced_and_the_log_says_it(
    rows: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    assert len(hsi.sklearn.Unmixer(hsi.PCA(5), n_components=2).fit(rows).components_) == 2
    assert "n_components=2 of the Unmixer takes the place of the 5 of its model" in caplog.text


ROWS = np.random.default_rng(0).poisson(9, (20, 8)).astype(np.float32)


@pytest.mark.parametrize(
    ("X", "options", "error", "match"),
    [
        (scipy.sparse.csr_matrix(ROWS), {}, TypeError, "Sparse data was passed"),
        (np.where(ROWS == 9, np.nan, ROWS), {}, ValueError, "Input X contains NaN"),
        (ROWS[:1], {}, ValueError, "minimum of 2 is required"),
        (ROWS * 0, {}, InputError, "zero"),
        (ROWS - 9, {}, InputError, "Negative values in data passed to Unmixer"),
        (ROWS, {"n_components": 9}, InputError, "n_components=9 is more than n_features=8"),
        (ROWS, {"n_components": 0}, InputError, "n_components is at least 1"),
        (ROWS, {"model": "nmf"}, InputError, "a method is expected, such as scalehsi.NMF"),
        (ROWS, {"model": hsi.ParallelGP}, InputError, "ParallelGP|maps"),
        (da.from_array(ROWS[0]), {}, InputError, r"shape \(n_samples, n_features\)"),
        (da.from_array(ROWS)[da.from_array(ROWS)[:, 0] > 9], {}, InputError, "compute_chunk_sizes"),
        (da.from_array(ROWS.astype(complex)), {}, InputError, "real numbers"),
        (da.from_array(ROWS[:1]), {}, InputError, "n_samples=1"),
        (da.from_array(np.where(ROWS == 9, np.nan, ROWS)), {}, InputError, "NaN"),
    ],
)
def test_bad_input_is_refused(X: Any, options: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        hsi.sklearn.Unmixer(**options).fit(X)


@pytest.mark.parametrize("make", [np.asarray, da.from_array])
def test_transform_refuses_other_channels(make: Any) -> None:
    fitted = hsi.sklearn.Unmixer(hsi.PCA).fit(ROWS)
    with pytest.raises(ValueError, match="X has 7 features, but Unmixer is expecting 8 features as input"):
        fitted.transform(make(ROWS[:, :7]))


@pytest.mark.parametrize(
    ("word", "answer"),
    [
        ({"random_state": 0}, "scalehsi.fit(cube, model, seed=0)"),
        ({"init": "nndsvda"}, "start='sample'"),
        ({"beta_loss": "kullback-leibler"}, "loss='poisson'"),
    ],
)
def test_settings_of_scikit_learn_are_answered(word: dict[str, Any], answer: str) -> None:
    for make in (hsi.NMF, lambda k, **more: hsi.NMF.from_settings({"n_components": k, **more})):
        with pytest.raises(InputError, match=re.escape(answer)) as caught:
            make(3, **word)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["fit", "transform", "fit_transform", "components_"])
def test_methods_of_scikit_learn_are_answered(name: str) -> None:
    for model in (hsi.NMF(3), hsi.PCA(2), hsi.ParallelGP()):
        with pytest.raises(AttributeError, match=r"type .*scalehsi\.sklearn\.Unmixer\(model\)"):
            getattr(model, name)
        assert not hasattr(model, "something_else")
