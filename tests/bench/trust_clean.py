"""Clean scenes, and fits with too many or too few components."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

import scalehsi as hsi
from scalehsi.fitting.judge.uniqueness import APART_DEG
from scalehsi.kernels.statistics.noise_edge import noise_edge
from tests.bench.trust_report import Report, codes
from tests.fitting.judge.scenes import LAYOUTS, Scene, angles, scene

DOSES = (("edx", 20.0), ("edx", 100.0), ("edx", 500.0), ("eels", 2e3), ("eels", 2e4))
MODELS: dict[str, Callable[[int], Any]] = {
    "wls": lambda k: hsi.NMF(k, weighting="poisson"),
    "kl": lambda k: hsi.NMF(k, loss="poisson"),
    "PSNMF": lambda k: hsi.PSNMF(k),
}
WRONG_DEGREES = 8.0
ARD_DEGREES = 15.0
FIRST_SEED = 1000


def clean(report: Report, seeds: int) -> None:
    """65 scenes of known phases, three models, at the true number of components; a round for every 10 seeds."""
    alarms: Counter[str] = Counter()
    for seed in range(max(1, seeds // 10)):
        for kind, counts in DOSES:
            for layout in LAYOUTS:
                for k in range(1 if layout == "smooth" else 2, 6):
                    made = _clean(kind, counts, k, layout, FIRST_SEED + 100 * seed)
                    _clean_scene(report, made, k, layout, alarms)
    n = alarms["plain fits"]
    report.line(
        1, "false alarms, smooth maps and grains", asked=f"at most {2 * n // 135} of {n}",
        measured=f"{alarms['plain']} of {n}", held=alarms["plain"] <= 2 * n / 135,
    )  # fmt: skip
    n = alarms["rare fits"]
    report.line(
        1, "alarms on rare phases where spectra are right to 8 degrees", asked=f"at most {2 * n // 60} of {n}",
        measured=f"{alarms['rare, right']} of {n} ({alarms['rare']} in all)", held=alarms["rare, right"] <= 2 * n / 60,
    )  # fmt: skip
    report.line(
        1, f"not_unique where spectra are right to {APART_DEG:g} degrees", asked="0", held=alarms["other, right"] == 0,
        measured=f"{alarms['other, right']} ({alarms['other']} in all; NMF of EELS wrong {alarms['EELS, wrong']})",
    )  # fmt: skip


def _clean(kind: str, counts: float, k: int, layout: str, first: int) -> Scene:
    """A scene whose phases the counts can show, except rare ones. first: the seed to begin with."""
    for seed in range(first, first + 100):
        made = scene(kind, counts, k, layout=layout, seed=seed)
        if layout == "rare" or _phases_above_noise(made) == k:
            break
    return made


def _phases_above_noise(made: Scene) -> int:
    """Singular values of the expected counts that are well above the largest one of noise, over bins of 1, 2, 4, 8."""
    most = 0
    for width in (1, 2, 4, 8):
        rows, columns, channels = made.expected.shape
        y = made.expected.reshape(rows // width, width, columns // width, width, channels).sum(axis=(1, 3))
        y = y.reshape(-1, channels)
        y = y[:, y.sum(axis=0) >= 25]
        white = y * np.sqrt(y.sum() / (y.sum(axis=1, keepdims=True) * y.sum(axis=0)))
        most = max(most, int(np.sum(np.linalg.svd(white, compute_uv=False) ** 2 > 2 * noise_edge(*white.shape))))
    return most


def _clean_scene(report: Report, made: Scene, k: int, layout: str, alarms: Counter[str]) -> None:
    """Fit a scene of k phases by all models, and count alarms by layout."""
    for name, model in MODELS.items():
        result = hsi.fit(made.cube, model(k), seed=0)
        worst = _worst(made, result)
        other = "not_unique" in codes(result)
        alarms["other"] += other
        alarms["other, right"] += other and worst <= APART_DEG
        alarms["EELS, wrong"] += made.signal == "EELS" and name != "PSNMF" and k > 1 and worst > APART_DEG
        said = report.clean(result, true={"not_unique"} if worst > APART_DEG else set())
        kind = "rare" if layout == "rare" else "plain"
        alarms[f"{kind} fits"] += 1
        alarms[kind] += bool(said)
        alarms["rare, right"] += bool(said) and kind == "rare" and worst < WRONG_DEGREES
        if said:
            mean = made.counts.sum(axis=-1).mean()
            print(f"   {name}, {made.signal} {mean:.0f}, {layout}, K {k}: {', '.join(sorted(said))} ({worst:.0f} deg)")


def _worst(made: Scene, result: Any) -> float:
    return float(angles(made.spectra, result["endmembers"].values).max())


def rank(report: Report, seeds: int) -> None:
    """One component too few, the right number, one and two too many; noise alone; relevance determination."""
    found = {d: [0, 0] for d in (-1, 0, 1, 2)}
    for kind, counts in (DOSES[1], DOSES[3], DOSES[4]):
        for name in ("wls", "kl"):
            for true in (1, 2, 3):
                for seed in range(seeds):
                    made = scene(kind, counts, true, seed=FIRST_SEED + seed)
                    for d in (-1, 0, 1, 2) if true > 1 else (0, 1, 2):
                        said = codes(hsi.fit(made.cube, MODELS[name](true + d), seed=0))
                        wanted = {"missing_component"} if d < 0 else {"below_noise"} if d else said
                        wrong = said & {"missing_component", "below_noise"} if d == 0 else wanted - said
                        found[d][0] += bool(wrong) if d == 0 else not wrong
                        found[d][1] += 1
    noise = [_noise_is_warned(which, k, seed) for which in NOISES for k in (2, 3) for seed in range(seeds)]
    right, n = found[1][0] + found[2][0] + sum(noise), found[1][1] + found[2][1] + len(noise)
    report.line(
        2, "below_noise at K + 1, K + 2 and noise", asked=">= 98 %", measured=f"{right} of {n}", held=right >= 0.98 * n
    )
    report.line(
        2, "missing_component at K - 1", asked=">= 98 %", measured="{} of {}".format(*found[-1]),
        held=found[-1][0] >= 0.98 * found[-1][1],
    )  # fmt: skip
    report.line(2, "either at the true K", asked="0", measured="{} of {}".format(*found[0]), held=found[0][0] == 0)
    _relevance(report, seeds)
    report.found("components too many", "below_noise", {d: found[d][0] / found[d][1] for d in (1, 2)}, "more")
    report.found("components too few", "missing_component", {1: found[-1][0] / found[-1][1]}, "less")


NOISES = ("flat", "Gaussian", "one phase")


def _noise_is_warned(which: str, k: int, seed: int) -> bool:
    """Whether a fit of K components to noise alone says that one is enough. which: of `NOISES`."""
    rng = np.random.default_rng(FIRST_SEED + seed)
    made = scene("edx", 100, 1, seed=FIRST_SEED + seed)
    if which == "flat":
        made = made._replace(counts=rng.poisson(3.0, made.counts.shape).astype("u2"))
    elif which == "Gaussian":
        made = made._replace(counts=np.maximum(rng.normal(100, 10, made.counts.shape), 0))
    return "below_noise" in codes(hsi.fit(made.cube, MODELS["wls"](k), seed=0))


def _relevance(report: Report, seeds: int) -> None:
    """Relevance determination that ends with the true number of right spectra must not be blamed."""
    wrong, right, more, warned = 0, 0, 0, 0
    for kind, counts in (DOSES[1], DOSES[3], DOSES[4]):
        for true in (2, 3):
            for seed in range(seeds):
                made = scene(kind, counts, true, seed=FIRST_SEED + seed)
                result = hsi.fit(made.cube, hsi.NMF(true + 2, loss="poisson", ard="exponential"), seed=0)
                said = codes(result) & {"missing_component", "below_noise"}
                if result.sizes["component"] == true and _worst(made, result) < ARD_DEGREES:
                    right += 1
                    wrong += bool(said)
                more += result.sizes["component"] > true
                warned += result.sizes["component"] > true and "below_noise" in said
    report.line(
        2, "either where relevance determination is right", asked="0", measured=f"{wrong} of {right}", held=wrong == 0
    )
    print(f"   relevance determination kept too many {more} times, of which {warned} were warned")
