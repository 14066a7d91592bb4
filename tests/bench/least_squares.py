"""Measure NMF by least squares, also by other programs: cost of a pass, and objective against time and readings.

These are parts of `tests.bench.nmf`.
"""

from __future__ import annotations

import importlib.util
import time
import warnings
from typing import Any
from unittest import mock

import dask
import numpy as np
import xarray as xr
from scipy.ndimage import gaussian_filter
from sklearn.decomposition import NMF as SklearnNMF
from threadpoolctl import threadpool_limits

import scalehsi as hsi
from scalehsi.blocks import map_fold, open_blocks
from scalehsi.kernels import least_squares
from tests.bench.machine import floor, product_rate, read_rate, seconds

Row = dict[str, object]
Trace = list[tuple[float, float]]
"""(CPU seconds, objective) after each reading."""
EXCESS_LIMITS = (1e-2, 1e-3, 1e-4)
"""Relative excess of the objective over the best value known."""


def eels(
    size: int = 256, channels: int = 1024, components: int = 6, *, seed: int = 0, dose: float = 2e5
) -> xr.DataArray:
    """Make EELS-like counts in float32: similar power-law backgrounds, edges with white lines, smooth maps."""
    rng = np.random.default_rng(seed)
    e = np.linspace(0, 1, channels)
    s = np.empty((components, channels))
    for k in range(components):
        background = (1 + 2 * e) ** -(2.5 + 0.3 * rng.random())
        s[k] = 0.6 * background
        for _ in range(3):
            onset, height = rng.uniform(0.05, 0.9), rng.uniform(0.1, 0.4)
            shape = np.exp(-(e - onset) / 0.15) + 0.5 * np.exp(-(((e - onset - 0.02) / 0.012) ** 2))
            s[k] += height * background * (e > onset) * shape
    fields = np.stack([gaussian_filter(rng.standard_normal((size, size)), size / 16, mode="wrap") for _ in s], -1)
    c = np.exp(2.5 * fields / fields.std(axis=(0, 1)))
    c /= c.sum(axis=-1, keepdims=True)
    x = rng.poisson(dose * c @ (s / s.sum(axis=1, keepdims=True))).astype(np.float32)
    return hsi.make_cube(x, energy=np.arange(channels) * 0.5 + 200, energy_units="eV")


def speed(*, pixels: int = 65536, energies: int = 1024, repeats: int = 5) -> list[Row]:
    """Measure an exact pass on one thread, for types of data and numbers of components, with two plain products."""
    rng = np.random.default_rng(0)
    rows: list[Row] = []
    for k in (4, 6, 8, 12):
        s = rng.random((k, energies)) ** 6
        c = rng.random((pixels, k)) * (rng.random((pixels, k)) < 0.5)
        x = (c @ s).astype(np.float32)
        x += 0.02 * rng.standard_normal(x.shape, dtype=np.float32)
        least = floor(pixels, energies, k, read=read_rate(), product=product_rate())
        thin, wide = s.astype(np.float32), c.astype(np.float32)

        def products(x: Any = x, thin: Any = thin, wide: Any = wide) -> None:
            _ = x @ thin.T
            _ = wide.T @ x

        kinds = {
            "float32": x,
            "uint16": np.clip(900 * x, 0, 65535).astype("u2"),
            "uint8": np.clip(40 * x, 0, 255).astype("u1"),
        }
        with threadpool_limits(1):
            ours = {
                name: seconds(lambda data=data, s=s: least_squares.update(data, s=s, norm=False), repeats=repeats)
                for name, data in kinds.items()
            }
            bare = seconds(products, repeats=repeats)
            cd = sklearn_iteration(x, k, "cd")
        rows.append(
            {
                "K": k,
                "floor ms": f"{1e3 * least:.1f}",
                **{f"{name} ms": f"{1e3 * value:.1f}" for name, value in ours.items()},
                "x floor": f"{ours['float32'] / least:.2f}",
                "two bare products ms": f"{1e3 * bare:.1f}",
                "x products": f"{ours['float32'] / bare:.2f}",
                "scikit-learn cd ms": f"{1e3 * cd:.0f}",
                "x cd": f"{ours['float32'] / cd:.2f}",
            }
        )
    return rows


