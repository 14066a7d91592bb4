"""The command line as a whole: help, options, exit status, and how errors look."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from typing import Any

import pytest

import scalehsi as hsi
from scalehsi.cli import app
from scalehsi.cli.arguments import settings_of
from scalehsi.schema import InputError

pytestmark = pytest.mark.long

ALL = ("--cluster", "--workers", "--memory", "--no-dashboard", "--device", "--json", "--quiet", "--debug")
OPTIONS = {
    "cite": ("[MODEL]",),
    "demo": ("--size", "--counts", "--seed", "--overwrite", "DIR"),
    "info": ("--dataset", "--quick", "CUBE"),
    "convert": ("--chunk-mb", "--dataset", "--set", "--overwrite", "SRC", "DST"),
    "simulate": ("--set", "--live", "--overwrite", "KIND", "DST", "chequerboard", "phases"),
    "prepare": ("--step", "--overwrite", "SRC", "DST", "crop", "bin", "mask"),
    "edges": ("CUBE", "OUT", "--edge", "--elements", "--background", "--share", "--figure", "--overwrite"),
    "plan": ("--model", "--components", "-k", "--set", "CUBE"),
    "models": ("[NAME]",),
    "fit": (
        "--model",
        "-k",
        "--set",
        "--elements",
        "scalehsi models NAME",
        "--start",
        "--seed",
        "--checkpoint",
        "--checkpoint-every",
        "--resume",
        "--report",
        "RESULT",
    ),
    "project": ("SPECTRA", "CUBE", "OUT", "--constraint", "--resample", "--overwrite"),
    "quantify": ("SOURCE", "--elements", "--extra", "--maps", "--k-factor", "--thickness", "--out", "--figure"),
    "gp": ("RESULT", "OUT", "--upsample", "--kernel", "--lengthscale", "--set", "--report", "--overwrite"),
    "watch": ("CUBE", "--model", "--out", "--figure", "--every", "--interval", "--until-idle", "--overwrite"),
    "name": ("RESULT", "NAME..."),
    "export": ("RESULT", "OUT", "--component", "--overwrite", ".csv", ".msa", ".tif", ".pdf"),
    "rank": ("CUBE", "--most", "--figure", "--seed", "--dataset", "--overwrite"),
    "reconstruct": ("RESULT", "OUT", "--overwrite"),
    "compare": ("TRUTH", "RESULT"),
    "report": ("RESULT", "DIR", "--elements", "--truth", "--overwrite"),
}


@pytest.mark.parametrize(("word", "status"), [("--help", 0), ("--version", 0), ("inf", 2)])
def test_help_and_version_load_nothing_heavy(word: str, status: int) -> None:
    command = [sys.executable, "-X", "importtime", "-m", "scalehsi", word]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == status
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "scalehsi" in loaded
    heavy = {"xarray", "dask", "numpy", "torch", "distributed", "matplotlib", "zarr"}
    assert not {m for m in loaded if m in heavy or m.startswith("scalehsi.cli.commands.")}
    if word == "--version":
        assert f"scalehsi {hsi.__version__}" in done.stdout


def test_module_and_no_words():
    done = subprocess.run([sys.executable, "-m", "scalehsi"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("Usage: scalehsi [OPTIONS] COMMAND")
    assert all(name in done.stdout for name in OPTIONS)


def test_the_commands_are_those_of_the_design():
    assert app.CommandFiles().list_commands(None) == sorted(OPTIONS)


def complete(words: str) -> list[str]:
    """What bash offers for the last of these words."""
    environment = {"_SCALEHSI_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    done = subprocess.run(
        [sys.executable, "-m", "scalehsi"], capture_output=True, text=True, env={**os.environ, **environment}
    )
    assert done.stderr == ""
    return done.stdout.split()


def test_shells_complete_commands_and_options(run, monkeypatch):
    assert complete("scalehsi ") == sorted(OPTIONS)
    assert complete("scalehsi re") == ["reconstruct", "report"]
    assert complete("scalehsi fit --se") == ["--set", "--seed"]
    assert {"--help", *ALL} <= set(complete("scalehsi models --"))
    assert "--install-completion" in run("--help")[1]
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")
    status, out, _ = run("--show-completion", "bash")
    assert status == 0
    assert "_SCALEHSI_COMPLETE=complete_bash" in out


@pytest.mark.parametrize("command", OPTIONS)
def test_help_mentions_every_option(run, command):
    status, out, _ = run(command, "--help")
    assert status == 0
    for option in (*OPTIONS[command], *ALL):
        assert option in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["inf"], "No such command 'inf'; did you mean 'info'"),
        (["fit", "--bogus"], "No such option: --bogus.*type scalehsi fit --help"),
        (["fit", "map.zarr"], "Missing argument 'RESULT'; type scalehsi fit --help"),
        (["demo", "--workers", "0"], "--workers"),
        (["fit", "a", "b", "--seed", "-1"], "--seed"),
    ],
)
def test_words_that_are_no_command_give_2_and_one_line(run, words, message):
    for extra in ([], ["--json"]):
        status, out, err = run(*words, *extra)
        assert status == 2
        assert all(line.startswith("warning (") for line in err.splitlines()[1:])
        assert err.startswith("scalehsi ")
        assert re.search(message, err)
    assert json.loads(out)["exit"] == 2


def test_what_nobody_foresaw_gives_1_and_one_line(run, scene, tmp_path, monkeypatch):
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("first line\nsecond line")

    monkeypatch.setattr(hsi, "reconstruct", broken)
    words = ("reconstruct", scene / "result.zarr", tmp_path / "d.zarr")
    status, out, err = run(*words, "--json")
    assert status == 1
    line = "RuntimeError: first line second line (not foreseen; --debug shows where)"
    assert err == f"scalehsi reconstruct: {line}\n"
    assert json.loads(out) == {"error": line, "exit": 1}
    status, _, err = run(*words, "--debug")
    assert status == 1
    assert "Traceback" in err
    assert err.splitlines()[-1].startswith("scalehsi reconstruct: RuntimeError")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (MemoryError(), "ran out of memory; use smaller blocks"),
        (PermissionError(13, "Permission denied", "/somewhere/map.zarr"), "Permission denied: '/somewhere/map.zarr'"),
        (ValueError("Stored and computed checksum do not match."), "a chunk of the data is damaged"),
    ],
)
def test_known_trouble_is_explained_in_plain_words(run, scene, tmp_path, monkeypatch, error, message):
    def broken(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(hsi, "reconstruct", broken)
    status, _, err = run("reconstruct", scene / "result.zarr", tmp_path / "d.zarr")
    assert status == (2 if isinstance(error, ValueError) else 1)
    assert message in err
    assert len(err.splitlines()) == 1


def test_quiet_leaves_out_all_but_answers(run, scene, tmp_path):
    status, out, err = run("fit", scene / "map.zarr", tmp_path / "r.zarr", "-k", "2", "--quiet")
    assert (status, out) == (0, "")
    assert all(line.startswith("warning (") for line in err.splitlines())
    words = ("-k", "2", "--set", "max_iter=2", "--quiet", "--overwrite")
    status, out, err = run("fit", scene / "map.zarr", tmp_path / "r.zarr", *words)
    assert (status, out) == (0, "")
    assert err.startswith("NMF: stopped at the iteration limit after 2 iterations. The iteration limit came first")
    assert all(line.startswith("warning (") for line in err.splitlines()[1:])
    status, out, err = run("info", scene / "map.zarr", "--quiet")
    assert (status, err) == (0, "")
    assert "Counts per pixel" in out
    status, out, err = run("info", scene / "map.zarr", "--quiet", "--json")
    assert (status, err) == (0, "")
    assert json.loads(out)["kind"] == "cube"


def test_a_reader_who_leaves_early_is_no_error(scene):
    words = f"{sys.executable} -m scalehsi info {scene / 'map.zarr'} --quick | head -1"
    done = subprocess.run(words, shell=True, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("map.zarr: EELS spectrum image")
    assert done.stderr == ""


def test_settings_are_read_as_json_python_or_text():
    read = settings_of(
        ["a=1", "b=1e-6", "c=true", "d=null", "e=16,16", "shape=(8, 9)", "f=poisson", "g=[1, 2]", "h-i='x=y'"]
    )
    assert read == {
        "a": 1,
        "b": 1e-6,
        "c": True,
        "d": None,
        "e": (16, 16),
        "shape": (8, 9),
        "f": "poisson",
        "g": [1, 2],
        "h_i": "x=y",
    }


def test_a_cluster_without_web_pages(monkeypatch):
    asked = []

    def connect(kind, **options):
        asked.append((kind, options["dashboard"]))
        raise InputError("enough")

    monkeypatch.setattr(hsi, "connect", connect)
    for words in ([], ["--no-dashboard"]):
        assert app.main(["demo", "--cluster", "local", *words]) == 2
    assert asked == [("local", True), ("local", False)]
