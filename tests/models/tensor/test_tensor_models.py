"""CPD and Tucker on tensors with a known truth: any chunks, masks, resume, storage, and what they refuse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import xarray as xr

import scalehsi as hsi
from scalehsi.models.tensor import suggest_rank
from scalehsi.plots.digest import digest
from scalehsi.report.chapters import Context, mode_factors
from scalehsi.schema import InputError

pytestmark = pytest.mark.long


def stack(*, noise: float = 0.1, signed: bool = False, k: int = 3) -> tuple[xr.DataArray, list[np.ndarray]]:
    """A cube (frame 6, y 12, x 10, energy 20) float64, and its factors (K, n)."""
    rng = np.random.default_rng(0)
    draw: Any = rng.standard_normal if signed else rng.random
    a, c, s = draw((k, 6)), draw((k, 120)), draw((k, 20))
    x = np.einsum("kt,kp,ke->tpe", a, c, s)
    x += noise * rng.standard_normal(x.shape) * np.sqrt(np.mean(x**2))
    return hsi.make_cube(x.reshape(6, 12, 10, 20), energy=np.arange(20.0), energy_units="eV"), [a, c, s]


def congruence(found: xr.Dataset, truth: list[np.ndarray]) -> np.ndarray:
    """Cosine of each true component with the one nearest to it, over all modes."""
    k = found.sizes["component"]
    parts = [found["frame_factors"].values, found["abundances"].values.reshape(k, -1), found["endmembers"].values]
    cosine = np.ones((len(truth[0]), k))
    for a, b in zip(truth, parts, strict=True):
        cosine *= (a / np.linalg.norm(a, axis=1, keepdims=True)) @ (b / np.linalg.norm(b, axis=1, keepdims=True)).T
    return np.abs(cosine).max(axis=1)


def codes(found: xr.Dataset) -> list[str]:
    return [w["code"] for w in json.loads(found.attrs["warnings"])]


def fits(data: xr.DataArray, model: hsi.CPD, **settings: Any) -> xr.Dataset:
    return hsi.fit(data, model, seed=0, **settings)


@pytest.mark.parametrize("signed", [False, True])
def test_components_are_those_of_the_truth(signed: bool) -> None:
    cube, truth = stack(signed=signed)
    found = fits(cube, hsi.CPD(3, nonnegative=not signed))
    assert found.attrs["status"] == "converged"
    assert congruence(found, truth).min() > 0.99
    assert codes(found) == []
    whole = hsi.reconstruct(found, dtype="f8").compute()
    assert whole.dims == cube.dims
    relative = float(np.sqrt(((cube - whole) ** 2).sum() / (cube**2).sum()))
    assert float(found["relative_residual"]) == pytest.approx(relative, rel=1e-5)
    np.testing.assert_allclose(found["residual"], np.sqrt(((cube - whole) ** 2).mean(["frame", "energy"])), rtol=1e-4)
    left = (cube - whole).mean(["frame", "y", "x"])
    np.testing.assert_allclose(found["residual_spectrum"], left, atol=1e-6)
    assert not signed or found["endmembers"].min() < 0
    if not signed:
        np.testing.assert_allclose(found["frame_factors"].mean("frame"), 1.0)
        np.testing.assert_allclose(found["endmembers"].sum("energy"), float(found["mean_spectrum"].sum()))


def test_chunks_schedulers_masks_and_resume(tmp_path: Path) -> None:
    cube, _ = stack()
    model = hsi.CPD(3)
    whole = fits(cube, model)
    for chunks in ({"frame": 1, "y": 5, "x": 7}, {"frame": 4, "energy": 9}):
        with dask.config.set(scheduler="synchronous"):
            found = fits(cube.chunk(chunks), model)
        for name in ("endmembers", "frame_factors", "abundances"):
            np.testing.assert_allclose(found[name], whole[name], rtol=1e-6, atol=1e-6 * float(whole[name].max()))
    used = np.ones((6, 12, 10), dtype=bool)
    used[2, 9:] = False  # left out in one frame, left out in all
    masked = fits(cube.assign_coords(mask=(("frame", "y", "x"), used)), model)
    cut = fits(cube[:, :9], model)
    np.testing.assert_allclose(masked["endmembers"], cut["endmembers"], rtol=1e-3)
    assert masked["abundances"][:, 9:].isnull().all()
    short = hsi.CPD(3, max_iter=2, tol=0)
    fits(cube, short, checkpoint=tmp_path / "run")
    more = hsi.CPD(3, max_iter=6, tol=0)
    resumed = fits(cube, more, checkpoint=tmp_path / "run", resume=True)
    for name in ("endmembers", "frame_factors", "abundances", "objective"):
        np.testing.assert_array_equal(resumed[name], fits(cube, more)[name])


def test_groups_of_dims_are_one_mode_and_modes_may_be_many() -> None:
    cube, _ = stack()
    four = cube.values.reshape(2, 3, 12, 10, 20)
    dims = ("tilt", "frame", "y", "x", "energy")
    cube4 = xr.DataArray(four, dims=dims, coords={"energy": cube["energy"]}, attrs=cube.attrs)
    grouped = fits(cube4, hsi.CPD(3, modes="tilt+frame,y+x,energy"))
    plain = fits(cube, hsi.CPD(3))
    np.testing.assert_allclose(grouped["tilt_frame_factors"].values.reshape(3, 6), plain["frame_factors"], rtol=1e-9)
    assert grouped["tilt_frame_factors"].dims == ("component", "tilt", "frame")
    long = fits(cube4, hsi.CPD(3, modes=["frame", ("tilt", "y", "x"), "energy"]))
    assert long["abundances"].dims == ("component", "tilt", "y", "x")
    rng = np.random.default_rng(1)
    t, a, c, s = (rng.random((2, n)) for n in (4, 5, 30, 9))
    data = np.einsum("ki,kt,kp,ke->itpe", t, a, c, s).reshape(4, 5, 6, 5, 9)
    five = xr.DataArray(data, dims=dims, coords={"energy": np.arange(9.0)})
    found = fits(five, hsi.CPD(2, tol=1e-12))
    assert float(found["relative_residual"]) < 1e-4
    np.testing.assert_allclose(hsi.reconstruct(found, dtype="f8"), five, atol=1e-3)


def test_a_result_is_stored_and_projects_its_cube(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    clean, _ = stack(noise=0.0)
    cube = clean.copy(data=rng.poisson(20 * clean).astype("u2"))
    found = fits(cube, hsi.CPD(3))
    assert found["endmembers"].attrs["weighting"] == "poisson"
    hsi.save(found, tmp_path / "r.zarr")
    again = hsi.open_result(tmp_path / "r.zarr")
    np.testing.assert_allclose(hsi.project(again, cube), found["abundances"], atol=1e-6)
    chapter = mode_factors.chapter(digest(again), Context(again, []))
    assert chapter is not None
    assert "Core consistency" in str(chapter.parts[0])
    assert chapter.drawings[0].draw().axes[0].get_xlabel().startswith("Frame")
    with pytest.raises(InputError, match="the result has 6 along 'frame', the cube 4; give a cube with the same"):
        hsi.project(again, cube[:4])


def test_orthogonal_tucker_is_the_best_of_its_ranks() -> None:
    """The residual of three passes is that of orthogonal iteration on the whole tensor."""
    cube, _ = stack(noise=0.3)
    found = fits(cube, hsi.Tucker((2, 3, 3), max_iter=3))
    x = cube.values.reshape(6, 120, 20)
    u = [
        np.linalg.svd(np.moveaxis(x, i, 0).reshape(n, -1))[0][:, :r]
        for i, (n, r) in enumerate(((6, 2), (120, 3), (20, 3)))
    ]
    for _ in range(100):
        u[0] = np.linalg.svd(np.einsum("tpe,pj,ek->tjk", x, u[1], u[2]).reshape(6, -1))[0][:, :2]
        u[1] = np.linalg.svd(np.einsum("tpe,ti,ek->pik", x, u[0], u[2]).reshape(120, -1))[0][:, :3]
        u[2] = np.linalg.svd(np.einsum("tpe,ti,pj->eij", x, u[0], u[1]).reshape(20, -1))[0][:, :3]
    core = np.einsum("tpe,ti,pj,ek->ijk", x, *u)
    best = np.sqrt(1 - (core**2).sum() / (x**2).sum())
    whole = hsi.reconstruct(found, dtype="f8")
    assert float(np.sqrt(((cube - whole) ** 2).sum() / (cube**2).sum())) == pytest.approx(best, rel=1e-4)
    assert found["core"].dims == ("component", "frame_rank", "energy_rank")
    np.testing.assert_allclose(
        found["frame_factors"] @ found["frame_factors"].rename(frame_rank="b"), np.eye(2), atol=1e-9
    )
    np.testing.assert_allclose(hsi.project(found, cube), found["abundances"], atol=1e-5)


def test_non_negative_tucker_fits_and_resumes(tmp_path: Path) -> None:
    cube, _ = stack(noise=0.02)
    model = hsi.Tucker((3, 3, 3), nonnegative=True, max_iter=12, tol=0)
    whole = fits(cube, model)
    parts = (whole["core"], whole["frame_factors"], whole["energy_factors"], whole["abundances"])
    assert min(float(part.min()) for part in parts) >= 0
    assert float(whole["relative_residual"]) < 0.022
    assert np.all(np.diff(whole["objective"]) <= 0)
    fits(cube, hsi.Tucker((3, 3, 3), nonnegative=True, max_iter=5, tol=0), checkpoint=tmp_path / "run")
    resumed = fits(cube.chunk(frame=2), model, checkpoint=tmp_path / "run", resume=True)
    np.testing.assert_allclose(resumed["core"], whole["core"], rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(whole["endmembers"].sum("energy"), float(whole["mean_spectrum"].sum()))


def test_time_courses_separate_spectra_that_one_sum_mixes() -> None:
    """Scene of the specification: at most 2 degrees, and a third of what the sum of the frames gives."""
    lazy, truth = hsi.simulate.tensor_stack(seed=1)
    cube = lazy.compute()
    found = fits(cube, hsi.CPD(3))
    angles = np.degrees(hsi.metrics.score(found, truth)["spectral_angle"])
    summed = hsi.fit(cube.sum("frame").astype("u2").assign_attrs(cube.attrs), hsi.NMF(3), seed=0)
    other = np.degrees(hsi.metrics.score(summed, truth)["spectral_angle"])
    assert angles.max() <= 2
    assert angles.max() <= other.max() / 3
    assert codes(found) == []
    assert suggest_rank(cube, range(2, 5)).attrs["suggested"] == 3
    assert "tensor_too_few" in codes(fits(cube, hsi.CPD(2)))
    assert "tensor_too_many" in codes(fits(cube, hsi.CPD(4, max_iter=20)))


def test_moving_maps_like_courses_and_cancelling_components_are_said() -> None:
    moved, _ = hsi.simulate.tensor_stack(seed=0, drift=1.0)
    assert "tensor_moving" in codes(fits(moved.compute(), hsi.CPD(3)))
    cube, (a, c, s) = stack(noise=0.0)
    rng = np.random.default_rng(2)
    same = np.einsum("kt,kp,ke->tpe", a[[0, 1, 1]], c, s).reshape(cube.shape)
    noisy = cube.copy(data=same + 0.01 * rng.standard_normal(cube.shape))
    assert "tensor_alike" in codes(fits(noisy, hsi.CPD(3)))
    # A tensor of rank three that ones of rank two come near to, without end: d/dt of a product (de Silva and Lim 2008).
    (a0, a1), (c0, c1), (s0, s1) = (np.linalg.qr(f.T)[0].T[:2] for f in (a - a.mean(), c - c.mean(), s - s.mean()))
    limit = sum(np.einsum("t,p,e->tpe", *each) for each in ((a1, c0, s0), (a0, c1, s0), (a0, c0, s1)))
    found = fits(cube.copy(data=limit.reshape(cube.shape)), hsi.CPD(2, nonnegative=False, tol=0))
    assert found.attrs["status"] == "stagnated"
    assert "tensor_cancelling" in codes(found)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (lambda: hsi.CPD(3, modes="frame+y+x,energy"), "needs at least three modes, got 2 .* this is a matrix"),
        (lambda: hsi.CPD(3, modes="frame,y,x,energy"), "y and x are two long modes"),
        (lambda: hsi.CPD(3, modes=["frame", ["y", "x"]]), "modes lacks 'energy'"),
        (lambda: hsi.CPD(3, modes="frame,y+x,energy,frame"), "modes has 'frame' twice"),
        (lambda: hsi.CPD(3, modes="tilt,y+x,energy"), "modes has 'tilt', which is no dim of the cube; .*Known: energy"),
        (lambda: hsi.CPD(3, modes="y+x,frame+energy,frame"), "modes has 'frame' twice"),
        (lambda: hsi.CPD(121), "n_components=121 is more than 6 x 20, the product of the two smallest"),
        (lambda: hsi.CPD(3, modes=3), "modes is a list of dims"),
        (lambda: hsi.CPD(3, weighting="counts"), "weighting='counts' is not known"),
        (lambda: hsi.CPD(3, nonnegative="no"), "nonnegative is True or False"),
        (lambda: hsi.Tucker((3, 3)), "ranks has a whole number for each of at least three modes"),
        (lambda: hsi.Tucker((2, 2, 3, 3)), "ranks has 4 numbers for 3 modes"),
        (lambda: hsi.Tucker((7, 3, 3)), "has 7 for a mode of size 6"),
        (lambda: hsi.Tucker((1, 2, 3)), "3 is more than the product of the others, 2"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(model: Any, words: str) -> None:
    cube, _ = stack()
    with pytest.raises(InputError, match=words) as raised:
        hsi.plan(cube, model())
    assert "\n" not in str(raised.value)


def test_values_that_no_fit_can_use_are_refused() -> None:
    cube, _ = stack()
    flat = cube[0]
    with pytest.raises(InputError, match=r"at least three modes, got 2 .* fit scalehsi\.NMF"):
        hsi.plan(flat, hsi.CPD(2))
    bad = cube.copy()
    bad[2, 3, 4, 5] = np.nan
    with pytest.raises(InputError, match="1 values are NaN or Inf, and CPD needs every value"):
        fits(bad, hsi.CPD(2))
    with pytest.raises(InputError, match="means of the data are negative; type weighting=None"):
        fits(cube - 10, hsi.CPD(2, weighting="poisson"))
