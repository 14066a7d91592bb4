"""Train a network on the first map of a series, and unmix the next maps with it while they are acquired.

Training takes some seconds, a map of 64 x 64 pixels and 1024 channels after it less than a tenth of a second.

Run with: python examples/06_network_series.py [output folder]
"""

import sys
import time
from pathlib import Path

import numpy as np

import scalehsi as hsi

if __name__ == "__main__":
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "network_series")
    folder.mkdir(exist_ok=True)

    # Three maps of the same phases, which lie elsewhere each time.
    look = {"n_components": 3, "counts_per_pixel": 1e5, "wedge": 0.0}
    series = [hsi.simulate.chequerboard((64, 64), squares=(n, n), **look, seed=n) for n in (4, 5, 6)]
    first, truth = series[0]
    result = hsi.fit(first, hsi.UDAS(3), seed=0)
    print(result.attrs["advice"])
    angles = np.degrees(hsi.metrics.score(result, truth)["spectral_angle"].values)
    print(f"training: spectra within {angles.max():.2f} degrees of the truth")

    order = hsi.metrics.match(truth["endmembers"], result["endmembers"])
    for number, (cube, known) in enumerate(series[1:], start=2):
        cube = cube.compute()
        begin = time.perf_counter()
        maps = hsi.project(result, cube).compute()
        seconds = time.perf_counter() - begin
        like = hsi.metrics.similarities(known["abundances"], maps.isel(component=order))
        print(f"map {number}: {1000 * seconds:.0f} ms, similarity to the truth at least {float(like.min()):.3f}")
    hsi.save(result, folder / "network.zarr", overwrite=True)
    print(hsi.report(result, folder / "report", truth=truth, overwrite=True))
