"""HyperSpy signals decomposed in place: its plots, models, separation and clustering on what was filled in."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr
from numpy.testing import assert_allclose, assert_array_equal

import scalehsi as hsi
from scalehsi.result import settings_of
from scalehsi.schema import InputError
from tests.helpers import raise_if_dask_computes

hs = pytest.importorskip("hyperspy.api", reason="the extra hyperspy is not installed")
pytest.importorskip("exspy", reason="the extra hyperspy is not installed")

pytestmark = [
    pytest.mark.long,
    # HyperSpy 2.5 warns about an import of its own when a signal changes its class, and scikit-learn about FastICA.
    pytest.mark.filterwarnings("ignore:Importing `.*` from `hyperspy"),
    pytest.mark.filterwarnings("ignore:FastICA did not converge"),
    pytest.mark.filterwarnings("ignore:Function `plot_explained_variance_ratio"),
]

K, SHAPE, CHANNELS = 3, (9, 7), 32
WORDS = {"output_dimension": K, "max_iter": 12, "tol": 0.0}
NAVIGATION = np.zeros(SHAPE, bool)
NAVIGATION[:2, :3] = True
SIGNAL = np.zeros(CHANNELS, bool)
SIGNAL[:4] = True


@pytest.fixture(autouse=True)
def figures_closed() -> Any:
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def cube() -> xr.DataArray:
    return hsi.simulate.chequerboard(SHAPE, n_components=K, n_channels=CHANNELS, seed=1).cube.compute()


def signal_of(cube: xr.DataArray, *, lazy: bool = False) -> Any:
    return hsi.to_hyperspy(cube.chunk(y=4) if lazy else cube)


def fitted(cube: xr.DataArray, **options: Any) -> xr.Dataset:
    return hsi.fit(cube, hsi.NMF(K, max_iter=12, tol=0.0, **options), seed=0).compute()


@pytest.mark.parametrize("lazy", [False, True])
def test_the_components_are_those_of_fit(cube: xr.DataArray, *, lazy: bool) -> None:
    s = signal_of(cube, lazy=lazy)
    result = hsi.decompose(s, algorithm="NMF", **WORDS)
    wanted, found = fitted(cube), s.learning_results
    assert type(found.factors) is type(found.loadings) is np.ndarray
    assert found.factors.dtype == found.loadings.dtype == np.float64
    order = np.argsort(result.hyperspy_component.values)
    assert_allclose(found.factors.T, wanted.endmembers.values[order], rtol=1e-6)
    assert_allclose(found.loadings.T, wanted.abundances.values[order].reshape(K, -1), rtol=1e-5, atol=1e-6)
    assert_allclose(result.endmembers, wanted.endmembers, rtol=1e-6)
    ratio = found.explained_variance_ratio
    assert ratio.sum() == pytest.approx(1)
    assert (np.diff(ratio) <= 0).all()
    power = (found.factors**2).sum(axis=0) * (found.loadings**2).sum(axis=0)
    assert_allclose(ratio, power / power.sum())
    assert (found.output_dimension, found.number_significant_components, found.decomposition_algorithm) == (K, K, "NMF")


def test_nothing_remains_of_an_earlier_decomposition(cube: xr.DataArray) -> None:
    s = signal_of(cube)
    s.change_dtype("float64")
    s.decomposition(output_dimension=4, print_info=False, centre="navigation")
    s.blind_source_separation(number_of_components=3, print_info=False)
    values = s.data.copy()
    hsi.decompose(s, **WORDS)
    found = s.learning_results
    assert (found.unfolded, found.poissonian_noise_normalized) == (False, False)
    gone = ("mean", "centre", "explained_variance", "original_shape", "unmixing_matrix", "bss_algorithm")
    gone += ("bss_factors", "bss_loadings", "navigation_mask", "signal_mask", "cluster_labels")
    assert {name: getattr(found, name) for name in gone} == dict.fromkeys(gone)
    assert_array_equal(s.data, values)


MASKS: dict[str, dict[str, Any]] = {
    "no mask": {},
    "navigation mask": {"navigation_mask": NAVIGATION},
    "signal mask": {"signal_mask": SIGNAL},
    "both masks": {"navigation_mask": NAVIGATION, "signal_mask": SIGNAL},
}


@pytest.fixture
def masks(request: pytest.FixtureRequest) -> dict[str, Any]:
    return MASKS[request.param]


@pytest.mark.parametrize(
    ("masks", "lazy"), [*((m, False) for m in MASKS), ("no mask", True), ("both masks", True)], indirect=["masks"]
)
def test_what_follows_a_decomposition_in_hyperspy(
    cube: xr.DataArray, masks: dict[str, Any], tmp_path: Path, *, lazy: bool
) -> None:
    s = signal_of(cube, lazy=lazy)
    hsi.decompose(s, **WORDS, **masks)
    for plot in ("results", "factors", "loadings"):
        getattr(s, f"plot_decomposition_{plot}")()
    shown = s.plot_explained_variance_ratio().lines[0].get_ydata()
    assert_allclose(shown[:K], s.learning_results.explained_variance_ratio)
    s.plot_scree_plot()
    factors, loadings = s.get_decomposition_factors().data, s.get_decomposition_loadings().data
    assert (factors.shape, loadings.shape) == ((K, CHANNELS), (K, *SHAPE))
    unused = np.zeros(SHAPE, bool) | masks.get("navigation_mask", False)
    channels = np.zeros(CHANNELS, bool) | masks.get("signal_mask", False)
    assert_array_equal(np.isnan(loadings), np.broadcast_to(unused, loadings.shape))
    assert_array_equal(np.isnan(factors), np.broadcast_to(channels, factors.shape))
    model = s.get_decomposition_model()
    assert model._lazy == lazy
    assert_allclose(np.asarray(model.data), np.moveaxis(loadings, 0, -1) @ factors, rtol=1e-4, atol=1e-4)
    two = np.asarray(s.get_decomposition_model([0, 2]).data)
    assert_allclose(two, np.moveaxis(loadings[[0, 2]], 0, -1) @ factors[[0, 2]], rtol=1e-4, atol=1e-4)

    s.learning_results.summary()
    s.save(tmp_path / "a.hspy")
    again = hs.load(tmp_path / "a.hspy", lazy=lazy).learning_results
    assert_array_equal(np.asarray(again.factors), s.learning_results.factors)
    for name in ("navigation_mask", "signal_mask"):
        wanted = getattr(s.learning_results, name)
        assert wanted is None or np.array_equal(np.asarray(getattr(again, name)), wanted)
    s.learning_results.save(str(tmp_path / "a.npz"))
    s.learning_results.load(str(tmp_path / "a.npz"))
    assert_array_equal(s.learning_results.factors.T, factors)

    mask = {"mask": hs.signals.Signal1D(channels)} if channels.any() else {}
    s.blind_source_separation(number_of_components=K, print_info=False, **mask)
    s.plot_bss_results()
    assert_allclose(np.asarray(s.get_bss_model().data), np.asarray(model.data), rtol=1e-4, atol=1e-4)
    mask = {"navigation_mask": unused} if unused.any() else {}
    s.cluster_analysis(cluster_source="decomposition", n_clusters=3, **mask)
    assert s.learning_results.cluster_labels.sum() == (~unused).sum()
    if not (unused.any() or channels.any()):
        s.normalize_decomposition_components()
        s.reverse_decomposition_component(1)
        assert_allclose(s.learning_results.factors.sum(axis=0), [1, -1, 1])
        s.learning_results.crop_decomposition_dimension(2)
        assert s.get_decomposition_loadings().data.shape == (2, *SHAPE)


def test_masks_leave_pixels_and_channels_out_of_the_fit(cube: xr.DataArray) -> None:
    wanted = fitted(cube.isel(energy=~SIGNAL).assign_coords(mask=(("y", "x"), ~NAVIGATION)))
    s = signal_of(cube)
    result = hsi.decompose(s, **WORDS, navigation_mask=NAVIGATION, signal_mask=SIGNAL)
    assert_allclose(result.endmembers, wanted.endmembers, rtol=1e-6)
    assert_array_equal(s.learning_results.navigation_mask, NAVIGATION)
    assert_array_equal(s.learning_results.signal_mask, SIGNAL)
    kept = s.learning_results.loadings[~NAVIGATION.ravel()]
    hsi.decompose(s, **WORDS, navigation_mask=NAVIGATION, signal_mask=SIGNAL, reproject="navigation")
    assert s.learning_results.navigation_mask is None
    assert np.isfinite(s.learning_results.loadings).all()
    assert_array_equal(s.learning_results.loadings[~NAVIGATION.ravel()], kept)
    order = np.argsort(result.hyperspy_component.values)
    everywhere = hsi.project(result, cube.isel(energy=~SIGNAL)).values.reshape(K, -1)[order].T
    assert_allclose(s.learning_results.loadings, everywhere, rtol=1e-4, atol=1e-5)


def shown_as(form: str) -> Any:
    named = [{"name": name, "size": size} for name, size in zip("yx", SHAPE, strict=True)]
    return {
        "(y, x)": NAVIGATION,
        "(x, y)": NAVIGATION.T,
        "navigation signal": hs.signals.BaseSignal(NAVIGATION, axes=named).T,
        "image": hs.signals.Signal2D(NAVIGATION, axes=named),
        "DataArray": xr.DataArray(NAVIGATION.T, dims=("x", "y")),
    }[form]


@pytest.mark.parametrize("form", ["(y, x)", "(x, y)", "navigation signal", "image", "DataArray"])
@pytest.mark.parametrize("order", ["yx", "xy"])
def test_forms_of_a_navigation_mask(cube: xr.DataArray, form: str, order: str) -> None:
    """The axes of the signal's array may come in any order; masks and maps follow it."""
    s = signal_of(cube)
    if order == "xy":
        turned = s.data.transpose(1, 0, 2).copy()
        axes = [{"name": n, "size": k, "navigate": n != "E"} for n, k in zip("xyE", turned.shape, strict=True)]
        s = hs.signals.Signal1D(turned, axes=axes)
    hsi.decompose(s, **WORDS, navigation_mask=shown_as(form))
    maps = s.get_decomposition_loadings()
    assert_array_equal(np.isnan(maps.data[0]), NAVIGATION if order == "yx" else NAVIGATION.T)
    model = s.get_decomposition_model().data
    used = np.isfinite(model[..., 0])
    assert np.corrcoef(model[used].ravel(), s.data[used].ravel())[0, 1] > 0.8


