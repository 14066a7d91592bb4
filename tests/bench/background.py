"""Compare `scalehsi.BackgroundNMF` with a background taken off each pixel before NMF, on simulated oxide particles.

Run with: python -m tests.bench.background [--seeds N] [--real CUBE.hspy]

Prints one line for each figure that is asked for, beside the one that was measured. ``--real`` names a core-loss map
with an edge at 931 eV (Cu L), whose edge is fitted in three windows.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import xarray as xr

import scalehsi as hsi
from tests.bench.machine import markdown

WINDOWS = ((490.0, 522.0), (490.0, 515.0), (505.0, 522.0), (490.0, 526.0))
FRONT_EV = 527.0
SMOOTHED_CHANNELS = 5

Row = dict[str, object]


def angles(truth: xr.Dataset, found: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Degrees between the edges above 526 eV, in the order of the truth, and the components that were matched."""
    a, b = (each["endmembers"].sel(energy=slice(526, None)) for each in (truth, found))
    pairs = np.asarray(hsi.metrics.match(a, b))
    degrees = [np.degrees(float(hsi.metrics.spectral_angle(a.values[i], b.values[j]))) for i, j in enumerate(pairs)]
    return np.array(degrees), pairs


def false_front(found: xr.Dataset, pairs: np.ndarray) -> np.ndarray:
    """Largest intensity in front of the onset, over the largest one of the edge, in per cent."""
    s = found["endmembers"].values[pairs]
    front = s[:, found["energy"].values <= FRONT_EV]
    smooth = np.array([np.convolve(row, np.ones(SMOOTHED_CHANNELS) / SMOOTHED_CHANNELS, mode="valid") for row in front])
    return np.asarray(100 * np.abs(smooth).max(axis=1) / s.max(axis=1))


def ours(cube: xr.DataArray, **settings: float) -> xr.Dataset:
    return hsi.fit(cube, hsi.BackgroundNMF(3, **settings), seed=0)


def subtracted(cube: xr.DataArray) -> xr.Dataset:
    """A power law taken off each pixel, negative values set to zero, then NMF."""
    net = hsi.prepare.remove_background(cube, fit=(485, 523), share=1).clip(min=0)
    return hsi.fit(net, hsi.NMF(3, loss="frobenius", weighting="poisson"), seed=0)


def simulated(seeds: int) -> list[Row]:
    rows: list[Row] = []
    limits = {2e4: ("at most 3", ""), 1e5: ("at most 1.5", "at most 10"), 1e6: ("", "")}
    for counts, (strong, weak) in limits.items():
        mine, theirs, fronts, other_fronts = [], [], [], []
        for seed in range(seeds):
            lazy, truth = hsi.simulate.oxide_particle((48, 48), counts_per_pixel=counts, seed=seed)
            cube = lazy.compute()
            for fit, out, front in ((ours, mine, fronts), (subtracted, theirs, other_fronts)):
                found = fit(cube)
                degrees, pairs = angles(truth, found)
                out.append(degrees)
                front.append(false_front(found, pairs))
        mean, worst = np.mean(mine, axis=0), np.max(mine, axis=0)
        others, front = np.mean(theirs, axis=0), np.max(fronts, axis=0)
        name = f"{counts:g} counts"
        rows += [
            _row(
                f"{name}: pristine, degraded, worst of the seeds (degrees)", strong, f"{worst[0]:.2f}, {worst[1]:.2f}"
            ),
            _row(f"{name}: resin, worst", weak, f"{worst[2]:.1f}"),
            _row(
                f"{name}: over subtract-then-NMF (mean angles)",
                "at most 0.2" if counts == 1e5 else "",
                f"{mean[:2].mean() / others[:2].mean():.3f} ({others[0]:.1f}, {others[1]:.1f}, {others[2]:.1f})",
            ),
            _row(
                f"{name}: false pre-edge, per cent, worst",
                "at most 1, 1, 4" if counts == 1e5 else "",
                f"{front[0]:.1f}, {front[1]:.1f}, {front[2]:.1f}; subtract {np.mean(other_fronts, axis=0).max():.0f}",
            ),
        ]
    return rows


def windows(seeds: int) -> list[Row]:
    changes, plain = [], []
    for seed in range(seeds):
        lazy, truth = hsi.simulate.oxide_particle((48, 48), seed=seed)
        cube = lazy.compute()
        means = [angles(truth, ours(cube, window_start=a, onset=b))[0][:2].mean() for a, b in WINDOWS]
        changes.append(max(means) - min(means))
        single, known = hsi.simulate.oxide_particle((48, 48), plural=False, seed=seed)
        plain.append(angles(known, ours(single.compute()))[0][:2].max())
    return [
        _row("four windows: change of the mean angle, worst", "at most 1.5", f"{max(changes):.2f}"),
        _row("without plural scattering: pristine, degraded, worst", "at most 1", f"{max(plain):.2f}"),
    ]


def real(path: Path) -> list[Row]:
    """The Cu edge in three windows: how far it turns."""
    cube = hsi.open_cube(path)
    edges, shares = [], []
    for start, onset in ((760, 920), (760, 880), (820, 920)):
        found = hsi.fit(cube, hsi.BackgroundNMF(2, window_start=start, onset=onset), seed=0)
        strongest = int(np.argmax(found["edge_share"].values))
        edges.append(found["endmembers"][strongest].sel(energy=slice(930, None)).values)
        shares.append(", ".join(f"{100 * v:.1f}" for v in found["edge_share"].values))
    turned = max(np.degrees(float(hsi.metrics.spectral_angle(edges[0], each))) for each in edges[1:])
    return [
        _row(f"{path.stem}: Cu edge turns (degrees)", "at most 1.5", f"{turned:.2f} (shares {' | '.join(shares)} %)")
    ]


def _row(what: str, asked: str, measured: str) -> Row:
    return {"what": what, "asked": asked, "measured": measured}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--real", type=Path)
    args = parser.parse_args()
    rows = simulated(args.seeds) + windows(args.seeds) + (real(args.real) if args.real else [])
    print(markdown(rows))


if __name__ == "__main__":
    main()
