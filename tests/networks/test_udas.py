"""uDAS: the encoder's gradient, what it finds, and where the published constants fail."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import scalehsi as hsi
from scalehsi.networks.udas import descend, in_subspace, marginalised, simplex_rows
from scalehsi.result import result_warnings
from scalehsi.schema import InputError
from tests.bench.unmixing_scenes import scene, scores_of
from tests.networks.scenes import board

pytestmark = pytest.mark.long


def test_it_meets_the_figures_of_its_specification() -> None:
    truth = scene(3, seed=0)
    result = hsi.fit(truth.cube, hsi.UDAS(3), seed=0)
    angle, error = scores_of(truth, result)
    assert angle < 0.0035
    assert error < 0.0085
    assert not {"network_collapsed", "dead_component"} & {w.code for w in result_warnings(result)}
    public = hsi.fit(truth.cube, hsi.UDAS(3, settings="paper"), seed=0)
    angle, error = scores_of(truth, public)
    assert 0.025 < angle < 0.05
    assert 0.2 < error < 0.6  # 0.28 or 0.45, by how the sums are rounded
    assert "network_collapsed" in {w.code for w in result_warnings(public)}


@pytest.mark.parametrize("model", [hsi.UDAS(3, max_iter=1), hsi.DAEU(3, pretrain=1, epochs=1)], ids=["UDAS", "DAEU"])
def test_a_scene_without_pure_pixels_is_said(model: Any) -> None:
    for variant, expected in (("plain", False), ("no pure", True)):
        result = hsi.fit(scene(3, variant=variant).cube, model, seed=0)
        said = [w for w in result_warnings(result) if w.code == "no_pure_pixels"]
        assert bool(said) is expected
        assert all(w.text.startswith("27% of the pixels lie outside") and "SSS(k)" in w.remedy for w in said)


def test_the_encoder_descends_along_its_gradient() -> None:
    rng = np.random.default_rng(0)
    z, decoder = rng.random((50, 8)), rng.random((3, 8))
    start = rng.random((8, 3)) / 8
    values = [descend(z, z, decoder, start, row=4.0, sparsity=0.1, steps=n)[1] for n in (1, 2, 8, 200)]
    assert values == sorted(values, reverse=True)
    found, least = descend(z, z, decoder, start, row=4.0, sparsity=0.1, steps=500)
    for _ in range(20):  # no direction is downhill at the end
        near = found + 1e-3 * rng.standard_normal(found.shape)
        h = (z @ near).clip(0)
        loss = ((h @ decoder - z) ** 2).sum() + 4.0 * ((h.sum(axis=1) - 1) ** 2).sum()
        assert loss / 100 + 0.05 * np.linalg.norm(near, axis=0).sum() > least - 1e-9


def test_the_start_is_nearly_on_the_simplex() -> None:
    rng = np.random.default_rng(1)
    decoder, maps = rng.random((3, 20)), rng.dirichlet(np.ones(3), 40)
    np.testing.assert_allclose(simplex_rows(maps @ decoder, decoder), maps, atol=1e-3)


def test_denoisers_keep_the_signal_that_is_large() -> None:
    rng = np.random.default_rng(2)
    maps, spectra = rng.dirichlet(np.ones(3), 400), rng.random((3, 30))
    clean = 30 * maps @ spectra
    noisy = clean + 0.3 * rng.standard_normal(clean.shape)
    before = np.linalg.norm(noisy - clean)
    assert np.linalg.norm(in_subspace(noisy, 3, seed=0) - clean) < 0.5 * before
    assert np.linalg.norm(marginalised(noisy) - noisy) < 0.1 * np.linalg.norm(noisy)
    weak = clean / 300  # the published ridge of one removes what varies less
    spread = np.ptp(marginalised(weak), axis=0).sum() / np.ptp(weak, axis=0).sum()
    assert spread < 0.5


def test_a_stored_result_projects(tmp_path: Path) -> None:
    cube, _ = board(16)
    result = hsi.fit(cube, hsi.UDAS(3), seed=0)
    hsi.save(result, tmp_path / "net.zarr")
    maps = hsi.project(hsi.open_result(tmp_path / "net.zarr"), cube.chunk({"y": 3}))
    np.testing.assert_allclose(maps, result["abundances"], atol=1e-6)
    with pytest.raises(InputError, match="weights_encoder of this result is missing, of another shape or not finite"):
        hsi.project(result.drop_vars("weights_encoder"), cube)


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(InputError, match="settings='public' is not known"):
        hsi.UDAS(3, settings="public")
    with pytest.raises(InputError, match="n_samples is a whole number of at least 2, got 1"):
        hsi.UDAS(3, n_samples=1)
