"""Bad input of every kind: its own message in Python and on the command line, and nothing changed on disk."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import scalehsi as hsi
from scalehsi.cli import main
from scalehsi.schema import InputError
from tests.refusals import counts, cube_of, refused, tree


def with_value(value: float) -> xr.DataArray:
    """Counts with one value that is none."""
    data = counts().astype("f4")
    data[2, 3, 4] = value
    return cube_of(data)


def write_raw(cube: xr.DataArray, path: Path) -> None:
    """A store as another program might write it, with no check of ours."""
    cube.to_dataset(name="counts").to_zarr(path, consolidated=False, zarr_format=3)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with the cube ``good.zarr`` and its result ``fitted.zarr``."""
    monkeypatch.chdir(tmp_path)
    hsi.save(cube_of(counts()), "good.zarr")
    hsi.save(hsi.fit(cube_of(counts()), hsi.NMF(2, max_iter=2)), "fitted.zarr")
    return tmp_path


@dataclass(frozen=True)
class Case:
    """One kind of bad input.

    ``write`` makes it, ``call`` meets it in Python and ``words`` on the command line; ``message`` is what both say,
    unless the command line says it in its own words, ``typed``.
    """

    message: str
    words: str
    call: Callable[[], Any]
    write: Callable[[], Any] = lambda: None
    typed: str = ""


def fit(path: str, *, model: Any = None, **options: Any) -> Any:
    return hsi.fit(hsi.open_cube(path), model or hsi.NMF(2, max_iter=2), **options)


def broken_store(*, lose: str = "", cut: str = "") -> None:
    """A store of ours that lost a file, or whose file was cut."""
    shutil.copytree("good.zarr", "broken.zarr")
    if lose:
        (Path("broken.zarr") / lose).unlink()
    if cut:
        path = Path("broken.zarr") / cut
        path.write_bytes(path.read_bytes()[:40])


