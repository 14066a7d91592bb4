"""Fit a map on threads and on two worker processes, and compare the numbers.

Run with: python examples/02_local_cluster.py [output folder]
"""

import sys
from pathlib import Path

import scalehsi as hsi

if __name__ == "__main__":  # worker processes import this file, so the computations must be under this line
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "local_cluster")
    folder.mkdir(exist_ok=True)
    cube, _ = hsi.simulate.chequerboard((64, 64), n_channels=128, seed=1)
    hsi.save(cube, folder / "map.zarr", overwrite=True)
    cube = hsi.open_cube(folder / "map.zarr")
    model = hsi.NMF(n_components=4, max_iter=30)

    on_threads = hsi.fit(cube, model, seed=0)
    with hsi.connect("local", workers=2) as cluster:
        print("dashboard:", cluster.dashboard)
        on_processes = hsi.fit(cube, model, seed=0)

    angle = hsi.metrics.spectral_angle(on_threads["endmembers"], on_processes["endmembers"])
    print(f"largest angle between the two: {float(angle.max()):.1e} rad")
