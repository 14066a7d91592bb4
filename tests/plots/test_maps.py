"""Maps and composites: scales, colours and numbers as they are drawn."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from scalehsi import plots
from scalehsi.plots import style
from scalehsi.plots.digest import digest, intensity_maps
from scalehsi.plots.maps import background_component, dominant_colours, mixed_colours
from scalehsi.schema import InputError
from tests.report.results import eds_result, eels_result, masked_result, pca_result, series_result


def test_maps_are_to_scale_and_in_counts(good: xr.Dataset) -> None:
    uneven = good.assign_coords(y=("y", 5.0 * np.arange(60), {"units": "nm"}))
    figure = plots.maps(uneven)
    panels = [axes for axes in figure.axes if axes.images]
    assert len(panels) == 3
    assert len(figure.axes) == 6
    for number, axes in enumerate(panels):
        assert axes.images[0].get_extent() == [0.0, 600.0, 300.0, 0.0]
        assert axes.get_aspect() == 1.0
        expected = good.abundances[number] * float(good.endmembers[number].sum())
        np.testing.assert_allclose(np.asarray(axes.images[0].get_array()), expected, rtol=1e-5)
        assert axes.get_title(loc="left") == f"Component {number + 1}"
        assert axes.images[0].get_cmap().name == "viridis"
        low, high = axes.images[0].get_clim()
        assert low == 0.0
        assert high == pytest.approx(np.percentile(expected, 99.8), rel=1e-4)


def test_elongated_maps_are_stretched() -> None:
    scan = eds_result()[0].isel(y=slice(2))
    assert {axes.get_aspect() for axes in plots.maps(scan).axes if axes.images} == {"auto"}


def test_signed_maps_are_symmetric_about_zero() -> None:
    figure = plots.maps(pca_result())
    for axes in (axes for axes in figure.axes if axes.images):
        low, high = axes.images[0].get_clim()
        assert low == -high
        assert axes.images[0].get_cmap().name == "PuOr_r"


def test_leading_dims_share_a_scale_per_component() -> None:
    panels = [axes for axes in plots.maps(series_result()).axes if axes.images]
    assert len(panels) == 9
    assert panels[5].get_title(loc="left") == "Component 2\ntime = 5 s"
    assert len({axes.images[0].get_clim() for axes in panels[3:6]}) == 1


def test_composite_has_the_colours_of_the_spectra(good: xr.Dataset) -> None:
    drawn = np.maximum(intensity_maps(digest(good)), 0)[:, 0]
    pure = np.zeros((3, 1, 3))
    pure[0, 0, :2] = 10.0, 5.0
    pure[:, 0, 2] = np.nan
    mixed = mixed_colours(pure, 10.0)
    first, second = (np.array([int(style.colour(k)[i : i + 2], 16) / 255 for i in (1, 3, 5)]) for k in range(2))
    np.testing.assert_allclose(mixed[0, 0], first)
    np.testing.assert_allclose(mixed[0, 1], 0.5 + 0.5 * first)
    np.testing.assert_allclose(mixed[0, 2], [0xD4 / 255] * 3)
    strongest_pixel = dominant_colours(drawn)[39, 39]
    np.testing.assert_allclose(strongest_pixel, second)
    labels = [text.get_text() for text in plots.composite(good).legends[0].get_texts()]
    assert labels == ["Component 1", "Component 2", "Component 3"]


def test_composite_numbers_lie_in_their_regions(good: xr.Dataset) -> None:
    axes = plots.composite(good).axes[1]
    winner = np.argmax(intensity_maps(digest(good))[:, 0], axis=0)
    numbers = {text.get_text(): text.get_position() for text in axes.texts if text.get_text().isdigit()}
    assert set(numbers) == {"1", "2", "3"}
    for number, (x, y) in numbers.items():
        assert winner[int(y / 10), int(x / 10)] == int(number) - 1


def test_composite_leaves_out_a_background_and_greys_what_was_masked() -> None:
    assert background_component(digest(eels_result())) == 0
    labels = [text.get_text() for text in plots.composite(eels_result()).legends[0].get_texts()]
    assert labels == ["Component 2", "Component 3", "Component 4"]
    figure = plots.composite(masked_result())
    assert figure.legends[0].get_texts()[-1].get_text() == "not used"
    for axes in figure.axes:
        np.testing.assert_allclose(np.asarray(axes.images[0].get_array())[0, 0], [0xD4 / 255] * 3)


def test_composite_of_signed_maps_is_refused() -> None:
    with pytest.raises(InputError, match=r"this PCA result has negative values; draw scalehsi\.plots\.maps"):
        plots.composite(pca_result())
