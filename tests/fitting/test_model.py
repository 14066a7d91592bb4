"""Settings: what a model takes, and what it says to what it does not take."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
import xarray as xr

import scalehsi as hsi
from scalehsi.checks import check_components, check_weighting, choice
from scalehsi.fitting.model import DirectModel, IterativeModel, Model
from scalehsi.models.catalogue import CATALOGUE, model_class
from scalehsi.schema import InputError
from tests.helpers import counts_cube


@dataclass(frozen=True)
class Bare(IterativeModel):
    """A model that defines nothing."""

    n_components: int = 1
    _: KW_ONLY
    flavour: str = "plain"

    name: ClassVar[str] = "Bare"


# Settings of every model.

MODELS: list[tuple[type[Model], dict[str, Any]]] = [
    (hsi.NMF, {"n_components": 3}),
    (hsi.NMF, {"n_components": 3, "loss": "poisson", "max_iter": 7, "tol": 0.0}),
    (hsi.NMF, {"n_components": 3, "weighting": "poisson"}),
    (hsi.PCA, {"n_components": 3}),
    (hsi.PCA, {"n_components": 3, "weighting": None, "centre": True, "solver": "randomized", "power": 1}),
]


@pytest.mark.parametrize(("model", "settings"), MODELS)
def test_settings_survive_json_and_make_the_same_model(model: type[Model], settings: dict[str, Any]) -> None:
    made = model(**settings)
    again = model.from_settings(json.loads(json.dumps(made.to_settings())))
    assert again == made
    assert again.to_settings() == made.to_settings()
    assert set(made.to_settings()) >= {"max_iter", "tol", *settings}
    assert model_class(made.name) is model_class(made.name.lower()) is model


def test_numpys_numbers_are_numbers() -> None:
    # A fit that fails to write its settings down fails when all the work is done.
    made = hsi.NMF(np.int64(2), max_iter=np.int32(3), tol=np.float32(0.5))
    assert json.loads(json.dumps(made.to_settings())) == hsi.NMF(2, max_iter=3, tol=0.5).to_settings()
    result = hsi.fit(counts_cube((3, 4, 5)), made)
    assert json.loads(result.attrs["settings"])["n_components"] == 2


def test_settings_cannot_be_changed_and_are_given_by_name() -> None:
    model = hsi.NMF(2)
    with pytest.raises(dataclasses.FrozenInstanceError):
        model.max_iter = 5  # type: ignore[misc]
    with pytest.raises(TypeError, match="positional"):
        hsi.NMF(2, "poisson")  # type: ignore[misc]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_iter": 0}, "max_iter is a whole number of at least 1, got 0"),
        ({"max_iter": 2.5}, "max_iter is a whole number of at least 1, got 2.5"),
        ({"max_iter": True}, "max_iter is a whole number of at least 1, got True"),
        ({"max_iter": "many"}, "max_iter is a whole number of at least 1, got 'many'"),
        ({"tol": -1e-9}, "tol is a number that is not negative, got -1e-09"),
        ({"tol": math.nan}, "tol is a number that is not negative, got nan"),
        ({"tol": None}, "tol is a number that is not negative, got None"),
        ({"n_components": 0}, "n_components is at least 1, got 0"),
        ({"n_components": -1}, "n_components is at least 1, got -1"),
        ({"n_components": 2.0}, "n_components is a whole number, got 2.0"),
        ({"n_components": True}, "n_components is a whole number, got True"),
        ({"n_components": "3"}, "n_components is a whole number, got '3'"),
    ],
)
@pytest.mark.parametrize("model", [hsi.NMF, hsi.PCA])
def test_wrong_numbers_are_refused(model: type[Model], settings: dict[str, Any], message: str) -> None:
    for make in (lambda s: model(**s), model.from_settings):
        with pytest.raises(InputError, match=message):
            make({"n_components": 2, **settings})


@pytest.mark.parametrize(
    ("model", "settings", "message"),
    [
        (hsi.NMF, {"loss": "poison"}, "loss='poison' is not known; did you mean 'poisson'"),
        (hsi.NMF, {"loss": 3}, "loss=3 is not known; Known: auto, frobenius, poisson"),
        (hsi.NMF, {"weighting": "counts"}, "weighting='counts' is not known; it is None or 'poisson'"),
        (hsi.NMF, {"loss": "poisson", "weighting": "poisson"}, "belongs to loss='frobenius'"),
        (hsi.PCA, {"solver": "grams"}, "solver='grams' is not known; did you mean 'gram'"),
        (hsi.PCA, {"power": -1}, "power is a whole number that is not negative, got -1"),
    ],
)
def test_wrong_words_are_answered_with_the_nearest(model: type[Model], settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        model.from_settings({"n_components": 2, **settings})


def test_an_unknown_or_missing_setting_is_named() -> None:
    with pytest.raises(InputError, match="NMF has no setting 'n_component'; did you mean 'n_components'"):
        hsi.NMF.from_settings({"n_component": 3})
    with pytest.raises(InputError, match=r"NMF cannot be set up: .*n_components"):
        hsi.NMF.from_settings({})
    with pytest.raises(InputError, match="has no setting 'name'"):
        hsi.NMF.from_settings({"n_components": 3, "name": "X"})


# Checks that models share.


def test_components_are_held_against_the_cube() -> None:
    cube = counts_cube((2, 3, 4))
    check_components(4, cube)
    with pytest.raises(InputError, match="n_components=5 is more than the 4 channels of the cube; take 4 or fewer"):
        check_components(5, cube)
    with pytest.raises(InputError, match="n_components=3 is more than the 2 pixels of the cube; take 2 or fewer"):
        check_components(3, cube[:1, :2])
    with pytest.raises(InputError, match="more than the 4 channels"):
        hsi.fit(cube, hsi.PCA(5))


def test_words_and_weightings() -> None:
    choice("loss", "a", ("a", "b"))
    check_weighting(None)
    check_weighting("poisson")
    with pytest.raises(InputError, match="loss='c' is not known; Known: a, b"):
        choice("loss", "c", ("a", "b"))
    with pytest.raises(InputError, match="weighting='none' is not known"):
        check_weighting("none")


# The contract.


def test_a_model_of_the_catalogue_is_known_by_its_name_in_any_case(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CATALOGUE, "bare", f"{__name__}:Bare")
    assert model_class("bare") is model_class("BARE") is Bare
    with pytest.raises(InputError, match="there is no model 'NMFF'; did you mean 'nmf'"):
        model_class("NMFF")


def test_a_model_that_leaves_something_out_says_what() -> None:
    model, view, nothing = Bare(), hsi.blocks.open_blocks(counts_cube((2, 2, 3))), xr.Dataset()
    assert model.check(counts_cube((2, 2, 3))) is None
    for name, call in {
        "init": lambda: model.init(view, 0),
        "step": lambda: model.step(view, {}),
        "finish": lambda: model.finish(view, {}),
        "projector": lambda: model.projector(nothing),
    }.items():
        with pytest.raises(TypeError, match=f"Bare does not define {name}"):
            call()
    with pytest.raises(TypeError, match="DirectModel does not define solve"):
        DirectModel().solve(view, 0)
    assert model.cost((2, 2, 3), 1).passes == model.max_iter + 2
