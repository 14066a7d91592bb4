"""ICA: the rotation of known independent sources, the conventions of HyperSpy, and its warning."""

from __future__ import annotations

import numpy as np
import pytest

import scalehsi as hsi
from scalehsi.models.ica import fast_ica
from scalehsi.result import result_warnings
from scalehsi.schema import InputError
from tests.bench.unmixing_scenes import edx_scene, scene, scores_of

pytestmark = pytest.mark.long

HYPERSPY_ANGLES = (0.2582, 0.2637, 0.2749)
"""Mean angles of HyperSpy 2.5's default ICA on the scenes of 3 components, 1e5 counts, seeds 0 to 2."""


def test_independent_sources_are_found() -> None:
    rng = np.random.default_rng(0)
    sources = np.stack([rng.laplace(size=5000), rng.uniform(-1, 1, 5000), rng.laplace(size=5000) ** 3])
    mixing = rng.standard_normal((3, 3))
    unmixing, settled = fast_ica((mixing @ sources).T, seed=0)
    assert settled
    turned = np.abs(unmixing @ mixing)
    turned /= turned.max(axis=1, keepdims=True)
    assert (np.sort(turned, axis=1)[:, :2] < 0.05).all()
    assert sorted(turned.argmax(axis=1)) == [0, 1, 2]


def test_angles_are_those_of_hyperspy() -> None:
    for seed, wanted in enumerate(HYPERSPY_ANGLES):
        made = scene(3, seed=seed)
        assert abs(scores_of(made, hsi.fit(made.cube, hsi.ICA(3), seed=0))[0] - wanted) <= 0.03


def test_maps_and_spectra_are_the_decomposition() -> None:
    made = scene(3)
    result = hsi.fit(made.cube, hsi.ICA(3), seed=0)
    pca = hsi.fit(made.cube, hsi.PCA(3, weighting=None), seed=0)
    np.testing.assert_allclose(hsi.reconstruct(result), hsi.reconstruct(pca), rtol=1e-3, atol=0.5)
    power = (result["abundances"] ** 2).sum(("y", "x")) * (result["endmembers"] ** 2).sum("energy")
    assert (np.diff(power) < 0).all()
    assert (result["endmembers"].max("energy") >= -result["endmembers"].min("energy")).all()


def test_negative_parts_are_said_and_positive_ones_are_not() -> None:
    result = hsi.fit(scene(3).cube, hsi.ICA(3), seed=0)
    (found,) = [w for w in result_warnings(result) if w.code == "negative_components"]
    assert "it is no phase" in found.text
    clean = hsi.fit(edx_scene(dose=1e3).cube, hsi.ICA(3), seed=0)
    assert "negative_components" not in [w.code for w in result_warnings(clean)]


def test_the_derivative_can_be_left_out_and_wrong_settings_are_refused() -> None:
    made = scene(3)
    plain = hsi.fit(made.cube, hsi.ICA(3, diff_order=0), seed=0)
    assert not np.allclose(plain["endmembers"], hsi.fit(made.cube, hsi.ICA(3), seed=0)["endmembers"])
    with pytest.raises(InputError, match="diff_order is 0, 1 or 2, got 3"):
        hsi.ICA(3, diff_order=3)
    with pytest.raises(InputError, match="weighting='keenan' is not known"):
        hsi.ICA(3, weighting="keenan")
    with pytest.raises(InputError, match="the derivative has 2 channels; take n_components=2 or fewer"):
        hsi.fit(made.cube[..., :3], hsi.ICA(3))
