"""How far fits are from their end when they stop, and what the judgement costs."""

from __future__ import annotations

import cProfile
import pstats
import time
from pathlib import Path
from typing import Any, Final

import dask
import numpy as np

import scalehsi as hsi
from tests.bench.trust_report import Report
from tests.fitting.judge.scenes import angles, scene

FIRST_SEED: Final = 5000
SETTINGS: Final[dict[str, dict[str, Any]]] = {
    "ls": {},
    "wls": {"weighting": "poisson"},
    "spectral smoothness": {"spectral_smoothness": 1.0},
    "kl": {"loss": "poisson"},
}
MAP_FUNCTIONS: Final = ("abundances", "_maps")
LATER: Final = 400
WINDOW: Final = 5
FLAT: Final = 1e-6


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
        with dask.config.set(scheduler="synchronous"):
            hsi.fit(made.cube, hsi.NMF(4, **SETTINGS[name], max_iter=2), seed=0)
            profile = cProfile.Profile(time.process_time)
            profile.runcall(hsi.fit, made.cube, hsi.NMF(4, **SETTINGS[name]), seed=0)
        shares[name] = _judged(profile)
    report.cost["all"] = ", ".join(f"{100 * share:.1f} % ({name})" for name, share in shares.items())
    report.line(
        9, "processor time of the judgement", asked="at most 10 % of the fit", measured=report.cost["all"],
        held=max(shares.values()) <= 0.1,
    )  # fmt: skip


def _judged(profile: cProfile.Profile) -> float:
    """Time of the functions of the judge that are called from outside it, over that of the fit.

    One of them calls the model's own map function, whose time is not the judge's.
    """
    stats = pstats.Stats(profile).stats  # type: ignore[attr-defined]
    whole, judge = 0.0, 0.0
    for (file, _, function), (_, _, _, cumulative, callers) in stats.items():
        parts = Path(file).parts
        if function == "fit" and parts[-2:] == ("fitting", "fit.py"):
            whole = cumulative
        for caller, times in callers.items():
            by_judge = "judge" in Path(caller[0]).parts
            if "judge" in parts and not by_judge:
                judge += times[3]
            elif by_judge and function in MAP_FUNCTIONS and caller[2] == "judged":
                judge -= times[3]
    return judge / max(whole, 1e-9)
