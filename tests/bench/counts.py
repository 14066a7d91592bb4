"""Compare Poisson factorisation of counts with scikit-learn's: time of a pass, and time to equal objectives.

Both start from the same spectra and run on one thread. scikit-learn (solver "mu", Kullback-Leibler) gets its data as
compressed rows or dense, in float32, where it is fastest, or in float64, to which it converts integers. Prints a
Markdown table; times are CPU times, the lowest of some repeats.

Run with: python -m tests.bench.counts [--size 96] [--channels 2048] [--counts 147] [--components 4]
"""

from __future__ import annotations

import argparse
import time
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import scipy.sparse as sp
from sklearn.decomposition import NMF as SklearnNMF
from threadpoolctl import threadpool_limits

from scalehsi.arrays import Float
from scalehsi.kernels import poisson
from scalehsi.kernels.pixel_rows.sparse_counts import Counts

ITERATIONS = (10, 20, 40, 80, 160)
MAX_PASSES = 200
"""Largest number of our passes."""


def scene(
    size: int = 96, channels: int = 2048, counts: float = 147.0, components: int = 4, seed: int = 0
) -> tuple[np.ndarray[Any, Any], Float]:
    """Make counts (P, E) in single bytes, and their spectra (K, E): lines on a decreasing background.

    With 147 counts in 2048 channels 5 % of the values are not zero, as in X-ray maps.
    """
    rng = np.random.default_rng(seed)
    e = np.arange(channels) / channels
    background = np.exp(-6.0 * e)
    s = np.empty((components, channels))
    for k in range(components):
        lines = sum(
            rng.random() * np.exp(-0.5 * ((e - rng.uniform(0.02, 0.8)) / rng.uniform(0.001, 0.002)) ** 2)
            for _ in range(8)
        )
        s[k] = 0.35 * background / background.sum() + 0.65 * lines / lines.sum()
    c = rng.dirichlet(np.full(components, 0.3), size * size) * counts
    return rng.poisson(c @ s).clip(0, 255).astype("u1"), s


def starting_spectra(x: np.ndarray[Any, Any], components: int) -> Float:
    """Return the mean spectrum with random factors, (K, E), each of unit sum."""
    mean = x.mean(axis=0) + 1e-6
    s = mean * np.random.default_rng(1).uniform(0.5, 1.5, (components, x.shape[1]))
    return np.asarray(s / s.sum(axis=1, keepdims=True))


def objective_of(few: Counts, c: Float, s: Float, strip: int = 1024) -> float:
    """Return ``sum c s - x log(c s)``."""
    total = 0.0
    for start in range(0, few.shape[0], strip):
        rows = few[start : start + strip]
        pixel = np.repeat(np.arange(rows.shape[0]), np.diff(rows.indptr))
        y = np.einsum("ik,ik->i", c[start : start + strip][pixel], s.T[rows.channel])
        total += float((c[start : start + strip] @ s.sum(axis=1)).sum() - (rows.value * np.log(y)).sum())
    return total


def descent(few: Counts | np.ndarray[Any, Any], s: Float) -> Iterator[float]:
    """Iterate over the objectives of our passes from ``s``: extrapolated Newton steps, reset when it rises."""
    beta, cap, best = 0.5, 1.0, np.inf
    kept = safe = s
    for _ in range(MAX_PASSES):
        _, sums = poisson.update(few, s=s)
        value = poisson.objective(sums, s, 0.0)
        if value > best + 1e-13 * abs(best):
            s = kept = safe if s is kept else kept
            cap, beta = beta, beta / 1.5
            continue
        better, safe = (unit / unit.sum(axis=1, keepdims=True) for unit in poisson.improve(sums, s))
        ahead = better + beta * (better - kept) if np.isfinite(best) else better
        ahead = np.maximum(ahead, 0.0)
        s, kept, best = ahead / ahead.sum(axis=1, keepdims=True), better, min(value, best)
        beta, cap = min(cap, 1.1 * beta), min(1.0, 1.05 * cap)
        yield best


def theirs(data: Any, totals: Float, s: Float, iterations: int) -> tuple[float, Float, Float]:
    """Return CPU seconds, c and s of scikit-learn's multiplicative updates."""
    c = np.repeat(totals[:, None] / len(s), len(s), axis=1).astype(data.dtype)
    model = SklearnNMF(
        len(s), init="custom", solver="mu", beta_loss="kullback-leibler", max_iter=iterations, tol=0, shuffle=False
    )
    begin = time.process_time()
    found = model.fit_transform(data, W=c, H=s.astype(data.dtype))
    return time.process_time() - begin, found.astype("f8"), model.components_.astype("f8")


def cpu(function: Callable[[], object], repeats: int) -> float:
    """Return the lowest CPU seconds of some runs, after one run that compiles."""
    function()
    seconds = []
    for _ in range(repeats):
        begin = time.process_time()
        function()
        seconds.append(time.process_time() - begin)
    return min(seconds)


