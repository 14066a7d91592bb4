"""How far a fit is: records that only go forward, an estimate that is right when passes take as long as they did."""

from __future__ import annotations

import io
import sys
from typing import Any

import pytest

import scalehsi as hsi
from scalehsi.fitting import progress
from scalehsi.fitting.progress import Bar, Progress, Tracker
from tests.helpers import counts_cube


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress.time, "perf_counter", clock)
    return clock


@pytest.fixture
def records() -> list[Progress]:
    return []


def test_time_left_is_what_the_passes_so_far_took(clock: Clock, records: list[Progress]) -> None:
    tracker = Tracker(records.append, 10)
    tracker.enter("start", 0)
    clock.now += 7  # the start says nothing of how long iterations take
    tracker.tell(3, 4)
    tracker.enter("iterate", 0)
    assert [r.remaining for r in records] == [None, None, None]
    assert records[-1].elapsed == 7.0
    clock.now += 1
    tracker.tell(2, 4)  # half a pass a second: half of this one, nine more and the one for the maps are left
    assert records[-1].remaining == pytest.approx(21.0)
    clock.now += 1
    tracker.finished(1, 55.0)
    assert records[-1].remaining == pytest.approx(20.0)
    assert (records[-1].iteration, records[-1].objective, records[-1].stage) == (1, 55.0, "iterate")
    clock.now += 2
    tracker.enter("maps", 2)
    assert records[-1].remaining is None
    clock.now += 3
    tracker.tell(1, 4)
    assert records[-1].remaining == pytest.approx(9.0)
    tracker.tell(4, 4)
    assert records[-1].remaining == 0.0


def test_a_resumed_fit_counts_only_its_own_iterations(clock: Clock, records: list[Progress]) -> None:
    tracker = Tracker(records.append, 100)
    tracker.enter("iterate", 90)
    clock.now += 4
    tracker.finished(92, 1.0)
    assert records[-1].remaining == pytest.approx(2.0 * 9)


def test_nobody_listening_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    tracker = Tracker(None, 10)
    monkeypatch.setattr(progress.time, "perf_counter", lambda: pytest.fail("the clock was read"))
    assert tracker.report is None
    tracker.tell(1, 2)
    tracker.finished(1, 2.0)
    assert (tracker.iteration, tracker.objective) == (1, 2.0)


@pytest.mark.parametrize(
    "model", [hsi.NMF(2, max_iter=6, tol=0), hsi.PCA(2), hsi.PCA(2, solver="randomized", power=1, oversample=0)]
)
def test_the_records_of_a_fit_go_forward(model: Any, records: list[Progress]) -> None:
    result = hsi.fit(counts_cube((12, 10, 8)).chunk({"y": 3}), model, progress=records.append)
    order = ["start", "iterate", "maps"]
    stages = [order.index(r.stage) for r in records]
    assert stages == sorted(stages)
    assert set(stages) == {0, 1, 2} if model.name == "NMF" else {1, 2}
    for name in ("iteration", "elapsed"):
        values = [getattr(r, name) for r in records]
        assert values == sorted(values)
    assert all(0 <= r.done <= r.total for r in records)
    assert all(r.remaining is None or r.remaining >= 0 for r in records)
    assert all(r.max_iter == model.max_iter for r in records)
    assert records[-1].stage == "maps"
    assert records[-1].done == records[-1].total > 0
    assert records[-1].iteration == result.sizes["iteration"]
    objectives = [r.objective for r in records if r.stage == "iterate" and r.objective is not None]
    assert set(objectives) <= set(result.objective.values.tolist())


# The bar.


def record(**changes: Any) -> Progress:
    values = {
        "stage": "iterate",
        "iteration": 3,
        "max_iter": 10,
        "objective": 1234.5678,
        "done": 1,
        "total": 4,
        "elapsed": 5.0,
        "remaining": 3725.0,
    }
    return Progress(**(values | changes))


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_without_a_terminal_no_bar_is_drawn(capsys: pytest.CaptureFixture[str]) -> None:
    bar = Bar()
    bar(record())
    bar.close()
    assert capsys.readouterr() == ("", "")


def test_the_bar_says_stage_objective_and_time_left_on_standard_error(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    bar = Bar()
    for step in (
        record(stage="start", objective=None, remaining=None),
        record(),
        record(stage="maps", iteration=4, done=0, total=0, remaining=9.4),
    ):
        bar(step)
        bar._bar.refresh()
    assert bar._bar.tasks[0].completed == 10
    bar.close()
    bar.close()
    text = screen.getvalue()
    for words in ("making the maps", "objective 1234.57", "at most 0:09 left", "10/10"):
        assert words in text


def test_the_bar_shows_parts_of_an_iteration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    bar = Bar(force=True)
    bar(record())
    task = bar._bar.tasks[0]
    assert (task.completed, task.total) == (3.25, 10)
    assert (task.description, task.fields["seconds"]) == ("fitting", "at most 1:02:05 left")
    bar.close()


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "0:00"), (59.6, "1:00"), (61, "1:01"), (3599.7, "1:00:00"), (90061, "25:01:01")]
)
def test_seconds_are_shown_as_on_a_clock(seconds: float, text: str) -> None:
    assert progress.clock(seconds) == text
