"""Preparation against what its specification asks: each line is what was asked and what was measured here.

``python -m tests.bench.prepare [--peers PYTHON ...]``. With a Python that has eXSpy, pyEELSMODEL or quantem their
figures stand beside; without it these lines say so. Measured maps are used where they lie beside the repository.
"""

from __future__ import annotations

import argparse
import json
import logging
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

import scalehsi as hsi
from scalehsi.prepare.edge_windows import propose_windows
from scalehsi.prepare.shift_maps import core_loss_shifts, zero_loss_shifts
from tests.bench.machine import markdown
from tests.bench.prepare_beside import background_beside
from tests.bench.prepare_scenes import ENERGY, PLAIN, Row, core_loss, cube_of, cuzn, measured, row, scene, zero_loss
from tests.paths import DATA

HIGH_LOSSES = (
    "T3_A3_region1_HL_SI",
    "T3_A3_region2_HL_SI",
    "T3_A3_region3_SI_HL1",
    "T3_A3_region3_SI_HL2",
    "T3_B3_region1_SI_HL",
    "T3_B3_region2_SI_HL",
)


def series(name: str) -> xr.DataArray:
    """A series of the round robin, as a line of pixels."""
    stored = np.load(DATA / "eels_roundrobin" / "compact.npz")
    axis = json.loads(str(stored["meta"]))["datasets"][name]["energy"]
    values = stored[name].reshape(1, -1, axis["size"])
    return cube_of(values, axis["offset"] + axis["scale"] * np.arange(axis["size"]))


def has_series() -> bool:
    return (DATA / "eels_roundrobin" / "compact.npz").exists()


