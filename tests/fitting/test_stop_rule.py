"""A fit has converged when its objective is flat and its endmembers no longer turn, in every model."""

from __future__ import annotations

import json
from dataclasses import KW_ONLY, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import xarray as xr

import scalehsi as hsi
from scalehsi.blocks import open_blocks
from scalehsi.fitting.checkpoint import Checkpoint, Saver
from scalehsi.fitting.judge.convergence import still_turning
from scalehsi.fitting.loop import Ended, fit_inner, recorded_inner_fits, run_loop
from scalehsi.fitting.model import IterativeModel, State, Stats
from scalehsi.fitting.sources import select_inputs
from scalehsi.fitting.turning import LARGEST_TURN_DEG, largest_turn, longer_path, no_path
from tests.scenes import smooth_scene

pytestmark = pytest.mark.long


@dataclass(frozen=True)
class Turning(IterativeModel):
    """A flat objective, and two spectra: one at rest, one that turns by ``degrees`` in each of ``number`` steps."""

    n_components: int = 2
    _: KW_ONLY
    degrees: float = 1.0
    number: int = 1000
    max_iter: int = 40
    tol: float = 1e-6

    name: ClassVar[str] = "Turning"

    def init(self, view: Any, seed: int) -> State:
        return {"at": np.asarray(0), "s": np.eye(2, 3)}

    def step(self, view: Any, state: State) -> tuple[State, Stats]:
        at = int(state["at"]) + 1
        angle = np.radians(self.degrees * min(at, self.number))
        s = np.array([[3.0, 0.0, 0.0], [0.0, np.cos(angle), np.sin(angle)]])
        return {"at": np.asarray(at), "s": s}, Stats(1.0)

    def spectra(self, state: State) -> np.ndarray:
        return state["s"]


@pytest.mark.parametrize(
    ("degrees", "number", "status", "iterations"),
    [
        (0.0, 0, "converged", 6),
        (0.005, 1000, "converged", 6),
        (0.007, 1000, "max_iter", 40),
        (1.0, 10, "converged", 15),
    ],
)
def test_a_flat_objective_is_not_enough(degrees: float, number: int, status: str, iterations: int) -> None:
    ended = run_loop(None, Turning(degrees=degrees, number=number), 0)  # type: ignore[arg-type]
    assert (ended.status, len(ended.objective), ended.flat) == (status, iterations, True)
    assert ended.turn == pytest.approx(0.0 if number == 10 else 5 * degrees, abs=1e-4)
    said = still_turning(ended.turn, ended.status, flat=ended.flat, max_iter=40)
    assert (said is None) == (status == "converged")


def test_the_warning_has_the_turn_and_a_higher_limit() -> None:
    said = still_turning(0.4123, "max_iter", flat=True, max_iter=200)
    assert said is not None
    assert said.code == "still_turning"
    assert "still turn by 0.4 degrees in 5 iterations" in said.text
    assert said.remedy == "max_iter=800"
    for turn, status, flat in (
        (np.nan, "max_iter", True), (np.inf, "max_iter", True), (0.4, "max_iter", False), (0.4, "stagnated", True),
        (LARGEST_TURN_DEG, "max_iter", True),
    ):  # fmt: skip
        assert still_turning(turn, status, flat=flat, max_iter=200) is None


def test_a_removed_component_begins_a_new_path() -> None:
    path = no_path()
    for _ in range(6):
        path = longer_path(path, np.eye(3))
    assert largest_turn(path) == 0
    assert largest_turn(longer_path(path, np.eye(3)[:2])) == np.inf
    assert largest_turn(longer_path(path, np.zeros((3, 3)))) == pytest.approx(60)


def test_an_inner_fit_that_still_turns_is_recorded() -> None:
    with recorded_inner_fits([]) as records:
        fit_inner(None, Turning(), 0, purpose="a part")  # type: ignore[arg-type]
        fit_inner(None, Turning(number=3), 0, purpose="another")  # type: ignore[arg-type]
    assert [r["status"] for r in records] == ["max_iter", "converged"]
    assert records[0]["turn"] == pytest.approx(5.0)
    assert "turn" not in records[1]


