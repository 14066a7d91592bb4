"""Backgrounds, and their noise, beside those of other packages: a part of `tests.bench.prepare`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import least_squares

import scalehsi as hsi
from scalehsi.kernels.preparation.old_estimators import two_area
from tests.bench.prepare_scenes import ENERGY, PLAIN, Row, cube_of, cuzn, row
from tests.paths import DATA


def background_beside(folder: Path, peers: dict[str, Any]) -> Iterator[Row]:
    """Backgrounds and times beside those of other packages.

    folder: with the data, and what other packages made of them. peers: their times.
    """
    if (folder / "few_slow.npy").exists():
        yield from _as_exspy(folder)
    yield from _times_and_noise(folder, peers)
    yield from _linear_beside(folder, peers)


def _linear_beside(folder: Path, peers: dict[str, Any]) -> Iterator[Row]:
    """Net counts of O K and their errors, beside the constrained linear background of pyEELSMODEL."""
    stored = np.load(folder / "linear.npz")
    cube = cube_of(stored["counts"])
    inside = (ENERGY >= 532) & (ENERGY <= 590)
    true, limit = stored["net"][..., inside].sum(-1), np.sqrt(stored["mean"][..., inside].sum(-1))

    def error(net: Any) -> float:
        return float(np.sqrt((((net[..., inside].sum(-1) - true) / limit) ** 2).mean()))

    fit = tuple(map(float, stored["fit"]))
    hsi.prepare.remove_background(cube, fit, **PLAIN)
    start = time.process_time()
    own = hsi.prepare.remove_background(cube, fit, **PLAIN).values
    seconds = time.process_time() - start
    name = f"background, O K at 1e5, {cube.sizes['y']} x {cube.sizes['x']} pixels: error over counting limit, CPU time"
    text = f"{error(own):.2f}, {seconds:.3f} s"
    if "linear_whole_s" not in peers:
        yield row(f"{name}; pyEELSMODEL is not here", "", text)
    for way, words in (("window", "same window"), ("whole", "whole axis, true edge beside it")):
        if f"linear_{way}_s" in peers:
            theirs = error(np.load(folder / f"linear_{way}.npy"))
            both = f"{text}; {theirs:.2f}, {peers[f'linear_{way}_s']:.1f} s"
            yield row(f"{name}; pyEELSMODEL, constrained linear, {words}", "", both)


def _as_exspy(folder: Path) -> Iterator[Row]:
    """The backgrounds of eXSpy from its formulas, as far as rounding."""
    stored = np.load(folder / "few.npz")
    counts = stored["counts"].astype(float)
    energy = float(stored["first"]) + float(stored["step"]) * np.arange(counts.shape[-1])
    low, high = map(float, stored["fit"])
    first, last = (int(np.searchsorted(energy, value - 1e-6)) for value in (low, high))
    half, step = (last - first) // 2, float(stored["step"])
    front = counts[..., first : first + half].sum(-1) * step
    back = counts[..., first + half : last].sum(-1) * step
    height, r = two_area(front, back, (energy[first], energy[first + half], energy[last]))
    theirs = np.load(folder / "few_fast.npy")
    left = float(np.abs(height[..., None] * energy ** -r[..., None] - theirs).max() / np.abs(theirs).max())
    yield row("eXSpy, fast=True, from its formulas: largest difference over maximum", "<= 1e-10", left, left <= 1e-10)
    theirs, worst = np.load(folder / "few_slow.npy"), 0.0
    inside = slice(first, last + 1)
    middle = energy[inside].mean()
    for x, other, start in zip(*(v.reshape(-1, v.shape[-1]) for v in (counts, theirs)), r.ravel(), strict=True):
        found = least_squares(
            lambda q, x=x: q[0] * (energy[inside] / middle) ** -q[1] - x[inside],
            [x[inside].mean(), start],
            x_scale=[x[inside].mean(), 1.0],
            xtol=1e-15,
            ftol=1e-15,
            gtol=1e-15,
        ).x
        worst = max(worst, float(np.abs(found[0] * (energy / middle) ** -found[1] - other).max() / other.max()))
    yield row("eXSpy, fast=False, by least squares: the same", "<= 1e-6", worst, worst <= 1e-6)


def _times_and_noise(folder: Path, peers: dict[str, Any]) -> Iterator[Row]:
    """Times, and the measured map, beside eXSpy."""
    stored = np.load(folder / "background.npz")
    cube = cube_of(
        stored["counts"], float(stored["first"]) + float(stored["step"]) * np.arange(stored["counts"].shape[-1])
    )
    fit = tuple(map(float, stored["fit"]))
    edges = {f"e{k}": (470.0 + 100 * k, 520.0 + 100 * k) for k in range(4)}
    fits = {f"e{k}": (420.0 + 100 * k, 460.0 + 100 * k) for k in range(4)}
    seconds = []
    for job in (
        lambda: hsi.prepare.remove_background(cube, fit),
        lambda: hsi.quantify.edge_maps(cube, edges, background=fits),
    ):
        job()
        times = []
        for _ in range(3):
            start = time.process_time()
            job()
            times.append(time.process_time() - start)
        seconds.append(min(times))
    theirs = peers.get("background_again_s")
    for name, own in zip(("background", "four edge maps"), seconds, strict=True):
        text = f"{own:.3f} s" + ("; eXSpy is not here" if theirs is None else f"; eXSpy fast {theirs:.2f} s")
        yield row(
            f"{name}, {cube.nbytes / 1e6:.0f} MB: CPU time",
            "10 x faster",
            text,
            None if theirs is None else theirs >= 10 * own,
        )
    measured_map = cuzn()
    if measured_map is None:
        return
    image = np.load(DATA / "eels_CuZn_HAADF" / "compact.npz")["haadf"].astype(float)
    net = hsi.prepare.remove_background(measured_map, (780, 916)).sel(energy=slice(932, 1012)).sum("energy").values
    correlation = float(np.corrcoef(net.ravel(), image.ravel())[0, 1])
    yield row("CuZn: correlation of net Cu L with HAADF", ">= 0.81", correlation, correlation >= 0.81)
    path = folder / "cuzn_net.npy"
    if not path.exists():
        yield row("CuZn: noise; eXSpy is not here", "<= 0.6 of eXSpy's", f"{_roughness(net):.0f}")
        return
    share = _roughness(net) / _roughness(np.load(path))
    yield row("CuZn: noise over eXSpy's", "<= 0.6", share, share <= 0.6)


def _roughness(values: Any) -> float:
    """Noise of a map, from second differences."""
    return float(1.4826 * np.median(np.abs(np.diff(np.asarray(values, dtype=float), 2, axis=1))) / np.sqrt(6))
