"""Changed stores of cubes and results through the commands that read them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.conftest import Survives
from tests.fuzz.strategies import spoil

pytestmark = [pytest.mark.long, pytest.mark.filterwarnings("ignore")]

ON_CUBES = {
    "info": ["info", "map.zarr"],
    "plan": ["plan", "map.zarr", "-k", "2"],
    "convert": ["convert", "map.zarr", "out.zarr"],
    "prepare": ["prepare", "map.zarr", "out.zarr", "--step", "bin:y=2,x=2"],
    "fit": ["fit", "map.zarr", "out.zarr", "-k", "2", "--set", "max_iter=1", "--set", "loss=frobenius"],
    "repair": ["convert", "map.zarr", "out.zarr", "--axes", "y,x,energy", "--energy", "0:1:keV", "--mask", "invert"],
}
ON_RESULTS = {
    "info": ["info", "result.zarr"],
    "reconstruct": ["reconstruct", "result.zarr", "out.zarr"],
    "project": ["project", "result.zarr", "G/map.zarr", "out.zarr"],
    "compare": ["compare", "G/truth.zarr", "result.zarr"],
    "truth": ["compare", "result.zarr", "G/result.zarr"],
}


@settings(settings.get_profile("fuzz"))
@given(data=st.data(), command=st.sampled_from(sorted(ON_CUBES)))
def test_cubes(data: st.DataObject, command: str, good: Path, work: Callable[[], Path], survives: Survives) -> None:
    shutil.copytree(good / "map.zarr", work() / "map.zarr")
    spoil(data, Path("map.zarr"))
    survives(*ON_CUBES[command])


@settings(settings.get_profile("fuzz"))
@given(data=st.data(), command=st.sampled_from(sorted(ON_RESULTS)))
def test_results(data: st.DataObject, command: str, good: Path, work: Callable[[], Path], survives: Survives) -> None:
    shutil.copytree(good / "result.zarr", work() / "result.zarr")
    spoil(data, Path("result.zarr"))
    survives(*(word.replace("G/", f"{good}/") for word in ON_RESULTS[command]))
