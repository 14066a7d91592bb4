"""Compare net counts and compositions with those of eXSpy, on one sum and with the same k-factors.

Run with: python -m tests.bench.composition_exspy
eXSpy is no dependency: install it beside this package first. The tables stand in docs/composition.md.
"""

from __future__ import annotations

import importlib.util
import logging
import math
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

import scalehsi as hsi
from scalehsi.physics.composition import mass_fractions
from scalehsi.physics.line_choice import choose_lines
from scalehsi.physics.line_templates import Foil, make_templates
from scalehsi.physics.lines import atomic_weight
from scalehsi.physics.xray_spectra import AVOGADRO, eds_spectrum
from tests.bench.composition import ENERGY, SAMPLES, drawn, real_sums
from tests.bench.machine import markdown

FOIL = Foil(200.0, 100.0, 4.5, 35.0)
"""The foil of the simulated sum, which is the default of `eds_spectrum`."""
RESOLUTION_EV = 130.0
"""Width at Mn Ka of the simulation and of both quantifications."""
WINDOW = 1.2
"""Integration window in peak widths, the same on both sides."""


def exspy_width(energy_kev: ArrayLike) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Peak width of eXSpy's detector in keV, narrower than ours below Mn Ka: its factor is 2.5 eV, ours 2.33 eV."""
    square = (RESOLUTION_EV * 1e-3) ** 2 + 2.5e-3 * (np.asarray(energy_kev, dtype=np.float64) - 5.8987)
    return np.asarray(np.sqrt(np.maximum(square, 1e-4)))


def true_counts(sample: Mapping[str, float], elements: list[str], counts: float) -> np.ndarray[Any, Any]:
    """Expected net counts in the window of each element's line, in a simulated sum of this many counts."""
    lines = choose_lines(elements, energy_range=(float(ENERGY[0]), float(ENERGY[-1])))
    columns = make_templates(lines, ENERGY, foil=FOIL, width=exspy_width).columns(dict(sample))
    weights = mass_fractions(sample)
    atoms = np.array([weights[e] / atomic_weight(e) for e in elements]) * FOIL.density * FOIL.thickness_nm * 1e-7
    scale = counts / float(eds_spectrum(sample, ENERGY, fwhm=exspy_width).sum())
    return np.asarray(scale * atoms * AVOGADRO * columns.content / (4 * math.pi))


def exspy_signal(x: xr.DataArray, elements: list[str]) -> Any:
    """The sum as a signal of eXSpy."""
    import exspy

    signal = exspy.signals.EDSTEMSpectrum(np.asarray(x.values, dtype=np.float64))
    axis = signal.axes_manager.signal_axes[0]
    energy = x["energy"].values
    axis.offset, axis.scale, axis.units, axis.name = float(energy[0]), float(energy[1] - energy[0]), "keV", "Energy"
    signal.metadata.set_item("Acquisition_instrument.TEM.beam_energy", 200.0)
    signal.metadata.set_item("Acquisition_instrument.TEM.Detector.EDS.energy_resolution_MnKa", RESOLUTION_EV)
    signal.set_elements(elements)
    return signal


def exspy_windows(signal: Any, lines: list[str], *, background: bool) -> list[Any]:
    """Counts in windows, with or without eXSpy's own background windows taken off."""
    sides = signal.estimate_background_windows(xray_lines=lines, line_width=[2, 2]) if background else None
    found: list[Any] = signal.get_lines_intensity(
        xray_lines=lines, background_windows=sides, integration_windows=WINDOW
    )
    return found


def exspy_model(signal: Any, lines: list[str]) -> list[Any]:
    """Counts of whole lines from eXSpy's model: Gaussians with tied minor lines, and a polynomial continuum."""
    model = signal.create_model()
    model.fit()
    model.fit_background()
    model.fit()
    found: list[Any] = model.get_lines_intensity(xray_lines=lines)
    return found


def percent(signal: Any, intensities: list[Any], factors: np.ndarray[Any, Any]) -> list[float]:
    """Atomic per cent by eXSpy's Cliff-Lorimer, with k-factors for mass fractions."""
    found = signal.quantification(
        intensities, method="CL", factors=list(map(float, factors)), composition_units="atomic"
    )
    return [float(np.ravel(each.data)[0]) for each in found]


def compared(
    x: xr.DataArray,
    elements: list[str],
    extra: list[str],
    truth: np.ndarray[Any, Any] | None,
    atoms: Mapping[str, float],
) -> Iterator[dict[str, Any]]:
    """Net counts and atomic per cent of each element. `truth` are true net counts, `atoms` true atomic per cent."""
    ours = {
        counted: hsi.quantify(x, elements, extra=extra, counted=counted, fwhm=exspy_width)
        for counted in ("window", "family")
    }
    lines = [str(line).replace(" ", "_") for line in ours["window"]["line"].values]
    signal = exspy_signal(x, [*elements, *extra])
    signal.set_lines(lines, only_one=False)
    found = {
        "window, no background": exspy_windows(signal, lines, background=False),
        "window": exspy_windows(signal, lines, background=True),
        "model": exspy_model(signal, lines),
    }
    factors = {name: ours["family" if name == "model" else "window"]["k_factor"].values for name in found}
    at = {name: percent(signal, intensities, factors[name]) for name, intensities in found.items()}
    total = sum(atoms.get(element, 0.0) for element in elements)
    for position, element in enumerate(elements):
        net, std = (float(ours["window"][name][position]) for name in ("intensity", "intensity_std"))
        energy, centre = x["energy"].values, float(ours["window"]["line_energy"][position])
        half = WINDOW / 2 * float(exspy_width(centre))
        raw = np.asarray(x.values)[np.abs(energy - centre) <= half]
        row = {
            "line": lines[position].replace("_", " "),
            "ours, no background": f"{raw.sum():,.0f} ({raw.size} channels)",
        }
        if truth is not None:
            row["net counts: truth"] = f"{truth[position]:,.0f}"
        row["ours, window"] = f"{net:,.0f} ± {std:,.0f}"
        row |= {f"eXSpy, {n}": f"{float(np.ravel(v[position].data)[0]):,.0f}" for n, v in found.items() if n != "model"}
        row["ours, family"] = f"{float(ours['family']['intensity'][position]):,.0f}"
        row["eXSpy, model"] = f"{float(np.ravel(found['model'][position].data)[0]):,.0f}"
        if total:
            row["at%: truth"] = f"{100 * atoms.get(element, 0.0) / total:.2f}"
        row["at%: ours"] = f"{float(ours['window']['atomic_percent'][position]):.2f}"
        row |= {f"at%: eXSpy, {name}": f"{values[position]:.2f}" for name, values in at.items()}
        yield row


def main() -> None:
    if importlib.util.find_spec("exspy") is None:
        raise SystemExit("eXSpy is not installed; type pip install exspy")
    warnings.simplefilter("ignore")
    logging.disable(logging.ERROR)
    sample = dict(SAMPLES["bridgmanite"])
    elements = list(sample)
    x = drawn(sample, 1e6, 0, fwhm=exspy_width)
    truth = true_counts(sample, elements, 1e6)
    print(markdown(list(compared(x, elements, [], truth, sample))), end="\n\n")
    if "88ESLP" in real_sums():
        x = real_sums()["88ESLP"][0]
        print(markdown(list(compared(x, ["Mg", "Al", "Si", "Ca", "Fe"], ["Cu", "Ga"], None, {}))))


if __name__ == "__main__":
    main()