def planted(cube: xr.DataArray, mean: Any, sigmas: float, *, gain: float, readout: float) -> tuple[float, float, float]:
    """Share of planted spikes, one in four pixels, 5 times, that are found; bias and sd of the new values, in sd.

    cube, mean (y, x, E): counts and their mean. sigmas: height of the spikes. gain, readout: noise of a channel.
    """
    hits, lefts = [], []
    for seed in range(5):
        rng = np.random.default_rng(seed)
        flat = cube.values.reshape(-1, cube.shape[-1]).astype(float)
        pixels = rng.choice(len(flat), len(flat) // 4, replace=False)
        places = pixels, rng.integers(0, flat.shape[1], pixels.size)
        level = mean.reshape(flat.shape)[places]
        sd = np.sqrt(gain * level + readout**2)
        flat[places] += np.rint(sigmas * sd)
        given = cube.copy(data=flat.reshape(cube.shape).astype(cube.dtype))
        new = hsi.prepare.remove_spikes(given, gain=gain, readout=readout).values.reshape(flat.shape)[places]
        hits.append(new != flat[places])
        lefts.append(((new.astype(float) - level) / sd)[hits[-1]])
    left = np.concatenate(lefts)
    return float(np.concatenate(hits).mean()), float(left.mean()), float(left.std())


def spikes() -> Iterator[Row]:
    for dose, gain, readout in ((1e4, 1.0, 0.0), (1e5, 5.0, 20.0)):
        mean, _ = scene(dose)
        cube = cube_of(measured(mean, gain=gain, readout=readout))
        name = f"spikes, dose {dose:g}, g {gain:g}, rho {readout:g}"
        false = float((hsi.prepare.remove_spikes(cube, gain=gain, readout=readout) != cube).mean())
        yield row(f"{name}: false", "<= 1e-5", false, false <= 1e-5)
        for sigmas, least in ((8, 0.93), (10, 0.985), (15, 0.998)):
            share, bias, sd = planted(cube, mean, sigmas, gain=gain, readout=readout)
            yield row(f"{name}: found at {sigmas} sd", f">= {least}", share, share >= least)
        yield row(
            f"{name}: bias, sd of new values", "0.1, 0.6", f"{bias:.3f}, {sd:.3f}", abs(bias) <= 0.1 and sd <= 0.6
        )
    measured_map = cuzn()
    if measured_map is not None:
        found = hsi.prepare.remove_spikes(measured_map)
        number, hot = int(found.spikes.sum()), int(found.spikes[42, 11])
        yield row(
            "spikes, CuZn: values flagged, (42, 11) among them",
            "<= 14, 1",
            f"{number}, {hot}",
            number <= 14 and hot > 0,
        )
    if has_series():
        shares = [float((hsi.prepare.remove_spikes(c) != c).mean()) for c in map(series, HIGH_LOSSES)]
        good = max(shares) <= 1.2e-4 and np.mean(shares) <= 4e-5
        yield row(
            "spikes, round robin: worst, pooled", "1.2e-4, 4e-5", f"{max(shares):.2g}, {np.mean(shares):.2g}", good
        )
    big = cube_of(measured(np.broadcast_to(scene(1e5)[0][:1, :1], (64, 64, 512))).astype("u2"))
    hsi.prepare.remove_spikes(big[:8], gain=1, readout=0)
    start = time.thread_time()
    hsi.prepare.remove_spikes(big, gain=1, readout=0)
    seconds = (time.thread_time() - start) / big.nbytes * 1e9
    yield row("spikes: s per GB of uint16", "<= 30", seconds, seconds <= 30)


def noise() -> Iterator[Row]:
    for counts, gain, readout, flicker, within in (
        (195, 1, 0, 0, 0.02),
        (195, 4.6, 10, 0, 0.02),
        (4, 1, 0, 0, 0.03),
        (4, 4.6, 10, 0, 0.03),
        (195, 1, 0, 0.05, 0.02),
    ):
        found = []
        for seed in range(4):
            mean, _ = scene(counts * 512, flicker=flicker, seed=seed)
            rng = np.random.default_rng(seed)
            x = gain * rng.poisson(mean / gain) + (rng.normal(0, readout, mean.shape) if readout else 0.0)
            found.append(hsi.prepare.estimate_noise(cube_of(x)).gain / gain)
        error = float(np.mean(found)) - 1
        name = f"noise, {counts} counts, g {gain}, rho {readout}, flicker {flicker}: mean error of g (4 scenes)"
        yield row(name, f"<= {within}", error, abs(error) <= within)
    if has_series():
        every = [hsi.prepare.estimate_noise(series(name)) for name in HIGH_LOSSES]
        gains, sums = [n.gain for n in every], [n.window_gain for n in every]
        good = 2.7 <= min(gains) and max(gains) <= 3.2 and 6.4 <= min(sums) and max(sums) <= 7.3
        text = f"{min(gains):.2f} to {max(gains):.2f}, {min(sums):.2f} to {max(sums):.2f}"
        yield row("noise, round robin: g, index of sums of 8", "2.7 to 3.2, 6.4 to 7.3", text, good)


def align(folder: Path, peers: dict[str, Any]) -> Iterator[Row]:
    drift = np.random.default_rng(1).normal(0, 0.3, (32, 32))
    for step in (0.1, 0.5):
        energy, x = zero_loss(step, 1e4, drift)
        found = zero_loss_shifts(cube_of(x, energy))
        assert found.positions is not None
        error = float((found.positions - drift).std())
        bound = float(np.hypot(1.06 / 2.3548, step / np.sqrt(12)) / np.sqrt(np.exp(-0.4) * 1e4))
        yield row(
            f"zero loss, {step} eV channels, 1e4 counts: sd over bound", "<= 1.15", error / bound, error < 1.15 * bound
        )
    energy, x = zero_loss(0.2, 1e4, drift)
    cube = cube_of(x, energy)
    hsi.prepare.align(cube[:2], zero_loss=True)
    start = time.process_time()
    aligned = hsi.prepare.align(cube, zero_loss=True)
    seconds = time.process_time() - start
    own = float((aligned.energy_shift - drift).std())
    if "zero_loss_s" in peers:
        moved = np.load(folder / "zero_loss_aligned.npy")
        left = zero_loss_shifts(cube_of(np.maximum(np.nan_to_num(moved), 0), energy)).positions
        assert left is not None
        theirs = float(np.nanstd(left))
        text = f"{own:.4f}, {seconds:.2f} s; {theirs:.4f}, {peers['zero_loss_s']:.2f} s"
        good = theirs >= 2 * own and peers["zero_loss_s"] >= 4 * seconds
        yield row("zero loss: sd in eV and CPU time; eXSpy subpixel", "2 x better, 4 x faster", text, good)
    else:
        yield row("zero loss: sd in eV and CPU time; eXSpy is not here", "", f"{own:.4f}, {seconds:.2f} s")
    if "quantem_zero_loss_s" in peers:
        theirs = float((np.load(folder / "quantem_zero_loss.npy") - drift).std())
        text = f"{own:.4f}, {seconds:.2f} s; {theirs:.4f}, {peers['quantem_zero_loss_s']:.2f} s without applying"
        yield row("zero loss: sd in eV and CPU time; quantem", "", text)
    else:
        yield row("zero loss: quantem is not here", "", f"{own:.4f}")
    drift = np.random.default_rng(2).normal(0, 0.5, (32, 32))
    energy, x = core_loss(1e5, drift)
    core = core_loss_shifts(cube_of(x, energy), (40, 660))
    error = 0.5 * core.shifts - drift
    robust = float(1.4826 * np.median(np.abs(error - np.median(error)))) / (0.5 * core.bound)
    yield row(
        "core loss at 1e5: sd over bound",
        "<= 1.15",
        robust,
        robust <= 1.15,
    )
    flat = cube_of(np.random.default_rng(0).poisson(200, (30, 30, 512)).astype("u2"))
    for how in ("fourier", "split"):
        moved = hsi.prepare.align(flat, shifts=np.full((30, 30), 0.5), how=how).values.astype(float)
        d = moved - moved.mean()
        index, lag = float(d.var() / moved.mean()), float((d[..., 1:] * d[..., :-1]).mean() / d.var())
        good = 0.98 <= index <= 1.02 and abs(lag) <= 0.01
        yield row(f"shifts by {how}: variance index, lag 1", "0.98 to 1.02, 0.01", f"{index:.4f}, {lag:.4f}", good)
    whole = hsi.prepare.align(flat, shifts=np.full((30, 30), 0.5), how="split", crop=False)
    kept = bool((whole.sum("energy") == flat.sum("energy")).all()) and whole.dtype == flat.dtype
    yield row("shifts by split: integers, total kept", "yes", kept, kept)


def background(folder: Path, peers: dict[str, Any]) -> Iterator[Row]:
    clean = cube_of(1e6 * np.ones((6, 6, 1)) * (ENERGY / 400) ** -3)
    left = float(abs(hsi.prepare.remove_background(clean, (420, 520), gain=1e-9, window_gain=1e-9) / clean).max())
    yield row("background: power law without noise", "<= 1e-5", left, left <= 1e-5)
    mean = np.broadcast_to(10 * (ENERGY / 430) ** -3, (100, 100, 512))
    signal = slice(70, 120)
    for share in (1, 5):
        net = hsi.prepare.remove_background(cube_of(measured(mean)), (400, 459), share=share, **PLAIN)
        bias = float(net.values[..., signal].sum(-1).mean() / mean[0, 0, signal].sum())
        yield row(f"background, share={share}: bias at 10 counts", "<= 0.02", bias, abs(bias) <= 0.02)
    for dose in (1e4, 1e5, 1e6):
        for name, fit, window, phases in (
            ("Mn L", (560, 632), (640, 690), ({}, {"Mn": 1.0}, {})),
            ("O K", (440, 525), (532, 590), ({"O": 1.0}, {}, {})),
        ):
            mean, law = scene(dose, 64, phases=phases)
            inside = (window[0] <= ENERGY) & (window[1] >= ENERGY)
            net = hsi.prepare.remove_background(cube_of(measured(mean)), fit, **PLAIN).values[..., inside].sum(-1)
            pull = (net - (mean - law)[..., inside].sum(-1)) / np.sqrt(mean[..., inside].sum(-1))
            error = float(np.sqrt((pull**2).mean()))
            yield row(f"background, {name} at {dose:g}: error over counting limit", "<= 1.45", error, error <= 1.45)
    law = (ENERGY / 400) ** -3 / ((ENERGY / 400) ** -3).sum()
    for dose in (1e3, 1e5, 1e6):
        cube = cube_of(measured(np.broadcast_to(dose * law, (64, 64, 512))))
        maps = hsi.quantify.edge_maps(cube, {"Mn L3": (640, 690)}, background=(560, 632), **PLAIN)
        sd = float((maps["net"] / maps["net_std"]).std())
        yield row(f"edge maps at {dose:g}: sd of pulls", "0.95 to 1.05", sd, 0.95 <= sd <= 1.05)
    yield from background_beside(folder, peers)


def plasmons(ratio: float) -> tuple[Any, Any]:
    """Energies, and counts of 40 x 40 low losses of t / lambda ``ratio``: 1e4 counts, plasmons at 22 eV."""
    energy = np.arange(-20.0, 182.0, 0.5)
    part = np.exp(-ratio)
    mean = part * np.exp(-0.5 * (energy / 0.45) ** 2) * 0.5 / (0.45 * np.sqrt(2 * np.pi))
    for n in range(1, 9):
        part, wide = part * ratio / n, 3.5 * np.sqrt(n)
        mean = mean + part * 0.5 / (wide * np.sqrt(2 * np.pi)) * np.exp(-0.5 * ((energy - 22 * n) / wide) ** 2)
    return energy, measured(np.broadcast_to(1e4 * mean, (40, 40, energy.size)))


def windows_and_thickness(folder: Path, peers: dict[str, Any]) -> Iterator[Row]:
    verdicts = []
    for first, step, channels, elements in (
        (700, 8, 162, "Cu Zn"),
        (90, 0.5, 1024, "B C N"),
        (380, 0.3, 1024, "Ti O"),
        (440, 0.3, 2048, "O Mn Co Ni"),
        (174.9, 0.5168, 1337, "C Ca O"),
    ):
        axis = cube_of(np.ones((1, 1, channels)), first + step * np.arange(channels))
        found = propose_windows(axis, elements.split())
        verdicts += [name for name, one in found.items() if not one.refusal]
    want = "Cu L3, B K, C K, N K, Ti L3, O K, Co L3, C K, O K"
    yield row("windows proposed", want, ", ".join(verdicts), ", ".join(verdicts) == want)
    for ratio in (0.3, 2.0):
        energy, counts = plasmons(ratio)
        cube = cube_of(counts, energy)
        found = hsi.quantify.thickness(cube, window_gain=1.0)
        bias = float(found["t_over_lambda"].mean()) - ratio
        spread = float(found["t_over_lambda"].std() / found["t_over_lambda_std"].mean())
        good = abs(bias) <= 0.02 and abs(spread - 1) <= 0.1
        yield row(f"thickness {ratio}: bias, sd over formula", "0.02, 0.9 to 1.1", f"{bias:.4f}, {spread:.3f}", good)
    own = float(hsi.quantify.thickness(cube_of(plasmons(0.3)[1], energy), window_gain=1.0)["t_over_lambda"].mean())
    for name in ("exspy", "quantem"):
        path = folder / f"{name}_thickness.npy"
        if not path.exists():
            yield row(f"thickness 0.3: {name} is not here", "", f"{own:.4f}")
            continue
        theirs = float(np.mean(np.load(path)))
        good = abs(theirs / own - 1) <= 0.01 if name == "exspy" else None
        yield row(f"thickness 0.3: {name}", "1 % of eXSpy" if name == "exspy" else "", f"{own:.4f}; {theirs:.4f}", good)


def run_peers(pythons: Sequence[str], folder: Path) -> dict[str, Any]:
    """What other packages do with the files of a folder; empty where none is installed."""
    mean = np.broadcast_to(60 * (400 + np.arange(1024.0)) ** -3 * 400.0**3, (256, 256, 1024))
    np.savez(folder / "background.npz", counts=measured(mean).astype("u2"), first=400.0, step=1.0, fit=(420.0, 460.0))
    energy, x = zero_loss(0.2, 1e4, np.random.default_rng(1).normal(0, 0.3, (32, 32)))
    np.savez(folder / "zero_loss.npz", counts=x, first=energy[0], step=0.2)
    measured_map = cuzn()
    if measured_map is not None:
        np.savez(folder / "cuzn.npz", counts=measured_map.values)
    few = measured(60 * (400 + 2 * np.arange(200.0)) ** -3.0 * 400.0**3 * np.linspace(1, 9, 12).reshape(3, 4, 1))
    np.savez(folder / "few.npz", counts=few, first=400.0, step=2.0, fit=(420.0, 500.0))
    mean, law = scene(1e5, 32, phases=({"O": 1.0}, {}, {}))
    linear = {"counts": measured(mean), "mean": mean, "net": mean - law, "energy": ENERGY, "fit": (440.0, 525.0)}
    linear["edge"] = linear["net"].mean(axis=(0, 1))
    np.savez(folder / "linear.npz", **linear)
    energy, x = plasmons(0.3)
    np.savez(folder / "thickness.npz", counts=x, first=energy[0], step=0.5)
    answer: dict[str, Any] = {}
    for python in pythons:
        script = Path(__file__).with_name("prepare_peers.py")
        done = subprocess.run([python, str(script), str(folder)], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            print(f"{python} is left out: {done.stderr.strip().splitlines()[-1:]}")
            continue
        answer |= json.loads(done.stdout.strip().splitlines()[-1])
    for name in [key for key in answer if key.endswith("_error")]:
        print(f"{name}: {answer[name]}")
    return answer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--peers", metavar="PYTHON", nargs="*", default=[], help="Pythons with eXSpy, pyEELSMODEL or quantem"
    )
    parser.add_argument("--only", nargs="*", default=[], help="spikes noise align background low")
    arguments = parser.parse_args()
    logging.getLogger("scalehsi").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        peers = run_peers(arguments.peers, folder)
        parts: dict[str, Callable[[], Iterator[Row]]] = {
            "spikes": spikes,
            "noise": noise,
            "align": lambda: align(folder, peers),
            "background": lambda: background(folder, peers),
            "low": lambda: windows_and_thickness(folder, peers),
        }
        chosen = [part for name, part in parts.items() if not arguments.only or name in arguments.only]
        rows = [one for part in chosen for one in part()]
    print(markdown(rows))


if __name__ == "__main__":
    main()
