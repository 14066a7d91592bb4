"""Hostile stores of cubes: claimed sizes, documents, names, files that are no files, codecs."""

from __future__ import annotations

import gzip
import json
import os
import pickle
import shutil
import socket
import struct
from pathlib import Path
from typing import Any

from tests.hostile.kinds import (
    Payload,
    attrs,
    chunk,
    edit,
    edit_array,
    foreign,
    kind,
    replace_by_fifo,
    replace_by_link,
    shape,
)

E = 64


def claim(name: str, variables: dict[str, Any], chunks: list[Any] | None = None) -> None:
    """Register a cube that claims other shapes."""

    @kind("cube", name)
    def spoil(store: Path) -> None:
        for variable, size in variables.items():
            shape(store, variable, size, chunks if variable == "counts" else None)


claim("shape-1e12-pixels", {"counts": [10**6, 10**6, E], "y": [10**6], "x": [10**6]}, [1000, 1000, E])
claim("shape-1e18", {"counts": [10**9, 10**9, E], "y": [10**9], "x": [10**9]}, [1000, 1000, E])
claim("shape-data-alone", {"counts": [10**6, 10**6, E]}, [1000, 1000, E])
claim("shape-above-int64", {"counts": [10**30, 8, E]}, [8, 8, E])
claim("shape-negative", {"counts": [-8, 8, E]}, [8, 8, E])
claim("shape-fraction", {"counts": [8.5, 8, E]}, [8, 8, E])
claim("shape-text", {"counts": ["8", 8, E]}, [8, 8, E])
claim("shape-boolean", {"counts": [True, 8, E]}, [8, 8, E])
claim("shape-null", {"counts": [None, 8, E]}, [8, 8, E])
claim("shape-empty-dim", {"counts": [0, 8, E], "y": [0]}, [8, 8, E])
claim("shape-no-channels", {"counts": [8, 8, 0], "energy": [0]}, [8, 8, 1])
claim("shape-30-dims", {"counts": [1] * 30}, [1] * 30)
claim("chunks-1e9", {"counts": [1000, 1000, 1000], "y": [1000], "x": [1000], "energy": [1000]}, [1, 1, 1])
claim("chunks-1e6", {"counts": [1000, 1000, E], "y": [1000], "x": [1000]}, [1, 1, E])
claim("chunks-zero", {"counts": [8, 8, E]}, [0, 0, 0])
claim("chunks-negative", {"counts": [8, 8, E]}, [-1, 8, E])
claim("chunks-too-few", {"counts": [8, 8, E]}, [8, 8])
claim("chunks-huge", {"counts": [8, 8, E]}, [10**6, 10**6, E])
claim("one-chunk-of-64-GB", {"counts": [32000, 32000, E], "y": [32000], "x": [32000]})
claim("spectrum-of-4-GB", {"counts": [1, 1, 4 * 10**9], "y": [1], "x": [1], "energy": [4 * 10**9]})
claim("coordinate-1e10", {"energy": [10**10]})
claim("coordinate-1e9-of-y", {"y": [10**9], "counts": [10**9, 8, E]}, [1000, 8, E])


@kind("cube", "mask-of-1e12")
def _(store: Path) -> None:
    shutil.copytree(store / "counts", store / "mask")
    shape(store, "mask", [10**6, 10**6], [1000, 1000], "bool")
    edit_array(store, "mask", dimension_names=["y", "x"], fill_value=True)
    for name, size in (("counts", [10**6, 10**6, E]), ("y", [10**6]), ("x", [10**6])):
        shape(store, name, size, [1000, 1000, E] if name == "counts" else None)


@kind("cube", "extra-variable-of-1e15")
def _(store: Path) -> None:
    shutil.copytree(store / "counts", store / "other")
    shape(store, "other", [10**5, 10**5, 10**5], [1, 1, 1])
    edit_array(store, "other", dimension_names=["a", "b", "c"])


@kind("cube", "extra-coordinate-of-1e11")
def _(store: Path) -> None:
    shutil.copytree(store / "energy", store / "time")
    shape(store, "time", [10**11], [10**11])
    edit_array(store, "time", dimension_names=["time"])


@kind("cube", "text-of-1e9-values")
def _(store: Path) -> None:
    shutil.copytree(store / "energy", store / "names")
    shape(store, "names", [10**9], [10**9], "string")
    codecs = [{"name": "vlen-utf8", "configuration": {}}]
    edit_array(store, "names", dimension_names=["name"], fill_value="", codecs=codecs)


