"""Compare `scalehsi.CoupledNMF` with separate fits and with weighted concatenation, on simulated EELS and EDX.

Run with: python -m tests.bench.coupled [--seeds N]

Prints one line for each figure that is asked for, beside the one that was measured. All fits of a scene are made from
the same cubes in the same run. Angles are in degrees, errors of maps relative and free of scale.
"""

from __future__ import annotations

import argparse
import time
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

import scalehsi as hsi
from tests.bench.machine import markdown

DOSES = [(eels, edx) for eels in (2e3, 2e4, 2e5) for edx in (10, 50, 250)]
FACTORS = (0.3, 3, 30)

Row = dict[str, object]
Cubes = dict[str, xr.DataArray]


class Errors(NamedTuple):
    """Mean angles of EELS and EDX, and the error of the maps; NaN for a signal that was not fitted."""

    eels: float
    edx: float
    maps: float


def scene(**settings: Any) -> tuple[Cubes, xr.Dataset]:
    made = hsi.simulate.coupled(**settings)
    return {name: cube.compute() for name, cube in made.cubes.items()}, made.truth.compute()


def angle(truth: np.ndarray, found: np.ndarray, order: np.ndarray) -> np.ndarray:
    return np.degrees([float(hsi.metrics.spectral_angle(truth[i], found[j])) for i, j in enumerate(order)])


def order_of(truth: np.ndarray, found: np.ndarray) -> np.ndarray:
    a, b = (xr.DataArray(s, dims=("component", "energy")) for s in (truth, found))
    return np.asarray(hsi.metrics.match(a, b))


def map_error(truth: np.ndarray, found: np.ndarray) -> float:
    a, b = (maps.reshape(len(maps), -1).astype("f8") for maps in (truth, found))
    scale = (a * b).sum(axis=1) / np.maximum((b**2).sum(axis=1), 1e-300)
    return float(np.sqrt(((a - b * scale[:, None]) ** 2).sum() / (a**2).sum()))


def judged(truth: xr.Dataset, eels: np.ndarray | None, edx: np.ndarray | None, maps: np.ndarray) -> Errors:
    """Errors of spectra and maps; the components are matched by EDX where it was fitted."""
    known = truth["endmembers"].values if edx is not None else truth["endmembers_eels"].values
    order = order_of(known, np.asarray(edx if edx is not None else eels))
    return Errors(
        float(np.mean(angle(truth["endmembers_eels"].values, eels, order))) if eels is not None else np.nan,
        float(np.mean(angle(truth["endmembers"].values, edx, order))) if edx is not None else np.nan,
        map_error(truth["abundances"].values, maps[order]),
    )


def joint(cubes: Cubes, truth: xr.Dataset, **settings: object) -> tuple[Errors, xr.Dataset]:
    found = hsi.fit(cubes, hsi.CoupledNMF(3, **{"shift": None, **settings}), seed=0)
    arrays = [found[name].values for name in ("endmembers_eels", "endmembers", "abundances")]
    return judged(truth, *arrays), found


def concatenated(cubes: Cubes, truth: xr.Dataset, phi: float) -> Errors:
    """Weighted spectra of both signals behind each other, fitted as one cube by least squares."""
    eels, edx = (cubes[name].values.astype("f8") for name in ("eels", "edx"))
    mean = edx.mean(axis=(0, 1))
    root = np.sqrt(np.maximum(mean, 1e-6 * mean.mean()))
    both = np.concatenate([eels / np.sqrt(phi), edx / root], axis=-1).astype("f4")
    cube = hsi.make_cube(both, energy=np.arange(both.shape[-1]) + 1.0, energy_units="eV")
    found = hsi.fit(cube, hsi.NMF(3, loss="frobenius", start="multistart", max_iter=60, tol=3e-7), seed=0)
    s, channels = found["endmembers"].values, eels.shape[-1]
    return judged(truth, s[:, :channels], s[:, channels:] * root, found["abundances"].values)


def alone(cubes: Cubes, truth: xr.Dataset, name: str) -> Errors:
    loss = "poisson" if name == "edx" else "frobenius"
    found = hsi.fit(cubes[name], hsi.NMF(3, loss=loss, start="multistart"), seed=0)
    s = found["endmembers"].values
    return judged(truth, *((s, None) if name == "eels" else (None, s)), found["abundances"].values)


def oracle(cubes: Cubes, truth: xr.Dataset) -> float:
    """EDX spectra by the likelihood of counts with the true maps."""
    maps = truth["abundances"].assign_coords(y=cubes["edx"]["y"], x=cubes["edx"]["x"]).drop_vars("component")
    found = hsi.fit(cubes["edx"], hsi.NMF(3, loss="poisson", fixed={"abundances": maps}), seed=0)
    return float(np.mean(angle(truth["endmembers"].values, found["endmembers"].values, np.arange(3))))