def test_a_signal_with_the_energy_first_and_one_of_four_axes() -> None:
    counts = np.random.default_rng(0).poisson(9.0, (3, 4, 5, 16))
    for data, energy in ((counts[0], 2), (np.moveaxis(counts[0], -1, 0), 0), (counts, 3)):
        axes = [{"size": n, "navigate": i != energy} for i, n in enumerate(data.shape)]
        s = hs.signals.BaseSignal(data, axes=axes)
        result = hsi.decompose(s, output_dimension=2, max_iter=5)
        maps = s.learning_results.loadings[:, result.hyperspy_component.values]
        wanted = result.abundances.transpose(..., "component").values.reshape(-1, 2)
        assert_array_equal(maps, wanted)


@pytest.mark.parametrize(
    ("words", "settings"),
    [
        ({"beta_loss": "kullback-leibler"}, {"loss": "poisson"}),
        ({"beta_loss": 2}, {"loss": "frobenius", "weighting": None}),
        ({"normalize_poissonian_noise": True}, {"loss": "frobenius", "weighting": "poisson"}),
        ({"normalize_poissonian_noise": False, "print_info": False}, {"loss": "frobenius", "weighting": None}),
        ({"random_state": 3}, {"seed": 3}),
        ({"algorithm": "vca", "max_iter": 1}, {"model": "VCA"}),
    ],
)
def test_words_of_hyperspy(cube: xr.DataArray, words: dict[str, Any], settings: dict[str, Any]) -> None:
    result = hsi.decompose(signal_of(cube), **{"output_dimension": K, "max_iter": 2, **words})
    found = {**result.attrs, **settings_of(result)}
    for name, value in settings.items():
        assert found[name] == value, name


