"""Hostile results: variables of wrong kinds and sizes, and attributes that are no settings."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from tests.hostile.contents import NESTED, ODD
from tests.hostile.kinds import attrs, edit_array, foreign, kind, replace_by_fifo, replace_by_link, shape, write

K, E, SIDE = 2, 64, 8
SPECTRA, MAPS = ["component", "energy"], ["component", "y", "x"]
RANDOM = np.random.default_rng(0)

for variable in ("endmembers", "abundances", "objective", "component", "energy", "residual", "mean_spectrum", "y"):

    @kind("result", f"without-{variable}-variable")
    def _(store: Path, variable: str = variable) -> None:
        shutil.rmtree(store / variable)
        foreign(store)


@kind("result", "only-attributes")
def _(store: Path) -> None:
    for folder in store.iterdir():
        if folder.is_dir():
            shutil.rmtree(folder)
    foreign(store)


GOOD = {"endmembers": (SPECTRA, (K, E)), "abundances": (MAPS, (K, SIDE, SIDE)), "objective": (["iteration"], (2,))}
CHANGES: dict[str, Any] = {
    "text": lambda shape: np.full(shape, "a"),
    "complex": lambda shape: np.ones(shape) * 1j,
    "boolean": lambda shape: np.ones(shape, bool),
    "integers": lambda shape: np.ones(shape, "i4"),
    "nan": lambda shape: np.full(shape, np.nan),
    "infinite": lambda shape: np.full(shape, np.inf),
    "negative": lambda shape: -np.ones(shape),
    "zero": lambda shape: np.zeros(shape),
    "huge": lambda shape: np.full(shape, 1e300),
    "times": lambda shape: np.ones(shape, "i8").astype("M8[ns]"),
    "scalar": lambda shape: np.float64(3),
    "flat": lambda shape: np.ones(np.prod(shape)),
    "transposed": lambda shape: np.ones(shape[::-1]),
    "empty": lambda shape: np.ones((0, *shape[1:])),
    "larger": lambda shape: np.ones([n + 1 for n in shape]),
}
for variable, (dims, size) in GOOD.items():
    for name, make in CHANGES.items():

        @kind("result", f"{variable}-{name}")
        def _(store: Path, variable: str = variable, dims: Any = dims, size: Any = size, make: Any = make) -> None:
            values = make(size)
            named = dims[: values.ndim] if values.ndim < len(dims) else dims
            if values.ndim == 1 and len(dims) > 1:
                named = ["flat"]
            named = dims[::-1] if values.shape == size[::-1] and len(dims) > 1 and values.shape != size else named
            write(store, variable, values, named)


for name, variables in {
    "components-1e6": {"endmembers": [10**6, E], "abundances": [10**6, SIDE, SIDE], "component": [10**6]},
    "components-1e12": {"endmembers": [10**12, E], "abundances": [10**12, SIDE, SIDE], "component": [10**12]},
    "components-0": {"endmembers": [0, E], "abundances": [0, SIDE, SIDE], "component": [0]},
    "pixels-1e12": {"abundances": [K, 10**6, 10**6], "y": [10**6], "x": [10**6]},
    "pixels-0": {"abundances": [K, 0, SIDE], "y": [0]},
    "channels-1e10": {"endmembers": [K, 10**10], "energy": [10**10]},
    "channels-0": {"endmembers": [K, 0], "energy": [0]},
    "iterations-1e12": {"objective": [10**12]},
    "residual-1e12": {"residual": [10**6, 10**6]},
}.items():

    @kind("result", name)
    def _(store: Path, variables: Any = variables) -> None:
        for variable, size in variables.items():
            shape(store, variable, size, [max(1, n) for n in size])
        for other in ("residual", "residual_spectrum", "mean_spectrum"):
            if other not in variables:
                shutil.rmtree(store / other, ignore_errors=True)


def attribute(name: str, **values: Any) -> None:
    """Register a result with other attributes."""

    @kind("result", name)
    def spoil(store: Path) -> None:
        attrs(store, "", **values)


KEYS = ("model", "settings", "warnings", "versions", "history", "status", "advice", "seed", "components", "elements")
for key in (*KEYS, "title", "signal", "beam_energy_keV", "counts_per_pixel", "parent", "source", "loss"):
    for name, value in ODD.items():
        attribute(f"result-{key}-is-{name}", **{key: value})

for name, text in {
    "list": "[]",
    "null": "null",
    "number": "7",
    "no-json": "{loss",
    "deep": "[" * 100_000,
    "unknown-key": '{"virus": 1}',
    "n-components-0": '{"n_components": 0}',
    "n-components-1e9": '{"n_components": 1000000000}',
    "n-components-text": '{"n_components": "two"}',
    "dunder": '{"__class__": "os.system", "n_components": 2}',
    "nan": '{"n_components": 2, "tol": NaN}',
    "of-10-MB": json.dumps({"n_components": 2, "loss": "x" * 10_000_000}),
}.items():
    attribute(f"settings-{name}", settings=text)
for name, text in {
    "no-json": "[{",
    "numbers": "[1, 2]",
    "dict": '{"code": 1}',
    "unknown-field": '[{"code": "a", "text": "b", "virus": "c"}]',
    "missing-field": '[{"code": "a"}]',
    "kinds": '[{"code": [1], "text": {"a": 1}, "remedy": 3}]',
    "1e5": json.dumps([{"code": "a", "text": "b", "remedy": ""}] * 100_000),
}.items():
    attribute(f"warnings-{name}", warnings=text)
for model in (
    "virus",
    "os.system",
    "../nmf",
    "NMF" * 1_000_000,
    "truth",
    "PCA",
    "ParallelGP",
    "PanSharpen",
    "PSNMF",
    "VCA",
):
    attribute(f"model-{model[:20]}", model=model)
attribute("components-attribute-1e5", components=", ".join(["name"] * 100_000))
attribute("result-title-of-10-MB", title="x" * 10_000_000)
attribute("result-history-of-1e6-lines", history="line\n" * 1_000_000)

for name, values in {
    "nan": np.full(E, np.nan),
    "text": np.arange(E).astype("U2"),
    "constant": np.ones(E),
    "times": np.arange(E).astype("M8[ns]"),
}.items():

    @kind("result", f"result-energy-{name}")
    def _(store: Path, values: Any = values) -> None:
        write(store, "energy", values, ["energy"])
        attrs(store, "energy", units="keV")


for name, values in {
    "text": np.array(["a\x1b[2J", "b" * 10000]),
    "nan": np.array([np.nan, 1]),
    "twice": np.array([1, 1]),
}.items():

    @kind("result", f"component-names-{name}")
    def _(store: Path, values: Any = values) -> None:
        write(store, "component", values, ["component"])


for variable in ("endmembers", "abundances", "energy"):

    @kind("result", f"{variable}-chunk-is-a-fifo")
    def _(store: Path, variable: str = variable) -> None:
        from tests.hostile.kinds import chunk

        replace_by_fifo(chunk(store, variable))

    @kind("result", f"{variable}-chunk-is-dev-zero")
    def _(store: Path, variable: str = variable) -> None:
        from tests.hostile.kinds import chunk

        replace_by_link(chunk(store, variable), "/dev/zero")


@kind("result", "units-of-energy-odd")
def _(store: Path) -> None:
    attrs(store, "energy", units={"a": NESTED})


@kind("result", "endmembers-of-other-dims")
def _(store: Path) -> None:
    edit_array(store, "endmembers", dimension_names=["component", "wavelength"])


@kind("result", "abundances-of-other-dims")
def _(store: Path) -> None:
    edit_array(store, "abundances", dimension_names=["component", "row", "column"])
