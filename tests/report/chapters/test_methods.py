"""The chapter on other methods: matched, scored, and only for results of the same cube."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from scalehsi import metrics
from scalehsi.report.write import report
from scalehsi.schema import InputError
from tests.report.pages import Page
from tests.report.results import blurred, eds_result

pytestmark = pytest.mark.long


def test_signed_results_have_no_maps_of_phases(shown: Page) -> None:
    assert "The same cube by Blurred and NMF." in shown.text
    assert "Correlation with truth measured Blurred PCA NMF" in shown.text


def test_other_methods_are_matched_and_scored(tmp_path: Path, no_figures: None) -> None:
    result, truth = eds_result()
    page = Page(report(result, tmp_path / "r", truth=truth, others={"Blurred": blurred()}))
    rows = {}
    for name, each in {"Blurred": blurred(), "NMF": result}.items():
        rows[name] = np.degrees(metrics.score(each.assign_coords(energy=truth.energy), truth)["spectral_angle"].values)
    cells = [f"{name} {a:.2f} {b:.2f}" for name, a, b in zip(("CaPv", "Brg", "Fp"), *rows.values(), strict=True)]
    mean = f"Mean {rows['Blurred'].mean():.2f} {rows['NMF'].mean():.2f}"
    call = "hsi.NMF(3, loss='frobenius', tol=0.0001, max_iter=300)"
    for words in (*cells, mean, "Spectral angle (°) Blurred NMF", call, "spectra to the truth in degrees"):
        assert words in page.text, words
    alone = Page(report(result, tmp_path / "s", others={"Blurred": blurred()}))
    assert "spectra to those of NMF in degrees, for components matched by their spectra" in alone.text
    assert "Spectral angle (°) Blurred Component 1" in alone.text


def test_results_of_another_cube_are_refused(tmp_path: Path, no_figures: None) -> None:
    result, _ = eds_result()
    with pytest.raises(InputError, match=r"'small' has maps of 20 x 60 and 1000 channels, the result 60 x 60"):
        report(result, tmp_path / "r", others={"small": blurred().isel(y=slice(20))})
    assert not (tmp_path / "r").exists()
