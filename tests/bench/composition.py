"""Measure which elements of an EDX sum get a number: planted grids and absent elements, clean scenes, real maps.

Run with: python -m tests.bench.composition [--seeds 10]
Real maps are read where they are beside this checkout.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import xarray as xr

import scalehsi as hsi
from scalehsi.physics.resolution import Width, detector_fwhm
from scalehsi.physics.xray_spectra import eds_spectrum
from scalehsi.result import result_warnings
from tests.bench.machine import markdown
from tests.paths import DATA

ENERGY = np.linspace(0.2, 20.0, 1980)
SAMPLES: Mapping[str, Mapping[str, float]] = {
    "bridgmanite": {"Mg": 18.5, "Si": 18.2, "Al": 1.5, "Ca": 1.0, "Fe": 1.0, "O": 60.0},
    "perovskite": {"Si": 17.5, "Al": 2.5, "Ca": 16.2, "Fe": 1.0, "O": 60.0},
    "FePt": {"Fe": 50.0, "Pt": 50.0},
    "steel": {"Fe": 70.0, "Cr": 18.0, "Ni": 10.0, "Si": 2.0},
    "titanate": {"Sr": 20.0, "Ti": 20.0, "O": 60.0},
    "LED": {"Ga": 40.0, "In": 10.0, "N": 50.0},
    "CIGS": {"Cu": 25.0, "In": 18.0, "Ga": 7.0, "Se": 50.0},
    "zirconia": {"Zr": 30.0, "Y": 5.0, "O": 65.0},
}


def drawn(
    sample: Mapping[str, float],
    counts: float,
    seed: int,
    *,
    grid: str = "",
    share: float = 0.0,
    shift_kev: float = 0.0,
    fwhm: Width = detector_fwhm,
) -> xr.DataArray:
    """A sum of Poisson counts: a sample, and a grid whose lines hold this share of the counts."""
    x = eds_spectrum(sample, ENERGY, fwhm=fwhm)
    x = x / x.sum() * (1 - share)
    if grid:
        lines = eds_spectrum({grid: 100.0}, ENERGY, continuum=0.0, fwhm=fwhm)
        x = x + share * lines / lines.sum()
    return xr.DataArray(
        np.random.default_rng(seed).poisson(counts * x),
        dims="energy",
        coords={"energy": ("energy", ENERGY + shift_kev, {"units": "keV"})},
        attrs={"signal": "EDS", "units": "counts"},
    )


def codes(found: xr.Dataset) -> list[str]:
    """The codes of the warnings of a composition."""
    return [warning.code for warning in result_warnings(found)]


def extras(found: xr.Dataset) -> list[str]:
    """The elements that were fitted without being named."""
    return list(json.loads(found.attrs["settings"])["extra_found"])


def hafnium(seeds: int) -> Iterator[dict[str, Any]]:
    """How often Hf gets no number, where it is listed and Cu of the grid is not; and how often Cu is found."""
    sample = SAMPLES["bridgmanite"]
    for share in (0.002, 0.005, 0.01, 0.02, 0.05, 0.2):
        found = [
            hsi.quantify(drawn(sample, 1e5, seed, grid="Cu", share=share), [*sample, "Hf"], energy_range=(0.4, 20))
            for seed in range(seeds)
        ]
        silent = sum(bool(np.isnan(one["atomic_percent"].sel(element="Hf"))) for one in found)
        yield {
            "Cu, share of the counts": share,
            "Hf without a number": f"{silent} of {seeds}",
            "Cu found": f"{sum(extras(one) == ['Cu'] for one in found)} of {seeds}",
        }


def clean(seeds: int) -> Iterator[dict[str, Any]]:
    """Warnings about scenes whose elements are all listed, and whose peaks are where they belong."""
    for counts in (1e4, 1e5, 1e6, 1e7):
        found = [
            hsi.quantify(drawn(sample, counts, seed), list(sample))
            for seed in range(max(seeds // 5, 1))
            for sample in SAMPLES.values()
        ]
        every = [codes(one) for one in found]
        row = {"counts": f"{counts:.0e}", "scenes": len(found)}
        for code in ("unexplained_peak", "element_not_found", "element_hidden", "peak_shape", "chi_square"):
            row[code] = sum(code in each for each in every)
        yield row


def planted(seeds: int) -> Iterator[dict[str, Any]]:
    """How often a grid of each element, and a shifted axis, are found in all samples."""
    for grid in ("Cu", "Ga", "Au", "Mo", "Ni", "Ti"):
        hosts = {name: sample for name, sample in SAMPLES.items() if grid not in sample}
        for share in (0.005, 0.02):
            found = [
                extras(hsi.quantify(drawn(sample, 1e5, seed, grid=grid, share=share), list(sample)))
                for seed in range(max(seeds // 5, 1))
                for sample in hosts.values()
            ]
            yield {
                "fault": f"{grid}, {100 * share:g} % of the counts",
                "found": f"{sum(one == [grid] for one in found)} of {len(found)}",
                "other elements": ", ".join(sorted({e for one in found for e in one if e != grid})) or "none",
            }
    for shift in (0.005, 0.01):
        found = [
            codes(hsi.quantify(drawn(sample, 1e6, seed, shift_kev=shift), list(sample)))
            for seed in range(max(seeds // 5, 1))
            for sample in SAMPLES.values()
        ]
        yield {
            "fault": f"axis off by {1000 * shift:g} eV",
            "found": f"{sum('peak_shape' in one for one in found)} of {len(found)}",
            "other elements": f"unexplained_peak {sum('unexplained_peak' in one for one in found)}",
        }


def real_sums() -> dict[str, tuple[xr.DataArray, list[str]]]:
    """Sums of the real maps beside this checkout, and elements to quantify."""
    found = {}
    file = DATA / "edx_88ESLP" / "compact.npz"
    if file.is_file():
        with np.load(file) as stored:
            axis = json.loads(str(stored["meta"]))["energy"]
            x = stored["counts"].sum((0, 1), dtype=np.int64)
        energy = axis["offset"] + axis["scale"] * np.arange(x.size)
        found["88ESLP"] = _sum(x, energy), "Mg Si Al Ca Fe Nd Sm U Hf".split()
    file = DATA / "edx_FePt" / "compact.npz"
    if file.is_file():
        with np.load(file) as stored:
            for name in ("core_shell", "bare_core"):
                x = stored[name].sum((0, 1), dtype=np.int64)
                found[f"FePt {name}"] = _sum(x, 0.16 + 0.02 * np.arange(x.size)), ["Fe", "Pt"]
    return found


def _sum(x: np.ndarray[Any, Any], energy: np.ndarray[Any, Any]) -> xr.DataArray:
    coords = {"energy": ("energy", energy, {"units": "keV"})}
    return xr.DataArray(x, dims="energy", coords=coords, attrs={"signal": "EDS", "units": "counts"})


def real() -> Iterator[dict[str, Any]]:
    """The compositions of the real maps, with what is said beside them."""
    for name, (x, elements) in real_sums().items():
        for fwhm in (None, "estimate"):
            found = hsi.quantify(x, elements, fwhm=fwhm)
            numbers = [
                f"{element} {value:.2f}" if np.isfinite(value) else f"{element} < {limit:.2f}"
                for element, value, limit in zip(
                    elements, found["atomic_percent"].values, found["atomic_percent_limit"].values, strict=True
                )
            ]
            yield {
                "sum": name,
                "fwhm": fwhm or "default",
                "at%": ", ".join(numbers),
                "extras": ", ".join(extras(found)),
                "chi-square": f"{float(found['reduced_chi_square']):.2f}",
                "warnings": ", ".join(codes(found)),
            }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10)
    seeds = parser.parse_args().seeds
    for rows in (hafnium(seeds), clean(seeds), planted(seeds), real()):
        print(markdown(list(rows)), end="\n\n", flush=True)


if __name__ == "__main__":
    main()
