"""Remarks on a result: when they appear, and what they say."""

from __future__ import annotations

import numpy as np
import xarray as xr

from scalehsi.plots.digest import digest
from scalehsi.report.findings import find
from tests.report.results import eds_result, eels_result, masked_result, pca_result


def said(result: xr.Dataset, level: str | None = None) -> list[str]:
    return [remark.text for remark in find(digest(result)) if level in (None, remark.level)]


def test_a_good_result_gives_no_remark() -> None:
    assert said(eds_result()[0]) == []
    assert said(eds_result(seed=3)[0]) == []
    assert said(eels_result()) == []


def test_nearly_empty_component_as_noise_or_as_rare_phase() -> None:
    result, _ = eds_result()
    noise = xr.zeros_like(result.abundances[1]) + np.random.default_rng(0).random((60, 60))
    empty = result.assign(abundances=xr.where(result.component == 2, noise, result.abundances, keep_attrs=True))
    (text,) = [text for text in said(empty, "warning") if "nearly empty" in text]
    assert text.startswith("Component 2 is nearly empty: it has 0.")
    assert text.endswith("Its map is noise. One component fewer may be enough (n_components=2).")
    rare = result.assign(abundances=result.abundances * xr.where(result.component == 3, 0.05, 1.0))
    (text,) = [text for text in said(rare, "warning") if "nearly empty" in text]
    assert text.startswith("Component 3")
    assert "may be a rare phase" in text


def test_nearly_equal_spectra() -> None:
    result, _ = eds_result()
    mixed = 0.03 * result.endmembers.values[2] + 0.97 * result.endmembers.values[0]
    twin = result.copy(deep=True)
    twin["endmembers"][2] = mixed
    (text,) = [text for text in said(twin, "warning") if "same spectrum" in text]
    assert text.startswith("Component 1 and Component 3 have nearly the same spectrum (1.")
    assert "n_components=2" in text


def test_structure_in_the_residual_spectrum() -> None:
    result, _ = eds_result()
    line = 0.02 * np.exp(-0.5 * ((result.energy - 8.04) / 0.06) ** 2)
    (text,) = said(result.assign(residual_spectrum=result.residual_spectrum + line), "warning")
    assert "The residual spectrum has structure" in text
    assert "near 8.0" in text
    assert "more than the model" in text


def test_structure_in_the_residual_map() -> None:
    result, _ = eds_result()
    y, x = np.mgrid[:60, :60]
    grain = 1 + 0.4 * (np.hypot(y - 20, x - 45) < 6)
    (text,) = said(result.assign(residual=result.residual * grain), "warning")
    assert "The residual map has structure: it is largest near x = 4" in text
    assert "nm, y = 2" in text
    assert "loss='poisson'" in text


def test_residual_above_counting_noise() -> None:
    result, _ = eds_result()
    (text,) = said(result.assign(residual=1.5 * result.residual), "warning")
    assert "The residual is 1.5 times the counting noise" in text


def test_few_counts() -> None:
    (text,) = said(eds_result(counts=12.0)[0], "warning")
    assert text.startswith("There are few counts, 12 per pixel")
    assert said(eds_result(counts=40.0)[0]) == []


def test_mask_is_a_note_and_its_pixels_do_not_count() -> None:
    result = masked_result()
    assert said(result, "warning") == []
    used = int(result.mask.sum())
    assert said(result, "note") == [
        f"{100 * (1 - used / 3600):.0f} % of the pixels are masked. They were not used, and are grey in the maps."
    ]
    view = digest(result)
    assert (view.pixels_used, view.pixels_total) == (used, 3600)
    inside = result.abundances.where(result.mask).sum(["y", "x"]) * result.endmembers.sum("energy")
    np.testing.assert_allclose(view.shares, inside / inside.sum(), rtol=1e-5)


def test_indicator_is_a_note() -> None:
    result = pca_result()
    indicator = np.full(result.sizes["rank"], 5.0)
    indicator[2] = 1.0
    noted = result.assign(malinowski_ind=("rank", indicator))
    assert said(noted) == ["Malinowski's indicator is lowest at 3 components; this result has 4."]
    assert said(noted.isel(component=slice(3))) == []


def test_another_loss_is_advised_only_where_the_model_has_a_choice() -> None:
    result, _ = eds_result()
    y, x = np.mgrid[:60, :60]
    uneven = result.assign(residual=result.residual * (1 + 0.4 * (np.hypot(y - 20, x - 45) < 6)))
    assert "loss='poisson'" in said(uneven)[0]
    for settings in ("{}", '{"loss": "poisson"}'):
        assert "loss=" not in said(uneven.assign_attrs(settings=settings))[0]
