"""What no kind of NMF may depend on, whatever the data: chunks, order, unit, and what a mask leaves out.

One table of kinds; each says which invariants it has by its nature. Fits start from given endmembers, so that nothing
but the engine itself is compared.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any, Final

import dask
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import scalehsi as hsi
from scalehsi.arrays import Float
from tests.strategies import partitions

PASSES: Final = 4
"""INVARIANTS=50 in the environment looks at 50 random cubes of each kind in place of two that are always the same."""
FEW: Final = settings(max_examples=int(os.environ.get("INVARIANTS", "2")), derandomize="INVARIANTS" not in os.environ)


@dataclass(frozen=True)
class Kind:
    """Settings, and what they are subject to.

    ``falls``: the objective never rises. ``neighbours``: pixels that lie beside each other matter. ``order``: channels
    that lie beside each other matter. ``unit``: the unit of intensity matters, as counts have one of their own.
    ``turns``: components are updated one after the other, so that their order matters on the way. ``carried``: maps
    travel from pass to pass, in single precision.
    """

    settings: dict[str, Any] = field(default_factory=dict)
    falls: bool = False
    neighbours: bool = False
    order: bool = False
    unit: bool = False
    turns: bool = False
    carried: bool = False

    def model(self, s: Float, **more: Any) -> hsi.NMF:
        known = {"max_iter": PASSES, "tol": 0.0, "start": s, **self.settings, **more}
        known.setdefault("loss", "frobenius")
        if known["loss"] == "poisson":
            known.setdefault("bin_factor", 1)
        return hsi.NMF(len(s), **known)


KINDS: Final = {
    "exact": Kind(falls=True),
    "weighted": Kind({"weighting": "poisson"}, falls=True),
    "simplex": Kind({"simplex": True}, falls=True),
    "sparse": Kind({"sparsity": 0.05}, falls=True, turns=True),
    "weighted sparse": Kind({"sparsity": 0.05, "weighting": "poisson"}, falls=True, turns=True),
    "smooth": Kind({"smoothness": 0.5}, falls=True, neighbours=True, carried=True),
    "edges": Kind({"smoothness": 0.5, "smoothness_kind": "tv"}, neighbours=True, carried=True),
    "smooth spectra": Kind({"spectral_smoothness": 0.5}, falls=True, order=True),
    "relevance": Kind({"ard": "exponential"}, falls=True, turns=True),
    "relevance, half-normal": Kind({"ard": "half-normal"}, falls=True, turns=True),
    "weighted relevance": Kind({"ard": "exponential", "weighting": "poisson"}, falls=True, turns=True),
    "orthogonal": Kind({"orthogonality": 0.2}, turns=True),
    "orthogonal relevance": Kind({"ard": "exponential", "orthogonality": 0.2}, turns=True),
    "missing": Kind({"missing": True}, falls=True),
    "subspace": Kind({"compress": True}),
    "als": Kind({"solver": "als"}, carried=True),
    "mals": Kind({"solver": "mals"}, carried=True),
    "hals": Kind({"solver": "hals"}, falls=True, turns=True, carried=True),
    "mu": Kind({"solver": "mu"}, falls=True, carried=True),
    "counts": Kind({"loss": "poisson"}, falls=True),
    "counts, simplex": Kind({"loss": "poisson", "simplex": True}, falls=True),
    "counts, sparse": Kind({"loss": "poisson", "sparsity": 0.05}, falls=True, unit=True),
    "counts, relevance": Kind({"loss": "poisson", "ard": "exponential"}, unit=True),
    "counts, half-normal": Kind({"loss": "poisson", "ard": "half-normal"}, unit=True),
    "counts, mu": Kind({"loss": "poisson", "solver": "mu"}, falls=True, carried=True),
}


def kinds(**having: bool) -> Any:
    """The kinds whose flags are these, as a parameter of a test."""
    names = [n for n, kind in KINDS.items() if all(getattr(kind, flag) == value for flag, value in having.items())]
    return pytest.mark.parametrize("name", names)


@st.composite
def scenes(draw: st.DrawFn, *, name: str = "exact", least: int = 2) -> tuple[xr.DataArray, Float]:
    """A cube of counts as floats, some pixels and channels of it empty, and endmembers (K, E) to start from."""
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    rows, columns = draw(st.integers(least, 5)), draw(st.integers(3, 6))
    components = draw(st.integers(1, min(3, rows * columns - 2)))
    channels = 40 if name == "subspace" else draw(st.integers(components + 1, 14))
    level = draw(st.sampled_from([3.0, 40.0]))
    s, c = rng.random((components, channels)) ** 2, rng.random((rows, columns, components)) ** 2
    x = rng.poisson(level * c @ s).astype(float)
    # An empty pixel on the simplex is any mixture of endmembers of the same brightness, as those of a start are.
    if "simplex" not in name and draw(st.booleans()):
        x[rng.integers(rows), rng.integers(columns)] = 0
        x[..., rng.integers(channels)] = 0
    x[0, 0] += 1  # not all of it is empty
    x[-1, -1, 0] += 1
    if name == "missing":
        x[rng.random(x.shape) < 0.2] = np.nan
        x[..., 0] = np.nan_to_num(x[..., 0], nan=1.0)
    return cubed(x), rng.random((components, channels)) + 0.05


def cubed(x: Float) -> xr.DataArray:
    return hsi.make_cube(x, energy=np.arange(float(x.shape[-1])), energy_units="eV")


def fitted(name: str, cube: xr.DataArray, s: Float, **more: Any) -> xr.Dataset:
    with dask.config.set(scheduler="synchronous"):
        return hsi.fit(cube, KINDS[name].model(s, **more), seed=0)


def shares(result: xr.Dataset) -> Float:
    """What each component gives to each voxel (K, P, E): of one that hardly any pixel has the spectrum is noise."""
    c = result["abundances"].values.reshape(result.sizes["component"], -1)
    return np.asarray(c[:, :, None] * result["endmembers"].values[:, None], dtype=float)


def same(got: Float, want: Float, tolerance: float = 1e-4) -> None:
    """Equal to rounding, which passes amplify, in units of the largest value."""
    assert got.shape == want.shape
    np.testing.assert_allclose(got, want, rtol=0, atol=tolerance * max(np.nanmax(np.abs(want)), 1e-300))


def same_objective(got: xr.Dataset, want: xr.Dataset, cube: xr.DataArray) -> None:
    """A small difference of large sums is equal to a rounding of these."""
    scale = 1e-9 * float((np.nan_to_num(cube.values) ** 2).sum()) + 1e-6 * np.abs(want["objective"].values).max()
    np.testing.assert_allclose(got["objective"], want["objective"], rtol=0, atol=scale)


@pytest.mark.parametrize("name", KINDS)
@FEW
@given(data=st.data())
def test_chunks_and_threads_change_nothing(name: str, data: st.DataObject) -> None:
    cube, s = data.draw(scenes(name=name))
    want = fitted(name, cube, s)
    chunks = {dim: data.draw(partitions(size)) for dim, size in cube.sizes.items()}
    with dask.config.set(scheduler=data.draw(st.sampled_from(["synchronous", "threads"])), num_workers=2):
        got = hsi.fit(cube.chunk(chunks), KINDS[name].model(s), seed=0)
    same(shares(got), shares(want))
    same_objective(got, want, cube)


@pytest.mark.parametrize("name", KINDS)
@FEW
@given(data=st.data())
def test_pixels_in_another_order_are_the_same_pixels(name: str, data: st.DataObject) -> None:
    cube, s = data.draw(scenes(name=name))
    rows, columns = cube.shape[:2]
    if KINDS[name].neighbours:  # mirrored, everybody keeps the neighbours
        order = np.arange(rows * columns).reshape(rows, columns)[::-1, ::-1].ravel()
    else:
        order = np.array(data.draw(st.permutations(range(rows * columns))))
    moved = cubed(cube.values.reshape(rows * columns, -1)[order].reshape(cube.shape))
    want, got = fitted(name, cube, s), fitted(name, moved, s)
    same(shares(got), shares(want)[:, order])
    same_objective(got, want, cube)


@pytest.mark.parametrize("name", KINDS)
@FEW
@given(data=st.data())
def test_channels_in_another_order_are_the_same_channels(name: str, data: st.DataObject) -> None:
    cube, s = data.draw(scenes(name=name))
    channels = cube.shape[-1]
    order = np.arange(channels)[::-1] if KINDS[name].order else np.array(data.draw(st.permutations(range(channels))))
    want, got = fitted(name, cube, s), fitted(name, cubed(cube.values[..., order]), s[:, order])
    same(shares(got), shares(want)[..., order])
    same_objective(got, want, cube)


@kinds(turns=False)
@FEW
@given(data=st.data())
def test_components_in_another_order_are_the_same_components(name: str, data: st.DataObject) -> None:
    cube, s = data.draw(scenes(name=name))
    order = np.array(data.draw(st.permutations(range(len(s)))))
    want, got = fitted(name, cube, s), fitted(name, cube, s[order])
    same_objective(got, want, cube)
    there, here = (sorted(shares(result), key=np.sum) for result in (want, got))
    if np.diff([part.sum() for part in there]).min(initial=1.0) > 1e-3:  # else two may have changed places
        same(np.array(here), np.array(there))


@kinds(unit=False)
@FEW
@given(data=st.data(), unit=st.sampled_from([2.0**-12, 0.37, 1e3]))
def test_the_unit_of_intensity_does_not_matter(name: str, data: st.DataObject, unit: float) -> None:
    cube, s = data.draw(scenes(name=name))
    want, got = fitted(name, cube, s), fitted(name, cubed(unit * cube.values), s)
    same(shares(got) / unit, shares(want))


@pytest.mark.parametrize("name", KINDS)
@FEW
@given(data=st.data())
def test_nothing_is_negative_and_the_objective_never_rises(name: str, data: st.DataObject) -> None:
    kind = KINDS[name]
    cube, s = data.draw(scenes(name=name))
    result = fitted(name, cube, s, max_iter=15)
    for variable in ("endmembers", "abundances", "residual", "objective"):
        assert np.isfinite(result[variable]).all(), variable
    assert (result["endmembers"] >= 0).all()
    assert (result["abundances"] >= 0).all()
    if kind.settings.get("simplex"):
        np.testing.assert_allclose(result["abundances"].sum("component"), 1.0, atol=1e-5)
    # A posterior of fewer components is another one, and without bound while one of them goes.
    relevant = result.get("relevance", xr.ones_like(result["component"], dtype=float)).min() > 1e-4
    if kind.falls and relevant and result.sizes["component"] == len(s):
        objective = result["objective"].values
        power = float((np.nan_to_num(cube.values) ** 2).sum())
        rounding = 1e-7 if kind.carried else 1e-9
        assert np.diff(objective).max(initial=0.0) <= rounding * max(power, abs(objective[0]))


@kinds(neighbours=False)
@FEW
@given(data=st.data())
def test_a_mask_is_as_good_as_dropping_the_pixels(name: str, data: st.DataObject) -> None:
    cube, s = data.draw(scenes(name=name, least=3))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    used = rng.random(cube.shape[:2]) < 0.7
    used.flat[: len(s) + 1] = True
    used[-1, -1] = True
    kept = cubed(cube.values[used][None])
    got, want = fitted(name, cube.assign_coords(mask=(("y", "x"), used)), s), fitted(name, kept, s)
    same(shares(got)[:, used.ravel()], shares(want))
    assert np.isnan(got["abundances"].values[:, ~used]).all()
    same_objective(got, want, kept)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize(
    "shape", [(1, 1, 6), (4, 3, 1), (1, 1, 1), (3, 4, 5)], ids=["pixel", "channel", "value", "K=1"]
)
def test_the_smallest_cubes_of_one_component(name: str, shape: tuple[int, int, int]) -> None:
    x = np.arange(1.0, 1 + np.prod(shape)).reshape(shape)
    result = fitted(name, cubed(x), np.ones((1, shape[-1])), max_iter=10)
    assert result.sizes["component"] == 1
    for variable in ("endmembers", "abundances", "residual", "objective"):
        assert np.isfinite(result[variable]).all(), variable
    penalised = {"sparsity", "ard", "smoothness", "spectral_smoothness"} & set(KINDS[name].settings)
    many_on_simplex = "simplex" in KINDS[name].settings and shape[0] > 1
    if 1 in (shape[0] * shape[1], shape[2]) and not penalised and not many_on_simplex:
        np.testing.assert_allclose(hsi.reconstruct(result), x, rtol=1e-4)  # of rank one


@pytest.mark.parametrize("name", KINDS)
@FEW
@given(data=st.data())
def test_empty_pixels_and_channels_stay_empty(name: str, data: st.DataObject) -> None:
    cube, s = data.draw(scenes(name=name, least=3))
    x = cube.values.copy()
    x[1], x[..., -1] = 0, 0
    result = fitted(name, cubed(x), s, max_iter=40)
    simplex, neighbours = "simplex" in KINDS[name].settings, KINDS[name].neighbours
    if not simplex and not neighbours:
        assert (result["abundances"].values[:, 1] <= 1e-6 * float(result["abundances"].max())).all()
    if not KINDS[name].order and name != "mals":  # which holds every step near the last
        used = result["abundances"].sum(("y", "x")).values > 0
        last = result["endmembers"].values[used, -1]
        assert (last <= 1e-4 * float(result["endmembers"].max())).all()
