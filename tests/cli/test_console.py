"""What a terminal gets, and what a log file gets."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import shutil
import subprocess
import sys
import unicodedata

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


# What others wrote for a terminal.

PLANTED = "a\x1b]0;title\x07\x1b[2J\x9b31m[red]b[/nothing]\u202e\u2066txt\u2028\r\x7fend"
SHOWN = r"a\x1b]0;title\x07\x1b[2J\x9b31m[red]b[/nothing]\u202e\u2066txt\u2028\r\x7fend"
NAME, NAMED = PLANTED.replace("/", ""), SHOWN.replace("/", "")


def obeyed(text: str) -> list[str]:
    """The characters of a text that a terminal obeys, apart from line feeds and tabs."""
    return [c for c in text if unicodedata.category(c) in {"Cc", "Cf", "Cs", "Zl", "Zp"} and c not in "\n\t"]


@pytest.fixture
def planted(scene, tmp_path, monkeypatch):
    """A folder with a cube, its truth and a result whose attributes and names are for a terminal."""
    monkeypatch.chdir(tmp_path)
    for name in ("map", "map_truth", "result"):
        shutil.copytree(scene / f"{name}.zarr", f"{name}{NAME}.zarr")
    for store in tmp_path.iterdir():
        for meta in store.rglob("zarr.json"):
            values = json.loads(meta.read_text(encoding="utf-8"))
            attributes = [values.get("attributes", {})]
            inside = values.get("consolidated_metadata") or {}
            attributes += [each.get("attributes", {}) for each in inside.get("metadata", {}).values()]
            for attrs in attributes:
                attrs |= {"title": PLANTED, "source": PLANTED, "history": json.dumps([PLANTED])}
                if values["node_type"] == "group":
                    warning = {"code": PLANTED, "text": PLANTED, "remedy": PLANTED}
                    attrs |= {"advice": PLANTED, "warnings": json.dumps([warning])}
            meta.write_text(json.dumps(values), encoding="utf-8")
    return [str(next(tmp_path.glob(f"{name}a*.zarr"))) for name in ("map", "map_truth", "result")]


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        ("info {cube}", SHOWN),
        ("info {cube} --quick --json", ""),
        ("info {result}", SHOWN),
        ("plan {cube} -k 2", NAMED),
        ("fit {cube} {out} -k 2 --set max_iter=2", NAMED),
        ("fit {cube} {out} -k 2 --set nonsense=[red]\x1b[31m --debug", r"nonsense"),
        ("compare {truth} {result}", NAMED),
        ("convert {cube} {out}", NAMED),
        ("report {result} {out}_report", rf"warning ({SHOWN}): {SHOWN} Try: {SHOWN}".replace(r"\u2028\r", " ")),
        ("info nowhere{out}", NAMED),
        ("\x1b[31m[red]nothing {cube}", r"scalehsi \x1b[31m[red]nothing: No such command"),
        ("info {cube} --\x1b[31m[/red]", r"No such option: --\x1b[31m[/red]"),
    ],
)
def test_what_others_wrote_for_a_terminal_is_shown_and_not_sent(run, planted, words, shown):
    cube, truth, result = planted
    places = {"cube": cube, "truth": truth, "result": result, "out": f"out{NAME}.zarr"}
    _, out, err = run(*(word.format(**places) for word in words.split(" ")))
    assert shown in out + err
    assert "MarkupError" not in err
    assert obeyed(out + err) == []


def test_names_that_are_not_utf_8_are_shown(run, tmp_path):
    status, out, err = run("info", os.fsdecode(os.fsencode(tmp_path) + b"/m\xff.zarr"))
    assert (status, out) == (2, "")
    assert r"m\udcff.zarr" in err


def test_a_bar_of_words_counts_them_and_estimates_in_the_second_half(monkeypatch):
    now = iter(range(0, 1000, 10))
    monkeypatch.setattr(console.time, "monotonic", lambda: float(next(now)))
    left = console._TimeLeft("words")
    assert left(2_000_000, 8_000_000) == "2.0 of 8.0 million words"
    assert left(4_000_000, 8_000_000) == "4.0 of 8.0 million words"
    assert left(5_000_000, 8_000_000) == "5.0 of 8.0 million words, about 0:30 left"
    plain = console._TimeLeft()
    assert plain(1, 4) == "about 0:30 left"


@pytest.mark.parametrize("shown", ["bar", "busy"])
def test_a_bar_shows_the_name_of_a_file_as_it_is(shown):
    screen = io.StringIO()
    of = console.Console()
    of._err = console.RichConsole(file=screen, force_terminal=True, width=200, markup=False)
    with getattr(of, shown)(f"converting {NAME}"):
        pass
    assert f"converting {NAMED}" in screen.getvalue()
    assert "\x1b]0;" not in screen.getvalue()
