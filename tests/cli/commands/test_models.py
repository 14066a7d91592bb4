"""The command models: the methods, and the settings of one."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys

import pytest

from scalehsi.models.catalogue import CATALOGUE, model_class, settings_of_model

pytestmark = pytest.mark.long


def test_every_method_is_listed(run, answer):
    assert [each["name"] for each in answer("models")["models"]] == list(CATALOGUE)
    status, out, _ = run("models")
    assert status == 0
    lines = [line.split()[0] for line in out.splitlines()[1:]]
    assert lines == list(CATALOGUE)
    assert "Find the principal components" in out


@pytest.mark.parametrize("name", CATALOGUE)
def test_settings_are_those_of_the_dataclass(answer, run, name):
    found = {each["name"]: each for each in answer("models", name)["settings"]}
    assert set(found) == {field.name for field in dataclasses.fields(model_class(name))}
    for setting in settings_of_model(model_class(name)):
        assert found[setting.name] == {**dataclasses.asdict(setting), "allowed": list(setting.allowed)}
    out = run("models", name)[1]
    assert all(any(line.startswith(f"{each} ") for line in out.splitlines()) for each in found)


def test_types_defaults_and_allowed_values_are_shown(run):
    status, out, _ = run("models", "NMF")
    assert status == 0
    lines = {line.split()[0]: line.split() for line in out.splitlines() if line.strip()}
    assert lines["n_components"][1:3] == ["int", "required"]
    assert lines["loss"][1:5] == ["auto,", "frobenius,", "poisson", "auto"]
    assert lines["simplex"][1:3] == ["bool", "False"]


def test_a_wrong_name_gets_the_nearest(run):
    status, out, err = run("models", "psnfm", "--json")
    assert status == 2
    assert "there is no model 'psnfm'; did you mean 'psnmf'?" in err
    assert json.loads(out)["exit"] == 2


def test_listing_loads_no_torch():
    code = (
        "import sys\nfrom scalehsi.cli import main\nassert main(['models']) == 0\n"
        "assert all(main(['models', name, '--json', '--quiet']) == 0 for name in ('nmf', 'parallelgp'))\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"
