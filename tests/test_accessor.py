"""``cube.hsi`` gives what the functions give, and has no state."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import scalehsi as hsi
from scalehsi import accessor
from scalehsi.schema import InputError
from tests.paths import ROOT


@pytest.fixture(scope="module")
def cube() -> xr.DataArray:
    return hsi.simulate.chequerboard((8, 6), n_components=3, n_channels=32).cube.compute()


def test_it_gives_what_the_functions_give(cube: xr.DataArray, tmp_path: Path) -> None:
    model = hsi.NMF(3, max_iter=4)
    result = cube.hsi.fit(model, seed=2, residual=False)
    wanted = hsi.fit(cube, model, seed=2, residual=False)
    xr.testing.assert_equal(result, wanted)
    xr.testing.assert_identical(cube.hsi.check(), cube)
    xr.testing.assert_identical(cube.hsi.crop(y=(0, 3)), hsi.prepare.crop(cube, y=(0, 3)))
    xr.testing.assert_identical(cube.hsi.bin(energy=4), hsi.prepare.bin(cube, energy=4))
    xr.testing.assert_identical(cube.hsi.mask(y=(0, 3)), hsi.prepare.mask(cube, y=(0, 3)))
    assert cube.hsi.plan(model) == hsi.plan(cube, model)
    xr.testing.assert_equal(cube.hsi.project(wanted), hsi.project(wanted, cube))
    maps = {"Ti L3": (450, 480)}
    xr.testing.assert_equal(
        cube.hsi.edge_maps(maps, background=(250, 440)), hsi.quantify.edge_maps(cube, maps, background=(250, 440))
    )
    xr.testing.assert_identical(
        hsi.open_cube(cube.hsi.save(tmp_path / "a.zarr")).compute(), cube.assign_attrs(source="a.zarr")
    )


@pytest.mark.parametrize("name", ["quantify", "select_rank", "to_hyperspy"])
def test_the_longer_ones_are_called_with_all_arguments(
    cube: xr.DataArray, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(hsi, name, lambda *given, **options: (given, options), raising=False)
    given, options = ((), {}) if name == "to_hyperspy" else ((range(3),), {"seed": 1})
    found = getattr(cube.hsi, name)(*given, **options)
    assert found[0][0] is cube
    assert (found[0][1:], found[1]) == (given, options)


def test_it_chains_and_refuses_as_the_functions_do(cube: xr.DataArray) -> None:
    assert cube.hsi.crop(y=(0, 3)).hsi.bin(x=2).shape == (4, 3, 32)
    with pytest.raises(InputError, match="the cube has no 'energy' axis"):
        xr.DataArray(np.ones((2, 3)), dims=("a", "b")).hsi.check()


def test_it_is_thin() -> None:
    """About forty lines, one delegating statement a method, nothing by `__getattr__`, no state but the cube."""
    (kind,) = (n for n in ast.parse(Path(accessor.__file__).read_text()).body if isinstance(n, ast.ClassDef))
    methods = [n for n in kind.body if isinstance(n, ast.FunctionDef)]
    assert all(not m.name.startswith("__") or m.name == "__init__" for m in methods)
    for method in methods:
        statements = [n for n in method.body if not (isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant))]
        assert len(statements) == 1, method.name
    assert 2 * len(methods) < 40


@pytest.mark.parametrize("code", ["import scalehsi, xarray", "import xarray, scalehsi"])
def test_it_exists_after_the_import(code: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"{code}; print(xarray.DataArray(0).hsi)"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "CubeAccessor" in done.stdout, done.stderr
