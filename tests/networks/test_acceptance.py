"""Figures of the specification on three components, seed 0 (more seeds: python -m tests.bench.networks)."""

from __future__ import annotations

from typing import Any

import pytest

import scalehsi as hsi
from scalehsi.result import result_warnings
from tests.bench.unmixing_scenes import scene, scores, scores_of

pytest.importorskip("torch")


@pytest.mark.parametrize(
    ("model", "angle", "error", "fcls"),
    [
        pytest.param(hsi.DAEU(3), 0.0020, 0.0070, 0.0045, marks=pytest.mark.long, id="DAEU"),
        pytest.param(hsi.MTAEU(3), 0.0040, 0.0080, 0.0055, marks=pytest.mark.slow, id="MTAEU"),
        pytest.param(hsi.CNNAEU(3), 0.0060, 0.0250, 0.0100, marks=pytest.mark.slow, id="CNNAEU"),
    ],
)
def test_the_defaults_meet_their_figures(model: Any, angle: float, error: float, fcls: float) -> None:
    truth = scene(3, seed=0)
    result = hsi.fit(truth.cube, model, seed=0)
    found = scores_of(truth, result)
    assert found[0] <= angle
    assert found[1] <= error
    maps = hsi.project(result["endmembers"], truth.cube, constraint="fcls").transpose("y", "x", "component").values
    assert scores(truth, result["endmembers"].values, maps)[1] <= fcls
    assert not {"network_collapsed", "dead_component"} & {w.code for w in result_warnings(result)}
