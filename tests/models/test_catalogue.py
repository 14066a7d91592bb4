"""One line of the catalogue is all that a method needs: a toy method from a temporary module is found everywhere."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import scalehsi as hsi
from scalehsi.cli import main
from scalehsi.models.catalogue import CATALOGUE, model_class, settings_of_model
from scalehsi.schema import InputError
from tests.helpers import counts_cube
from tests.paths import ROOT

TOY = '''
from dataclasses import KW_ONLY, dataclass
from typing import ClassVar

import numpy as np
import xarray as xr

from scalehsi.checks import choice
from scalehsi.fitting.model import IterativeModel, Stats
from scalehsi.checks import check_components
from scalehsi.fitting.survey import survey


def maps(x, *, s, residual=True):
    c = x.astype("f8") @ np.linalg.pinv(s)
    rest = x - c @ s
    found = {"abundances": c.astype("f4"), "residual": np.sqrt((rest**2).mean(axis=1)).astype("f4")}
    return found, {"residual_spectrum": rest.sum(axis=0)}


@dataclass(frozen=True)
class Toy(IterativeModel):
    """Take the brightest sampled pixels for endmembers.

    Parameters
    ----------
    n_components : int
        K, the number of endmembers.
    mood : {"calm", "wild"}, default "calm"
        Changes nothing.
    max_iter : int, default 3
        Number of steps.
    tol : float, default 0
        Not used.
    """

    n_components: int
    _: KW_ONLY
    mood: str = "calm"
    max_iter: int = 3

    name: ClassVar[str] = "Toy"

    def __post_init__(self):
        super().__post_init__()
        choice("mood", self.mood, ("calm", "wild"))

    def check(self, cube):
        check_components(self.n_components, cube)

    def init(self, view, seed):
        seen = survey(view, seed=seed, counts=False, least=self.n_components)
        order = np.argsort(-seen.sample.sum(axis=1), kind="stable")[: self.n_components]
        return {"s": seen.sample[order].astype("f8") + np.eye(self.n_components, view.n_energies),
                "pixels": np.asarray(seen.pixels), "at": np.asarray(0)}

    def step(self, view, state):
        return {**state, "at": state["at"] + 1}, Stats(1.0 / (1.0 + float(state["at"])))

    def finish(self, view, state):
        return {"endmembers": xr.DataArray(state["s"], dims=("component", "energy"))}

    def projector(self, result):
        return maps, {"s": result["endmembers"].values}
'''


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "toy_method.py").write_text(TOY)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "toy_method", raising=False)
    monkeypatch.setitem(CATALOGUE, "toy", "toy_method:Toy")


def answer(capsys: pytest.CaptureFixture[str], *words: object) -> dict:
    assert main([*map(str, words), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_toy_method_is_found_everywhere(toy: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "toy_method" not in sys.modules
    assert "Toy" in dir(hsi)
    cube = counts_cube((12, 10, 8))
    hsi.save(cube, tmp_path / "cube.zarr")
    # Python
    result = hsi.fit(cube, hsi.Toy(2), seed=0)
    assert result.attrs["model"] == "Toy"
    assert hsi.plan(cube, hsi.Toy(2)).model == "Toy"
    assert hsi.project(result, cube).shape == (2, 12, 10)
    # The command line
    assert "toy" in {each["name"] for each in answer(capsys, "models")["models"]}
    settings = {each["name"]: each for each in answer(capsys, "models", "toy")["settings"]}
    assert list(settings) == ["n_components", "mood", "max_iter", "tol"]
    assert settings["mood"] == {
        "name": "mood",
        "type": '{"calm", "wild"}',
        "default": "calm",
        "required": False,
        "allowed": ["calm", "wild"],
        "text": "Changes nothing.",
    }
    words = ["fit", tmp_path / "cube.zarr", tmp_path / "result.zarr", "--model", "toy", "-k", 2]
    checkpoint = ["--checkpoint", tmp_path / "run.ckpt"]
    assert answer(capsys, *words, *checkpoint)["model"] == "Toy"
    assert answer(capsys, *words, *checkpoint, "--resume", "--overwrite")["iterations"] == 3
    assert answer(capsys, "plan", tmp_path / "cube.zarr", "--model", "toy", "-k", 2)["model"] == "Toy"
    # The report
    page = Path(answer(capsys, "report", tmp_path / "result.zarr", tmp_path / "report")["report"])
    assert "Toy" in page.read_text()


def test_errors_name_the_nearest_model_and_setting(toy: None, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no model 'toi'; did you mean 'toy'"):
        model_class("toi")
    with pytest.raises(InputError, match="Toy has no setting 'mod'; did you mean 'mood'"):
        model_class("toy").from_settings({"n_components": 2, "mod": "calm"})
    with pytest.raises(AttributeError, match="did you mean 'NMF'"):
        _ = hsi.NMFF


@pytest.mark.parametrize("name", CATALOGUE)
def test_every_setting_is_described(name: str) -> None:
    """Type, default and text of each field stand in the docstring, and the default there is the field's."""
    for setting in settings_of_model(model_class(name)):
        assert setting.text, setting.name


def test_listing_the_methods_loads_no_torch() -> None:
    code = (
        "import sys; from scalehsi.cli import main; main(['models']); main(['models', 'parallelgp']); "
        "main(['fit', '--help']); sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
