"""The evidence of a fit: that of plain numpy over the whole cube, whatever the chunks, masks and dims."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xarray as xr

import scalehsi as hsi
from scalehsi.fitting import last_pass
from scalehsi.fitting.judge.evidence import Evidence
from tests.fitting.judge.reference import evidence_of

SPECTRA = np.random.default_rng(1).random((3, 40)) * 4


def cube_of(shape: tuple[int, ...], *, dtype: str = "u2", seed: int = 0) -> xr.DataArray:
    """Counts of three phases."""
    rng = np.random.default_rng(seed)
    x = rng.poisson(rng.dirichlet(np.ones(3), shape) @ SPECTRA).astype(dtype)
    dims = ("time", "y", "x")[-len(shape) :]
    coords: dict[str, Any] = {d: (d, np.arange(n) * 0.5, {"units": "nm"}) for d, n in zip(dims, shape, strict=True)}
    coords["energy"] = ("energy", 0.2 + 0.01 * np.arange(40), {"units": "keV"})
    return xr.DataArray(x, dims=(*dims, "energy"), coords=coords, attrs={"signal": "EDS"})


def evidence_from(cube: xr.DataArray, model: Any, monkeypatch: pytest.MonkeyPatch) -> tuple[Evidence, xr.Dataset]:
    """What the last pass of a fit left, and the result."""
    kept: list[Evidence] = []
    collect = last_pass.evidence

    def spy(*given: Any, **named: Any) -> Evidence | None:
        found = collect(*given, **named)
        assert found is not None
        kept.append(found)
        return found

    monkeypatch.setattr(last_pass, "evidence", spy)
    result = hsi.fit(cube, model, seed=0)
    return kept[-1], result


def expected_of(cube: xr.DataArray, result: xr.Dataset) -> Evidence:
    maps = np.nan_to_num(np.moveaxis(result["abundances"].values, 0, -1))
    offset = result["offset"].values if "offset" in result else np.zeros(40)
    mask = cube["mask"].values if "mask" in cube.coords else None
    return evidence_of(cube.values, maps, result["endmembers"].values, offset=offset, mask=mask)


def assert_same(found: Evidence, expected: Evidence, *, purity: bool = True) -> None:
    """Equal but for the order of sums, in all that does not depend on which bins are sampled."""
    assert found.pixels == expected.pixels
    np.testing.assert_array_equal(found.regions.pixels, expected.regions.pixels)
    for name in ("mean", "component_total", "total", "peak_share"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-6, err_msg=name)
    np.testing.assert_array_equal(found.peak_index, expected.peak_index)
    np.testing.assert_allclose(found.regions.data, expected.regions.data, rtol=1e-12)
    np.testing.assert_allclose(found.regions.abundances, expected.regions.abundances, rtol=1e-5, atol=1e-6)
    for mine, plain in zip(found.bins, expected.bins, strict=True):
        np.testing.assert_array_equal(mine.index, plain.index)
        np.testing.assert_array_equal(mine.pixels, plain.pixels)
        np.testing.assert_array_equal(mine.data, plain.data)
    np.testing.assert_allclose(found.outer, expected.outer, rtol=1e-5, atol=1e-6)
    if purity:
        np.testing.assert_allclose(found.purity, expected.purity, rtol=1e-5)


@pytest.mark.parametrize("chunks", [None, (7, 11), (13, 5)])
@pytest.mark.parametrize("model", [hsi.NMF(3, loss="poisson", max_iter=5), hsi.PCA(2)], ids=["NMF", "PCA"])
def test_evidence_is_that_of_plain_numpy(model: Any, chunks: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    cube = cube_of((19, 21))
    cube = cube if chunks is None else cube.chunk(dict(zip("yx", chunks, strict=True)))
    found, result = evidence_from(cube, model, monkeypatch)
    expected = expected_of(cube, result)
    assert_same(found, expected, purity=model.name != "PCA")
    assert found.variance_index == pytest.approx(expected.variance_index, rel=1e-6)
    assert found.variance_index == pytest.approx(result.attrs["variance_index"])


@pytest.mark.parametrize("shape", [(1, 30), (26, 1), (2, 9, 12)])
def test_line_scans_and_frames(shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    cube = cube_of(shape).chunk({"x": 5})
    found, result = evidence_from(cube, hsi.NMF(2, loss="poisson", max_iter=3), monkeypatch)
    assert_same(found, expected_of(cube, result))


def test_masked_pixels_and_halo_stay_out(monkeypatch: pytest.MonkeyPatch) -> None:
    cube = cube_of((24, 24)).chunk({"y": 9, "x": 10})
    mask = np.random.default_rng(3).random((24, 24)) > 0.3
    cube = cube.assign_coords(mask=(("y", "x"), mask))
    found, result = evidence_from(cube, hsi.PSNMF(2, bin_factor=4), monkeypatch)
    expected = expected_of(cube, result)
    assert found.pixels == expected.pixels == mask.sum()
    np.testing.assert_allclose(found.regions.data, expected.regions.data, rtol=1e-12)
    np.testing.assert_allclose(found.total, expected.total, rtol=1e-6)
    np.testing.assert_allclose(found.component_total, expected.component_total, rtol=1e-5)
    np.testing.assert_allclose(found.purity, expected.purity, rtol=1e-5)


def test_missing_voxels_are_those_of_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    cube = cube_of((16, 16), dtype="f4")
    hidden = np.random.default_rng(2).random(cube.shape) < 0.1
    cube = cube.where(~hidden)
    found, result = evidence_from(cube, hsi.NMF(3, missing=True, loss="frobenius", max_iter=20), monkeypatch)
    filled = cube.copy(data=np.where(hidden, hsi.reconstruct(result).values, cube.values))
    np.testing.assert_allclose(found.regions.data, expected_of(filled, result).regions.data, rtol=1e-5)
    assert np.isfinite(found.variance_index)


@pytest.mark.parametrize("chunks", [(40, 40), (11, 64), (64, 7)])
def test_a_sample_of_a_large_map_does_not_depend_on_chunks(
    chunks: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    cube = cube_of((64, 64))
    model = hsi.NMF(2, loss="poisson", max_iter=3)
    whole, _ = evidence_from(cube, model, monkeypatch)
    cut, _ = evidence_from(cube.chunk(dict(zip("yx", chunks, strict=True))), model, monkeypatch)
    assert len(whole.bins[0].index) == 1024
    for a, b in zip(whole.bins, cut.bins, strict=True):
        np.testing.assert_array_equal(a.index, b.index)
        np.testing.assert_array_equal(a.data, b.data)
    assert cut.variance_index == pytest.approx(whole.variance_index, rel=1e-6)
    np.testing.assert_allclose(cut.outer, whole.outer, rtol=1e-5)


def test_the_evidence_costs_no_reading() -> None:
    cube = cube_of((20, 20)).chunk({"y": 10})
    result = hsi.fit(cube, hsi.NMF(3, loss="poisson", bin_factor=1, max_iter=4), seed=0)
    assert result.attrs["readings"] == 1


def test_the_neighbours_of_a_column_are_below() -> None:
    rng = np.random.default_rng(0)
    cube = cube_of((200, 1)).copy(data=rng.poisson(20.0, (200, 1, 40)).astype("u2"))
    result = hsi.fit(cube, hsi.NMF(1, loss="poisson", max_iter=3), seed=0)
    assert result.attrs["variance_index"] == pytest.approx(1.0, abs=0.05)
