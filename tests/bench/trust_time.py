"""How far fits are from their end when they stop, and what the judgement costs."""

from __future__ import annotations

import time
from contextlib import ExitStack
from importlib import import_module
from typing import Any, Final
from unittest import mock

import dask
import numpy as np

import scalehsi as hsi
from scalehsi.fitting import last_pass
from tests.bench.trust_report import Report
from tests.fitting.judge.scenes import angles, scene

FIRST_SEED: Final = 5000
SETTINGS: Final[dict[str, dict[str, Any]]] = {
    "ls": {},
    "wls": {"weighting": "poisson"},
    "spectral smoothness": {"spectral_smoothness": 1.0},
    "kl": {"loss": "poisson"},
}
LATER: Final = 400
WINDOW: Final = 5
FLAT: Final = 1e-6
REPEATS: Final = 5
"""Of a measurement of time, whose least value counts."""


def stop(report: Report, seeds: int) -> None:
    """Fits that say "converged", continued to 400 iterations: how far the spectra still turn."""
    to_go, iterations, flat = [], [], []
    for name, given in SETTINGS.items():
        for kind, counts in (("edx", 100.0), ("eels", 2e4)):
            for k in (2, 4):
                for seed in range(max(1, seeds // 3)):
                    made = scene(kind, counts, k, seed=FIRST_SEED + seed)
                    loss = {"loss": "frobenius", "compress": False} if name != "kl" else {}
                    settings = {**loss, **given}
                    result = hsi.fit(made.cube, hsi.NMF(k, **settings), seed=0)
                    if result.attrs["status"] != "converged":
                        continue
                    longer = hsi.fit(made.cube, hsi.NMF(k, **settings, max_iter=LATER, tol=0.0, start=result), seed=0)
                    left = angles(longer["endmembers"].values, result["endmembers"].values).max()
                    to_go.append(float(left))
                    iterations.append(result.sizes["iteration"])
                    flat.append(_flat_after(result["objective"].values))
    above = sum(each > 1 for each in to_go)
    n = len(to_go)
    report.line(
        7, "converged fits with more than 1 degree to go", asked=f"at most {max(1, round(2 * n / 53))} of {n}",
        measured=f"{above} of {n}, largest {max(to_go, default=0):.1f} degrees", held=above <= max(1, 2 * n / 53),
    )  # fmt: skip
    ratio = float(np.mean(iterations)) / float(np.mean(flat)) if n else float("nan")
    report.line(
        7, "iterations over those to a flat objective", asked="at most 2", held=ratio <= 2,
        measured=f"{ratio:.2f} ({np.mean(iterations):.1f} over {np.mean(flat):.1f})",
    )  # fmt: skip


def _flat_after(objective: Any) -> int:
    """Iterations until the mean relative gain of five is below 1e-6, the rule without the turn of the spectra."""
    for i in range(WINDOW, len(objective)):
        if objective[i - WINDOW] - objective[i] < WINDOW * FLAT * abs(objective[i]):
            return i + 1
    return len(objective)


def cost(report: Report, seeds: int) -> None:
    """Part of a fit's processor time that the judgement takes: 256 x 256 pixels, 500 channels, 4 components."""
    del seeds
    shares = {}
    made = scene("edx", 100, 4, seed=FIRST_SEED, size=256)
    for name in ("wls", "kl"):
        whole, judge = [], []
        with dask.config.set(scheduler="synchronous"):
            hsi.fit(made.cube, hsi.NMF(4, **SETTINGS[name], max_iter=2), seed=0)
            for _ in range(REPEATS):
                fit, judged = _seconds(made.cube, hsi.NMF(4, **SETTINGS[name]))
                whole.append(fit)
                judge.append(judged)
        shares[name] = min(judge) / min(whole)
        print(f"   {name}: {min(judge):.3f} s of {min(whole):.2f} s, the least of {REPEATS}")
    report.cost["all"] = ", ".join(f"{100 * share:.1f} % ({name})" for name, share in shares.items())
    report.line(
        9, "processor time of the judgement", asked="at most 10 % of the fit", measured=report.cost["all"],
        held=max(shares.values()) <= 0.1,
    )  # fmt: skip


def _seconds(cube: Any, model: Any) -> tuple[float, float]:
    """Processor time of a fit, and the part of it that the judgement takes, in seconds."""
    spent = 0.0

    def timed(function: Any, sign: float = 1.0) -> Any:
        def run(*given: Any, **named: Any) -> Any:
            nonlocal spent
            if function is last_pass_judged:
                # It calls the model's own map function, whose time is not the judge's.
                named["fn"] = timed(named["fn"], -1.0)
            start = time.process_time()
            found = function(*given, **named)
            spent += sign * (time.process_time() - start)
            return found

        return run

    last_pass_judged = last_pass.judged
    places = ((last_pass, "judged"), (last_pass, "evidence"), (import_module("scalehsi.fitting.fit"), "judge"))
    with ExitStack() as patches:
        for place, name in places:
            patches.enter_context(mock.patch.object(place, name, timed(getattr(place, name))))
        start = time.process_time()
        hsi.fit(cube, model, seed=0)
        return time.process_time() - start, spent
