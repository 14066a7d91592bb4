"""Add your own model in one class: k-means clustering of spectra by their shape.

A model is a frozen dataclass of settings with a few methods. `scalehsi.fit` runs it, with the loop, the tolerance,
progress, checkpoints, resuming, clusters and provenance.

Run with: python examples/03_own_model.py
"""

from dataclasses import KW_ONLY, dataclass
from typing import ClassVar

import numpy as np
import xarray as xr

import scalehsi as hsi
from scalehsi.blocks import map_fold
from scalehsi.checks import check_components
from scalehsi.fitting.model import IterativeModel, Stats
from scalehsi.fitting.survey import survey
from scalehsi.models.catalogue import CATALOGUE


def nearest(x, centres):
    """Find the nearest centre of each pixel by spectral angle (P,), the cosine to it, and the normalised spectra."""
    size = np.linalg.norm(x, axis=1, keepdims=True)
    unit = x / np.where(size > 0, size, 1)
    cosine = unit @ centres.T
    return cosine.argmax(axis=1), cosine.max(axis=1), unit


def assign(x, *, centres):
    """Assign the pixels of one block: return the rows to keep for each pixel, and the sums over pixels."""
    label, cosine, unit = nearest(x, centres)
    one_hot = label[:, None] == np.arange(len(centres))
    return {}, {"sum": one_hot.T.astype(float) @ unit, "loss": (1 - cosine).sum(), "spectrum": x.sum(axis=0)}


def maps(x, *, centres, endmembers, residual=True):
    """Compute the maps of the last pass: the counts of a pixel relative to the spectrum of its cluster."""
    label, _, _ = nearest(x, centres)
    total = x.sum(axis=1) / endmembers.sum(axis=1)[label]
    c = (label[:, None] == np.arange(len(centres))) * total[:, None]
    rest = x - c @ endmembers
    pixels = {"abundances": c.astype("f4"), "residual": np.sqrt((rest**2).mean(axis=1))}
    return pixels, {"residual_spectrum": rest.sum(axis=0)}


@dataclass(frozen=True)
class KMeans(IterativeModel):
    """Cluster spectra by spherical k-means (Dhillon and Modha 2001, doi:10.1023/A:1007612920971).

    Parameters
    ----------
    n_components : int
        Number of clusters.
    max_iter : int, default 50
        Largest number of iterations.
    tol : float, default 1e-6
        Relative change of the objective at which the fit has converged.
    """

    n_components: int
    _: KW_ONLY
    max_iter: int = 50
    tol: float = 1e-6

    name: ClassVar[str] = "KMeans"

    def check(self, cube):
        check_components(self.n_components, cube)

    def init(self, view, seed):
        seen = survey(view, seed=seed, counts=False, least=4 * self.n_components)
        unit = seen.sample / np.linalg.norm(seen.sample, axis=1, keepdims=True)
        chosen = [unit[0]]  # the next start is always the sampled pixel farthest from those chosen
        while len(chosen) < self.n_components:
            chosen.append(unit[(unit @ np.array(chosen).T).max(axis=1).argmin()])
        return {"centres": np.array(chosen, dtype=float), "pixels": np.asarray(seen.pixels), "spectrum": seen.spectrum}

    def step(self, view, state):
        _, sums = map_fold(assign, view, shared={"centres": state["centres"]}, name="kmeans-assign")
        size = np.linalg.norm(sums["sum"], axis=1, keepdims=True)
        centres = np.where(size > 0, sums["sum"] / np.where(size > 0, size, 1), state["centres"])
        return {**state, "centres": centres}, Stats(float(sums["loss"]))

    def finish(self, view, state):
        mean = state["spectrum"] / state["pixels"]
        scaled = state["centres"] * mean.sum() / state["centres"].sum(axis=1, keepdims=True)
        return {
            "endmembers": xr.DataArray(scaled, dims=("component", "energy")),
            "centres": xr.DataArray(state["centres"], dims=("component", "energy")),
            "mean_spectrum": xr.DataArray(mean, dims=("energy",)),
        }

    def projector(self, result):
        return maps, {"centres": result["centres"].values, "endmembers": result["endmembers"].values}


CATALOGUE["kmeans"] = f"{__name__}:KMeans"  # now hsi.project, the report and the command line find it


if __name__ == "__main__":
    cube, truth = hsi.simulate.chequerboard((64, 64), n_channels=128, seed=0)
    result = hsi.fit(cube, KMeans(n_components=4), seed=0)
    angles = np.degrees(hsi.metrics.score(result, truth)["spectral_angle"].values)
    print(result.attrs["status"], "after", result.sizes["iteration"], "iterations; angles", angles.round(1))
