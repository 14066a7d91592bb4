"""Unmix a simulated STEM-EDX map, score the result by the truth, and write a report.

Run with: python examples/01_unmix_edx.py [output folder]
"""

import sys
from pathlib import Path

import numpy as np

import scalehsi as hsi

if __name__ == "__main__":
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "unmix_edx")
    folder.mkdir(exist_ok=True)

    # A mantle mineral assemblage with 147 counts in a pixel: three phases, one of them 3 % of the area.
    cube, truth = hsi.simulate.phases((96, 96), counts_per_pixel=147, seed=0)
    hsi.save(cube, folder / "map.zarr", overwrite=True)

    # From here on a measured file is treated in the same way: lazily, block by block, at any size.
    cube = hsi.open_cube(folder / "map.zarr")
    print(hsi.plan(cube, hsi.NMF(n_components=3, loss="poisson")))
    result = hsi.fit(cube, hsi.NMF(n_components=3, loss="poisson"), seed=0)
    print(result.attrs["status"], "-", result.attrs["advice"])

    scores = hsi.metrics.score(result, truth)
    for phase, angle in zip(scores["component"].values, np.degrees(scores["spectral_angle"].values), strict=True):
        print(f"{phase}: spectrum within {angle:.1f} degrees of the truth")
    print(hsi.report(result, folder / "report", truth=truth, overwrite=True))
