"""Compare NMF of a map with four separate phases: our full-batch fits, scikit-learn's, and a one-pass incremental NMF.

Each phase is dominant in one corner of the map. A method that learns from the map in scan order, one chunk after
another, gets one phase at a time. Prints a Markdown table of spectral angles and times.

Run with: python -m tests.bench.corners [--size 256] [--channels 1024] [--shuffled]
HyperSpy is included when it is installed (pip install 'scalehsi[hyperspy]').
"""

from __future__ import annotations

import argparse
import importlib.util
import time
import warnings
from collections.abc import Callable

import numpy as np
import xarray as xr
from sklearn.decomposition import NMF as SklearnNMF
from threadpoolctl import threadpool_limits

import scalehsi as hsi
from scalehsi.kernels.subspace.nndsvd import sampled_endmembers


def scene(size: int, channels: int, *, shuffled: bool = False) -> tuple[xr.DataArray, xr.Dataset]:
    """Make a map of four phases, each dominant in one corner; with ``shuffled`` its pixels are in random order."""
    lazy, truth = hsi.simulate.chequerboard((size, size), n_channels=channels, n_components=4, seed=0)
    cube = lazy.compute()
    if shuffled:
        order = np.random.default_rng(0).permutation(size * size)
        cube = cube.copy(data=cube.values.reshape(-1, channels)[order].reshape(cube.shape))
    return cube, truth


def ours(cube: xr.DataArray, **settings: object) -> np.ndarray:
    result = hsi.fit(cube, hsi.NMF(4, **settings), seed=0)
    return result["endmembers"].values


def sample_alone(cube: xr.DataArray) -> np.ndarray:
    """Return the endmembers of the baseline: a factorisation of every 64th pixel."""
    rows = cube.values.reshape(-1, cube.shape[-1])[::64]
    return sampled_endmembers(rows, 4, weighted=False, seed=0)


def scikit_learn(cube: xr.DataArray) -> np.ndarray:
    x = cube.values.reshape(-1, cube.shape[-1]).astype(np.float32)
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore")  # the warning that 200 iterations were not enough
        return SklearnNMF(4, init="nndsvda", max_iter=200, tol=1e-6).fit(x).components_


def hyperspy_lazy(cube: xr.DataArray) -> np.ndarray:
    """Return the endmembers of HyperSpy's lazy NMF, which makes one pass over the chunks in their order."""
    import hyperspy.api as hs

    hs.preferences.General.show_progressbar = False
    signal = hs.signals.Signal1D(cube.values.astype(np.float32)).as_lazy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        signal.decomposition(algorithm="NMF", output_dimension=4, print_info=False)
    return np.asarray(signal.learning_results.factors).T


def angles(truth: xr.Dataset, spectra: np.ndarray) -> np.ndarray:
    """Return the angle of each phase to the truth in degrees."""
    found = xr.DataArray(spectra, dims=("component", "energy"))
    order = hsi.metrics.match(truth["endmembers"], found)
    return np.degrees(hsi.metrics.spectral_angle(truth["endmembers"].values, spectra[order]))


def run(size: int, channels: int, *, shuffled: bool = False) -> dict[str, tuple[np.ndarray, float]]:
    """Return the angles and the seconds of every method on one cube of ``size`` squared pixels."""
    cube, truth = scene(size, channels, shuffled=shuffled)
    methods: dict[str, Callable[[], np.ndarray]] = {
        "ours, least squares": lambda: ours(cube),
        "ours, weighted": lambda: ours(cube, weighting="poisson"),
        "ours, Poisson": lambda: ours(cube, loss="poisson"),
        "sample alone": lambda: sample_alone(cube),
        "scikit-learn cd, full batch": lambda: scikit_learn(cube),
    }
    if importlib.util.find_spec("hyperspy"):
        methods["HyperSpy lazy NMF, one pass"] = lambda: hyperspy_lazy(cube)
    found = {}
    for name, method in methods.items():
        begin = time.perf_counter()
        spectra = method()
        seconds = time.perf_counter() - begin
        found[name] = (angles(truth, spectra), seconds)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--channels", type=int, default=1024)
    parser.add_argument("--shuffled", action="store_true")
    options = parser.parse_args()
    found = run(options.size, options.channels, shuffled=options.shuffled)
    print(f"{options.size} x {options.size} x {options.channels}, 4 phases{', shuffled' * options.shuffled}\n")
    print("| method | angle to the truth, degrees | seconds |\n|---|---|---|")
    for name, (degrees, seconds) in found.items():
        print(f"| {name} | {' / '.join(f'{d:.1f}' for d in degrees)} | {seconds:.1f} |")


if __name__ == "__main__":
    main()
