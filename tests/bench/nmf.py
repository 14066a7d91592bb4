"""Measure NMF and compare it with other programs, in one run on one machine: Markdown tables and a figure.

Run with: python -m tests.bench.nmf [--only speed convergence counts ...] [--quick] [--figure nmf.png]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from tests.bench import counts, dask_cost, least_squares, priors, variants
from tests.bench.machine import markdown, product_rate, read_rate

PARTS = ("speed", "threads", "convergence", "variants", "compression", "scaling", "counts", "dask", "priors")


def draw(traces: dict[str, least_squares.Trace], file: Path) -> None:
    """Draw the excess over the best objective, against CPU seconds and against readings."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(11, 4), sharey=True, layout="constrained")
    styles = ["-", "--", "-.", ":", (0, (1, 1)), "-", "--"]
    for (name, trace), style in zip(traces.items(), styles, strict=False):
        excess = [max(value, 1e-9) for _, value in trace]
        peer = "scikit" in name
        axes[0].plot(
            [t for t, _ in trace], excess, linestyle=style, marker="o" if peer else None, markersize=4, label=name
        )
        if not peer:
            axes[1].plot(range(1, len(trace) + 1), excess, linestyle=style, label=name)
    for axis, label in zip(axes, ("CPU time / s", "readings of the data"), strict=True):
        axis.set(xlabel=label, xscale="log", yscale="log", ylim=(1e-6, 10))
        axis.grid(visible=True, alpha=0.3)
    axes[0].set_ylabel("objective above the best known, relative")
    axes[0].legend(fontsize=8)
    figure.savefig(file, dpi=130)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--quick", action="store_true", help="smaller scenes")
    parser.add_argument("--figure", type=Path)
    args = parser.parse_args()
    print(f"one core: {product_rate() / 1e9:.0f} GF/s of sgemm, {read_rate() / 1e9:.0f} GB/s of reading\n")
    size, channels = (96, 256) if args.quick else (256, 1024)

    def convergence() -> list[least_squares.Row]:
        rows, traces = least_squares.convergence(size=size, channels=channels)
        if args.figure:
            draw(traces, args.figure)
        return rows

    parts: dict[str, Callable[[], list[dict[str, object]]]] = {
        "speed": lambda: least_squares.speed(pixels=size * size, energies=channels),
        "threads": lambda: least_squares.threads(size=size),
        "convergence": convergence,
        "variants": lambda: variants.table(size=size, channels=channels),
        "compression": lambda: (
            least_squares.compression(((64, 256, 4),)) if args.quick else least_squares.compression()
        ),
        "scaling": lambda: least_squares.scaling((64, 128, 256) if args.quick else (64, 128, 256, 512, 1024)),
        "counts": lambda: counts.table(size=48 if args.quick else 96),
        "dask": dask_cost.table,
        "priors": priors.table,
    }
    for name in args.only:
        print(f"## {name}\n\n{markdown(parts[name]())}\n", flush=True)


if __name__ == "__main__":
    main()
