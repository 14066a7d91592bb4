"""The same jobs by eXSpy, pyEELSMODEL and quantem, for `tests.bench.prepare`; it runs in an environment of its own.

Usage: ``python prepare_peers.py FOLDER`` with the .npz files of `tests.bench.prepare.run_peers` in it; prints JSON.
A job whose package is missing is left out.
"""

import json
import sys
import time
import warnings
from pathlib import Path

import numpy as np


def signal(values, first, step):
    import exspy

    made = exspy.signals.EELSSpectrum(values)
    axis = made.axes_manager[-1]
    axis.offset, axis.scale, axis.units, axis.name = first, step, "eV", "Energy"
    made.set_microscope_parameters(beam_energy=200, convergence_angle=10, collection_angle=20)
    return made


def background(folder, found):
    given = np.load(folder / "background.npz")
    made = signal(given["counts"], float(given["first"]), float(given["step"]))
    low, high = map(float, given["fit"])
    for name in ("first", "again"):
        start = time.process_time()
        net = made.remove_background((low, high), background_type="PowerLaw", fast=True, show_progressbar=False)
        found[f"background_{name}_s"] = time.process_time() - start
    found["background_mean"] = float(net.data.mean())


def cuzn(folder, found):
    if not (folder / "cuzn.npz").exists():
        return
    given = np.load(folder / "cuzn.npz")
    made = signal(given["counts"].astype("f8"), 700.0, 8.0)
    net = made.remove_background((780.0, 916.0), background_type="PowerLaw", fast=True, show_progressbar=False)
    energy = 700.0 + 8.0 * np.arange(162)
    total = net.data[..., (energy >= 932) & (energy <= 1012)].sum(axis=-1)
    np.save(folder / "cuzn_net.npy", total)


def zero_loss(folder, found):
    given = np.load(folder / "zero_loss.npz")
    made = signal(given["counts"].astype("f8"), float(given["first"]), float(given["step"]))
    start = time.process_time()
    made.align_zero_loss_peak(subpixel=True, print_stats=False, show_progressbar=False, crop=False)
    found["zero_loss_s"] = time.process_time() - start
    np.save(folder / "zero_loss_aligned.npy", made.data)


def exspy_thickness(folder, found):
    given = np.load(folder / "thickness.npz")
    made = signal(given["counts"].astype("f8"), float(given["first"]), float(given["step"]))
    ratio = made.estimate_thickness(threshold=3.0)
    np.save(folder / "exspy_thickness.npy", ratio.data)


def both_fits(folder, found):
    """Backgrounds of a few spectra by both ways of eXSpy, to reproduce them."""
    given = np.load(folder / "few.npz")
    low, high = map(float, given["fit"])
    for name, fast in (("fast", True), ("slow", False)):
        made = signal(given["counts"].astype("f8"), float(given["first"]), float(given["step"]))
        net = made.remove_background((low, high), background_type="PowerLaw", fast=fast, show_progressbar=False)
        np.save(folder / f"few_{name}.npy", given["counts"] - net.data)


def linear_background(folder, found):
    """The constrained linear background of pyEELSMODEL, power laws of exponents 1 to 5, by its quadratic programme.

    Once fitted in the window in front of the edge, and once, as its users do, on the whole axis beside the edge, which
    is given its true shape.
    """
    from pyEELSMODEL.components.fixedpattern import FixedPattern
    from pyEELSMODEL.components.linear_background import LinearBG
    from pyEELSMODEL.core.model import Model
    from pyEELSMODEL.core.multispectrum import MultiSpectrum
    from pyEELSMODEL.core.spectrum import Spectrum
    from pyEELSMODEL.fitters.quadratic_fitter import QuadraticFitter

    given = np.load(folder / "linear.npz")
    counts, energy = given["counts"].astype("f8"), given["energy"]
    for name in ("window", "whole"):
        data = MultiSpectrum.from_numpy(counts, energy)
        shape = data.get_spectrumshape()
        parts = [LinearBG(shape)]
        if name == "window":
            data.exclude[:] = (energy < given["fit"][0]) | (energy > given["fit"][1])
        else:
            parts.append(FixedPattern(shape, Spectrum(shape, data=given["edge"])))
        fitter = QuadraticFitter(data, Model(shape, parts))
        start = time.process_time()
        fitter.multi_fit()
        fitted = fitter.model_to_multispectrum().multidata
        if name == "whole":
            fitted = fitted - fitter.coeff_matrix[..., -1:] * given["edge"]
        found[f"linear_{name}_s"] = time.process_time() - start
        np.save(folder / f"linear_{name}.npy", counts - fitted)


def low_losses(folder, found):
    """Zero-loss positions and log-ratio thickness by quantem."""
    import matplotlib as mpl

    mpl.use("Agg")
    from quantem.spectroscopy.dataset3deels import Dataset3deels

    for name in ("zero_loss", "thickness"):
        given = np.load(folder / f"{name}.npz")
        step, first = float(given["step"]), float(given["first"])
        made = Dataset3deels.from_array(
            given["counts"].astype("f8"), sampling=(1.0, 1.0, step), origin=(0.0, 0.0, first), units=("px", "px", "eV")
        )
        start = time.process_time()
        if name == "zero_loss":
            values = made.measure_zlp_offset()
        else:
            values = made.calculate_thickness_log_ratio(plot=False)
        found[f"quantem_{name}_s"] = time.process_time() - start
        np.save(folder / f"quantem_{name}.npy", values)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    where = Path(sys.argv[1])
    answer = {}
    for job in (background, cuzn, zero_loss, exspy_thickness, both_fits, linear_background, low_losses):
        try:
            job(where, answer)
        except ImportError:
            continue
        except Exception as error:
            answer[f"{job.__name__}_error"] = repr(error)[:200]
    print(json.dumps(answer))