FIT = "fit {} new.zarr -k 2 --set max_iter=2"
CASES = {
    "missing file": Case(
        "there is no 'god.zarr'; did you mean 'good.zarr'", FIT.format("god.zarr"), lambda: fit("god.zarr")
    ),
    "missing folder": Case("the folder 'no' does not exist", FIT.format("no/map.zarr"), lambda: fit("no/map.zarr")),
    "directory that is no store": Case(
        "'here' is a folder but no Zarr store", FIT.format("here"), lambda: fit("here"), lambda: Path("here").mkdir()
    ),
    "unknown format": Case(
        "no reader for 'notes.docx'",
        FIT.format("notes.docx"),
        lambda: fit("notes.docx"),
        lambda: Path("notes.docx").touch(),
    ),
    "file that is not what its name says": Case(
        "'map.hspy' cannot be read",
        FIT.format("map.hspy"),
        lambda: fit("map.hspy"),
        lambda: Path("map.hspy").write_text("?"),
    ),
    "store without a chunk": Case(
        "the store 'broken.zarr' is truncated: 1 of 1 chunk files of 'counts' are missing",
        FIT.format("broken.zarr"),
        lambda: fit("broken.zarr"),
        lambda: broken_store(lose="counts/c/0/0/0"),
    ),
    "store without its root": Case(
        "the store 'broken.zarr' is truncated: its zarr.json is missing",
        FIT.format("broken.zarr"),
        lambda: fit("broken.zarr"),
        lambda: broken_store(lose="zarr.json"),
    ),
    "store with cut metadata": Case(
        "the store 'broken.zarr' is damaged",
        FIT.format("broken.zarr"),
        lambda: fit("broken.zarr"),
        lambda: broken_store(cut="counts/zarr.json"),
    ),
    "wrong order of dims": Case(
        "a cube ends in the dims ('y', 'x', 'energy'), got ('energy', 'y', 'x'); type cube.transpose",
        FIT.format("turned.zarr"),
        lambda: fit("turned.zarr"),
        lambda: write_raw(cube_of(counts()).transpose("energy", "y", "x"), Path("turned.zarr")),
    ),
    "no energy axis": Case(
        "the cube has no 'energy' axis, its dims are ('y', 'x', 'E'); type cube.rename({'E': 'energy'})",
        FIT.format("nameless.zarr"),
        lambda: fit("nameless.zarr"),
        lambda: write_raw(cube_of(counts()).rename(energy="E"), Path("nameless.zarr")),
    ),
    "no energy values": Case(
        "the energy axis has no coordinate values; type cube.assign_coords(energy=",
        FIT.format("bare.zarr"),
        lambda: fit("bare.zarr"),
        lambda: write_raw(cube_of(counts()).drop_vars("energy"), Path("bare.zarr")),
    ),
    "NaN": Case(
        "NaN or Inf, the first at y=2, x=3, energy=1.53333 keV; repair them",
        FIT.format("nan.zarr"),
        lambda: fit("nan.zarr"),
        lambda: hsi.save(with_value(np.nan), "nan.zarr"),
    ),
    "Inf": Case(
        "NaN or Inf, the first at y=2, x=3, energy=1.53333 keV; repair them",
        FIT.format("inf.zarr"),
        lambda: fit("inf.zarr"),
        lambda: hsi.save(with_value(-np.inf), "inf.zarr"),
    ),
    "negative counts under a Poisson loss": Case(
        "negative, which counts never are; fit with loss='frobenius'",
        FIT.format("negative.zarr") + " --set loss=poisson",
        lambda: fit("negative.zarr", model=hsi.NMF(2, loss="poisson")),
        lambda: hsi.save(with_value(-1), "negative.zarr"),
        typed="fit with loss=frobenius and weighting=None",
    ),
    "nothing but zeros": Case(
        "every value of the cube is zero; is it the right file",
        FIT.format("zeros.zarr"),
        lambda: fit("zeros.zarr"),
        lambda: hsi.save(cube_of(counts() * 0), "zeros.zarr"),
    ),
    "k below one": Case(
        "n_components is at least 1, got 0",
        "fit good.zarr new.zarr -k 0",
        lambda: fit("good.zarr", model=hsi.NMF(0)),
        typed="-k is at least 1, got 0",
    ),
    "k above the channels": Case(
        "n_components=17 is more than the 16 channels of the cube; take 16 or fewer",
        "fit good.zarr new.zarr -k 17",
        lambda: fit("good.zarr", model=hsi.NMF(17)),
        typed="-k 17 is more than the 16 channels of the cube; take 16 or fewer",
    ),
    "k above the channels, in a plan": Case(
        "n_components=17 is more than the 16 channels of the cube; take 16 or fewer",
        "plan good.zarr -k 17",
        lambda: hsi.plan(hsi.open_cube("good.zarr"), hsi.NMF(17)),
        typed="-k 17 is more than the 16 channels of the cube; take 16 or fewer",
    ),
    "mask that leaves nothing": Case(
        "the mask leaves no pixel",
        FIT.format("masked.zarr"),
        lambda: fit("masked.zarr"),
        lambda: write_raw(
            cube_of(counts()).assign_coords(mask=(("y", "x"), np.zeros((6, 5), bool))), Path("masked.zarr")
        ),
    ),
    "step whose mask leaves nothing": Case(
        "the mask leaves no pixel",
        "prepare good.zarr new.zarr --step mask:min_counts=9999",
        lambda: fit_prepared("mask:min_counts=9999"),
    ),
    "energy out of range": Case(
        "crop: energy=7:9 leaves nothing; the axis runs from 1 to 3 keV",
        "prepare good.zarr new.zarr --step crop:energy=7:9",
        lambda: fit_prepared("crop:energy=7:9"),
    ),
    "unknown step": Case(
        "there is no step 'crup'; did you mean 'crop'?",
        "prepare good.zarr new.zarr --step crup:energy=1:2",
        lambda: fit_prepared("crup:energy=1:2"),
    ),
    "unknown setting": Case(
        "NMF has no setting 'los'; did you mean 'loss'?",
        "fit good.zarr new.zarr -k 2 --set los=poisson",
        lambda: hsi.NMF.from_settings({"n_components": 2, "los": "poisson"}),
    ),
    "unknown value of a setting": Case(
        "loss='poison' is not known; did you mean 'poisson'?",
        "fit good.zarr new.zarr -k 2 --set loss=poison",
        lambda: hsi.NMF(2, loss="poison"),
        typed="loss=poison is not known; did you mean 'poisson'?",
    ),
    "existing destination": Case(
        "'fitted.zarr' exists already; give another name, or replace it with overwrite=True",
        "fit good.zarr fitted.zarr -k 2",
        lambda: hsi.save(hsi.open_cube("good.zarr"), "fitted.zarr"),
        typed="'fitted.zarr' exists already; give another name, or replace it with --overwrite",
    ),
    "existing destination of a conversion": Case(
        "'fitted.zarr' exists already; give another name, or replace it with overwrite=True",
        "convert good.zarr fitted.zarr",
        lambda: hsi.convert("good.zarr", "fitted.zarr"),
        typed="'fitted.zarr' exists already; give another name, or replace it with --overwrite",
    ),
    "destination that is somebody's folder": Case(
        "'mine' exists already; it is a folder but no Zarr store and is left alone",
        "convert good.zarr mine --overwrite",
        lambda: hsi.convert("good.zarr", "mine", overwrite=True),
        lambda: (Path("mine").mkdir(), Path("mine/thesis.txt").write_text("42")),
    ),
    "destination in no folder": Case(
        "the folder 'no' does not exist; make it first",
        "reconstruct fitted.zarr no/new.zarr",
        lambda: hsi.save(hsi.open_cube("good.zarr"), "no/new.zarr"),
    ),
    "destination of another format": Case(
        "scalehsi writes Zarr stores, not",
        "fit good.zarr new.h5 -k 2",
        lambda: hsi.save(hsi.open_cube("good.zarr"), "new.h5"),
    ),
    "cube where a result is expected": Case(
        "'good.zarr' is a cube, no result", "report good.zarr page", lambda: hsi.open_result("good.zarr")
    ),
    "result where a cube is expected": Case(
        "'fitted.zarr' is a result, no cube", "fit fitted.zarr new.zarr -k 2", lambda: hsi.open_cube("fitted.zarr")
    ),
    "checkpoint of an earlier fit": Case(
        "checkpoint='ck' holds the state of an earlier fit",
        "fit good.zarr new.zarr -k 2 --checkpoint ck",
        lambda: fit("good.zarr", checkpoint="ck"),
        lambda: fit("good.zarr", checkpoint="ck"),
        typed="--checkpoint ck holds the state of an earlier fit",
    ),
    "checkpoint of another fit": Case(
        "is of another fit: its seed is 0, this one's is 1",
        "fit good.zarr new.zarr -k 2 --set max_iter=2 --checkpoint ck --resume --seed 1",
        lambda: fit("good.zarr", checkpoint="ck", resume=True, seed=1),
        lambda: fit("good.zarr", checkpoint="ck"),
    ),
    "report where something is": Case(
        "exists already",
        "report fitted.zarr page",
        lambda: hsi.report(hsi.open_result("fitted.zarr"), "page"),
        lambda: Path("page").mkdir(),
    ),
    "result of another energy axis": Case(
        "the energy axis of the result has 16 channels, 1 to 3, that of the cube 8",
        "project fitted.zarr narrow.zarr new.zarr",
        lambda: hsi.project(hsi.open_result("fitted.zarr"), hsi.open_cube("narrow.zarr")),
        lambda: hsi.save(hsi.prepare.bin(cube_of(counts()), energy=2), "narrow.zarr"),
    ),
    "device that is not there": Case(
        "device 'gpu' is not known; did you mean 'cpu'?",
        "fit good.zarr new.zarr -k 2 --device gpu",
        lambda: fit("good.zarr", device="gpu"),
    ),
    "cluster that nobody knows": Case(
        "unknown kind of cluster 'lokal'; did you mean 'local'?",
        "fit good.zarr new.zarr -k 2 --cluster lokal",
        lambda: hsi.connect("lokal"),
    ),
}


