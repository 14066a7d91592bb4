"""Compare the default of NMF, a stateless pass with extrapolation, with variants that keep a state or mix more steps.

All start from the same endmembers and run on one thread over one block. The variants are prototypes that only exist
here: a pass that keeps the components used in each pixel (the same iterates, fewer systems to solve), Anderson mixing
in place of extrapolation, and hierarchical sweeps that keep the abundances.

Run with: python -m tests.bench.variants, or as the part "variants" of tests.bench.nmf
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
import xarray as xr
from threadpoolctl import threadpool_limits

import scalehsi as hsi
from scalehsi.arrays import Float
from scalehsi.kernels import least_squares
from scalehsi.kernels.pixel_rows.tile_products import add_outer, dots
from scalehsi.kernels.quadratic.block_pivoting import invert_subset, workspace
from scalehsi.models.nmf import extrapolation
from scalehsi.models.nmf.losses import unit_rows
from tests.bench.least_squares import EXCESS_LIMITS, Row, Trace, eels
from tests.bench.machine import markdown

Pass = Callable[[Float], dict[str, Any]]
"""A function from endmembers to the sums of exact abundances."""

MAX_READINGS = 80
ANDERSON_DEPTH = 10
TILE_ROWS = 64


def stateless(x: Any) -> Pass:
    return lambda s: least_squares.update(x, s=s, norm=False)[1]


def warm(x: Any) -> Pass:
    """Return a pass in which each pixel first tries the components that it used in the last pass."""
    sets = np.full(len(x), (1 << 62), dtype=np.int64)

    def run(s: Float) -> dict[str, Any]:
        n = len(s)
        if sets[0] >= 1 << n:
            sets[:] = (1 << n) - 1
        gram = s @ s.T
        unit = np.sqrt(np.diag(gram))
        gram = gram / np.outer(unit, unit) + 1e-12 * np.eye(n)
        big_n, big_m, used = np.zeros_like(s), np.zeros((n, n)), np.zeros(n)
        _warm_pass(x, (s / unit[:, None]).astype(np.float32), gram, sets, big_n, big_m, used)
        return {"N": big_n / unit[:, None], "M": big_m / np.outer(unit, unit), "C": used / unit}

    return run


@numba.njit(nogil=True)
def _warm_pass(x: Any, s: Any, gram: Any, sets: Any, big_n: Any, big_m: Any, used: Any) -> None:
    n = len(gram)
    tile, partial = np.zeros((TILE_ROWS, x.shape[1]), x.dtype), np.empty(s.shape, x.dtype)
    a, c = np.zeros((TILE_ROWS, n), x.dtype), np.zeros((TILE_ROWS, n), x.dtype)
    inverses, _, held = workspace(n)
    found, y = np.empty(n), np.empty(n)
    ones = np.empty(n)
    for first in range(0, len(x), TILE_ROWS):
        rows = min(TILE_ROWS, len(x) - first)
        part = x[first : first + rows]
        if rows < TILE_ROWS:
            tile[:rows], tile[rows:] = part, 0
            part = tile
        dots(part, s, a)
        c[:] = 0
        for p in range(rows):
            sets[first + p] = _from_set(gram, a[p], found, y, sets[first + p], inverses, ones, held)
            for k in range(n):
                c[p, k] = found[k]
                used[k] += c[p, k]
            for k in range(n):
                for j in range(n):
                    big_m[k, j] += np.float64(c[p, k]) * np.float64(c[p, j])
        partial[:] = 0
        add_outer(part, c, partial)
        big_n += partial


@numba.njit(nogil=True, fastmath={"reassoc", "contract", "nsz"})
def _from_set(gram: Any, b: Any, c: Any, y: Any, members: int, inverses: Any, ones: Any, held: Any) -> int:
    """Solve one pixel by block principal pivoting from the set ``members``; return the set of the solution."""
    n = len(gram)
    scale = 0.0
    for k in range(n):
        scale = max(scale, abs(b[k]))
    for _ in range(4 * n + 8):
        slot = (members ^ members >> 8) % len(held)
        if held[slot] != members:
            invert_subset(gram, members, inverses[slot], ones)
            held[slot] = members
        for k in range(n):
            c[k], y[k] = 0.0, -b[k]
        for j in range(n):
            if members >> j & 1:
                for k in range(n):
                    c[k] += inverses[slot, j, k] * b[j]
        for j in range(n):
            for k in range(n):
                y[k] += gram[j, k] * c[j]
        wrong = 0
        for k in range(n):
            if (c[k] < 0.0) if members >> k & 1 else (y[k] < -1e-12 * scale):
                wrong |= 1 << k
        if wrong == 0:
            break
        members ^= wrong
    for k in range(n):
        c[k] = max(c[k], 0.0)
    return members


def alternating(run: Pass, s: Float, norm: float, *, far: bool) -> Trace:
    """Run the loop of a fit over one block; without ``far`` plain alternation."""
    trace: Trace = []
    state = extrapolation.start(s)
    free = np.ones(len(s), dtype=bool)
    begin = time.process_time()
    for _ in range(MAX_READINGS):
        s = state["s"]
        sums = {**run(s), "norm": norm}
        value = least_squares.objective(sums, s)
        if far and not extrapolation.accepted(value, 1e-9 * norm, state):
            state, _ = extrapolation.back(state)
        else:
            better = unit_rows(least_squares.improve(sums, s), s, free)
            state, _ = extrapolation.ahead(value, better, better, state, lambda at, f: unit_rows(at, f, free), far=far)
        trace.append((time.process_time() - begin, float(state["objective"])))
    return trace


def anderson(run: Pass, s: Float, norm: float) -> Trace:
    """Run Anderson mixing of the last steps (type II), clipped at zero; restart when the objective rises."""
    trace: Trace = []
    free = np.ones(len(s), dtype=bool)
    begin = time.process_time()
    points: list[Float] = []
    images: list[Float] = []
    best, safe = np.inf, s
    for _ in range(MAX_READINGS):
        sums = {**run(s), "norm": norm}
        value = least_squares.objective(sums, s)
        if value > best + 1e-9 * norm and points:
            points, images, s = [], [], safe
        else:
            best = min(best, value)
            safe = unit_rows(least_squares.improve(sums, s), s, free)
            points, images = [*points[-ANDERSON_DEPTH:], s.ravel()], [*images[-ANDERSON_DEPTH:], safe.ravel()]
            steps = np.array(images) - np.array(points)
            mixed = images[-1]
            if len(points) > 1:
                change = np.diff(steps, axis=0).T
                weights = np.linalg.lstsq(change, steps[-1], rcond=1e-10)[0]
                mixed = images[-1] - np.diff(np.array(images), axis=0).T @ weights
            s = unit_rows(np.maximum(mixed.reshape(s.shape), 0.0), safe, free)
        trace.append((time.process_time() - begin, best))
    return trace


def hierarchical(x: Any, s: Float, norm: float, *, maps: int, spectra: int) -> Trace:
    """Run HALS: in each reading ``maps`` sweeps over the abundances and ``spectra`` sweeps over the endmembers."""
    trace: Trace = []
    c = np.full((len(x), len(s)), 1e-6, dtype=np.float32)
    begin = time.process_time()
    for _ in range(MAX_READINGS):
        gram, b = (s @ s.T).astype(np.float32), x @ s.T.astype(np.float32)
        for _ in range(maps):
            for k in range(len(s)):
                c[:, k] = np.maximum(c[:, k] + (b[:, k] - c @ gram[:, k]) / gram[k, k], 0)
        sums = {"N": (c.T @ x).astype(float), "M": (c.T @ c).astype(float), "norm": norm}
        trace.append((time.process_time() - begin, least_squares.objective(sums, s)))
        for _ in range(spectra):
            for k in range(len(s)):
                s[k] = np.maximum(s[k] + (sums["N"][k] - sums["M"][k] @ s) / max(sums["M"][k, k], 1e-300), 0)
    return trace


def table(*, size: int = 256, channels: int = 1024, k: int = 6, repeats: int = 2) -> list[Row]:
    """Measure readings and CPU seconds down to an excess over the best objective of all variants; least of repeats."""
    cube = eels(size, channels, k)
    x = np.ascontiguousarray(cube.values.reshape(-1, channels))
    norm = float(least_squares.update(x, s=np.ones((1, channels)))[1]["norm"])
    begun = hsi.fit(cube, hsi.NMF(k, loss="frobenius", start="nndsvda", max_iter=1), seed=0, residual=False)
    s = first(begun)
    variants: dict[str, Callable[[], Trace]] = {
        "default: stateless, extrapolated": lambda: alternating(stateless(x), s, norm, far=True),
        "sets of the last pass kept, extrapolated": lambda: alternating(warm(x), s, norm, far=True),
        f"stateless, Anderson {ANDERSON_DEPTH}": lambda: anderson(stateless(x), s, norm),
        f"sets of the last pass kept, Anderson {ANDERSON_DEPTH}": lambda: anderson(warm(x), s, norm),
        "stateless, neither": lambda: alternating(stateless(x), s, norm, far=False),
        "abundances kept, 2 + 2 sweeps": lambda: hierarchical(x, s.copy(), norm, maps=2, spectra=2),
        "abundances kept, 8 + 20 sweeps": lambda: hierarchical(x, s.copy(), norm, maps=8, spectra=20),
    }
    traces: dict[str, list[Trace]] = {name: [] for name in variants}
    with threadpool_limits(1):
        warm(x[:TILE_ROWS])(s)
        for _ in range(repeats):
            for name, run in variants.items():
                traces[name].append(run())
    best = min(value for runs in traces.values() for run in runs for _, value in run)
    rows: list[Row] = []
    least: dict[float, float] = {}
    for name, runs in traces.items():
        row: Row = {"variant": name, "ms a reading": f"{1e3 * min(run[-1][0] for run in runs) / MAX_READINGS:.1f}"}
        for limit in EXCESS_LIMITS:
            hit = next((i for i, (_, value) in enumerate(runs[0]) if value <= best * (1 + limit)), None)
            row[f"readings to {limit:g}"] = "-" if hit is None else hit + 1
            taken = None if hit is None else min(run[hit][0] for run in runs)
            row[f"s to {limit:g}"] = "-" if taken is None else f"{taken:.2f}"
            if taken is not None:
                least[limit] = min(least.get(limit, np.inf), taken)
                row[f"x best to {limit:g}"] = taken
        rows.append(row)
    for row in rows:
        for limit in EXCESS_LIMITS:
            name = f"x best to {limit:g}"
            row[name] = f"{row[name] / least[limit]:.2f}" if name in row else "-"
    return rows


def first(result: xr.Dataset) -> Float:
    s = np.asarray(result["endmembers"].values, dtype=np.float64)
    return np.asarray(s / s.sum(axis=1, keepdims=True))


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    print(markdown(table()))
