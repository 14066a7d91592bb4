"""Projection onto given spectra: arrays, files of references, other energy axes, and every constraint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from numpy.testing import assert_allclose

import scalehsi as hsi
from scalehsi.cube import make_cube
from scalehsi.io.reference_spectra import open_spectra
from scalehsi.schema import InputError
from tests.helpers import raise_if_dask_computes

ENERGY = 100 + 2.0 * np.arange(60)
SPECTRA = np.stack([(ENERGY / 100) ** -3, np.exp(-((ENERGY - 150) ** 2) / 50), 0.2 + 0.001 * (ENERGY - 100)])


def scene(*, counts: float = 2e3, seed: int = 0, noise: bool = True) -> tuple[xr.DataArray, np.ndarray[Any, Any], Any]:
    """A cube of fractions of three spectra, the spectra in counts, and the fractions (y, x, component)."""
    rng = np.random.default_rng(seed)
    s = counts * SPECTRA / SPECTRA.sum(axis=1, keepdims=True)
    maps = rng.dirichlet([0.5] * 3, (9, 8))
    mean = maps @ s
    values = rng.poisson(mean).astype("u2") if noise else mean
    return make_cube(values, energy=ENERGY, energy_units="eV", signal="EELS"), s, maps


def as_spectra(s: Any, energy: Any = ENERGY, unit: str = "eV") -> xr.DataArray:
    return xr.DataArray(s, dims=("component", "energy"), coords={"energy": ("energy", energy, {"units": unit})})


@pytest.mark.parametrize("constraint", [None, "nnls", "fcls", "poisson", "ls"])
@pytest.mark.parametrize("weighting", [None, "poisson"])
def test_maps_of_given_spectra_are_the_truth(constraint: str | None, weighting: str | None) -> None:
    cube, s, maps = scene(noise=False)
    with raise_if_dask_computes(0):
        lazy = hsi.project(as_spectra(s), cube.chunk({"y": 4, "x": 5}), constraint=constraint, weighting=weighting)
    assert lazy.dims == ("component", "y", "x")
    assert lazy.attrs["constraint"] == (constraint or "nnls")
    assert_allclose(lazy.transpose("y", "x", "component"), maps, atol=2e-5)


def test_each_constraint_is_kept() -> None:
    cube, s, _ = scene(counts=200)
    found = {c: hsi.project(s, cube, constraint=c) for c in ("nnls", "fcls", "poisson", "ls")}
    assert_allclose(found["fcls"].sum("component"), 1.0, atol=1e-6)
    assert min(float(found[c].min()) for c in ("nnls", "fcls", "poisson")) >= 0
    assert float(found["ls"].min()) < 0
    assert float(abs(found["nnls"].sum("component") - 1).max()) > 0.01


def test_weights_are_worth_what_they_cost() -> None:
    cube, s, maps = scene(counts=1e4, seed=2)
    error = {
        w: float(((hsi.project(s, cube, constraint="fcls", weighting=w).values.transpose(1, 2, 0) - maps) ** 2).sum())
        for w in (None, "poisson")
    }
    assert error["poisson"] < error[None]


def test_a_result_can_be_solved_with_another_constraint() -> None:
    cube, _, _ = scene()
    result = hsi.fit(cube, hsi.NMF(3, max_iter=20), seed=0)
    maps = hsi.project(result, cube, constraint="fcls")
    assert_allclose(maps.sum("component"), 1.0, atol=1e-6)
    same = hsi.project(result["endmembers"], cube, constraint="nnls", weighting=None)
    assert_allclose(hsi.project(result, cube, constraint="nnls", weighting=None), same, rtol=1e-5, atol=1e-6)


def test_keV_and_eV_are_one_axis() -> None:
    cube, s, maps = scene(noise=False)
    found = hsi.project(as_spectra(s, ENERGY / 1000, "keV"), cube, constraint="fcls")
    assert_allclose(found.transpose("y", "x", "component"), maps, atol=2e-5)


def test_another_axis_is_resampled_only_when_asked() -> None:
    cube, s, maps = scene(noise=False)
    fine = np.arange(98.0, 222.0, 0.5)
    scale = s.sum(axis=1, keepdims=True) / SPECTRA.sum(axis=1, keepdims=True)
    own = np.stack([(fine / 100) ** -3, np.exp(-((fine - 150) ** 2) / 50), 0.2 + 0.001 * (fine - 100)]) * scale / 4
    with pytest.raises(InputError, match=r"248 channels, 98 to 221.5, the cube 60, 100 to 218; type resample=True"):
        hsi.project(as_spectra(own, fine), cube)
    found = hsi.project(as_spectra(own, fine), cube, constraint="fcls", resample=True)
    assert_allclose(found.transpose("y", "x", "component"), maps, atol=5e-3)
    with pytest.raises(InputError, match=r"do not reach 10 of the 60 channels .* hsi\.prepare\.crop\(cube, energy="):
        hsi.project(as_spectra(s[:, :50], ENERGY[:50]), cube, resample=True)


def test_a_table_with_units_is_read(tmp_path: Path) -> None:
    cube, s, maps = scene(noise=False)
    for name, mark, unit, factor in (("a.csv", ",", "eV", 1), ("b.csv", ";", "keV", 1e-3), ("c.txt", "\t", "eV", 1)):
        table = np.column_stack([ENERGY * factor, s.T])
        head = mark.join([f"energy ({unit})", "Pt", "Co", "Ru"])
        np.savetxt(tmp_path / name, table, delimiter=mark, header=head, comments="", fmt="%.12g")
        found = hsi.project(tmp_path / name, cube, constraint="fcls")
        assert_allclose(found.transpose("y", "x", "component"), maps, atol=2e-5)
    assert open_spectra(tmp_path / "a.csv")["name"].values.tolist() == ["Pt", "Co", "Ru"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Cu,Zn\n1,2\n", r"the first column of 'r.csv' is 'Cu', which names no unit of energy; its first line is such"),
        ("energy (eV),Cu\n1,x\n", "no table of numbers below its header"),
        ("energy (eV),Cu\n1,2,3\n", "2 headers and rows of another length"),
        ("energy (eV)\n", "holds no table of spectra"),
    ],
)
def test_tables_without_units_or_numbers_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "r.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        hsi.project(tmp_path / "r.csv", scene()[0])


def test_files_of_other_programs_are_read_and_joined(tmp_path: Path) -> None:
    pytest.importorskip("rsciio")
    cube, s, maps = scene(noise=False)
    head = "#FORMAT : EMSA/MAES Spectral Data File\n#VERSION : 1.0\n#TITLE : {0}\n#NPOINTS : 60\n#NCOLUMNS : 1\n"
    head += "#XUNITS : eV\n#YUNITS : Counts\n#DATATYPE : Y\n#XPERCHAN : 2.0\n#OFFSET : 100.0\n#SIGNALTYPE : ELS\n"
    head += "#SPECTRUM : Data starts here\n"
    paths = []
    for k, row in enumerate(s):
        text = head.format(k) + "".join(f"{v:.9e},\n" for v in row) + "#ENDOFDATA : \n"
        paths.append(tmp_path / f"{k}.msa")
        paths[-1].write_text(text)
    found = hsi.project(paths, cube, constraint="fcls")
    assert_allclose(found.transpose("y", "x", "component"), maps, atol=2e-5)


def test_masked_pixels_are_nan() -> None:
    cube, s, _ = scene()
    used = np.ones((9, 8), bool)
    used[2, 3] = False
    maps = hsi.project(s, cube.assign_coords(mask=(("y", "x"), used)), constraint="fcls")
    assert np.isnan(maps.values[:, 2, 3]).all()
    assert np.isfinite(maps.values[:, used]).all()


def test_what_is_no_spectrum_is_refused() -> None:
    cube, s, _ = scene()
    with pytest.raises(InputError, match="the spectra have 59 channels, the cube 60"):
        hsi.project(s[:, :-1], cube)
    with pytest.raises(InputError, match=r"a result, spectra or files of spectra are expected, got dict"):
        hsi.project({}, cube)
    with pytest.raises(InputError, match="spectrum 2 of 2 is zero in all channels"):
        hsi.project(np.stack([s[0], 0 * s[0]]), cube)
    with pytest.raises(InputError, match="the spectra have NaN or Inf"):
        hsi.project(s * np.nan, cube)
    with pytest.raises(InputError, match="constraint='fccls' is not known; did you mean 'fcls'"):
        hsi.project(s, cube, constraint="fccls")
    with pytest.raises(InputError, match="needs spectra that are not negative"):
        hsi.project(-s, cube, constraint="poisson")
    with pytest.raises(InputError, match=r"dims \('component', 'energy'\), got \('a', 'energy'\)"):
        hsi.project(xr.DataArray(s, dims=("a", "energy")), cube)