def standard(seeds: int) -> list[Row]:
    """The scene at 2e4 and 50 counts: joint, separate, oracle."""
    each: dict[str, list[Errors]] = {"joint": [], "eels": [], "edx": [], "both": []}
    floors, steps, seconds, full = [], [], [], []
    for seed in range(seeds):
        cubes, truth = scene(seed=seed)
        begin = time.perf_counter()
        errors, found = joint(cubes, truth)
        seconds.append(time.perf_counter() - begin)
        full.append(joint(cubes, truth, bin_factor=1)[0])
        each["joint"].append(errors)
        steps.append(found.sizes["iteration"])
        each["eels"].append(alone(cubes, truth, "eels"))
        each["edx"].append(alone(cubes, truth, "edx"))
        each["both"].append(concatenated(cubes, truth, float(found["noise_variance"].sel(signal="eels"))))
        floors.append(oracle(cubes, truth))
    mean = {name: Errors(*np.mean(values, axis=0)) for name, values in each.items()}
    pixel, floor, mine = Errors(*np.mean(full, axis=0)), float(np.mean(floors)), mean["joint"]
    worst = max(a.eels / b.eels for a, b in zip(each["joint"], each["eels"], strict=True))
    best_maps = [min(a.maps, b.maps) for a, b in zip(each["eels"], each["edx"], strict=True)]
    shares = [a.maps / b for a, b in zip(each["joint"], best_maps, strict=True)]
    concatenation = f"{mean['both'].eels:.2f}, {mean['both'].edx:.2f}"
    return [
        _row("2e4 / 50: EELS, mean of the seeds", "at most 1.5", f"{mine.eels:.2f} (single pixels {pixel.eels:.2f})"),
        _row(
            "EELS over the fit of EELS alone",
            "at most 0.5",
            f"{mine.eels / mean['eels'].eels:.2f} (worst seed {worst:.2f}; alone {mean['eels'].eels:.2f})",
        ),
        _row(
            "EDX over the oracle with true maps",
            "at most 1.2",
            f"{mine.edx / floor:.2f} ({mine.edx:.2f}, oracle {floor:.2f}; single pixels {pixel.edx / floor:.2f})",
        ),
        _row("EDX over the fit of EDX alone", "below 1", f"{mine.edx / mean['edx'].edx:.2f} ({mean['edx'].edx:.2f})"),
        _row(
            "maps over the better of the two fits alone",
            "at most 0.6",
            f"{np.mean(shares):.2f} (worst {max(shares):.2f}; {mine.maps:.3f}, EELS {mean['eels'].maps:.3f})",
        ),
        _row("weighted concatenation: EELS, EDX", "", concatenation),
        _row("iterations, one reading of each signal", "at most 60", f"{max(steps)} ({np.mean(seconds):.1f} s a fit)"),
    ]


def doses() -> list[Row]:
    """Joint fit against the weighted concatenation at nine doses, one seed each."""
    ratios, rows = [], []
    for eels, edx in DOSES:
        cubes, truth = scene(counts_eels=eels, counts_edx=edx, seed=0)
        mine, found = joint(cubes, truth)
        other = concatenated(cubes, truth, float(found["noise_variance"].sel(signal="eels")))
        ratios.append((mine.eels / other.eels, mine.edx / other.edx))
        text = f"{ratios[-1][0]:.2f}, {ratios[-1][1]:.2f} ({mine.eels:.2f} / {mine.edx:.2f})"
        rows.append(_row(f"{eels:g} / {edx}: over the concatenation, EELS, EDX", "at most 1.02", text))
    mean = np.mean(ratios, axis=0)
    rows.append(_row("mean of the nine doses: EELS, EDX", "at most 0.96", f"{mean[0]:.2f}, {mean[1]:.2f}"))
    return rows


