"""Another start: EELS on its background has many solutions, EDX one, and a fit whose component died is beaten."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import scalehsi as hsi
from scalehsi.fitting.judge.evidence import Evidence
from scalehsi.fitting.judge.order import CODES, ordered
from scalehsi.fitting.judge.uniqueness import not_unique, two_starts
from scalehsi.result import ResultWarning, result_warnings
from tests.fitting.judge.reference import evidence_of
from tests.fitting.judge.scenes import Scene, angles, scene

pytestmark = pytest.mark.long


def evidence(made: Scene, s: Any, **others: Any) -> Evidence:
    """Of a fit that ended with the true maps and some spectra."""
    return evidence_of(made.counts, made.maps, s, model="NMF", loss="frobenius", signal=made.signal, **others)


@pytest.mark.parametrize(("kind", "counts", "k"), [("edx", 100.0, 4), ("edx", 500.0, 3), ("eels", 2e4, 4)])
def test_the_warning_comes_where_the_spectra_are_wrong(kind: str, counts: float, k: int) -> None:
    for seed in (21, 22):
        made = scene(kind, counts, k, seed=seed)
        result = hsi.fit(made.cube, hsi.NMF(k, weighting="poisson"), seed=0)
        said = {w.code: w for w in result_warnings(result)}
        worst = angles(made.spectra, result["endmembers"].values).max()
        assert ("not_unique" in said) == (kind == "eels")
        assert (worst > 5) or "not_unique" not in said
        if kind == "eels":
            assert said["not_unique"].remedy == "orthogonality=0.1"
            apart = float(said["not_unique"].text.split("spectra ")[1].split(" degrees")[0])
            assert 0.5 * worst < apart < 1.2 * worst


def test_the_remedy_names_the_loss_that_has_it() -> None:
    made = scene("eels", 2e4, 3, seed=22)
    result = hsi.fit(made.cube, hsi.NMF(3, loss="poisson"), seed=0)
    (found,) = [w for w in result_warnings(result) if w.code == "not_unique"]
    mended = hsi.fit(made.cube, eval(f"hsi.NMF(3, {found.remedy})", {"hsi": hsi}), seed=0)
    before, after = (angles(made.spectra, each["endmembers"].values).max() for each in (result, mended))
    assert after < 0.6 * before
    assert "not_unique" not in [w.code for w in result_warnings(mended)]


@pytest.mark.parametrize(("kind", "counts"), [("edx", 100.0), ("edx", 500.0)])
@pytest.mark.parametrize("died", [0, 2])
def test_a_component_that_died(kind: str, counts: float, died: int) -> None:
    made = scene(kind, counts, 3, seed=23)
    assert two_starts(evidence(made, made.spectra)) is None
    s = made.spectra.copy()
    s[died] = 0.0
    found = not_unique(evidence(made, s))
    assert found is not None
    assert (found.code, found.remedy) == ("other_start_better", 'start="multistart"')


def test_it_is_silent_where_it_cannot_be_known() -> None:
    made = scene("edx", 100.0, 3, seed=23, size=16)
    s = made.spectra.copy()
    s[0] = 0.0
    known = evidence(made, s)
    assert not_unique(known) is not None
    for other in (
        {"model": "PSNMF"},
        {"signed": True},
        {"priors_on_maps": True},
        {"settings": {"fixed": "given"}},
        {"settings": {"orthogonality": 0.1}},
        {"variance_index": float("nan")},
        {"offset": np.ones(s.shape[1])},
        {"endmembers": s[:1]},
        {"endmembers": np.full_like(s, np.nan)},
        {"bins": ()},
        {"bins": known.bins[1:]},
    ):
        assert not_unique(replace(known, **other)) is None  # type: ignore[arg-type]
    small = scene("edx", 100.0, 3, seed=23, size=6)
    assert not_unique(evidence(small, small.spectra)) is None


def test_drift_and_too_many_components_explain_it() -> None:
    other = ResultWarning("not_unique", "")
    for cause in ("drift", "below_noise"):
        assert [w.code for w in ordered([other, ResultWarning(cause, "")])] == [cause]
    assert {"not_unique", "other_start_better"} <= set(CODES)
