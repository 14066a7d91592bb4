"""Compare `scalehsi.CPD` and `scalehsi.Tucker` with tensorly, and with NMF of the sum of the frames.

Run with: python -m tests.bench.tensor [--only PART ...] [--seeds N]

Prints one line for each figure that is asked for, beside the one that was measured. Without tensorly (in the extra
``bench``) its lines say so. Times are processor times of one thread.
"""

from __future__ import annotations

import argparse
import importlib.util
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import xarray as xr
from threadpoolctl import threadpool_limits

import scalehsi as hsi
from scalehsi.chunks import MiB
from scalehsi.kernels import least_squares
from scalehsi.kernels.tensor.products import outer
from scalehsi.models.nmf import extrapolation
from scalehsi.models.tensor import suggest_rank
from tests.bench.machine import markdown
from tests.bench.memory import prepare_worker, status_bytes

Row = dict[str, object]
Factors = list[np.ndarray]
MISSING = "tensorly is not installed: pip install scalehsi[bench]"
SMALL = (16, 32, 32, 128)
LARGE = (32, 128, 128, 256)
LARGE_ROWS = 8
LARGE_LIMIT = 560 * MiB


def tensorly() -> bool:
    return importlib.util.find_spec("tensorly") is not None


def random_factors(shape: tuple[int, ...], k: int, seed: int) -> Factors:
    """Time courses (T, K), maps (P, K) and spectra (E, K), as in the specification: uniform, the spectra squared."""
    rng = np.random.default_rng(seed)
    t, y, x, e = shape
    return [rng.random((t, k)), rng.random((y * x, k)), rng.random((e, k)) ** 2]


def noisy(factors: Factors, decibel: float, seed: int) -> np.ndarray:
    """The tensor (T, P, E) of the factors with normal noise of this power below it."""
    x = np.einsum("tk,pk,ek->tpe", *factors, optimize=True)
    noise = np.random.default_rng([seed, 1]).standard_normal(x.shape)
    return np.asarray(x + noise * (10 ** (-decibel / 20) * np.linalg.norm(x) / np.linalg.norm(noise)))


def cube_of(x: np.ndarray, shape: tuple[int, ...]) -> xr.DataArray:
    return hsi.make_cube(x.reshape(shape).astype("f4"), energy=np.arange(float(shape[-1])), energy_units="eV")


def congruence(found: xr.Dataset, truth: Factors) -> float:
    """Least cosine, over all modes, of a true component with the one nearest to it."""
    k = found.sizes["component"]
    parts = [found["frame_factors"].values, found["abundances"].values.reshape(k, -1), found["endmembers"].values]
    cosine = np.ones((truth[0].shape[1], k))
    for a, b in zip(truth, parts, strict=True):
        cosine *= (a / np.linalg.norm(a, axis=0)).T @ (b / np.linalg.norm(b, axis=1, keepdims=True)).T
    return float(np.abs(cosine).max(axis=1).min())


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    began = time.process_time()
    found = call()
    return time.process_time() - began, found


def from_starts(seeds: int) -> list[Row]:
    """Three starts on the small case: passes to the end, and the residual beside tensorly's from the same start."""
    worst, most, apart = 0.0, 0, []
    for seed in range(seeds):
        truth = random_factors(SMALL, 4, seed)
        x = noisy(truth, 20, seed)
        rows = np.ascontiguousarray(x.transpose(1, 0, 2).reshape(x.shape[1], -1))
        model, sizes = hsi.CPD(4, tol=1e-7, weighting=None), (SMALL[0], SMALL[3])
        for number in range(3):
            state = {"root": np.ones(rows.shape[1]), "weighted": np.asarray(False), "norm": np.asarray(np.nan)}
            start = model.first(rows, sizes, [seed, number])
            state |= {"pixels": np.asarray(len(rows)), **extrapolation.start(start)}
            passes, done = 0, False
            while not done and passes < 100:
                state, stats = model.advance(partial(_sums, rows), sizes, state)
                passes, done = passes + 1, stats.done
            ours = np.sqrt(2 * float(state["objective"]) / float((x**2).sum()))
            most = max(most, passes)
            if tensorly():
                a, s = np.split(start, [sizes[0]], axis=1)
                c = least_squares.abundances(rows, s=outer([a, s]))[0]["abundances"].astype(float)
                theirs = parafac(x, [a.T.copy(), c, s.T.copy()], 200)[0]
                apart.append((ours - theirs) / theirs)
                worst = max(worst, apart[-1])
    return [
        row("small case, 3 starts: passes to 1e-7, most", "at most 45", most),
        row(
            "residual over tensorly's after 200 sweeps from the same start, less 1",
            "at most 1e-5",
            f"{worst:.1e} (from {min(apart):.1e})" if apart else MISSING,
        ),
    ]


def _sums(rows: np.ndarray, **shared: Any) -> dict[str, Any]:
    return least_squares.update(rows, **shared)[1]


