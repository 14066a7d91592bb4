"""Results and checkpoints of the old layout open, and the same fits give the same numbers.

`fixtures/before_the_move.zip` was written by the last version with the old layout: two cubes, a pair of acquisitions,
a result and a checkpoint of each model.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import scalehsi as hsi
from scalehsi.models.catalogue import model_class
from scalehsi.result import settings_of
from tests.paths import ROOT

pytestmark = pytest.mark.long

CUBES = {
    "pca": "chequerboard",
    "nmf": "chequerboard",
    "nmf_ard": "chequerboard",
    "nmf_poisson": "phases",
    "psnmf": "phases",
    "pansharpen": ("spatial", "spectral"),
    "gp": "nmf",
    "gp_tiles": "nmf",
}


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("before")
    with zipfile.ZipFile(ROOT / "tests" / "fixtures" / "before_the_move.zip") as stored:
        stored.extractall(folder)
    return folder


@pytest.fixture(autouse=True)
def objective_alone_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stop rule of that time: it did not look at the turn of the endmembers, so its fits ended earlier."""
    monkeypatch.setattr("scalehsi.fitting.loop.LARGEST_TURN_DEG", np.inf)


def data_of(before: Path, name: str) -> Any:
    source = CUBES[name]
    if isinstance(source, tuple):
        return {each: hsi.open_cube(before / f"{each}.zarr") for each in source}
    if source in CUBES:
        return hsi.open_result(before / f"{source}.zarr")
    return hsi.open_cube(before / f"{source}.zarr")


def model_of(result: xr.Dataset) -> Any:
    return model_class(result.attrs["model"]).from_settings(settings_of(result))


CHANGED_MAPS = {"PSNMF": 0.02}
"""Maps that differ from old ones by up to this: since then counts of pure pixels are found by the gamma likelihood, and
abundances of the neighbours are averaged in place of fractions of the counts."""


CHANGED_SPECTRA = {"PSNMF": 1.0}
"""In degrees: its first stage ends elsewhere since steps that gain nothing are not extrapolated any further."""


def assert_same_result(found: xr.Dataset, old: xr.Dataset) -> None:
    """The same status and variables; spectra within 0.00 degrees, maps to rounding where nothing was mended."""
    assert found.attrs["status"] == old.attrs["status"]
    assert set(old.data_vars) <= set(found.data_vars)
    if "endmembers" in old:
        angle = hsi.metrics.spectral_angle(found["endmembers"], old["endmembers"])
        assert float(np.degrees(angle).max()) < CHANGED_SPECTRA.get(old.attrs["model"], 0.005)
    scale = float(abs(old["abundances"]).max())
    atol = CHANGED_MAPS.get(old.attrs["model"], 1e-4 * scale)
    np.testing.assert_allclose(found["abundances"], old["abundances"], rtol=1e-4, atol=atol)


@pytest.mark.parametrize("name", CUBES)
def test_an_old_result_opens_and_the_same_fit_gives_it_again(before: Path, name: str) -> None:
    old = hsi.open_result(before / f"{name}.zarr")
    assert_same_result(hsi.fit(data_of(before, name), model_of(old), seed=0), old)


@pytest.mark.parametrize("name", CUBES)
def test_an_old_checkpoint_resumes_to_the_old_result(before: Path, name: str) -> None:
    old = hsi.open_result(before / f"{name}.zarr")
    folder = before / f"{name}.ckpt"
    stored = (folder / "state.npz").read_bytes()
    assert_same_result(hsi.fit(data_of(before, name), model_of(old), seed=0, checkpoint=folder, resume=True), old)
    assert (folder / "state.npz").read_bytes() == stored


@pytest.mark.parametrize("name", [name for name in CUBES if not name.startswith(("gp", "pansharpen"))])
def test_an_old_result_is_a_fitted_state(before: Path, name: str, tmp_path: Path) -> None:
    old = hsi.open_result(before / f"{name}.zarr")
    assert json.loads(old.attrs["settings"])["n_components"] >= old.sizes["component"]
    maps = hsi.project(old, data_of(before, name))
    assert maps.shape == old["abundances"].shape
    assert hsi.reconstruct(old).sizes["energy"] == old.sizes["energy"]
    if CUBES[name] == "chequerboard":
        assert hsi.report(old, tmp_path / "report").is_file()
