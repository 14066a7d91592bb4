"""Random JSON values, changes of JSON documents and changes of bytes."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

NUMBERS = [0, 1, -1, 2**31, 2**63, 10**30, 1e308, float("nan"), float("inf"), True, None]
WORDS = [
    "",
    "nan",
    "a" * 300,
    "\0",
    "\ud800",
    "../x",
    "<u2",
    "energy",
    "y",
    "uint64",
    "float16",
    "string",
    "gzip",
    "v2",
]
ODD = st.sampled_from([*NUMBERS, *WORDS, [], {}, [[]]])
VALUES = st.recursive(
    ODD | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def places(document: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths to all values in a document."""
    items = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    for key, value in items:
        yield (*path, key)
        yield from places(value, (*path, key))


def changed(document: Any, path: tuple[Any, ...], how: str, value: Any) -> Any:
    """A copy of a document with another value, or none, at a path."""
    out = copy.deepcopy(document)
    inside = out
    for key in path[:-1]:
        inside = inside[key]
    if how == "drop":
        del inside[path[-1]]
    elif how == "twice" and isinstance(inside, list):
        inside.insert(path[-1], inside[path[-1]])
    else:
        inside[path[-1]] = value
    return out


@st.composite
def json_change(draw: st.DrawFn, document: Any) -> str:
    """The text of a document with one to three changes."""
    for _ in range(draw(st.integers(1, 3))):
        found = list(places(document))
        if not found:
            break
        path = draw(st.sampled_from(found))
        document = changed(document, path, draw(st.sampled_from(["set", "set", "drop", "twice"])), draw(VALUES))
    return json.dumps(document)


@st.composite
def bytes_change(draw: st.DrawFn, content: bytes) -> bytes:
    """The bytes with some overwritten, left out or put in."""
    out = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, max(0, len(out))))
        new = draw(st.binary(max_size=8) | st.sampled_from([b"\xff" * 4, b"\0" * 8]))
        how = draw(st.sampled_from(["over", "in", "out", "end"]))
        if how == "over":
            out[start : start + len(new)] = new
        elif how == "in":
            out[start:start] = new
        elif how == "out":
            del out[start : start + draw(st.integers(1, 64))]
        else:
            del out[start:]
    return bytes(out)


def spoil(data: st.DataObject, store: Path) -> None:
    """Change one file of a store: its documents as JSON or as bytes, its chunks as bytes."""
    files = sorted(p for p in store.rglob("*") if p.is_file() and not p.name.startswith("."))
    file = data.draw(st.sampled_from(files), label="file")
    if file.name == "zarr.json" and data.draw(st.integers(0, 4)):
        document = json.loads(file.read_text())
        if data.draw(st.booleans()):
            document.pop("consolidated_metadata", None)
        file.write_text(data.draw(json_change(document)))
    else:
        file.write_bytes(data.draw(bytes_change(file.read_bytes())))
