"""A result beside its truth: matched whatever the order, the number of components and the grid."""

from __future__ import annotations

import re

import numpy as np

from scalehsi import plots
from tests.report.results import eds_result


def test_comparison_pairs_truth_and_estimate() -> None:
    result, truth = eds_result()
    figure = plots.comparison(result, truth)
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    heads = [title for title in titles if "→" in title]
    assert [re.sub(r": .*", "", head) for head in heads] == [
        "CaPv → Component 3",
        "Brg → Component 1",
        "Fp → Component 2",
    ]
    assert all(float(re.search(r": ([\d.]+)°", head)[1]) < 3 for head in heads)
    shares = [np.asarray(axes.images[0].get_array()) for axes in figure.axes if axes.images]
    np.testing.assert_allclose(np.nansum(shares[0::2], axis=0), 1.0, rtol=1e-5)


def test_comparison_with_fewer_components_and_another_grid() -> None:
    result, truth = eds_result()
    figure = plots.comparison(result.isel(component=[0, 2]), truth.isel(x=slice(30)))
    assert len(figure.axes) == 2
    assert figure.axes[0].get_title(loc="left").startswith("CaPv → Component 2")