def fit_prepared(step: str) -> None:
    fit_cube = hsi.prepare.apply_step(hsi.open_cube("good.zarr"), step)
    hsi.fit(fit_cube, hsi.NMF(2, max_iter=2))


@pytest.mark.parametrize("kind", CASES)
def test_bad_input_has_its_message_and_changes_nothing(folder, capsys, kind):
    case = CASES[kind]
    case.write()
    before = tree(folder)
    with pytest.raises(InputError) as caught:
        case.call()
    assert case.message in str(caught.value)
    assert tree(folder) == before
    assert (case.typed or case.message) in refused(capsys, case.words.split())
    assert tree(folder) == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            "fit good.zarr new.zarr",
            "NMF needs the number of components; add for example -k 3 (scalehsi rank suggests it)",
        ),
        (
            "fit good.zarr new.zarr -k 2 --model nnmf",
            "there is no model 'nnmf'; did you mean 'nmf'? Known: backgroundnmf, blu,",
        ),
        ("fit good.zarr new.zarr -k 2 --set n_components=3", "-k 2 and --set n_components=3 differ; leave one out"),
        ("fit good.zarr new.zarr -k 2 --set tol", "--set 'tol': key=value is expected"),
        ("fit good.zarr new.zarr -k 2 --set tol=1 --set tol=2", "--set gives 'tol' twice"),
        ("fit good.zarr new.zarr -k 2 --resume", "none is named; add --checkpoint DIR"),
        ("fit good.zarr new.zarr -k 2 --memory 1GiB", "add --cluster local"),
        ("fit good.zarr new.zarr -k 2 --report fitted.zarr", "'fitted.zarr' exists already; give another folder"),
        ("fit good.zarr good.zarr -k 2 --overwrite", "'good.zarr' is what is read and would be replaced"),
        ("project fitted.zarr good.zarr fitted.zarr --overwrite", "is what is read and would be replaced"),
        ("project fitted.zarr good.zarr good.zarr --overwrite", "is what is read and would be replaced"),
        ("fit god.zarr fitted.zarr -k 2 --overwrite", "there is no 'god.zarr'; did you mean 'good.zarr'"),
        ("simulate chess new.zarr", "there is no kind of scene 'chess'; did you mean"),
        ("simulate phases new.zarr --set shap=8,8", "the scene 'phases' has no setting 'shap'; did you mean 'shape'?"),
        ("simulate phases new.zarr --set shape=8", "shape must be two whole numbers"),
        ("simulate phases good.zarr", "'good.zarr' exists already"),
        ("compare good.zarr fitted.zarr", "the truth has no variable 'endmembers'"),
        ("convert good.zarr new.zarr --chunk-mb 0", "--chunk-mb is a size in MiB above 0"),
        ("info good.zarr --dataset 7", "there is no dataset 7 in 'good.zarr'; it holds 0 'counts'"),
        ("demo good.zarr/counts/c/0/0/0", "is a file; give the demo a folder"),
    ],
)
def test_words_that_are_wrong_change_nothing(folder, capsys, words, message):
    before = tree(folder)
    assert message in refused(capsys, words.split())
    assert tree(folder) == before


