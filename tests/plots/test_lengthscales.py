"""Figures of a length-scale scan and of noise ratios."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

import scalehsi as hsi
from scalehsi import plots
from scalehsi.plots import style
from scalehsi.schema import InputError


@pytest.fixture(scope="module")
def lengths() -> xr.Dataset:
    return hsi.lengthscale_scan(hsi.simulate.maps(kind="atoms", pixel_size_nm=0.05).maps)


def test_length_scales_are_drawn_where_they_are(lengths: xr.Dataset) -> None:
    figure = plots.lengthscales(lengths)
    left, right = figure.axes
    drawn = [line for line in left.lines if line.get_label().startswith("Component")]
    assert len(drawn) == 6
    for line, own in zip(drawn, lengths["converged"], strict=True):
        np.testing.assert_allclose(line.get_ydata(), own)
        np.testing.assert_allclose(line.get_xdata(), lengths["limit"])
    markers = [line.get_xdata() for line in right.lines if line.get_marker() == "v"]
    np.testing.assert_allclose(markers[0], lengths["basin"][0])
    shades = [patch for axes in figure.axes for patch in axes.patches if patch.get_gid() == "recommended"]
    assert len(shades) == 2
    low, high = lengths["recommended"].values
    assert shades[0].get_y() == pytest.approx(low)
    assert shades[1].get_x() + shades[1].get_width() == pytest.approx(high)
    assert left.get_title(loc="left").endswith("(28 pm to 0.17 nm)")
    assert left.get_xlabel() == "Upper limit of the length scale (pixels)"
    assert len(style.to_png(figure)) > 10_000


def test_length_scales_without_any(lengths: xr.Dataset) -> None:
    none = lengths.assign(
        recommended=lengths["recommended"] * np.nan, recommended_nm=lengths["recommended_nm"] * np.nan
    )
    left, _ = plots.lengthscales(none.chunk()).axes
    assert left.get_title(loc="left") == "no length scale below the last limit"
    assert not left.patches
    with pytest.raises(InputError, match=r"draw what hsi\.lengthscale_scan"):
        plots.lengthscales(xr.Dataset({"loss": 1}))


def test_noise_ratios_are_a_line_each() -> None:
    sigma0, alpha = [0.1, 0.5, 1.0], [0.5, 1.0, 2.0, 4.0]
    values = np.random.default_rng(0).random((3, 3, 4))
    table = xr.Dataset(
        {"together": (("component", "sigma0", "alpha"), values), "alone": (("alpha", "sigma0", "component"), values.T)},
        coords={"component": [1, 2, 3], "sigma0": sigma0, "alpha": alpha},
    )
    figure = plots.noise_ratios(table)
    assert len(figure.axes) == 6
    assert [axes.get_title(loc="left") for axes in figure.axes[:2]] == [
        "Component 1, together",
        "Component 2, together",
    ]
    assert [axes.get_xlabel() for axes in figure.axes] == [""] * 3 + ["Noise σ₀"] * 3
    for number, axes in enumerate(figure.axes):
        assert len(axes.lines) == 4
        np.testing.assert_allclose(axes.lines[2].get_ydata(), values[number % 3, :, 2])
    assert len(style.to_png(figure)) > 10_000
    with pytest.raises(InputError, match="have the dims"):
        plots.noise_ratios(table.isel(alpha=0))
