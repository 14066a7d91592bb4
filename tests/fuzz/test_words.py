"""Random settings of methods and random command lines."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scalehsi.cli.arguments import settings_of
from scalehsi.models.catalogue import CATALOGUE, model_class
from scalehsi.schema import InputError
from tests.fuzz.conftest import Survives
from tests.fuzz.strategies import ODD, VALUES

pytestmark = [pytest.mark.long, pytest.mark.filterwarnings("ignore")]

FIELDS = sorted({field for name in CATALOGUE for field in model_class(name).__dataclass_fields__})
WORDS = st.sampled_from(
    ["poisson", "auto", "none", "1", "-1", "2", "0", "1e300", "nan", "1,2", "[1,[2]]", "{}", "null", "'a"]
)
TEXTS = WORDS | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)


@settings(settings.get_profile("fuzz"))
@given(
    name=st.sampled_from(sorted(CATALOGUE)),
    given_settings=st.dictionaries(st.sampled_from([*FIELDS, "virus", ""]), VALUES | ODD, max_size=3),
)
def test_settings_of_a_result(name: str, given_settings: dict[str, Any]) -> None:
    """As a result holds them."""
    try:
        text = json.dumps(given_settings)
        model_class(name).from_settings(json.loads(text))
    except InputError as error:
        said = str(error).strip()
    else:
        said = ""
    assert "\n" not in said


@settings(settings.get_profile("fuzz"))
@given(pairs=st.lists(st.tuples(st.sampled_from(FIELDS), TEXTS), max_size=3), model=st.sampled_from(sorted(CATALOGUE)))
def test_settings_that_are_typed(
    pairs: list[tuple[str, str]], model: str, good: Path, work: Callable[[], Path], survives: Survives
) -> None:
    work()
    words = [word for key, value in pairs for word in ("--set", f"{key}={value}")]
    survives("plan", good / "map.zarr", "--model", model, "-k", "2", *words)


@settings(settings.get_profile("fuzz"))
@given(st.lists(TEXTS | st.builds("{}={}".format, TEXTS, TEXTS), max_size=4))
def test_pairs_of_words(words: list[str]) -> None:
    try:
        said = str(settings_of(words))
    except InputError as error:
        said = str(error)
    assert said.strip()


COMMANDS = ["info", "plan", "convert", "prepare", "project", "reconstruct", "compare", "models", "report", "gp"]
OPTIONS = ["--set", "-k", "--model", "--dataset", "--step", "--chunk-mb", "--axes", "--energy", "--pixel", "--mask"]
MORE = [
    "--overwrite",
    "--json",
    "--quiet",
    "--quick",
    "--workers",
    "--memory",
    "--elements",
    "--line",
    "--beside",
    "--upsample",
]
STEPS = [
    "crop:y=0:3",
    "bin:y=2",
    "mask:min_counts=5",
    "crop:energy=:",
    "background:",
    "bin:y=0",
    "mask:",
    "crop:x=nan:2",
]


@settings(settings.get_profile("fuzz"))
@given(
    command=st.sampled_from(COMMANDS),
    words=st.lists(
        st.sampled_from(["G/map.zarr", "G/result.zarr", "G/truth.zarr", "out.zarr", ".", "G", ""]), max_size=3
    ),
    options=st.lists(st.sampled_from(OPTIONS + MORE) | st.sampled_from(STEPS) | TEXTS, max_size=5),
)
def test_command_lines(
    command: str,
    words: list[str],
    options: list[str],
    good: Path,
    work: Callable[[], Path],
    survives: Survives,
) -> None:
    work()
    typed = [command, *words, *options]
    typed = [w.replace("G/", f"{good}/") if w.startswith("G/") else str(good) if w == "G" else w for w in typed]
    # Nothing of the good folder is a destination.
    survives(*(w for w in typed if w != "--overwrite"))
