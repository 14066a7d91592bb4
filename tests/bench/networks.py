"""Table of the networks on the chequerboard scenes: angle and map errors, time, checks, and rivals beside them.

Run with: python -m tests.bench.networks [--seeds 3] [--components 3] [--methods DAEU,UDAS,...] [--variants plain,...]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

import scalehsi as hsi
from scalehsi.result import result_warnings
from tests.bench.unmixing_scenes import Truth, scene, scores, scores_of

CODES = ("network_collapsed", "dead_component", "restarts_disagree", "thickness_in_simplex", "drift", "no_pure_pixels")
VARIANTS = ("plain", "no pure", "thickness", "drift")


def methods(k: int) -> dict[str, Any]:
    """The models of the table by name, for k components."""
    return {
        "DAEU": hsi.DAEU(k),
        "MTAEU": hsi.MTAEU(k),
        "CNNAEU": hsi.CNNAEU(k),
        "UDAS": hsi.UDAS(k),
        "DAEU paper": hsi.DAEU(k, settings="paper"),
        "MTAEU paper": hsi.MTAEU(k, settings="paper"),
        "UDAS paper": hsi.UDAS(k, settings="paper"),
        "VCA": hsi.VCA(k),
        "NMF": hsi.NMF(k),
    }


def row(truth: Truth, model: Any, seed: int) -> dict[str, Any]:
    """Errors of a fit, the same with maps by FCLS, processor seconds, and the codes of its warnings."""
    start = time.process_time()
    result = hsi.fit(truth.cube, model, seed=seed)
    seconds = time.process_time() - start
    angle, error = scores_of(truth, result)
    maps = hsi.project(result["endmembers"], truth.cube, constraint="fcls").transpose("y", "x", "component").values
    _, solved = scores(truth, result["endmembers"].values, maps)
    said = [w.code for w in result_warnings(result) if w.code in CODES]
    return {"angle": angle, "error": error, "fcls": solved, "seconds": seconds, "said": said}


def table(k: int, names: list[str], variants: list[str], seeds: int, dose: float) -> Iterator[str]:
    """One line a method and variant: means over the seeds."""
    yield f"{'method':12s} {'scene':10s} {'SAD':>7s} {'NMSE':>7s} {'+FCLS':>7s} {'CPU s':>6s}  warnings"
    for variant in variants:
        for name in names:
            found = [row(scene(k, dose=dose, seed=s, variant=variant), methods(k)[name], s) for s in range(seeds)]
            mean = {key: np.mean([each[key] for each in found]) for key in ("angle", "error", "fcls", "seconds")}
            said = sorted({code for each in found for code in each["said"]})
            numbers = f"{mean['angle']:7.4f} {mean['error']:7.4f} {mean['fcls']:7.4f} {mean['seconds']:6.1f}"
            yield f"{name:12s} {variant:10s} {numbers}  {', '.join(said)}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--components", type=int, default=3, choices=(3, 4))
    parser.add_argument("--dose", type=float, default=1e5)
    parser.add_argument("--methods", default=",".join(methods(3)))
    parser.add_argument("--variants", default=",".join(VARIANTS))
    given = parser.parse_args()
    names, variants = given.methods.split(","), given.variants.split(",")
    for line in table(given.components, names, variants, given.seeds, given.dose):
        print(line, flush=True)


if __name__ == "__main__":
    main()
