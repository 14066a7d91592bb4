"""Hostile contents of cubes that are stored well: kinds of values, axes, names of dims, attributes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tests.hostile.kinds import attrs, edit, edit_array, foreign, kind, write

DIMS = ["y", "x", "energy"]
COUNTS = np.random.default_rng(0).poisson(5, (8, 8, 64))

for name, values in {
    "complex": COUNTS * 1j,
    "boolean": COUNTS > 4,
    "text": COUNTS.astype("U3"),
    "times": COUNTS.astype("M8[ns]"),
    "float16": COUNTS.astype("f2"),
    "big-endian": COUNTS.astype(">f4"),
    "nan": COUNTS * np.nan,
    "infinite": np.full(COUNTS.shape, np.inf),
    "negative": -COUNTS.astype("f4"),
    "huge": COUNTS * 1e300,
    "zero": COUNTS * 0,
    "int64": COUNTS.astype("i8") * 2**55,
}.items():

    @kind("cube", f"values-{name}")
    def _(store: Path, values: Any = values) -> None:
        write(store, "counts", values, DIMS)


for name, values in {
    "nan": np.full(64, np.nan),
    "one-nan": np.where(np.arange(64) == 9, np.nan, np.arange(64.0)),
    "infinite": np.where(np.arange(64) == 63, np.inf, np.arange(64.0)),
    "constant": np.ones(64),
    "text": np.arange(64).astype("U3"),
    "complex": np.arange(64) * 1j,
    "boolean": np.arange(64) > 3,
    "times": np.arange(64).astype("M8[ns]"),
    "short": np.arange(5.0),
    "huge": np.linspace(0, 1e308, 64),
    "negative": np.linspace(-100, -1, 64),
    "tiny": np.linspace(0, 1e-300, 64),
}.items():
    for axis in ("energy", "y"):

        @kind("cube", f"{axis}-{name}")
        def _(store: Path, values: Any = values, axis: str = axis) -> None:
            write(store, axis, values if axis == "energy" else values[:8], [axis])
            attrs(store, axis, units="keV" if axis == "energy" else "nm")


for name, dims in {
    "twice": ["y", "y", "energy"],
    "null": [None, "x", "energy"],
    "all-null": None,
    "few": ["y", "x"],
    "numbers": [1, 2, 3],
    "long": ["y", "x" * 100_000, "energy"],
    "order": ["energy", "y", "x"],
    "surrogate": ["y", "\ud800", "energy"],
    "nul": ["y", "\0", "energy"],
    "mask": ["y", "x", "mask"],
    "nested": [["y"], {"x": 1}, "energy"],
}.items():

    @kind("cube", f"dims-{name}")
    def _(store: Path, dims: Any = dims) -> None:
        edit_array(store, "counts", dimension_names=dims)


for name, mask in {
    "false": np.zeros((8, 8), bool),
    "text": np.full((8, 8), "yes"),
    "numbers": np.arange(64).reshape(8, 8),
    "nan": np.full((8, 8), np.nan),
    "complex": np.ones((8, 8)) * 1j,
}.items():

    @kind("cube", f"mask-{name}")
    def _(store: Path, mask: Any = mask) -> None:
        write(store, "mask", mask, ["y", "x"])


@kind("cube", "mask-of-other-dims")
def _(store: Path) -> None:
    write(store, "mask", np.ones(64, bool), ["energy"])


NESTED: Any = 1
for _ in range(300):
    NESTED = [NESTED]

ODD = {
    "number": 5,
    "list": [1, [2, {"a": 3}]],
    "dict": {"a": {"b": 1}},
    "null": None,
    "boolean": True,
    "text": "\x1b[2J\x07 \u202e text\nof lines\0",
    "nan": float("nan"),
    "infinite": float("inf"),
    "surrogate": "\ud800",
    "nested-300": NESTED,
    "empty": "",
}
PLACES = (
    "signal",
    "title",
    "history",
    "elements",
    "beam_energy_keV",
    "live_time_s",
    "source",
    "units",
    "detector_shape",
)
for key in PLACES:
    for name, value in ODD.items():

        @kind("cube", f"{key}-is-{name}")
        def _(store: Path, key: str = key, value: Any = value) -> None:
            attrs(store, "counts", **{key: value})


for key in ("units", "_FillValue", "scale_factor", "add_offset", "missing_value", "coordinates", "dtype", "calendar"):
    for name in ("number", "list", "dict", "text", "null", "nan"):

        @kind("cube", f"encoding-{key}-is-{name}")
        def _(store: Path, key: str = key, value: Any = ODD[name]) -> None:
            foreign(store)
            attrs(store, "counts", **{key: value})
            attrs(store, "energy", **{key: value})


@kind("cube", "scale-factor-zero")
def _(store: Path) -> None:
    foreign(store)
    attrs(store, "counts", scale_factor=0, add_offset=0)


for name, value in {
    "title-of-10-MB": {"title": "x" * 10_000_000},
    "history-of-1e6-lines": {"history": ["line"] * 1_000_000},
    "history-of-one-long-text": {"history": "line\n" * 1_000_000},
    "elements-1e6": {"elements": ["Fe"] * 1_000_000},
    "attributes-1e5": {f"a{n}": n for n in range(100_000)},
}.items():

    @kind("cube", name)
    def _(store: Path, value: Any = value) -> None:
        attrs(store, "counts", **value)


for place in ("counts", "energy"):
    for name, field, value in (
        ("fill-value-text", "fill_value", "abc"),
        ("fill-value-dict", "fill_value", {"a": 1}),
        ("fill-value-huge", "fill_value", 10**400),
        ("data-type-unknown", "data_type", "int128"),
        ("data-type-list", "data_type", ["u1"]),
        ("data-type-r", "data_type", "r4000000000"),
        (
            "data-type-text-of-4-GB",
            "data_type",
            {"name": "fixed_length_utf32", "configuration": {"length_bytes": 2**32}},
        ),
        ("key-encoding", "chunk_key_encoding", {"name": "default", "configuration": {"separator": "/../"}}),
        ("key-encoding-v2", "chunk_key_encoding", {"name": "v2", "configuration": {"separator": ".."}}),
        ("grid", "chunk_grid", {"name": "hexagonal", "configuration": {}}),
        ("transformers", "storage_transformers", [{"name": "virus"}]),
        ("extension", "must_understand_me", {"name": "x", "must_understand": True}),
    ):

        @kind("cube", f"{place}-{name}")
        def _(store: Path, place: str = place, field: str = field, value: Any = value) -> None:
            edit_array(store, place, **{field: value})


for missing in ("energy", "y", "x"):

    @kind("cube", f"without-{missing}")
    def _(store: Path, missing: str = missing) -> None:
        import shutil

        shutil.rmtree(store / missing)
        edit(store / "zarr.json", lambda d: d)
        foreign(store)
