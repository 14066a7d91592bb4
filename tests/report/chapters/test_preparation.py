"""The chapters on preparation and on edge maps: what they say is what the steps left."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import scalehsi as hsi
from scalehsi.plots.preparation import alignment_spectra, background_fits, preparation_maps
from tests.prepare.eels import edge_cube
from tests.report.pages import Page

pytestmark = pytest.mark.long


def test_the_steps_their_maps_and_the_backgrounds_are_shown(tmp_path: Path, no_figures: None) -> None:
    raw = edge_cube()
    raw.values[3, 4, 100] = 3000
    clean = hsi.prepare.remove_spikes(raw, gain=1.0, readout=0.0)
    clean = hsi.prepare.align(clean, shifts=np.broadcast_to(np.arange(12) % 3 - 1.0, (16, 12)), crop=False)
    net = hsi.prepare.remove_background(clean, (440, 525), gain=1.0, window_gain=1.0)
    result = hsi.fit(net, hsi.PCA(2, weighting=None))
    page = Page(hsi.report(result, tmp_path / "r", cube=net, line=(532, 590)))
    assert "1 spikes were replaced, in 1 of 192 pixels." in page.text
    assert "spikes(threshold=5, gain=1, readout=0)" in page.text
    assert "background(fit=440:525" in page.text
    assert {"preparation.png", "alignment.png", "background_fits.png"} <= {p.name for p in (tmp_path / "r").iterdir()}
    assert not (tmp_path / "r" / "edge_maps.png").exists()
    # Without the cube, the maps that the result carries are shown.
    page = Page(hsi.report(result, tmp_path / "s"))
    assert "1 spikes were replaced" in page.text
    assert not (tmp_path / "s" / "background_fits.png").exists()


def test_the_mean_before_alignment_comes_back_from_the_shifts() -> None:
    energy, drift = np.arange(-20.0, 60.0, 0.5), np.linspace(-2, 2, 96).reshape(8, 12)
    peaks = 1e4 * np.exp(-((energy - drift[..., None]) ** 2))
    raw = hsi.make_cube(peaks, energy=energy, energy_units="eV", signal="EELS")
    aligned = hsi.prepare.align(raw, zero_loss=True)
    found = alignment_spectra(hsi.prepare.crop(aligned, energy=(-10, 30)))
    assert found is not None
    assert found.pixels == 96
    wide = np.interp(found.energy, raw.energy, raw.mean(("y", "x")))
    np.testing.assert_allclose(found.before, wide, atol=0.01 * wide.max())
    assert found.after.max() > 2 * found.before.max()
    assert found.window[0] < 0 < found.window[1]
    assert alignment_spectra(raw) is None


def test_the_spectra_before_come_back_from_the_maps_that_were_kept() -> None:
    raw = edge_cube()
    net = hsi.prepare.remove_background(raw, (440, 525), gain=1.0, window_gain=1.0)
    fits = background_fits(hsi.prepare.crop(net, y=(1, 6)))
    assert fits is not None
    totals = raw.sum("energy").values[2:13]
    assert fits.before.sum(axis=1)[0] < np.median(totals) < fits.before.sum(axis=1)[2]
    rows = raw.values.reshape(-1, 300)
    for before in fits.before[:3]:
        assert np.abs(rows - before).max(axis=1).min() < 0.05
    assert background_fits(raw) is None
    assert background_fits(hsi.prepare.bin(net, y=2)) is None
    assert list(preparation_maps(net)) == ["background_exponent", "background_misfit"]
    assert preparation_maps(raw) == {}


def test_edge_maps_are_shown_for_a_cube_with_its_background(tmp_path: Path, no_figures: None) -> None:
    raw = edge_cube()
    result = hsi.fit(raw, hsi.PCA(2))
    page = Page(hsi.report(result, tmp_path / "r", cube=raw, line=(532, 590)))
    mean = float(hsi.quantify.edge_maps(raw)["net"].mean())
    assert "O K" in page.text
    assert f"{mean:.0f} ±" in page.text
    assert (tmp_path / "r" / "edge_maps.png").exists()
    nothing = raw.assign_attrs(elements=["Cu"])
    hsi.report(result, tmp_path / "s", cube=nothing, line=(532, 590))
    assert not (tmp_path / "s" / "edge_maps.png").exists()
