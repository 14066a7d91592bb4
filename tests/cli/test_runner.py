"""Messages of the library in the words of the command line."""

from __future__ import annotations

import pytest

from scalehsi.cli.runner import Flag, command_line_words

pytestmark = pytest.mark.long

FLAGS = {
    "n_components": Flag("-k", ","),
    "overwrite": Flag("--overwrite", ","),
    "checkpoint": Flag("--checkpoint", ","),
    "cube": Flag("--cube", ","),
    "line": Flag("--line", ","),
    "lengthscale": Flag("--lengthscale", ":"),
    "elements": Flag("--elements", ","),
    "memory": Flag("--memory", ","),
    "seed": Flag("--seed", ","),
}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("fit map.zarr map.zarr/new.zarr -k 0", "-k is at least 1, got 0"),
        ("fit map.zarr result.zarr -k 2", "'result.zarr' exists already; give another name, or replace it with --over"),
        ("report result.zarr result.zarr", "'result.zarr' exists already; give another folder, or replace it with --o"),
        ("convert map.zarr new.zarr --chunk-mb 0", "--chunk-mb is a size in MiB above 0, got 0.0"),
        ("fit map.zarr new.zarr -k 99", "-k 99 is more than the 64 channels of the cube; take 64 or fewer"),
        ("fit map.zarr new.zarr -k 2 --set loss=poison", "loss=poison is not known; did you mean 'poisson'?"),
        ("fit map.zarr new.zarr -k 2 --checkpoint map_truth.zarr/zarr.json", "--checkpoint map_truth.zarr/zarr.json"),
        (
            "simulate chequerboard new.zarr --set shape=3,3 --set squares=4,4",
            "squares=4,4 are more than the pixels of s",
        ),
        ("simulate acquisitions new.zarr --set drift=1,2,3", "got 1,2,3; type drift=0,0"),
        ("gp result.zarr new.zarr --lengthscale 5:2", "--lengthscale 5:2 is upside down"),
        ("gp result.zarr new.zarr --kernel matern", "--kernel matern: 'matern' is not known"),
        ("report result.zarr new --line Nd_La", "--line Nd_La is drawn from the cube, as measured and as denoised"),
        ("info map.zarr --cluster local --memory lots", "--memory lots is no memory size; type --memory 2GiB"),
        ("quantify map.zarr -e C --fwhm wide", "--fwhm wide"),
    ],
)
def test_errors_show_the_command_line(run, scene, monkeypatch, words, message):
    monkeypatch.chdir(scene)
    status, _, err = run(*words.split(), "--quiet")
    assert (status, len(err.splitlines())) == (2, 1)
    assert message in err


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("replace it with overwrite=True (--overwrite on the command line)", "replace it with --overwrite"),
        ("give checkpoint='run.ckpt' (--checkpoint run.ckpt)", "give --checkpoint run.ckpt"),
        ("type elements=['Mg', 'Si', 'O'], or counts=.", "type --elements Mg,Si,O, or counts=."),
        ("drawn from the cube; give cube= too", "drawn from the cube; give --cube too"),
        ("Fit with lengthscale=(2.5, 8) pixels", "Fit with --lengthscale 2.5:8 pixels"),
        ("line='Nd La' is unknown", "--line 'Nd La' is unknown"),
        ("n_components is at least 1, and the line stays", "-k is at least 1, and the line stays"),
        ("-k 2 and --set n_components=3 differ", "-k 2 and --set n_components=3 differ"),
        ("there is no 'seed=3.zarr'; it holds line='a'", "there is no 'seed=3.zarr'; it holds --line a"),
        ("connect('slurm', memory='16GiB') and loss='poisson'", "connect('slurm', memory='16GiB') and loss=poisson"),
        ("scalehsi.convert makes a store; scalehsi.open_cube", "scalehsi convert makes a store; scalehsi.open_cube"),
        ("the first at y=2, x=3, energy=1.53333 keV", "the first at y=2, x=3, energy=1.53333 keV"),
        ("shape=(64,), power=None, got (1.5, 2)", "shape=64, power=None, got 1.5,2"),
        ("ends in the dims ('y', 'x'), got ('x', 'y')", "ends in the dims ('y', 'x'), got ('x', 'y')"),
    ],
)
def test_spellings(message, expected):
    assert command_line_words(message, FLAGS) == expected
