"""Measure the time of a composition per pixel: from net counts, also by eXSpy, from a result's maps, and from a cube.

Run with: python -m tests.bench.quantify [--size 1024]
eXSpy is included when it is installed.
"""

from __future__ import annotations

import argparse
import importlib.util
import warnings
from collections.abc import Callable, Iterator

import dask
import dask.array as da
import numpy as np
import xarray as xr

import scalehsi as hsi
from scalehsi.physics.cliff_lorimer import atomic_fractions
from scalehsi.physics.xray_spectra import mass_attenuation
from tests.bench.machine import markdown, seconds

ELEMENTS = ("Mg", "Si", "Al", "Ca", "Fe", "Nd", "Sm", "U", "O", "Cu")


def exspy_ratios(counts: np.ndarray, factors: np.ndarray) -> Callable[[], object] | None:
    """Return eXSpy's function for the same ratios, which takes (element, y, x); None where it is not installed."""
    if importlib.util.find_spec("exspy") is None:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from exspy._misc.eds import utils
    cube = np.ascontiguousarray(counts.T).reshape(len(factors), -1, 100)
    return lambda: utils.quantification_cliff_lorimer(cube, factors)


def rows(size: int) -> Iterator[tuple[str, float]]:
    """Iterate over what is measured, and its ns for each pixel."""
    rng = np.random.default_rng(0)
    n = len(ELEMENTS)
    counts, factors, masses = rng.random((200_000, n)) * 100, np.linspace(0.5, 2, n), np.linspace(16, 238, n)
    few = counts[:10_000]
    yield "net counts to at%", seconds(lambda: atomic_fractions(counts, factors, masses=masses)) / len(counts) * 1e9
    lines = [1.254, 1.740, 1.487, 3.691, 6.400, 5.228, 5.633, 3.171, 0.525, 8.041]
    table = np.stack([mass_attenuation({e: 1.0}, lines) for e in ELEMENTS], axis=1)
    thick = {"masses": masses, "attenuation": table, "mass_path": 8e-5}
    yield "the same with absorption", seconds(lambda: atomic_fractions(few, factors, **thick)) / len(few) * 1e9
    theirs = exspy_ratios(few, factors)
    if theirs is not None:
        yield "net counts to at%, eXSpy", seconds(theirs, repeats=2) / len(few) * 1e9
    truth = hsi.simulate.phases((size, size)).truth
    maps = rng.random((3, size, size), dtype=np.float32)
    truth["abundances"] = xr.DataArray(da.from_array(maps, chunks=(3, 512, 512)), dims=("component", "y", "x"))
    lazy = hsi.quantify(truth, ELEMENTS, maps=True)["atomic_percent"]
    yield "maps of a result, three components", seconds(lambda: lazy.mean().compute(), repeats=3) / size**2 * 1e9
    cube = hsi.simulate.phases((128, 128)).cube.compute()
    pixels = hsi.quantify(cube, ELEMENTS, maps=True)
    yield "pixels of a cube of 1980 channels, with errors", seconds(lambda: pixels.compute(), repeats=3) / 128**2 * 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=1024, help="pixels along y and x of the maps")
    size = parser.parse_args().size
    with dask.config.set(scheduler="synchronous"):
        print(markdown([{"ten elements, one thread": name, "ns a pixel": f"{ns:,.0f}"} for name, ns in rows(size)]))


if __name__ == "__main__":
    main()
