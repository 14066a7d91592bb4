"""The good store, result and checkpoint that the tests change, and how a command is run on them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings

from scalehsi.cli.app import main
from tests.hostile import plant

settings.register_profile(
    "fuzz",
    max_examples=int(os.environ.get("FUZZ_EXAMPLES", "25")),
    derandomize="FUZZ_EXAMPLES" not in os.environ,
    deadline=None,
    database=None,
    phases=[Phase.generate],  # shrinking takes minutes, and the drawn values are short
    suppress_health_check=list(HealthCheck),
)

Survives = Callable[..., int]
LONGEST = 3000


@pytest.fixture(scope="session")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fuzz")
    plant(folder)
    return folder


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Path]]:
    """A function that makes an empty folder and works in it."""
    place = tmp_path / "place" / "work"

    def fresh() -> Path:
        monkeypatch.chdir(tmp_path)
        shutil.rmtree(place.parent, ignore_errors=True)
        place.mkdir(parents=True)
        monkeypatch.chdir(place)
        return place

    yield fresh
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def survives(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Survives:
    """A function that runs a command, and fails unless it is done or refused in one line."""

    def run(*words: object) -> int:
        capsys.readouterr()
        status = main([str(word) for word in words])
        said = capsys.readouterr().err
        assert status in (0, 2), f"exit {status}: {said[-600:]}"
        assert "Traceback" not in said
        lines = [line for line in said.splitlines() if line.startswith("scalehsi")]
        assert status == 0 or (len(lines) == 1 and len(lines[0]) < LONGEST), said[-600:]
        beside = {p.name for p in (tmp_path / "place").iterdir()}
        assert beside == {"work"}, f"written elsewhere: {beside}"
        if status == 2:
            assert not Path("out.zarr").exists()
        return status

    return run
