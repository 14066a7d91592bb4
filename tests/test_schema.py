"""Names, units, statuses and the two error classes."""

from __future__ import annotations

from typing import get_args

import pytest

from scalehsi.schema import ADVICE, ENERGY_UNITS, LENGTH_UNITS, InputError, Interrupted, Status, suggest


def test_every_status_has_one_sentence_of_advice() -> None:
    assert set(ADVICE) == set(get_args(Status))
    assert all(advice.endswith(".") and advice[0].isupper() and "\n" not in advice for advice in ADVICE.values())


def test_units_agree_with_each_other() -> None:
    assert LENGTH_UNITS["m"] / LENGTH_UNITS["nm"] == pytest.approx(1e9)
    assert LENGTH_UNITS["nm"] / LENGTH_UNITS["Å"] == pytest.approx(10)
    assert LENGTH_UNITS["nm"] / LENGTH_UNITS["pm"] == pytest.approx(1000)
    # The micro sign and the Greek letter look alike; files hold both.
    assert LENGTH_UNITS["\u00b5m"] == LENGTH_UNITS["\u03bcm"] == LENGTH_UNITS["um"] == 1000
    assert ENERGY_UNITS["keV"] / ENERGY_UNITS["eV"] == 1000
    assert ENERGY_UNITS["eV"] / ENERGY_UNITS["meV"] == pytest.approx(1000)


def test_wrong_input_is_a_value_error() -> None:
    assert issubclass(InputError, ValueError)


def test_an_interrupted_fit_is_a_keyboard_interrupt_that_knows_its_checkpoint() -> None:
    error = Interrupted("stopped", checkpoint="run.ckpt", iteration=7)
    assert isinstance(error, KeyboardInterrupt)
    assert (str(error), error.checkpoint, error.iteration) == ("stopped", "run.ckpt", 7)
    assert (Interrupted("stopped").checkpoint, Interrupted("stopped").iteration) == (None, 0)


@pytest.mark.parametrize(
    ("name", "known", "text"),
    [
        ("n_component", ["tol", "n_components"], "did you mean 'n_components'? Known: n_components, tol"),
        ("NFM", ["pca", "nmf"], "did you mean 'nmf'? Known: nmf, pca"),
        ("xyzzy", ["pca", "nmf"], "Known: nmf, pca"),
        ("anything", [], "Known: "),
    ],
)
def test_the_nearest_name_is_suggested(name: str, known: list[str], text: str) -> None:
    assert suggest(name, known) == text