def test_the_order_of_the_arguments_is_that_of_hyperspy(cube: xr.DataArray) -> None:
    ours = list(inspect.signature(hsi.decompose).parameters)[1:4]
    theirs = list(inspect.signature(hs.signals.Signal1D.decomposition).parameters)[1:4]
    assert ours == theirs
    result = hsi.decompose(signal_of(cube), True, algorithm="NMF", output_dimension=K, max_iter=2)
    assert result.attrs["weighting"] == "poisson"


def test_masks_of_a_line_scan_of_four_axes_and_of_diffraction_patterns() -> None:
    counts = np.random.default_rng(0).poisson(9.0, (3, 4, 5, 16))
    for shape, place in (((20,), (3,)), ((3, 4, 5), (1, 2, 3))):
        mask = np.zeros(shape, bool)
        mask[place] = True
        s = hs.signals.Signal1D(np.resize(counts, (*shape, 16)))
        for given in (mask, mask.T, hs.signals.BaseSignal(mask).T):
            result = hsi.decompose(s, output_dimension=2, max_iter=2, navigation_mask=given)
            assert_array_equal(np.argwhere(np.isnan(s.get_decomposition_loadings().data[0])), [place])
        assert_array_equal(hsi.to_hyperspy(result).learning_results.navigation_mask, mask)
    s = hs.signals.Signal2D(counts)
    mask = np.zeros((5, 16), bool)
    mask[1, 2] = True
    hsi.decompose(s, output_dimension=2, max_iter=2, signal_mask=mask)
    assert_array_equal(np.isnan(s.get_decomposition_factors().data[0]), mask)


