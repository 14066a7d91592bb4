"""The chapter of a network: losses and checks, or latent space, labels and spectra."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import scalehsi as hsi
from scalehsi.plots.digest import digest
from scalehsi.plots.networks import draw_latent, draw_losses
from tests.networks.scenes import board
from tests.report.pages import Page

pytest.importorskip("torch")
pytest.importorskip("sklearn")
pytestmark = pytest.mark.long


def test_training_and_checks_are_shown(tmp_path: Path) -> None:
    cube, _ = board(16)
    result = hsi.fit(cube, hsi.DAEU(3, pretrain=3, epochs=2))
    page = Page(hsi.report(result, tmp_path / "report"))
    assert "network" in page.sections()
    assert "Pixels without abundances" in page.text
    assert "settings='default'" in page.text
    assert (tmp_path / "report" / "training.png").exists() or "training" in page.text
    lines = draw_losses(result).axes[0].lines
    np.testing.assert_array_equal(lines[0].get_ydata(), result["objective"])
    np.testing.assert_array_equal(lines[1].get_ydata(), result["held_out_loss"])


def test_latent_space_labels_and_spectra_are_side_by_side(tmp_path: Path) -> None:
    cube, _ = board(16)
    result = hsi.fit(cube, hsi.LatentAE(3, encoder="pca"))
    page = Page(hsi.report(result, tmp_path / "report"))
    assert "a mixed pixel has the label that is nearest" in page.text
    scatter, shown, spectra = draw_latent(digest(result), result).axes
    assert sum(len(line.get_xdata()) for line in scatter.lines) == 256
    np.testing.assert_array_equal(shown.images[0].get_array(), result["labels"])
    np.testing.assert_array_equal(spectra.lines[2].get_ydata(), result["endmembers"][2])


def test_other_results_have_no_such_chapter(tmp_path: Path) -> None:
    cube, _ = board(16)
    assert "network" not in Page(hsi.report(hsi.fit(cube, hsi.PCA(3)), tmp_path / "report")).sections()
