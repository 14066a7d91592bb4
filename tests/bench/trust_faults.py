"""Faults of the data that are planted in clean scenes: drift, spikes and hot pixels."""

from __future__ import annotations

import re
from typing import Any, Final

import numpy as np

import scalehsi as hsi
from tests.bench.trust_report import Report, codes, text
from tests.fitting.judge.scenes import EDX_KEV, EELS_EV, Scene, scene

FIRST_SEED: Final = 2000
DRIFTS: Final = (("edx", 100.0, 0.5), ("edx", 500.0, 0.2), ("eels", 2e3, 0.15), ("eels", 2e4, 0.1))
"""Kind, counts, and root mean square of a drift in channels that must be found."""
LADDER: Final = (0.1, 0.15, 0.2, 0.3, 0.5, 1.0)
RAMP_RANGE: Final = 2 * np.sqrt(3) * 7 / 8
"""Range over 8 regions of a ramp whose root mean square is one."""
SPIKES: Final = (("edx", 100.0, 1.0, 30), ("edx", 500.0, 1.0, 30), ("eels", 2e3, 1.0, 30), ("eels", 2e4, 1.0, 20),
                 ("eels", 2e4, 4.6, 20))  # fmt: skip
"""Kind, counts, gain, and size in standard deviations of a voxel that must be found."""


def _model(kind: str, k: int) -> Any:
    return hsi.NMF(k, loss="poisson") if kind == "edx" else hsi.NMF(k, weighting="poisson")


def drift(report: Report, seeds: int) -> None:
    """A shift that grows along the rows, at several sizes; and none, with one component more and less."""
    for kind, counts, asked in DRIFTS:
        shares: dict[float, float] = {}
        for size in LADDER:
            said = {k: [_found_at(kind, counts, k, size, seed) for seed in range(seeds)] for k in (3, 5)}
            shares[size] = float(np.mean([bool(t) for each in said.values() for t in each]))
            if size == asked:
                _drift_lines(report, f"{kind} {counts:g}", size, said)
        report.found(f"drift, {kind} {counts:g}", "drift", shares, "channels rms")
    blamed, n = 0, 0
    for kind, counts, _ in DRIFTS:
        for true in (3, 5):
            for seed in range(seeds):
                made = scene(kind, counts, true, seed=FIRST_SEED + seed)
                for k in (true - 1, true, true + 1):
                    blamed += "drift" in codes(hsi.fit(made.cube, _model(kind, k), seed=0))
                    n += 1
    report.line(
        3, "drift warned of without any, also at K - 1 and K + 1", asked=f"at most {max(1, n // 200)} of {n}",
        measured=f"{blamed} of {n}", held=blamed <= max(1, n // 200),
    )  # fmt: skip


def _found_at(kind: str, counts: float, k: int, size: float, seed: int) -> str:
    """The warning of a drift of that size, of a fit with the true number of components."""
    made = scene(kind, counts, k, seed=FIRST_SEED + seed, drift=size)
    return text(hsi.fit(made.cube, _model(kind, k), seed=0), "drift")


def _drift_lines(report: Report, dose: str, size: float, said: dict[int, list[str]]) -> None:
    """The lines of one dose at the size that must be found. said: warnings by number of components."""
    for k, texts in said.items():
        found = sum(map(bool, texts))
        report.line(
            3, f"drift of {size:g} channels, {dose}, K {k}", asked="9 of 10", measured=f"{found} of {len(texts)}",
            held=found >= 0.9 * len(texts),
        )  # fmt: skip
        found_at = [re.search(r"([\d.]+) channel", each) for each in texts if each]
        ratio = [float(match[1]) / RAMP_RANGE / size for match in found_at if match]
        close = sum(abs(r - 1) <= 0.35 for r in ratio)
        report.line(
            3, f"its size, {dose}, K {k}", asked="within 35 %",
            measured=f"{close} of {len(ratio)}" + (f", median {np.median(ratio):.2f} of the plant" if ratio else ""),
            held=bool(ratio) and close >= 0.9 * len(ratio),
        )  # fmt: skip


def outliers(report: Report, seeds: int) -> None:
    """One voxel far above its noise, at the right place; one pixel brighter than all around it."""
    for kind, counts, gain, asked in SPIKES:
        shares = {}
        for size in (10, 20, 30, 100):
            found = [_spike_found(kind, counts, gain, size, seed) for seed in range(seeds)]
            shares[float(size)] = float(np.mean(found))
            if size == asked:
                report.line(
                    4, f"spike of {size} sigma, {kind} {counts:g}, gain {gain:g}", asked="9 of 10, the right voxel",
                    measured=f"{sum(found)} of {len(found)}", held=sum(found) >= 0.9 * len(found),
                )  # fmt: skip
        report.found(f"spike, {kind} {counts:g}, gain {gain:g}", "spike", shares, "sigma")
    shares = {}
    for factor in (2, 3, 5):
        found = []
        for kind, counts in (("edx", 100.0), ("edx", 500.0), ("eels", 2e3), ("eels", 2e4)):
            for seed in range(seeds):
                made, rng = scene(kind, counts, 3, seed=FIRST_SEED + seed), np.random.default_rng(seed)
                y, x = rng.integers(2, 30, 2)
                made.counts[y, x] = rng.poisson(factor * made.expected[y, x])
                found.append("hot_pixel" in codes(hsi.fit(made.cube, _model(kind, 3), seed=0)))
        shares[float(factor)] = float(np.mean(found))
        if factor == 3:
            report.line(
                4, "hot pixel, 3 times its brightness", asked="9 of 10", measured=f"{sum(found)} of {len(found)}",
                held=sum(found) >= 0.9 * len(found),
            )  # fmt: skip
    report.found("hot pixel", "hot_pixel", shares, "times")


def _spike_found(kind: str, counts: float, gain: float, size: int, seed: int) -> bool:
    """Whether a spike of this many standard deviations is reported, with its place."""
    made, rng = scene(kind, counts, 3, seed=FIRST_SEED + seed, gain=gain), np.random.default_rng(seed)
    y, x, e = int(rng.integers(2, 30)), int(rng.integers(2, 30)), int(rng.integers(10, made.counts.shape[-1] - 10))
    # A value of less than one event has the noise of one.
    sigma = np.sqrt(gain * max(made.expected[y, x, e], gain))
    changed = made.counts.astype(float)
    changed[y, x, e] = np.rint(made.expected[y, x, e] + size * sigma)
    made = Scene(changed if gain != 1 else changed.astype("u2"), *made[1:])
    said = text(hsi.fit(made.cube, _model(kind, 3), seed=0), "spike")
    at = re.search(r"([\d.e+]+) k?eV", said)
    place = re.search(r"x = ([\d.]+)[^,]*, y = ([\d.]+)", said)
    energy = (EDX_KEV if kind == "edx" else EELS_EV)[e]
    if not (at and place):
        return False
    found_at = float(at[1]) / (1000 if kind == "edx" and " keV" not in said else 1)
    return abs(found_at / energy - 1) < 0.02 and (float(place[1]), float(place[2])) == (float(x), float(y))
