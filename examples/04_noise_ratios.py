"""Compare joint with separate Gaussian-process reconstructions of maps: how a clean map improves a noisy equal one.

There are three maps of sinusoids, of which the first and the third are equal. In model 1 the first map has no noise, in
model 2 every map has some. The maps are reconstructed together and separately: with a free length scale, and with the
length scale limited to an interval around the right value and around a wrong one. After figures 7 and 8 of Kalinin et
al. 2021, doi:10.1038/s41524-021-00611-8.

Run with: python examples/04_noise_ratios.py [output folder]
"""

import sys
from pathlib import Path

import numpy as np
import xarray as xr

import scalehsi as hsi
from scalehsi import plots

WAYS = {"together": None, "together, 2 to 5 pixels": (2, 5), "together, 10 to 11 pixels": (10, 11), "alone": "alone"}


def reconstruct(maps, interval):
    """Reconstruct the maps together within an interval of length scales, or each alone."""
    if interval == "alone":
        parts = [hsi.fit(maps[[k]], hsi.ParallelGP())["abundances"] for k in range(len(maps))]
        return xr.concat(parts, "component").assign_coords(component=maps["component"])
    return hsi.fit(maps, hsi.ParallelGP(lengthscale=interval))["abundances"]


def table(model, sigmas, alphas):
    """Compute the similarity to the truth for every kind of reconstruction, dims (component, sigma0, alpha)."""
    shape = (3, len(sigmas), len(alphas))
    found = {way: np.empty(shape) for way in WAYS}
    for i, sigma0 in enumerate(sigmas):
        for j, alpha in enumerate(alphas):
            maps, truth = hsi.simulate.sines((32, 32), model=model, sigma0=sigma0, alpha=alpha)
            for way, interval in WAYS.items():
                # The similarity of a constant map is NaN, and counts as 0 here.
                found[way][:, i, j] = hsi.metrics.similarities(truth, reconstruct(maps, interval)).fillna(0)
    axes = {"component": [1, 2, 3], "sigma0": list(sigmas), "alpha": list(alphas)}
    return xr.Dataset({way: (tuple(axes), values) for way, values in found.items()}, coords=axes)


if __name__ == "__main__":
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "noise_ratios")
    folder.mkdir(exist_ok=True)
    for model in (1, 2):
        ratios = table(model, sigmas=(0.5, 1.0), alphas=(1.0, 2.0))
        plots.noise_ratios(ratios).savefig(folder / f"model_{model}.png")
        for sigma0 in ratios["sigma0"].values:
            for alpha in ratios["alpha"].values:
                for way, values in ratios.sel(sigma0=sigma0, alpha=alpha).items():
                    like = " ".join(f"{v:6.3f}" for v in values.values)
                    print(f"model {model}, sigma0 {sigma0:g}, alpha {alpha:g}, {way:>26}: {like}")
    print(folder / "model_2.png")