def weights() -> list[Row]:
    """Wrong weights, and a signal of no weight."""
    cubes, truth = scene(seed=0)
    usual = joint(cubes, truth)[0].eels
    off = [joint(cubes, truth, weights={"eels": factor})[0].eels for factor in FACTORS]
    tight = {"reference": "eels", "bin_factor": 1, "max_iter": 500, "tol": 1e-12, "shift": None}
    single = hsi.fit(cubes, hsi.CoupledNMF(3, weights={"edx": 1e-9}, **tight), seed=0)
    start = single["endmembers"].values
    plain = hsi.fit(cubes["eels"], hsi.NMF(3, loss="frobenius", start=start, max_iter=500, tol=1e-12), seed=0)
    losses = []
    for found in (single, plain):
        model = np.einsum("kyx,ke->yxe", found["abundances"].values.astype("f8"), found["endmembers"].values)
        losses.append(float(((cubes["eels"].values - model) ** 2).sum()))
    return [
        _row(
            f"weight of EELS times {', '.join(f'{f:g}' for f in FACTORS)}: change of EELS",
            "at most 0.2",
            f"{max(abs(value - usual) for value in off):.2f}",
        ),
        _row("weight of EDX 1e-9: loss over that of EELS alone, less one", "1e-6", f"{losses[0] / losses[1] - 1:.1e}"),
    ]


def deviating() -> list[Row]:
    """Maps that differ by 0.3 of the mean abundance, and maps that do not; deviation=0.1 against none."""
    rows = []
    for deviation, asked in ((0.3, "at most 0.9"), (0.0, "at most 1.1")):
        ratios, hards = [], []
        for seed in range(2):
            dose = {"counts_eels": 2e5, "counts_edx": 250} if deviation else {}
            cubes, truth = scene(deviation=deviation, seed=seed, **dose)
            hard, soft = joint(cubes, truth)[0], joint(cubes, truth, deviation=0.1)[0]
            ratios.append(soft.maps / hard.maps)
            hards.append(hard.maps)
        text = f"{np.mean(ratios):.2f} (hard {np.mean(hards):.3f})"
        rows.append(_row(f"maps deviate by {deviation}: tau 0.1 over hard, maps of the reference", asked, text))
    return rows


def tilts() -> list[Row]:
    """A tilt series of two sites, EDX known and not."""
    made = hsi.simulate.coupled(tilts=41, counts_eels=2e5, counts_edx=2e4, seed=0)
    truth, axis = made.truth.compute(), np.arange(2)
    known = {"edx": truth["endmembers"].drop_vars("component")}
    found = hsi.fit(made.cubes, hsi.CoupledNMF(2, deviation="contrast", fixed=known), seed=0)
    hard = hsi.fit(made.cubes, hsi.CoupledNMF(2, fixed=known), seed=0)
    free = hsi.fit(made.cubes, hsi.CoupledNMF(2), seed=0)
    each = [angle(truth["endmembers_eels"].values, f["endmembers_eels"].values, axis) for f in (found, hard)]
    loose = angle(
        truth["endmembers_eels"].values,
        free["endmembers_eels"].values,
        order_of(truth["endmembers"].values, free["endmembers"].values),
    )
    kappa = float(found["contrast"].sel(signal="eels"))
    said = "no_pure_pixel" in free.attrs["warnings"]
    return [
        _row(
            "tilts, EDX known, contrast: both EELS angles",
            "at most 4",
            f"{each[0][0]:.1f}, {each[0][1]:.1f} (hard {each[1][0]:.1f}, {each[1][1]:.1f})",
        ),
        _row("tilts: kappa against 0.6", "within 0.05", f"{kappa:.3f}"),
        _row("tilts, nothing known: the warning", "yes", f"{'yes' if said else 'no'} ({loose[0]:.0f}, {loose[1]:.0f})"),
    ]


def incomplete() -> list[Row]:
    """EDX pixels that are missing, and finer pixels of EELS."""
    changes, ratios = [], []
    for seed in range(2):
        whole = joint(*scene(seed=seed))[0]
        part = joint(*scene(seed=seed, missing=0.3))[0]
        changes.append(part.eels - whole.eels)
        ratios.append(part.edx / whole.edx)
    made = hsi.simulate.coupled(ratio=4, seed=0)
    found = hsi.fit({n: c.compute() for n, c in made.cubes.items()}, hsi.CoupledNMF(3, shift=None), seed=0)
    order = order_of(made.truth["endmembers"].values, found["endmembers"].values)
    fine = map_error(made.truth["abundances_eels"].values, found["abundances_eels"].values[order])
    return [
        _row("30 % of EDX missing: change of EELS, worst", "at most 0.1", f"{max(changes):.2f}"),
        _row("30 % of EDX missing: EDX over the whole, worst", "at most 1.25", f"{max(ratios):.2f}"),
        _row("ratio 4: error of the fine maps", "at most 0.05", f"{fine:.3f}"),
    ]


def _row(what: str, asked: str, measured: str) -> Row:
    return {"what": what, "asked": asked, "measured": measured}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    args = parser.parse_args()
    print(markdown([*standard(args.seeds), *doses(), *weights(), *deviating(), *tilts(), *incomplete()]))


if __name__ == "__main__":
    main()
