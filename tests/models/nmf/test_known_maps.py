"""NMF with maps that are known: they stay, they need not fit into the client, and all else is the best beside them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from numpy.testing import assert_allclose, assert_array_equal
from scipy import optimize

import scalehsi as hsi
from scalehsi.arrays import Float
from scalehsi.blocks import open_blocks
from scalehsi.cube import make_cube
from scalehsi.models.nmf import known_maps
from scalehsi.schema import InputError
from tests.helpers import CountingStore

pytestmark = pytest.mark.long

KINDS: list[dict[str, Any]] = [
    {"loss": "frobenius"},
    {"weighting": "poisson"},
    {"loss": "poisson", "bin_factor": 1},
    {"loss": "poisson", "bin_factor": 2},
    {"sparsity": 0.02},
    {"loss": "poisson", "bin_factor": 1, "sparsity": 0.1},
    {"spectral_smoothness": 0.2},
    {"compress": True},
]
"""Everything that maps may be fixed beside."""


def scene(
    settings: dict[str, Any] | None = None, *, seed: int = 0, size: int = 16, channels: int = 48
) -> tuple[xr.DataArray, Float, Float]:
    """A cube of three components, their endmembers (K, E), and maps (K, y, x) that overlap everywhere."""
    rng = np.random.default_rng(seed)
    s = 10 * rng.random((3, channels)) ** 3
    c = np.moveaxis(rng.dirichlet([2.0] * 3, size=(size, size)), -1, 0).astype(np.float32).astype(np.float64)
    x = np.maximum(np.tensordot(c, s, axes=(0, 0)) + 0.05 * rng.standard_normal((size, size, channels)), 0.0)
    counts = bool(settings) and "poisson" in (settings or {}).values()
    values = rng.poisson(20 * x).astype("u2") if counts else x
    return make_cube(values, energy=np.arange(float(channels)), energy_units="eV"), s * (20 if counts else 1), c


def as_maps(c: Float, **coords: Any) -> xr.DataArray:
    return xr.DataArray(c, dims=("component", "y", "x"), coords=coords)


def fixed(c: Float, **options: Any) -> dict[str, Any]:
    return {"fixed": {"abundances": as_maps(c)}, **options}


def angle(a: Float, b: Float) -> float:
    return float(np.rad2deg(hsi.metrics.spectral_angle(a, b)))


# What comes out.


@pytest.mark.parametrize("settings", KINDS, ids=str)
def test_known_maps_stay_and_the_objective_never_rises(settings: dict[str, Any]) -> None:
    cube, _, c = scene(settings)
    result = hsi.fit(cube, hsi.NMF(3, max_iter=40, tol=0.0, **fixed(c[1:2]), **settings), seed=0)
    assert_array_equal(result["abundances"][0], c[1].astype(np.float32))
    assert (result["endmembers"] >= 0).all()
    assert (result["abundances"] >= 0).all()
    history = result["objective"].values
    # The reading that checks a subspace measures the whole data, of which the subspace knows its own part.
    assert np.diff(history).max() <= (1e-3 if "compress" in settings else 1e-9) * history[0]
    assert json.loads(result.attrs["settings"])["fixed"] == "given"


@pytest.mark.parametrize("settings", [KINDS[i] for i in (0, 1, 2, 3, 7)], ids=str)
def test_one_known_map_makes_out_what_the_data_alone_leave_open(settings: dict[str, Any]) -> None:
    # A background lies everywhere, so that no pixel shows a phase without it, and plain NMF may leave some in each.
    rng = np.random.default_rng(1)
    channel, (y, x) = np.arange(64.0), np.mgrid[:24, :24] / 24
    low = np.where(channel < 26, np.exp(-channel / 15), 0.0)
    s = np.stack([3 * low, *(np.exp(-((channel - at) ** 2) / 18) + 0.5 * low for at in (34, 48))])
    c = np.stack([1 + 0.5 * y, 1.0 * (x < 0.6) * (0.4 + x), 1.0 * (x > 0.4) * (1.2 - x) * (0.5 + y)])
    c = c.astype(np.float32).astype(np.float64)
    s *= 400
    cube = make_cube(rng.poisson(np.tensordot(c, s, axes=(0, 0))).astype("u2"), energy=channel, energy_units="eV")
    options: dict[str, Any] = {"max_iter": 500, "tol": 1e-8, **settings}
    result = hsi.fit(cube, hsi.NMF(3, **fixed(c[:1]), **options), seed=0)
    plain = hsi.fit(cube, hsi.NMF(3, **options), seed=0)
    truth = xr.Dataset({"endmembers": (("component", "energy"), s)})
    found, alone = (np.rad2deg(hsi.metrics.score(r, truth)["spectral_angle"].values).max() for r in (result, plain))
    assert found < 1.5
    assert alone > 5 * found, alone
    # The scale of the known one is that of the data; the others have the total of the mean spectrum.
    assert_allclose(result["endmembers"][0].sum(), s[0].sum(), rtol=0.01)
    assert_allclose(result["endmembers"][1:].sum("energy"), float(cube.mean(("y", "x")).sum()), rtol=1e-6)


@pytest.mark.parametrize("weighting", [None, "poisson"])
def test_with_all_maps_known_the_spectra_are_the_least_squares_in_two_iterations(weighting: str | None) -> None:
    cube, _, c = scene({"weighting": weighting})
    result = hsi.fit(cube, hsi.NMF(3, loss="frobenius", weighting=weighting, **fixed(c)), seed=0)
    assert result.attrs["status"] == "converged"
    assert result.sizes["iteration"] == 2
    x, maps = cube.values.reshape(-1, cube.shape[-1]).astype(np.float64), c.reshape(3, -1).T
    root = np.ones(len(x)) if weighting is None else 1 / np.sqrt(x.mean(axis=1))
    want = [optimize.nnls(maps * root[:, None], channel * root)[0] for channel in x.T]
    assert_allclose(result["endmembers"], np.transpose(want), rtol=1e-5, atol=1e-6 * np.max(want))
    assert_array_equal(result["abundances"], c.astype(np.float32))


def test_with_all_maps_known_the_spectra_have_the_highest_likelihood() -> None:
    settings = {"loss": "poisson", "bin_factor": 1}
    cube, _, c = scene(settings, size=12, channels=10)
    result = hsi.fit(cube, hsi.NMF(3, tol=1e-12, max_iter=300, **fixed(c), **settings), seed=0)
    x, maps = cube.values.reshape(-1, 10).astype(np.float64), c.reshape(3, -1).T

    def loss(s: Float, column: Float) -> tuple[float, Float]:
        y = np.maximum(maps @ s, 1e-12)
        return float((y - column * np.log(y)).sum()), maps.sum(axis=0) - maps.T @ (column / y)

    for e, column in enumerate(x.T):
        start = np.full(3, column.mean())
        best = optimize.minimize(
            loss, start, args=(column,), jac=True, bounds=[(0, None)] * 3, options={"ftol": 1e-15, "gtol": 1e-9}
        )
        assert loss(result["endmembers"].values[:, e], column)[0] <= best.fun + 1e-5 * abs(best.fun)


@pytest.mark.parametrize("settings", KINDS[:3], ids=str)
def test_maps_and_endmembers_are_fixed_together_endmembers_first(settings: dict[str, Any]) -> None:
    cube, s, c = scene(settings)
    known = xr.DataArray(s[2:], dims=("component", "energy"))
    model = hsi.NMF(3, fixed={"abundances": as_maps(c[:1]), "endmembers": known}, max_iter=200, **settings)
    result = hsi.fit(cube, model, seed=0)
    assert_allclose(result["endmembers"][0], s[2], rtol=1e-12)
    assert_array_equal(result["abundances"][1], c[0].astype(np.float32))
    assert angle(result["endmembers"].values[1], s[0]) < 3.0
    assert angle(result["endmembers"].values[2], s[1]) < 3.0
    # One of each, and nothing left to find.
    pair = hsi.fit(cube, hsi.NMF(2, fixed=model.fixed, max_iter=50, **settings), seed=0)
    assert_allclose(pair["endmembers"][0], s[2], rtol=1e-12)
    assert_array_equal(pair["abundances"][1], c[0].astype(np.float32))


@pytest.mark.parametrize("settings", KINDS, ids=str)
def test_a_map_in_another_unit_has_a_spectrum_in_another_unit_and_nothing_else_changes(
    settings: dict[str, Any],
) -> None:
    cube, _, c = scene(settings)
    one, other = (hsi.fit(cube, hsi.NMF(3, max_iter=15, **fixed(f * c[:1]), **settings), seed=0) for f in (1.0, 64.0))
    scale = float(one["endmembers"].max())
    assert_allclose(64 * other["endmembers"][0], one["endmembers"][0], rtol=1e-3, atol=1e-3 * scale)
    assert_allclose(other["endmembers"][1:], one["endmembers"][1:], rtol=1e-3, atol=1e-3 * scale)


def test_a_start_of_ones_own_keeps_its_order() -> None:
    cube, s, c = scene()
    first = hsi.fit(cube, hsi.NMF(3, loss="frobenius", max_iter=30, **fixed(c[1:2])), seed=0)
    again = hsi.fit(cube, hsi.NMF(3, loss="frobenius", max_iter=30, start=first, **fixed(c[1:2])), seed=0)
    assert again["objective"][0] <= first["objective"][-1] * (1 + 1e-3)
    swapped = hsi.fit(cube, hsi.NMF(3, loss="frobenius", start=s[[1, 0, 2]], **fixed(c[1:2])), seed=0)
    assert angle(swapped["endmembers"].values[0], s[1]) < 3.0


def test_another_cube_has_maps_of_its_own() -> None:
    cube, _, c = scene()
    result = hsi.fit(cube, hsi.NMF(3, loss="frobenius", **fixed(c[:1])), seed=0)
    there = hsi.project(result, cube.isel(y=slice(3, 9)))
    x, s = cube.values[3:9].reshape(-1, 48), result["endmembers"].values
    want = np.stack([optimize.nnls(s.T, row)[0] for row in x]).T.reshape(3, 6, 16)
    assert_allclose(there, want, rtol=1e-3, atol=1e-4)


# How the maps are aligned.


@pytest.mark.parametrize("settings", KINDS, ids=str)
@pytest.mark.parametrize("chunks", [{"y": 16, "x": 16}, {"y": 5, "x": 7}, {"y": 1, "x": 16}], ids=str)
def test_chunks_of_cube_and_maps_change_nothing(settings: dict[str, Any], chunks: dict[str, int]) -> None:
    cube, _, c = scene(settings)
    reference = hsi.fit(cube, hsi.NMF(3, max_iter=6, tol=0, **fixed(c[:2]), **settings), seed=0)
    maps = as_maps(c[:2]).chunk({"y": 6, "x": 4, "component": 1})
    model = hsi.NMF(3, max_iter=6, tol=0, fixed={"abundances": maps}, **settings)
    result = hsi.fit(cube.chunk({**chunks, "energy": 11}), model, seed=0)
    scale = float(reference["endmembers"].max())
    assert_allclose(result["endmembers"], reference["endmembers"], atol=1e-4 * scale)
    counts = float(cube.sum()) if settings.get("loss") == "poisson" else 0.0
    assert_allclose(result["objective"], reference["objective"], rtol=1e-5, atol=1e-6 * counts)
    assert_array_equal(result["abundances"][:2], c[:2].astype(np.float32))


@pytest.mark.parametrize("resident", [True, False])
def test_lazy_maps_are_read_block_by_block_and_once_with_a_resident_cube(resident: bool) -> None:
    import dask.array as da

    cube, _, c = scene(size=32)
    store = CountingStore(np.asarray(c[:1], dtype=np.float32))
    maps = xr.DataArray(da.from_array(store, chunks=(1, 8, 32)), dims=("component", "y", "x"))
    view = open_blocks(cube.chunk({"y": 8}), resident=resident, block_bytes=8 * 32 * 48 * 8)
    model = hsi.NMF(3, loss="frobenius", fixed={"abundances": maps}, max_iter=4, tol=0)
    state = model.init(view, 0)
    for _ in range(3):
        state, _ = model.step(view, state)
    assert len(store.reads) == len(view) == 4
    assert set(store.reads.values()) == {1 if resident else 4}


def test_large_results_are_lazy_and_hold_the_known_maps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scalehsi.fitting.last_pass.CLIENT_MAP_BYTES", 0)
    cube, _, c = scene()
    result = hsi.fit(cube.chunk({"y": 5}), hsi.NMF(3, loss="frobenius", max_iter=5, **fixed(c[1:2])), seed=0)
    assert result["abundances"].chunks is not None
    assert_array_equal(result["abundances"][0], c[1].astype(np.float32))


@pytest.mark.parametrize("settings", KINDS[:4], ids=str)
def test_maps_may_hold_anything_where_the_mask_leaves_pixels_out(settings: dict[str, Any]) -> None:
    cube, _, c = scene(settings)
    used = np.ones((16, 16), dtype=bool)
    used[10:] = False
    ragged = c[:1].copy()
    ragged[:, 10:] = np.nan
    masked = cube.assign_coords(mask=(("y", "x"), used))
    result = hsi.fit(masked, hsi.NMF(3, max_iter=100, **fixed(ragged), **settings), seed=0)
    dropped = hsi.fit(cube[:10], hsi.NMF(3, max_iter=100, **fixed(c[:1, :10]), **settings), seed=0)
    assert result["abundances"][:, 10:].isnull().all()
    assert_array_equal(result["abundances"][0, :10], c[0, :10].astype(np.float32))
    assert_allclose(result["endmembers"][0], dropped["endmembers"][0], atol=0.05 * float(dropped["endmembers"].max()))


def test_bins_take_the_sum_of_the_maps_over_the_pixels_that_are_used() -> None:
    cube, _, c = scene({"loss": "poisson"}, size=6)
    used = np.ones((6, 6), dtype=bool)
    used[0, 0] = False
    view = open_blocks(cube.assign_coords(mask=(("y", "x"), used)), resident=False)
    (rows,) = known_maps.aligned_maps({"abundances": as_maps(np.where(used, c[:2], np.nan))}, view, 4)
    want = np.where(used, c[:2], 0.0)[:, :4, :4].sum(axis=(1, 2))
    values = rows if isinstance(rows, xr.DataArray) else rows.to_dataarray({"component": 2}).transpose("y", "x", ...)
    assert values.shape == (1, 1, 2)
    assert_allclose(values[0, 0], want, rtol=1e-6)


def test_leading_dims_are_pixels_too() -> None:
    cube, s, c = scene()
    stack = xr.concat([cube, cube], "frame")
    stack.attrs = cube.attrs
    maps = xr.concat([as_maps(c[:1]), as_maps(c[:1])], "frame")
    result = hsi.fit(stack, hsi.NMF(3, loss="frobenius", fixed={"abundances": maps}), seed=0)
    assert_array_equal(result["abundances"][0, 1], c[0].astype(np.float32))
    assert angle(result["endmembers"].values[0], s[0]) < 3.0


@pytest.mark.cluster
def test_on_a_cluster_the_numbers_are_the_same(client: Any) -> None:
    cube, _, c = scene(size=32)
    model = hsi.NMF(3, loss="frobenius", max_iter=5, tol=0, **fixed(c[:1]))
    far = hsi.fit(cube.chunk({"y": 8}), model, seed=0)
    assert client.scheduler_info()["workers"]
    assert_allclose(far["objective"], hsi.fit(cube, model, seed=0)["objective"], rtol=1e-5)
    assert_array_equal(far["abundances"][0], c[0].astype(np.float32))


def test_a_fit_resumes_with_the_maps_given_again(tmp_path: Path) -> None:
    cube, _, c = scene()
    whole = hsi.fit(cube, hsi.NMF(3, loss="frobenius", max_iter=8, tol=0, **fixed(c[:1])), seed=0)
    folder = tmp_path / "run"
    hsi.fit(cube, hsi.NMF(3, loss="frobenius", max_iter=4, tol=0, **fixed(c[:1])), seed=0, checkpoint=folder)
    again = hsi.fit(
        cube, hsi.NMF(3, loss="frobenius", max_iter=8, tol=0, **fixed(c[:1])), seed=0, checkpoint=folder, resume=True
    )
    assert_array_equal(again["endmembers"], whole["endmembers"])
    with pytest.raises(InputError, match="of another fit"):
        hsi.fit(cube, hsi.NMF(3, loss="frobenius", max_iter=8, tol=0), seed=0, checkpoint=folder, resume=True)
    with pytest.raises(InputError, match="fixed='given' stands for fixed spectra"):
        hsi.fit(
            cube, hsi.NMF(3, loss="frobenius", max_iter=8, tol=0, fixed="given"), seed=0, checkpoint=folder, resume=True
        )


def test_the_plan_counts_what_goes_along() -> None:
    cube, _, c = scene()
    plain, beside = (hsi.plan(cube, hsi.NMF(3, **kw)) for kw in ({}, fixed(c[:2])))
    pixels = 16 * 16
    assert beside.passes == plain.passes + 1
    assert beside.worker_bytes >= plain.worker_bytes + 4 * 2 * pixels
    assert beside.worker_bytes <= plain.worker_bytes + 4 * 2 * pixels * (1 + 3 * max(1, beside.threads))


# What is refused.


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"simplex": True}, "simplex=True"),
        ({"ard": "exponential"}, "ard='exponential'"),
        ({"orthogonality": 0.1}, "orthogonality=0.1"),
        ({"smoothness": 1.0}, "smoothness=1.0"),
        ({"missing": True}, "missing=True"),
        ({"solver": "hals"}, "solver='hals'"),
    ],
    ids=str,
)
def test_what_known_maps_do_not_go_together_with(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=rf"fixed\['abundances'\] does not go together with {words}; leave one"):
        hsi.NMF(3, **fixed(np.ones((1, 4, 4))), **settings)


def test_a_subspace_takes_maps_only_where_pixels_are_not_weighed_and_not_all_are_known() -> None:
    for maps, settings in ((1, {"weighting": "poisson"}), (3, {})):
        with pytest.raises(InputError, match="with fixed maps also without weighting"):
            hsi.NMF(3, compress=True, **fixed(np.ones((maps, 4, 4))), **settings)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (np.ones((1, 4, 4)), "is a DataArray of numbers"),
        (xr.DataArray(np.ones((4, 4)), dims=("y", "x")), "is a DataArray of numbers, of dims"),
        (as_maps(np.full((1, 4, 4), "a")), "is a DataArray of numbers"),
        (as_maps(np.ones((0, 4, 4))), "has no map; leave it out"),
        (as_maps(np.ones((4, 4, 4))), "has 4 maps, more than n_components=3; type n_components=4"),
    ],
    ids=["array", "no component", "text", "none", "many"],
)
def test_what_are_no_maps_is_refused_at_once(given: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        hsi.NMF(3, fixed={"abundances": given})


def test_a_component_is_fixed_by_its_map_or_by_its_spectrum() -> None:
    maps = as_maps(np.ones((1, 4, 4)), component=[2])
    spectra = xr.DataArray(np.ones((2, 5)), dims=("component", "energy"), coords={"component": [1, 2]})
    with pytest.raises(InputError, match=r"component \[2\] is in fixed\['endmembers'\] and .*drop_vars\('component'\)"):
        hsi.NMF(3, fixed={"abundances": maps, "endmembers": spectra})
    assert hsi.NMF(3, fixed={"abundances": maps.drop_vars("component"), "endmembers": spectra}).n_components == 3
    with pytest.raises(InputError, match="has 2 maps and 2 fixed endmembers, more than n_components=3"):
        hsi.NMF(3, fixed={"abundances": as_maps(np.ones((2, 4, 4))), "endmembers": spectra})
    with pytest.raises(InputError, match="fixed is empty"):
        hsi.NMF(3, fixed={})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: m.rename(y="row"), r"has the dims \('component', 'row', 'x'\), .* is expected; rename them"),
        (lambda m: m.isel(x=slice(1, None)), r"has the pixels .*'x': 15.*\.interp\(y=cube.y, x=cube.x\)"),
        (lambda m: m.assign_coords(x=np.arange(16) + 3.0), r"lies along x from 3 to 18, .*interp.*drop_vars\('x'\)"),
        (lambda m: m.where(m.y > 0), "NaN or Inf in pixels that are used; type .clip"),
        (lambda m: -m, "negative values"),
        (lambda m: m.where(m.y > 99, np.inf), "NaN or Inf"),
        (lambda m: 0 * m, "1 maps of zeros where pixels are used, the first is number 0; leave them out"),
    ],
    ids=["dims", "size", "place", "NaN", "negative", "Inf", "zeros"],
)
@pytest.mark.parametrize("settings", [{"loss": "frobenius"}, {"loss": "poisson", "bin_factor": 4}], ids=str)
def test_maps_that_do_not_fit_the_cube_are_refused_in_one_line(
    settings: dict[str, Any], change: Any, words: str
) -> None:
    cube, _, c = scene(settings)
    maps = as_maps(c[:1], y=cube.y, x=cube.x)
    with pytest.raises(InputError, match=words) as error:
        hsi.fit(cube, hsi.NMF(3, fixed={"abundances": change(maps)}, **settings), seed=0)
    assert "\n" not in str(error.value)