def test_unknown_models_are_refused_in_python():
    from scalehsi.models.catalogue import model_class

    assert model_class("nmf") is hsi.NMF
    with pytest.raises(InputError, match="there is no model 'nnmf'; did you mean 'nmf'"):
        model_class("nnmf")


def test_a_truncated_chunk_is_reported(folder, capsys):
    broken_store(cut="counts/c/0/0/0")
    before = tree(folder)
    assert "a chunk of the data is damaged" in refused(capsys, FIT.format("broken.zarr").split())
    assert tree(folder) == before


@pytest.mark.parametrize("settings", [{}, {"loss": "poisson"}, {"weighting": "poisson"}])
def test_pixels_and_channels_of_zeros_are_handled(folder, capsys, settings):
    data = counts()
    data[0], data[:, 4], data[:, :, 5] = 0, 0, 0
    hsi.save(cube_of(data), "gaps.zarr")
    direct = fit("gaps.zarr", model=hsi.NMF(2, max_iter=20, **settings))
    for variable in direct.data_vars.values():
        assert np.isfinite(variable.values).all()
    assert not direct["abundances"].values[:, 0].any()
    assert not direct["endmembers"].values[:, 5].any()
    words = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    assert main(["fit", "gaps.zarr", "r.zarr", "-k", "2", "--set", "max_iter=20", *words]) == 0
    np.testing.assert_array_equal(hsi.open_result("r.zarr")["abundances"].values, direct["abundances"].values)
    assert main(["info", "gaps.zarr"]) == 0
    assert f"{5 + 5} pixels, 1 channel" in capsys.readouterr().out