def parafac(x: np.ndarray, factors: Factors, sweeps: int) -> tuple[float, float]:
    """Relative residual of tensorly's non-negative decomposition from these factors, and seconds of processor time."""
    from tensorly import cp_to_tensor
    from tensorly.cp_tensor import CPTensor
    from tensorly.decomposition import non_negative_parafac_hals

    start = CPTensor((None, [np.array(f) for f in factors]))
    seconds, found = timed(
        lambda: non_negative_parafac_hals(x, rank=factors[0].shape[1], n_iter_max=sweeps, init=start, tol=0)
    )
    return float(np.linalg.norm(x - cp_to_tensor(found)) / np.linalg.norm(x)), seconds


def stored_stack(path: Path) -> Factors:
    """512 MiB of float32 at 20 dB on disk, in chunks of one frame and 8 rows; written by rows of the map."""
    truth = random_factors(LARGE, 4, 0)
    t, y, x, e = LARGE
    parts = []
    for first in range(0, y, LARGE_ROWS):
        maps = truth[1].reshape(y, x, -1)[first : first + LARGE_ROWS].reshape(-1, 4)
        parts.append(dask.delayed(_rows)(truth[0], maps, truth[2], first))
    shape = (t, LARGE_ROWS, x, e)
    data = da.concatenate([da.from_delayed(part, shape, dtype="f4") for part in parts], axis=1)
    energy = np.arange(float(e))
    with dask.config.set(scheduler="synchronous"):
        cube = hsi.make_cube(data.rechunk((1, LARGE_ROWS, x, e)), energy=energy, energy_units="eV")
        cube.rename("cube").to_dataset().to_zarr(path, zarr_format=3, consolidated=False)
    return truth


def _rows(a: np.ndarray, c: np.ndarray, s: np.ndarray, first: int) -> np.ndarray:
    x = np.einsum("tk,pk,ek->tpe", a, c, s, optimize=True)
    x += 0.1 * np.sqrt((x**2).mean()) * np.random.default_rng(first).standard_normal(x.shape)
    return x.reshape(len(a), LARGE_ROWS, -1, x.shape[-1]).astype("f4")


def large(folder: Path) -> list[Row]:
    """The stack on disk with a worker of half its size: congruence, readings, memory beside the plan."""
    path = folder / "stack.zarr"
    truth = stored_stack(path)
    cube, model = hsi.open_cube(path), hsi.CPD(4)
    with (
        dask.config.set({"distributed.worker.memory.terminate": False}),
        hsi.connect("local", workers=1, threads=1, memory=LARGE_LIMIT) as cluster,
    ):
        hsi.fit(cube[:, :8, :16], model, seed=0)  # compiles
        planned = hsi.plan(cube, model)
        before = max(cluster.client.run(prepare_worker).values())
        found = hsi.fit(cube, model, seed=0)
        peak = max(cluster.client.run(status_bytes, "VmHWM").values()) - before
    return [
        row("512 MiB on disk, 20 dB: least congruence", "at least 0.999", f"{congruence(found, truth):.5f}"),
        row("the same: passes after the start on a sample", "at most 5", found.sizes["iteration"]),
        row("the same: readings with the first look and the maps, status", "", _ended(found)),
        row("the same: core consistency", "at least 95", f"{float(found['corcondia']):.2f}"),
        row(
            f"the same: peak of a worker of {LARGE_LIMIT // MiB} MiB over the plan",
            "at most 1, plan at most 1.25 x",
            f"{peak / planned.worker_bytes:.2f} ({peak / MiB:.0f} of {planned.worker_bytes / MiB:.0f} MiB planned)",
        ),
    ]


def _ended(found: xr.Dataset) -> str:
    return f"{found.attrs['readings']}, {found.attrs['status']}"


def speed() -> list[Row]:
    """Processor time of a pass over 100 MB beside that of a sweep of tensorly, and its memory beside the data."""
    shape = (16, 80, 80, 256)
    truth = random_factors(shape, 4, 0)
    x = noisy(truth, 20, 0).astype("f4")
    rows = np.ascontiguousarray(x.transpose(1, 0, 2).reshape(x.shape[1], -1))
    s = outer([truth[0].T, truth[2].T])
    with threadpool_limits(1):
        least_squares.update(rows[:64], s=s)
        least_squares.update(rows, s=s)
        prepare_worker()
        before = status_bytes("VmRSS")
        ours = min(timed(lambda: least_squares.update(rows, s=s, norm=False))[0] for _ in range(3))
        beside = status_bytes("VmHWM") - before
        found = [row("a pass over 100 MB, seconds, and MiB beside the data", "", f"{ours:.3f}, {beside / MiB:.1f}")]
        if not tensorly():
            return [*found, row("over a sweep of tensorly", "at most 0.2", MISSING)]
        start = [np.asarray(f, dtype="f4") for f in truth]
        one, more = (parafac(x, start, sweeps)[1] for sweeps in (1, 4))
    sweep = (more - one) / 3
    return [*found, row("over a sweep of tensorly", "at most 0.2", f"{ours / sweep:.2f} ({sweep:.3f} s)")]


