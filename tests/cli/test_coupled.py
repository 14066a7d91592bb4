"""Signals by name on the command line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import scalehsi as hsi
from scalehsi.cli import main

pytestmark = pytest.mark.long


def test_signals_are_fitted_reported_and_planned(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    eels, result = tmp_path / "eels.zarr", tmp_path / "result.zarr"
    assert main(["simulate", "coupled", str(eels), "--set", "shape=16,16", "--quiet"]) == 0
    signals = ["--input", f"eels={eels}", "--input", f"edx={tmp_path / 'eels_edx.zarr'}"]
    settings = ["--model", "coupled", "-k", "3"]
    assert main(["plan", *settings, *signals, "--quiet"]) == 0
    page = ["--report", str(tmp_path / "page"), "--quiet"]
    assert main(["fit", str(result), *settings, *signals, "--set", "max_iter=4", *page]) == 0
    cubes = {"eels": hsi.open_cube(eels), "edx": hsi.open_cube(tmp_path / "eels_edx.zarr")}
    same = hsi.fit(cubes, hsi.CoupledNMF(3, max_iter=4), seed=0)
    np.testing.assert_allclose(hsi.open_result(result)["endmembers_eels"], same["endmembers_eels"], rtol=1e-12)
    assert (tmp_path / "page" / "coupled.png").is_file()
    assert "Signals that share their maps" in (tmp_path / "page" / "index.html").read_text("utf-8")
    capsys.readouterr()
    for words, said in (
        ([str(eels), str(result), *settings], "type --input eels=a.zarr --input edx=b.zarr"),
        ([str(eels), str(result), *settings, *signals], "--input names all signals of a fit; leave out"),
        ([str(result), *settings, "--input", "eels"], "--input 'eels': name=path is expected"),
        ([str(eels), "-k", "3"], "Missing argument 'RESULT'"),
    ):
        assert main(["fit", *words, "--overwrite"]) == 2
        assert said in capsys.readouterr().err