@kind("cube", "variables-10000")
def _(store: Path) -> None:
    text = (store / "energy" / "zarr.json").read_text().replace('"energy"', '"other"')
    for number in range(10000):
        (store / f"v{number}").mkdir()
        (store / f"v{number}" / "zarr.json").write_text(text)
    foreign(store)


@kind("cube", "groups-deep")
def _(store: Path) -> None:
    place, text = store, json.dumps({"zarr_format": 3, "node_type": "group", "attributes": {}})
    for name in ("counts", "x", "y", "energy"):
        shutil.rmtree(store / name)
    for _ in range(600):
        place = place / "g"
        place.mkdir()
        (place / "zarr.json").write_text(text)
    foreign(store)


# Documents.


def document(name: str, content: bytes | str, file: str = "counts/zarr.json", *, ours: bool = True) -> None:
    """Register a cube one of whose documents is replaced."""

    @kind("cube", name)
    def spoil(store: Path) -> None:
        if not ours:
            foreign(store)
        (store / file).write_bytes(content.encode() if isinstance(content, str) else content)


for place, file in (("root", "zarr.json"), ("array", "counts/zarr.json")):
    document(f"{place}-empty", "", file)
    document(f"{place}-list", "[]", file)
    document(f"{place}-null", "null", file)
    document(f"{place}-number", "1", file)
    document(f"{place}-no-json", "{" * 10, file)
    document(f"{place}-not-utf8", b'{"zarr_format": 3, "a": "\xff\xfe"}', file)
    document(f"{place}-deep", "[" * 200_000, file)
    document(f"{place}-deep-closed", '{"a":' * 50_000 + "1" + "}" * 50_000, file)
    document(f"{place}-format-7", '{"zarr_format": 7, "node_type": "group", "attributes": {}}', file)
    document(f"{place}-node-type", '{"zarr_format": 3, "node_type": "virus", "attributes": {}}', file)
    document(f"{place}-attributes-list", '{"zarr_format": 3, "node_type": "group", "attributes": [1]}', file)


@kind("cube", "root-of-100-MB")
def _(store: Path) -> None:
    attrs(store, "", note="x" * 100_000_000)


@kind("cube", "array-of-100-MB")
def _(store: Path) -> None:
    foreign(store)
    attrs(store, "counts", note="x" * 100_000_000)


@kind("cube", "root-of-8-GB")
def _(store: Path) -> None:
    with (store / "zarr.json").open("r+b") as file:
        file.truncate(8_000_000_000)


@kind("cube", "integer-of-1e6-digits")
def _(store: Path) -> None:
    text = (store / "counts" / "zarr.json").read_text().replace('"title"', f'"n": {"9" * 1_000_000}, "title"')
    (store / "counts" / "zarr.json").write_text(text)


@kind("cube", "v2-attributes-of-100-MB")
def _(store: Path) -> None:
    as_version_2(store)
    (store / "counts" / ".zattrs").write_text(
        json.dumps({"_ARRAY_DIMENSIONS": ["y", "x", "energy"], "a": "x" * 100_000_000})
    )


def as_version_2(store: Path, **fields: Any) -> None:
    """Turn a store into one of Zarr v2; ``fields`` are set in the metadata of the counts."""
    from scalehsi.io import open_dataset

    data = open_dataset(store).load().drop_encoding()
    shutil.rmtree(store)
    data.to_zarr(store, zarr_format=2, consolidated=False)
    edit(store / "counts" / ".zarray", lambda d: d.update(fields))


# Names.


def variable_name(name: str, listed: str) -> None:
    """Register a cube whose mark lists a variable of another name."""

    @kind("cube", name)
    def spoil(store: Path) -> None:
        edit(store / "zarr.json", lambda d: d["attributes"]["scalehsi"].update(variables=[listed, "counts"]))


variable_name("mark-names-parent", "../outside")
variable_name("mark-names-root", "/etc")
variable_name("mark-names-nothing", "")
variable_name("mark-names-nul", "a\0b")
variable_name("mark-names-surrogate", "\ud800")
variable_name("mark-names-long", "n" * 5000)


