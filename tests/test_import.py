"""``import scalehsi`` is quick, and loads nothing heavy before it is used."""

from __future__ import annotations

import ast
import statistics
import subprocess
import sys

import pytest

from tests.paths import ROOT

pytestmark = pytest.mark.long

BASE = "import xarray, dask.array"
HEAVY = (
    *("torch", "gpytorch", "cupy", "matplotlib", "distributed", "dask_jobqueue"),
    *("rsciio", "hyperspy", "exspy", "xraylib", "h5py", "sklearn", "typer"),
)
LOADED = f"; import sys; print(*sorted(set({HEAVY!r}) & {{name.split('.')[0] for name in sys.modules}}))"


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def import_seconds(code: str) -> float:
    """Processor time of an import in a fresh process: waiting for a busy machine does not count."""
    timed = f"import time; t = time.process_time(); {code}; print(time.process_time() - t)"
    return float(run(timed))


def test_importing_takes_under_one_and_a_half_times_what_it_builds_on() -> None:
    import_seconds(BASE), import_seconds("import scalehsi")  # fills the file cache, and writes the byte code
    ratios: list[float] = []
    # The two take turns, so that a slow spell of the machine hits both; more turns are taken only when it is close.
    for _ in range(4):
        for _ in range(3):
            ratios.append(import_seconds("import scalehsi") / import_seconds(BASE))
        if statistics.median(ratios) < 1.4:
            break
    assert statistics.median(ratios) < 1.5


def test_importing_loads_nothing_heavy() -> None:
    assert run("import scalehsi" + LOADED) == ""


def test_looking_up_every_public_name_loads_nothing_heavy() -> None:
    code = "import scalehsi; found = [getattr(scalehsi, name) for name in scalehsi.__all__]"
    assert run(code + LOADED) == ""


def test_every_public_name_is_there_and_no_other_is_made_up() -> None:
    code = (
        "import scalehsi; names = scalehsi.__all__; assert len(names) == len(set(names)); "
        "assert set(names) <= set(dir(scalehsi)); print(scalehsi.__version__)"
    )
    assert run(code)
    import scalehsi

    with pytest.raises(AttributeError, match="no attribute 'nothing_of_the_kind'"):
        _ = scalehsi.nothing_of_the_kind


def test_no_import_of_the_package_is_hidden_inside_a_function() -> None:
    """Import contracts see these too, but a reader does not."""
    hidden = []
    for file in sorted((ROOT / "scalehsi").rglob("*.py")):
        for function in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                inside = [n for n in ast.walk(function) if isinstance(n, ast.Import | ast.ImportFrom)]
                hidden += [f"{file.name}:{n.lineno}" for n in inside if "scalehsi" in ast.unparse(n)]
    assert hidden == []
