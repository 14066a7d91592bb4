"""The figure of measured and modelled line maps."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from scalehsi import plots
from scalehsi.plots.denoised import weakest_line
from scalehsi.plots.digest import digest
from scalehsi.schema import InputError
from tests.plots.drawn import scale_bars
from tests.report.results import counts_of_truth, eds_result, masked_result


def test_denoised_maps_share_a_scale_and_give_correlations(good: xr.Dataset) -> None:
    truth = eds_result()[1]
    cube = counts_of_truth()
    results = {"NMF": good, "PCA": good.assign(offset=("energy", np.full(1000, 0.01)))}
    figure = plots.denoised(cube, results, "Ca Ka", truth)
    panels = [axes for axes in figure.axes if axes.images]
    assert len({axes.images[0].get_clim() for axes in panels}) == 1
    assert len(scale_bars(figure)) == 4
    inside = (truth.energy.values >= 3.691 - 0.06) & (truth.energy.values <= 3.691 + 0.06)
    true = np.einsum("kyx,k->yx", truth.abundances, truth.endmembers.values[:, inside].sum(axis=1))
    model = np.einsum("kyx,k->yx", good.abundances, good.endmembers.values[:, inside].sum(axis=1))
    expected = {
        "Truth": true,
        "Measured": cube.values[..., inside].sum(axis=-1),
        "NMF": model,
        "PCA": model + 0.01 * inside.sum(),
    }
    for axes, (name, values) in zip(panels, expected.items(), strict=True):
        np.testing.assert_allclose(np.asarray(axes.images[0].get_array()), values, rtol=1e-5, atol=1e-6)
        title = axes.get_title(loc="left")
        assert title.split("\n")[0] == name
        if name != "Truth":
            found = np.corrcoef(values.ravel(), true.ravel())[0, 1]
            assert float(title.split()[-1]) == pytest.approx(found, abs=6e-4)
    assert figure.axes[-1].get_ylabel() == "counts per pixel at Ca Kα"


def test_denoised_maps_without_a_truth_and_with_a_mask(good: xr.Dataset) -> None:
    masked = masked_result()
    cube = counts_of_truth().assign_coords(mask=masked["mask"])
    figure = plots.denoised(cube, {"NMF": masked}, (1.0, 1.5))
    panels = [axes for axes in figure.axes if axes.images]
    assert [axes.get_title(loc="left") for axes in panels] == ["Measured", "NMF"]
    for axes in panels:
        assert np.isnan(np.ma.filled(axes.images[0].get_array(), np.nan)[~masked["mask"].values]).all()
    assert figure.axes[-1].get_ylabel() == "counts per pixel at 1 to 1.5 keV"
    with pytest.raises(InputError, match="no result is given"):
        plots.denoised(cube, {}, "Fe Ka")
    with pytest.raises(InputError, match=r"a window is a line such as 'Fe Ka' or its ends"):
        plots.denoised(cube, {"NMF": masked}, (1.0, 2.0, 3.0))


def test_the_weakest_line_is_one_that_is_found(good: xr.Dataset) -> None:
    cube = counts_of_truth().assign_attrs(signal="EDS", elements=["Mg", "Al", "Ca", "Hf", "Nd"])
    assert weakest_line(cube, digest(good)) == "Ca Ka"
    nothing = cube.assign_attrs(elements=["Hf", "Nd"])
    assert weakest_line(nothing, digest(good)) in ("Hf La", "Nd La")