def mark(name: str, value: Any) -> None:
    """Register a cube with a wrong mark of a complete store."""

    @kind("cube", name)
    def spoil(store: Path) -> None:
        attrs(store, "", scalehsi=value)


mark("mark-empty", {})
mark("mark-version-text", {"format": "1", "kind": "cube", "variables": ["counts"]})
mark("mark-variables-number", {"format": 1, "kind": "cube", "variables": 5})
mark("mark-variables-nested", {"format": 1, "kind": "cube", "variables": [["counts"], {}]})
mark("mark-variables-1e6", {"format": 1, "kind": "cube", "variables": ["counts"] * 1_000_000})
mark("mark-kind", {"format": 1, "kind": {"a": 1}, "variables": ["counts"]})


def renamed(name: str, other: str) -> None:
    """Register a cube whose counts are in a folder of another name."""

    @kind("cube", name)
    def spoil(store: Path) -> None:
        foreign(store)
        (store / "counts").rename(store / other)


renamed("name-percent-2F", "..%2F..%2Fescaped")
renamed("name-percent-00", "a%00b")
renamed("name-percent-surrogate", "%ED%A0%80")
renamed("name-escapes", "\x1b[31mred\x07")
renamed("name-newline", "a\nb")
renamed("name-dots", "...")
renamed("name-of-a-dim", "component")


@kind("cube", "name-twice-after-unquoting")
def _(store: Path) -> None:
    foreign(store)
    shutil.copytree(store / "counts", store / "%63ounts")


# Files that are no files.

for place, file in (
    ("root", "zarr.json"),
    ("array", "counts/zarr.json"),
    ("axis", "energy/c/0"),
    ("chunk", "counts/c/0/0/0"),
):

    @kind("cube", f"{place}-is-a-fifo")
    def _(store: Path, file: str = file) -> None:
        replace_by_fifo(store / file)

    @kind("cube", f"{place}-is-dev-zero")
    def _(store: Path, file: str = file) -> None:
        replace_by_link(store / file, "/dev/zero")

    @kind("cube", f"{place}-is-a-loop")
    def _(store: Path, file: str = file) -> None:
        replace_by_link(store / file, (store / file).name)

    @kind("cube", f"{place}-is-a-folder")
    def _(store: Path, file: str = file) -> None:
        (store / file).unlink()
        (store / file).mkdir()

    @kind("cube", f"{place}-is-elsewhere")
    def _(store: Path, file: str = file) -> None:
        replace_by_link(store / file, "/etc/passwd")

    @kind("cube", f"{place}-is-8-GB")
    def _(store: Path, file: str = file) -> None:
        with (store / file).open("r+b") as opened:
            opened.truncate(8_000_000_000)

    @kind("cube", f"{place}-is-noise")
    def _(store: Path, file: str = file) -> None:
        (store / file).write_bytes(bytes(range(256)) * 4)


@kind("cube", "root-is-a-socket")
def _(store: Path) -> None:
    (store / "zarr.json").unlink()
    here = Path.cwd()
    os.chdir(store)  # names of sockets are short
    try:
        socket.socket(socket.AF_UNIX).bind("zarr.json")
    finally:
        os.chdir(here)


@kind("cube", "path-is-a-fifo")
def _(store: Path) -> None:
    shutil.rmtree(store)
    os.mkfifo(store)


@kind("cube", "path-is-dev-zero")
def _(store: Path) -> None:
    shutil.rmtree(store)
    store.symlink_to("/dev/zero")


@kind("cube", "chunk-folder-loops")
def _(store: Path) -> None:
    replace_by_link(store / "counts" / "c" / "0", "..")


# Codecs.

BOMB = 4_000_000_000


def codecs(name: str, listed: Any, content: bytes | None = None, **fields: Any) -> None:
    """Register a cube with other codecs, whose chunk has this content."""

    @kind("cube", name)
    def spoil(store: Path) -> None:
        edit_array(store, "counts", codecs=listed, **fields)
        if content is not None:
            chunk(store, "counts").write_bytes(content)