def sklearn_iteration(x: np.ndarray, k: int, solver: str) -> float:
    """Return the seconds of one iteration, from the difference of two runs."""
    rng = np.random.default_rng(0)
    c, s = rng.random((len(x), k), dtype=np.float32), rng.random((k, x.shape[1]), dtype=np.float32)

    def run(iterations: int) -> float:
        model = SklearnNMF(k, init="custom", solver=solver, max_iter=iterations, tol=0)
        start = time.process_time()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.fit_transform(x, W=c.copy(), H=s.copy())
        return time.process_time() - start

    run(1)
    return (min(run(6) for _ in range(2)) - min(run(1) for _ in range(2))) / 5


def threads(*, size: int = 256, repeats: int = 5) -> list[Row]:
    """Measure a pass on one thread and on two."""
    cube = eels(size)
    s = np.random.default_rng(0).random((6, cube.shape[-1]))
    taken = {}
    for count in (1, 2):
        with dask.config.set(scheduler="threads", num_workers=count):
            view = open_blocks(cube, block_bytes=32 * 2**20)
            taken[count] = seconds(
                lambda view=view: map_fold(least_squares.update, view, shared={"s": s, "norm": False}, name="bench"),
                repeats=repeats,
                wall=True,
            )
    return [
        {
            "one thread ms": f"{1e3 * taken[1]:.1f}",
            "two threads ms": f"{1e3 * taken[2]:.1f}",
            "speed-up": f"{taken[1] / taken[2]:.2f}",
            "read GB/s of one core": f"{read_rate() / 1e9:.0f}",
        }
    ]


def ours(cube: xr.DataArray, k: int, *, iterations: int = 120, **settings: Any) -> Trace:
    """Return CPU seconds and objective after each iteration; the first includes the start."""
    trace: Trace = []
    begin = time.process_time()

    def listen(p: Any) -> None:
        if p.stage == "iterate" and p.objective is not None and p.iteration > len(trace):
            trace.append((time.process_time() - begin, p.objective))

    with dask.config.set(scheduler="synchronous"), threadpool_limits(1):
        result = hsi.fit(
            cube, hsi.NMF(k, max_iter=iterations, tol=1e-9, **settings), seed=0, progress=listen, residual=False
        )
    objective = result["objective"].values
    trace += [(time.process_time() - begin, float(v)) for v in objective[len(trace) :]]
    return trace


def sklearn(cube: xr.DataArray, k: int, *, solver: str, steps: tuple[int, ...], init: str = "nndsvda") -> Trace:
    """Return CPU seconds and objective after the numbers of iterations ``steps``; each is a run from the same start."""
    x = cube.values.reshape(-1, cube.shape[-1])
    trace: Trace = []
    for iterations in steps:
        model = SklearnNMF(k, init=init, solver=solver, max_iter=iterations, tol=0, random_state=0)
        begin = time.process_time()
        with warnings.catch_warnings(), threadpool_limits(1):
            warnings.simplefilter("ignore")
            model.fit(x)
        trace.append((time.process_time() - begin, 0.5 * float(model.reconstruction_err_) ** 2))
    return trace


def hyperspy(cube: xr.DataArray, k: int) -> float | None:
    """Return the objective of HyperSpy's lazy, one-pass NMF with exact maps; None where it is not installed."""
    if importlib.util.find_spec("hyperspy") is None:
        return None
    import hyperspy.api as hs

    hs.preferences.General.show_progressbar = False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        signal = hs.signals.Signal1D(cube.values).as_lazy()
        signal.decomposition(algorithm="NMF", output_dimension=k, print_info=False)
        factors = np.maximum(signal.get_decomposition_factors().data.reshape(k, -1), 0)
    _, sums = least_squares.update(cube.values.reshape(-1, cube.shape[-1]), s=np.asarray(factors, dtype=float))
    return least_squares.objective(sums, factors)


