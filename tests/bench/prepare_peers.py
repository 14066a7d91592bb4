"""The same jobs by HyperSpy and eXSpy, for `tests.bench.prepare`; it runs in an environment of its own.

Usage: ``python prepare_peers.py FOLDER`` with ``background.npz``, ``zero_loss.npz``, ``cuzn.npz`` in it; prints JSON.
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


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    where = Path(sys.argv[1])
    answer = {}
    for job in (background, cuzn, zero_loss):
        try:
            job(where, answer)
        except Exception as error:
            answer[f"{job.__name__}_error"] = repr(error)[:200]
    print(json.dumps(answer))