def refusals() -> list[tuple[dict[str, Any], str]]:
    square = np.zeros((6, 6), bool)
    return [
        ({"algorithm": "SVD"}, r"algorithm='SVD' is HyperSpy's own; type signal\.decomposition\(\)"),
        ({"algorithm": "PCA"}, r"type signal\.decomposition\(\)"),
        ({"algorithm": "nfm"}, r"there is no model 'nfm'; did you mean 'nmf'"),
        ({"algorithm": True}, r"algorithm is a name such as 'NMF', got True"),
        ({"normalize_poissonian_noise": "NMF"}, r"normalize_poissonian_noise='NMF' is no boolean; type algorithm="),
        ({"output_dimension": None}, r"output_dimension is missing"),
        ({"beta_loss": "itakura-saito"}, r"beta_loss='itakura-saito' is not known"),
        ({"reproject": "signal"}, r"reproject='signal' is not known"),
        ({"centre": "navigation"}, r"centre: the model has no mean"),
        ({"random_state": np.random.default_rng(0)}, r"random_state is a whole number, got Generator"),
        ({"n_iter": 3}, r"NMF has no setting 'n_iter'"),
        (
            {"navigation_mask": square},
            r"is a square array of shape \(6, 6\).*give a HyperSpy signal or a DataArray of the dims \('y', 'x'\)",
        ),
        ({"navigation_mask": xr.DataArray(square, dims=("a", "x"))}, r"has the dims \('a', 'x'\), \('y', 'x'\) are"),
        ({"navigation_mask": np.zeros((6, 5), bool)}, r"booleans of shape \(6, 6\) are expected"),
        ({"navigation_mask": hs.signals.BaseSignal(~square).T}, r"leaves no navigation position: True leaves out"),
        ({"signal_mask": np.zeros(8)}, r"signal_mask holds float64 of shape \(8,\)"),
        ({"signal_mask": np.ones(8, bool)}, r"signal_mask leaves no channel"),
    ]


@pytest.mark.parametrize(("words", "message"), refusals())
def test_refusals_leave_the_signal_alone(words: dict[str, Any], message: str) -> None:
    s = hs.signals.Signal1D(np.random.default_rng(0).poisson(5.0, (6, 6, 8)))
    before = s.learning_results
    with pytest.raises(InputError, match=message):
        hsi.decompose(s, **{"output_dimension": 2, **words})
    assert s.learning_results is before


def test_a_single_spectrum_is_refused() -> None:
    with pytest.raises(InputError, match="no navigation axes"):
        hsi.decompose(hs.signals.Signal1D(np.ones(8)), output_dimension=1)


def test_a_square_mask_by_its_axes() -> None:
    data = np.random.default_rng(0).poisson(5.0, (6, 6, 8))
    mask = np.zeros((6, 6), bool)
    mask[0, 3] = True
    for given in (hs.signals.BaseSignal(mask).T, xr.DataArray(mask.T, dims=("x", "y"))):
        s = hs.signals.Signal1D(data, axes=[{"name": n, "size": k} for n, k in zip("yxE", data.shape, strict=True)])
        hsi.decompose(s, output_dimension=2, max_iter=3, navigation_mask=given)
        assert_array_equal(np.argwhere(np.isnan(s.get_decomposition_loadings().data[0])), [[0, 3]])


@pytest.mark.parametrize("masked", [False, True])
def test_a_result_becomes_the_signal_of_its_model(cube: xr.DataArray, *, masked: bool) -> None:
    given = cube.assign_coords(mask=(("y", "x"), ~NAVIGATION)) if masked else cube
    result = fitted(given)
    s = hsi.to_hyperspy(result)
    assert type(s).__name__ in ("EELSSpectrum", "LazyEELSSpectrum")
    assert_allclose(np.asarray(s.data), hsi.reconstruct(result).values)
    assert_allclose(np.asarray(s.get_decomposition_model().data), np.asarray(s.data), rtol=1e-4, atol=1e-5)
    own = signal_of(cube)
    hsi.decompose(own, **WORDS, navigation_mask=NAVIGATION if masked else None)
    for name in ("factors", "loadings", "explained_variance_ratio", "navigation_mask"):
        found, wanted = getattr(s.learning_results, name), getattr(own.learning_results, name)
        assert (found is None) == (wanted is None)
        assert found is None or np.allclose(found, wanted, rtol=1e-5, equal_nan=True)
    s.plot_decomposition_results()


def test_a_result_with_more_than_maps_and_spectra_is_refused(cube: xr.DataArray) -> None:
    with pytest.raises(InputError, match=r"a result of PCA is more than maps times spectra.*reconstruct\(result\)\)"):
        hsi.to_hyperspy(hsi.fit(cube, hsi.PCA(2)))


def test_a_lazy_signal_is_never_computed_whole(cube: xr.DataArray) -> None:
    s = signal_of(cube, lazy=True)
    largest: list[int] = []
    s.data = s.data.map_blocks(lambda block: largest.append(block.shape[0]) or block, dtype=s.data.dtype)
    with raise_if_dask_computes():
        hsi.from_hyperspy(s)
    hsi.decompose(s, **WORDS)
    assert max(largest) == 4