BYTES = {"name": "bytes"}
GZIP = {"name": "gzip", "configuration": {"level": 1}}
BLOSC = {
    "name": "blosc",
    "configuration": {"typesize": 1, "cname": "lz4", "clevel": 5, "shuffle": "noshuffle", "blocksize": 0},
}
codecs("codecs-none", [])
codecs("codecs-text", "bytes")
codecs("codecs-unknown", [BYTES, {"name": "virus"}])
codecs("codecs-pickle", [{"name": "numcodecs.pickle", "configuration": {"protocol": 4}}], pickle.dumps(Payload()))
codecs("codecs-twice", [BYTES, BYTES])
codecs("codecs-order", [GZIP, BYTES])
codecs("codecs-level", [BYTES, {"name": "gzip", "configuration": {"level": 10**20}}])
codecs("codecs-transpose", [{"name": "transpose", "configuration": {"order": [0, 0, 9]}}, BYTES])
codecs("codecs-gzip-noise", [BYTES, GZIP], b"no gzip")
codecs("codecs-blosc-noise", [BYTES, BLOSC], b"no blosc at all " * 4)
codecs("codecs-blosc-4-GB", [BYTES, BLOSC], struct.pack("<BBBBIII", 2, 1, 1, 1, 0xFFFFFFF0, 65536, 64) + b"\0" * 48)
codecs("codecs-1000", [BYTES] + [GZIP] * 1000)


@kind("cube", "gzip-bomb")
def _(store: Path) -> None:
    edit_array(store, "counts", codecs=[BYTES, GZIP])
    with gzip.open(chunk(store, "counts"), "wb", compresslevel=1) as file:
        for _ in range(400):
            file.write(bytes(10_000_000))


@kind("cube", "zstd-bomb")
def _(store: Path) -> None:
    from numcodecs import Zstd

    zstd = {"name": "zstd", "configuration": {"level": 1, "checksum": False}}
    edit_array(store, "counts", codecs=[BYTES, zstd])
    chunk(store, "counts").write_bytes(bytes(Zstd(level=1).encode(bytes(2_000_000_000))))


@kind("cube", "gzip-bomb-of-an-axis")
def _(store: Path) -> None:
    edit_array(store, "energy", codecs=[{"name": "bytes", "configuration": {"endian": "little"}}, GZIP])
    with gzip.open(chunk(store, "energy"), "wb", compresslevel=1) as file:
        for _ in range(400):
            file.write(bytes(10_000_000))


@kind("cube", "shards-nested-50")
def _(store: Path) -> None:
    inner: list[Any] = [BYTES]
    for _ in range(50):
        inner = [
            {
                "name": "sharding_indexed",
                "configuration": {
                    "chunk_shape": [8, 8, E],
                    "codecs": inner,
                    "index_codecs": [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}],
                    "index_location": "end",
                },
            }
        ]
    edit_array(store, "counts", codecs=inner)


@kind("cube", "shard-of-1e9-chunks")
def _(store: Path) -> None:
    index = [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}]
    configuration = {"chunk_shape": [1, 1, 1], "codecs": [BYTES], "index_codecs": index, "index_location": "end"}
    size = [4000, 4000, E]
    shape(store, "counts", size, size)
    shape(store, "y", [4000])
    shape(store, "x", [4000])
    edit_array(store, "counts", codecs=[{"name": "sharding_indexed", "configuration": configuration}])


@kind("cube", "checksum-wrong")
def _(store: Path) -> None:
    file = chunk(store, "counts")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(bytes(content))


@kind("cube", "checksum-of-an-axis-wrong")
def _(store: Path) -> None:
    file = chunk(store, "energy")
    content = bytearray(file.read_bytes())
    content[20] ^= 1
    file.write_bytes(bytes(content))


@kind("cube", "v2-pickle")
def _(store: Path) -> None:
    as_version_2(store, dtype="|O", filters=[{"id": "pickle", "protocol": 4}], fill_value=0, compressor=None)
    files = [p for p in (store / "counts").rglob("*") if p.is_file() and not p.name.startswith(".z")]
    files[0].write_bytes(pickle.dumps(Payload()))


@kind("cube", "v2-objects-without-codec")
def _(store: Path) -> None:
    as_version_2(store, dtype="|O", filters=None, fill_value=0, compressor=None)


@kind("cube", "v2-structured")
def _(store: Path) -> None:
    as_version_2(store, dtype=[["a", "<i4"], ["b", "<f8"]], fill_value=None)


@kind("cube", "v2-fill-value-of-an-object")
def _(store: Path) -> None:
    as_version_2(store, fill_value={"a": [1]})


@kind("cube", "v2-separator")
def _(store: Path) -> None:
    as_version_2(store, dimension_separator="/../")
