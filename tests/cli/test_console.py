"""What a terminal gets, and what a log file gets."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import subprocess
import sys

import pytest

import scalehsi as hsi
from scalehsi.cli import console
from scalehsi.result import ResultWarning, warnings_text

pytestmark = pytest.mark.long


def on_a_terminal(*words: str, **environment: str) -> tuple[str, str]:
    """Run a command whose standard error is a terminal; gives standard output and what the terminal got."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "scalehsi", *words],
        stdout=subprocess.PIPE,
        stderr=theirs,
        text=True,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "100", **environment},
    )
    os.close(theirs)
    shown = b""
    while True:
        try:
            part = os.read(ours, 4096)
        except OSError:  # Linux says so when the other side is closed
            break
        if not part:
            break
        shown += part
    os.close(ours)
    out, _ = process.communicate()
    assert process.returncode == 0, shown
    return out, shown.decode()


def test_a_terminal_gets_a_bar_and_a_pipe_gets_none(scene, tmp_path):
    words = (
        "fit",
        str(scene / "map.zarr"),
        str(tmp_path / "r.zarr"),
        "-k",
        "4",
        "--set",
        "max_iter=60",
        "--set",
        "tol=0",
    )
    out, shown = on_a_terminal(*words)
    assert "fitting" in shown
    assert "left" in shown
    assert "\x1b[" in shown
    assert "\x1b[" not in out
    assert "fitting" not in out
    out, shown = on_a_terminal(*words[:-3], "max_iter=2", "--overwrite", "--quiet")
    assert out == ""
    assert shown.startswith("NMF: stopped at the iteration limit after 2 iterations.")
    assert len(shown.splitlines()) == 1


def test_a_log_file_gets_a_line_now_and_then(run, scene, tmp_path, monkeypatch):
    monkeypatch.setattr(console, "REMARK_SECONDS", 0.0)
    status, _, err = run("fit", scene / "map.zarr", tmp_path / "r.zarr", "-k", "4", "--set", "max_iter=3")
    assert status == 0
    assert re.search(r"^fitting: 2 of at most 3 iterations, objective [0-9.]+.*left$", err, re.MULTILINE)
    assert "\x1b[" not in err
    status, _, err = run("convert", scene / "map.zarr", tmp_path / "c.zarr")
    assert status == 0
    assert "converting map.zarr: 100 %" in err


def test_a_bar_is_drawn_with_the_time_left(monkeypatch):
    screen = io.StringIO()
    shown = console.Console()
    shown._err = console.RichConsole(file=screen, force_terminal=True, width=120, markup=False)
    with shown.bar("working") as listener:
        listener(1, 4)
        listener(3, 4)
    assert "working" in screen.getvalue()
    assert re.search(r"about \d+:\d\d left", screen.getvalue())


TWO = [
    ResultWarning("drift", "Spectra shift by at least 0.6 eV (1.9 channels)\nover the map.", "prepare --step align"),
    ResultWarning("below_noise", "Component 4 is 0.3 of what noise alone can reach.", "n_components=3"),
]


@pytest.fixture
def fits_warn(monkeypatch):
    """Let every fit end with two warnings."""
    fit = hsi.fit

    def warned(*given, **more):
        return fit(*given, **more).assign_attrs(warnings=warnings_text(TWO))

    monkeypatch.setattr(hsi, "fit", warned)


@pytest.mark.parametrize("words", [(), ("--quiet",), ("--json",), ("--json", "--quiet")])
def test_each_warning_of_a_fit_is_a_line_on_standard_error(run, scene, tmp_path, fits_warn, words):
    status, out, err = run("fit", scene / "map.zarr", tmp_path / "r.zarr", "-k", "4", *words)
    assert status == 0
    lines = [line for line in err.splitlines() if line.startswith("warning")]
    assert lines == [
        "warning (drift): Spectra shift by at least 0.6 eV (1.9 channels) over the map. Try: prepare --step align",
        "warning (below_noise): Component 4 is 0.3 of what noise alone can reach. Try: -k 3",
    ]
    assert "warning (" not in out
    if "--quiet" in words:
        assert err.splitlines() == lines
    if "--json" in words:
        assert json.loads(out)["warnings"] == [each._asdict() for each in TWO]


def test_a_fit_without_warnings_shows_none(run, scene, tmp_path, monkeypatch, fits_warn):
    monkeypatch.setitem(globals(), "TWO", [])
    _, out, err = run("fit", scene / "map.zarr", tmp_path / "r.zarr", "-k", "4", "--json", "--quiet")
    assert (json.loads(out)["warnings"], err) == ([], "")


def test_a_gaussian_process_shows_its_warnings(run, scene, tmp_path, fits_warn):
    _, out, err = run("gp", scene / "result.zarr", tmp_path / "r.zarr", "--quiet")
    assert (out, len(err.splitlines())) == ("", 2)
    assert err.startswith("warning (drift): ")