EVERY = [
    hsi.NMF(3, loss="frobenius"),
    hsi.NMF(3, loss="frobenius", weighting="poisson"),
    hsi.NMF(3, loss="frobenius", spectral_smoothness=1.0),
    hsi.NMF(3, loss="poisson"),
    hsi.NMF(3, loss="poisson", simplex=True),
    hsi.NMF(3, loss="frobenius", simplex=True),
    hsi.NMF(3, loss="frobenius", smoothness=0.1),
    hsi.NMF(3, loss="frobenius", solver="hals"),
    hsi.NMF(3, loss="frobenius", solver="als"),
    hsi.NMF(3, loss="poisson", solver="mu"),
    hsi.NMF(3, loss="frobenius", compress=True),
    hsi.NMF(4, loss="frobenius", ard="exponential"),
    hsi.NMF(3, loss="frobenius", orthogonality=0.05),
    hsi.PSNMF(3, bin_factor=2),
    hsi.PSNMF(3, bin_factor=2, settings="paper"),
]


def ended_in_parts(cube: xr.DataArray, model: IterativeModel, folder: Path, *, cut: int) -> tuple[Ended, Ended]:
    """The end of a fit in one go, and that of one that is cut after some iterations and resumed from its checkpoint."""
    whole = run_loop(open_blocks(cube), model, 0)
    store = Checkpoint(folder, model=model, seed=0, inputs=select_inputs(cube, model))
    run_loop(open_blocks(cube), replace(model, max_iter=cut), 0, saver=Saver(store))
    return whole, run_loop(open_blocks(cube), model, 0, saved=store.read())


@pytest.mark.parametrize("model", EVERY, ids=[f"{m.name}-{i}" for i, m in enumerate(EVERY)])
def test_converged_fits_do_not_turn_and_resume_to_the_same_bits(model: IterativeModel, tmp_path: Path) -> None:
    cube, _ = smooth_scene(3, counts=400, seed=1, size=16, channels=40)
    whole, parts = ended_in_parts(cube, model, tmp_path, cut=7)
    assert whole.status in ("converged", "max_iter")
    if whole.status == "converged" and len(whole.objective) > 6:
        assert whole.turn <= LARGEST_TURN_DEG or not whole.flat
    assert (parts.status, parts.objective, parts.flat) == (whole.status, whole.objective, whole.flat)
    assert parts.turn == whole.turn
    for name, value in whole.state.items():
        np.testing.assert_array_equal(parts.state[name], value)


@pytest.mark.parametrize("seed", [0, 2])
def test_smoothed_spectra_do_not_end_before_they_stop_turning(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    cube, _ = smooth_scene(2, counts=2000, seed=seed, size=16, channels=120, kind="EELS")
    model = hsi.NMF(2, loss="frobenius", spectral_smoothness=1.0, max_iter=250)
    found = run_loop(open_blocks(cube), model, 0)
    with monkeypatch.context() as patched:
        patched.setattr("scalehsi.fitting.loop.LARGEST_TURN_DEG", np.inf)
        before = run_loop(open_blocks(cube), model, 0)
        patched.setattr("scalehsi.fitting.loop.TOLERANCE_ITERATIONS", 1000)
        end = run_loop(open_blocks(cube), model, 0)
    assert (found.status, before.status, end.status) == ("converged", "converged", "max_iter")
    left = [largest_turn(np.stack([unit(e.state["kept"]), *[unit(end.state["kept"])] * 5])) for e in (before, found)]
    assert left[0] > 0.25
    assert left[1] < 0.2


def unit(s: np.ndarray) -> np.ndarray:
    return s / np.linalg.norm(s, axis=1, keepdims=True)


def test_the_inner_fit_of_pansharpen_has_the_same_rule() -> None:
    pair = hsi.simulate.acquisitions((24, 24), footprint=6, seed=1)
    result = hsi.fit(pair.cubes, hsi.PanSharpen(3, max_iter=300), seed=0)
    assert result.attrs["status"] in ("converged", "max_iter")
    ended = {r["purpose"]: r for r in json.loads(result.attrs.get("inner_fits", "[]"))}
    assert all(r["status"] in ("converged", "max_iter") for r in ended.values())
