"""HyperSpy's NMF and ICA as users call them, in a process of its own: HyperSpy is no dependency.

Run with: PYTHON_WITH_HYPERSPY tests/bench/unmixing_hyperspy.py cubes.npz out.npz
"""

from __future__ import annotations

import sys
import time
import warnings


def main(source: str, target: str) -> None:
    """Unmix every cube (y, x, energy) of an .npz file; the names end in _K, the number of components."""
    import hyperspy.api as hs
    import numpy as np

    warnings.filterwarnings("ignore")
    found = {}
    cubes = np.load(source)
    for name in cubes.files:
        k = int(name.rsplit("_", 1)[1])
        for method in ("NMF", "ICA"):
            signal = hs.signals.Signal1D(cubes[name].astype("f8"))
            clock = time.process_time()
            if method == "NMF":
                signal.decomposition(algorithm="NMF", output_dimension=k, print_info=False)
                factors, loadings = signal.get_decomposition_factors(), signal.get_decomposition_loadings()
            else:
                signal.decomposition(print_info=False)
                signal.blind_source_separation(k, print_info=False)
                factors, loadings = signal.get_bss_factors(), signal.get_bss_loadings()
            found[f"{name}:{method}:seconds"] = time.process_time() - clock
            found[f"{name}:{method}:s"] = factors.data
            found[f"{name}:{method}:a"] = np.moveaxis(loadings.data, 0, -1)
    np.savez(target, **found)


if __name__ == "__main__":
    main(*sys.argv[1:3])