def convergence(*, size: int = 256, channels: int = 1024, k: int = 6) -> tuple[list[Row], dict[str, Trace]]:
    """Measure readings and CPU seconds down to an excess over the best objective known."""
    cube = eels(size, channels, k)
    traces = {
        "ours, default": ours(cube, k),
        "ours, start='nndsvda'": ours(cube, k, start="nndsvda"),
        "ours, start='multistart'": ours(cube, k, start="multistart"),
        "ours, solver='hals'": ours(cube, k, solver="hals", start="nndsvda"),
        "ours, solver='mu'": ours(cube, k, solver="mu", start="nndsvda"),
        "scikit-learn cd": sklearn(cube, k, solver="cd", steps=(10, 30, 60, 100, 140, 200, 400)),
        "scikit-learn mu": sklearn(cube, k, solver="mu", steps=(10, 50, 100)),
    }
    steps = {"scikit-learn cd": (10, 30, 60, 100, 140, 200, 400), "scikit-learn mu": (10, 50, 100)}
    best = min(value for trace in traces.values() for _, value in trace)
    rows: list[Row] = []
    for name, trace in traces.items():
        row: Row = {"method": name}
        for limit in EXCESS_LIMITS:
            hit = next((i for i, (_, value) in enumerate(trace) if value <= best * (1 + limit)), None)
            readings = None if hit is None else steps[name][hit] if name in steps else hit + 1
            row[f"readings to {limit:g}"] = "-" if readings is None else readings
            row[f"s to {limit:g}"] = "-" if hit is None else f"{trace[hit][0]:.2f}"
        row["excess at the end"] = f"{trace[-1][1] / best - 1:.1e}"
        rows.append(row)
    lazy = hyperspy(cube, k)
    if lazy is not None:
        rows.append({"method": "HyperSpy lazy NMF, maps solved exactly", "excess at the end": f"{lazy / best - 1:.1e}"})
    return rows, {name: [(t, v / best - 1) for t, v in trace] for name, trace in traces.items()}


def compression(sizes: tuple[tuple[int, int, int], ...] = ((128, 512, 4), (256, 1024, 6), (192, 768, 10))) -> list[Row]:
    """Compare readings and final objective of a fit in the subspace with those of the full fit."""
    rows: list[Row] = []
    for size, channels, k in sizes:
        cube = eels(size, channels, k, seed=k)
        lazy = cube.chunk({"y": size // 8})
        # The cube fits less than twice in this memory, so it is read again in every pass.
        with mock.patch("scalehsi.blocks.compute.free_memory", return_value=int(1.5 * cube.nbytes)):
            found = {
                flag: hsi.fit(lazy, hsi.NMF(k, loss="frobenius", compress=flag, max_iter=300), seed=0)
                for flag in (False, True)
            }
        last = {flag: float((r["residual"].astype(float) ** 2).sum()) for flag, r in found.items()}
        rows.append(
            {
                "scene": f"{size}x{size}x{channels}, K={k}",
                "readings, full": found[False].attrs["readings"],
                "readings, compressed": found[True].attrs["readings"],
                "objective, compressed over full": f"{last[True] / last[False] - 1:+.1e}",
            }
        )
    return rows


def scaling(sizes: tuple[int, ...] = (64, 128, 256, 512, 1024), *, channels: int = 256, k: int = 6) -> list[Row]:
    """Measure the seconds of a pass against the number of pixels, and the exponent of a power law."""
    rows, s = [], np.random.default_rng(0).random((k, channels))
    for size in sizes:
        x = np.random.default_rng(1).random((size * size, channels), dtype=np.float32)
        with threadpool_limits(1):
            rows.append((size * size, seconds(lambda x=x: least_squares.update(x, s=s, norm=False), repeats=3)))
    exponent = np.polyfit(*np.log(np.array(rows)).T, 1)[0]
    table: list[Row] = [
        {"pixels": p, "ms a pass": f"{1e3 * t:.1f}", "ns a pixel": f"{1e9 * t / p:.0f}"} for p, t in rows
    ]
    return [*table, {"pixels": "exponent", "ms a pass": f"{exponent:.3f}"}]