def damage(seeds: int) -> list[Row]:
    """The stack under the beam: angles, beside NMF of the sum of the frames."""
    found = []
    for purity in (1.0, 2.5):
        ours, sums = [], []
        for seed in range(seeds):
            lazy, truth = hsi.simulate.tensor_stack(purity=purity, seed=seed)
            cube = lazy.compute()
            ours.append(_angle(hsi.fit(cube, hsi.CPD(3), seed=0), truth))
            total = cube.sum("frame").astype("u2").assign_attrs(cube.attrs)
            sums.append(_angle(hsi.fit(total, hsi.NMF(3), seed=0), truth))
        ratio = max(a / b for a, b in zip(ours, sums, strict=True))
        name = f"beam damage, purity {purity:g}: largest angle (degrees)"
        found += [
            row(name, "at most 2", ", ".join(f"{a:.2f}" for a in ours)),
            row(
                "the same over NMF of the sum, worst",
                "at most 0.33",
                f"{ratio:.2f} (NMF {', '.join(f'{b:.1f}' for b in sums)})",
            ),
        ]
    return found


def _angle(found: xr.Dataset, truth: xr.Dataset) -> float:
    return float(np.degrees(hsi.metrics.score(found, truth)["spectral_angle"]).max())


def tucker() -> list[Row]:
    """Residuals over tensorly's, less 1."""
    x = noisy(random_factors(SMALL, 4, 0), 20, 0)
    cube, rows = cube_of(x, SMALL), []

    def left(model: hsi.Tucker) -> float:
        whole = hsi.reconstruct(hsi.fit(cube, model, seed=0), dtype="f8")
        return float(np.linalg.norm(whole.values.reshape(x.shape) - x) / np.linalg.norm(x))

    for ranks in ((3, 4, 4), (2, 3, 3)):
        ours = left(hsi.Tucker(ranks, max_iter=3))
        asked = "at most 1e-4"
        if not tensorly():
            rows.append(row(f"Tucker {ranks}, 3 passes: residual", asked, f"{ours:.6f}; {MISSING}"))
            continue
        from tensorly import tucker_to_tensor
        from tensorly.decomposition import tucker as theirs

        other = np.linalg.norm(tucker_to_tensor(theirs(x, rank=list(ranks), n_iter_max=20)) - x) / np.linalg.norm(x)
        rows.append(row(f"Tucker {ranks}, 3 passes: residual over tensorly's less 1", asked, f"{ours / other - 1:.1e}"))
    ours, asked = left(hsi.Tucker((3, 4, 4), nonnegative=True, max_iter=20)), "at most 1e-3"
    if not tensorly():
        return [*rows, row("non-negative Tucker, 20 passes: residual", asked, f"{ours:.6f}; {MISSING}")]
    from tensorly import tucker_to_tensor
    from tensorly.decomposition import non_negative_tucker_hals

    found = non_negative_tucker_hals(np.maximum(x, 0), rank=[3, 4, 4], n_iter_max=40)
    other = np.linalg.norm(tucker_to_tensor(found) - x) / np.linalg.norm(x)
    words = f"{ours / other - 1:.1e} ({ours:.6f}, {other:.6f} after 40 sweeps)"
    return [*rows, row("non-negative Tucker, 20 passes: residual over tensorly's less 1", asked, words)]


def ranks(seeds: int) -> list[Row]:
    """The advice on ranks 2 to 5 at 20, 10 and 3 dB, and the core consistency at the true rank."""
    right, wrong, least = 0, [], 100.0
    for decibel in (20, 10, 3):
        for k in range(2, 6):
            for seed in range(seeds):
                x = noisy(random_factors(SMALL, k, seed), decibel, seed)
                found = suggest_rank(cube_of(x, SMALL), range(2, 8), weighting=None)
                least = min(least, float(found["corcondia"].sel(k=k)))
                if found.attrs["suggested"] == k:
                    right += 1
                else:
                    wrong.append(f"{k} at {decibel} dB: {found.attrs['suggested']}")
    number = 12 * seeds
    words = f"{right} of {number}" + (f" ({'; '.join(wrong)})" if wrong else "")
    return [
        row("advice on ranks 2 to 5 at 20, 10, 3 dB", f"{number} of {number}", words),
        row("core consistency at the true rank, least", "at least 95", f"{least:.1f}"),
    ]


def row(what: str, asked: str, measured: object) -> Row:
    return {"what": what, "asked": asked, "measured": measured}


PARTS = ("starts", "large", "speed", "damage", "tucker", "ranks")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", choices=PARTS, default=PARTS)
    parser.add_argument("--seeds", type=int, default=2, help="of the small cases; the scenes have one more")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        parts: dict[str, Callable[[], list[Row]]] = {
            "starts": lambda: from_starts(args.seeds),
            "large": lambda: large(Path(folder)),
            "speed": speed,
            "damage": lambda: damage(args.seeds + 1),
            "tucker": tucker,
            "ranks": lambda: ranks(args.seeds),
        }
        rows: list[Row] = []
        for name in args.only:
            rows += parts[name]()
            print(f"{name} done", flush=True)
    print(markdown(rows))


if __name__ == "__main__":
    main()