def peak(function: Callable[[], object]) -> int:
    """Return the peak memory of a run in bytes, without its arguments."""
    function()
    tracemalloc.start()
    function()
    _, highest = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return highest


def row(what: str, unit: str, ours: float, other: float) -> dict[str, Any]:
    return {"what": what, "unit": unit, "ours": ours, "scikit-learn": other, "times": other / ours}


def table(
    size: int = 96, channels: int = 2048, counts: float = 147.0, components: int = 4, repeats: int = 3
) -> list[dict[str, Any]]:
    """Return one dict for each row, with the keys what, unit, ours, scikit-learn, times (theirs over ours)."""
    with threadpool_limits(1):
        return list(_rows(size, channels, counts, components, repeats))


def _rows(size: int, channels: int, counts: float, components: int, repeats: int) -> Iterator[dict[str, Any]]:
    x, _ = scene(size, channels, counts, components)
    few = Counts.from_dense(x)
    s = starting_spectra(x, components)
    csr, totals = sp.csr_matrix(x.astype("f4")), x.sum(axis=1).astype("f8")
    per = 1e9 / few.indptr[-1]

    # Time of one of their iterations: the difference of two fits, without the fixed cost of a fit.
    def iteration(data: Any, many: int) -> float:
        runs = [(theirs(data, totals, s, 1)[0], theirs(data, totals, s, 1 + many)[0]) for _ in range(repeats)]
        return (min(b for _, b in runs) - min(a for a, _ in runs)) / many

    yield row(
        "into sparse rows, from dense",
        "ns",
        per * cpu(lambda: Counts.from_dense(x), repeats),
        per * cpu(lambda: sp.csr_matrix(x), repeats),
    )
    on_few, on_x = cpu(lambda: poisson.update(few, s=s), 2 * repeats), cpu(lambda: poisson.update(x, s=s), 2 * repeats)
    sparse = iteration(csr, 8)
    yield row("a pass, sparse", "ns", per * on_few, per * sparse)
    for dtype in ("float32", "float64"):
        dense = iteration(x.astype(dtype), 5)
        yield row(f"a pass, dense; theirs {dtype}", "ns", per * on_x, per * dense)
        yield row(f"a pass, ours sparse, theirs dense {dtype}", "ns", per * on_few, per * dense)
    c = np.full((len(x), components), totals.mean() / components)
    yield row(
        "a multiplicative update, sparse",
        "ns",
        per * cpu(lambda: poisson.update_from(few, c, s=s), repeats),
        per * sparse,
    )
    targets = []
    for many in ITERATIONS:
        runs = [theirs(csr, totals, s, many) for _ in range(repeats if many <= 40 else 1)]
        _, c_theirs, s_theirs = runs[0]
        targets.append((many, min(run[0] for run in runs), objective_of(few, c_theirs, s_theirs)))
    trace = _trace(few, s, min(t[2] for t in targets), repeats)
    for many, seconds, target in targets:
        passes, mine = next(((i + 1, t) for i, (v, t) in enumerate(trace) if v <= target), (len(trace), np.nan))
        yield row(f"to their objective after {many} iterations ({passes} passes)", "ms", 1e3 * mine, 1e3 * seconds)
    yield row(
        "highest memory, data and all, over the integers in sparse rows",
        "",
        1 + peak(lambda: poisson.update(few, s=s)) / few.nbytes,
        (csr.data.nbytes + csr.indices.nbytes + csr.indptr.nbytes + peak(lambda: theirs(csr, totals, s, 2)))
        / few.nbytes,
    )


def _trace(few: Counts, s: Float, target: float, repeats: int) -> list[tuple[float, float]]:
    """Return the objectives of our passes down to ``target``, and the lowest CPU seconds of some runs to reach each."""
    poisson.improve(poisson.update(few, s=s)[1], s)
    runs = []
    for _ in range(repeats):
        begin = time.process_time()
        runs.append([(value, time.process_time() - begin) for value in _until(descent(few, s), target)])
    return [(at[0][0], min(seconds for _, seconds in at)) for at in zip(*runs, strict=True)]


def _until(values: Iterator[float], target: float) -> Iterator[float]:
    for value in values:
        yield value
        if value <= target:
            return


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--channels", type=int, default=2048)
    parser.add_argument("--counts", type=float, default=147.0)
    parser.add_argument("--components", type=int, default=4)
    options = parser.parse_args()
    x, _ = scene(options.size, options.channels, options.counts, options.components)
    print(
        f"{options.size} x {options.size} x {options.channels}, K = {options.components}, {x.sum(axis=1).mean():.0f} "
        f"counts a pixel, {100 * (x > 0).mean():.1f} % filled; ns are by filled channel\n"
    )
    print("| | ours | scikit-learn | times |\n|---|---|---|---|")
    for found in table(options.size, options.channels, options.counts, options.components):
        unit = f" {found['unit']}" if found["unit"] else ""
        print(
            f"| {found['what']} | {found['ours']:.3g}{unit} | {found['scikit-learn']:.3g}{unit} | "
            f"{found['times']:.2f} |"
        )


if __name__ == "__main__":
    main()
