"""Compare classical unmixing methods on a chequerboard with a known truth, after Brun et al. 2025.

Every method gets the same counts of four mixed spectra. A table and two bar charts show the error of the spectra (mean
spectral angle) and of the maps (mean NMSE): corners of the cloud of spectra (VCA, NFINDR) against plain ICA and NMF.
The whole benchmark, with the published scenes, is ``python -m tests.bench.unmixing``.

Run with: python examples/05_classical_unmixing.py [output folder]
"""

import sys
import time
from pathlib import Path

import matplotlib as mpl
import numpy as np

import scalehsi as hsi

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.ticker import NullFormatter

K = 4
METHODS = {
    "VCA": hsi.VCA(K),
    "VCA, single pixels": hsi.VCA(K, smooth=0, weighting=None),
    "NFINDR": hsi.NFINDR(K),
    "SSS": hsi.SSS(K),
    "BLU": hsi.BLU(K, sweeps=200, burn_in=80),
    "NMF": hsi.NMF(K),
    "ICA": hsi.ICA(K),
}


def errors(result, truth):
    """The mean spectral angle in radians, and the mean NMSE of the maps, of matched components."""
    found = hsi.metrics.score(result, truth)
    return float(found["spectral_angle"].mean()), float(found["map_nmse"].mean())


def main(folder):
    cube, truth = hsi.simulate.chequerboard((48, 48), n_channels=200, wedge=0.0, counts_per_pixel=1e5)
    rows = {}
    for name, model in METHODS.items():
        start = time.perf_counter()
        result = hsi.fit(cube, model, seed=0)
        rows[name] = (*errors(result, truth), time.perf_counter() - start)
    print(f"{'method':20}{'SAD (rad)':>12}{'NMSE':>10}{'time (s)':>10}")
    for name, (sad, nmse, seconds) in rows.items():
        print(f"{name:20}{sad:12.4f}{nmse:10.2g}{seconds:10.1f}")
    figure, panels = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    for column, (axes, label) in enumerate(
        zip(panels, ("mean spectral angle (rad)", "mean NMSE of the maps"), strict=True)
    ):
        values = np.array([row[column] for row in rows.values()])
        axes.barh(list(rows), values)
        decades = 10.0 ** np.floor(np.log10(values.min())), 10.0 ** np.ceil(np.log10(values.max()))
        axes.set(xscale="log", xlabel=label, xlim=decades)
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.invert_yaxis()
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / "unmixing.png", dpi=150)
    print(f"figure: {folder / 'unmixing.png'}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("classical-unmixing"))
