"""Hostile checkpoints: archives that claim or hold too much, pickles, and states that fit nothing."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.hostile.kinds import Payload, kind, replace_by_fifo, replace_by_link

FILE = "state.npz"


def contents(folder: Path) -> dict[str, Any]:
    with np.load(folder / FILE) as file:
        return {k: file[k] for k in file.files}


def packed(folder: Path, arrays: dict[str, Any]) -> None:
    with (folder / FILE).open("wb") as file:
        np.savez(file, **arrays)


def change(name: str, spoil: Callable[[dict[str, Any]], Any]) -> None:
    """Register a checkpoint with other arrays."""

    @kind("checkpoint", f"checkpoint-{name}")
    def _(folder: Path) -> None:
        arrays = contents(folder)
        packed(folder, spoil(arrays) or arrays)


def meta(name: str, spoil: Callable[[Any], Any]) -> None:
    """Register a checkpoint with another JSON document."""

    def changed(arrays: dict[str, Any]) -> None:
        document = json.loads(bytes(arrays["meta"]).decode())
        text = spoil(document)
        text = text if isinstance(text, str) else json.dumps(document if text is None else text)
        arrays["meta"] = np.frombuffer(text.encode(), np.uint8)

    change(f"meta-{name}", changed)


meta("list", lambda d: "[]")
meta("null", lambda d: "null")
meta("no-json", lambda d: "{{{")
meta("deep", lambda d: "[" * 100_000)
meta("without-identity", lambda d: {"done": False})
meta("identity-list", lambda d: {**d, "identity": []})
meta("done-dict", lambda d: {**d, "done": {"a": 1}})
meta("rejected-text", lambda d: {**d, "rejected": "many"})
meta("rejected-1e300", lambda d: {**d, "rejected": 1e300})
meta("rejected-infinite", lambda d: {**d, "rejected": float("inf")})
meta("inner-number", lambda d: {**d, "inner": 5})
meta("inner-texts", lambda d: {**d, "inner": ["a", 3]})
meta("fingerprints-list", lambda d: {**d, "fingerprints": [1]})
meta("fingerprints-other", lambda d: {**d, "fingerprints": {"cube": [1, 2]}})
meta("of-50-MB", lambda d: {**d, "note": "x" * 50_000_000})
meta("identity-of-10-MB", lambda d: {**d, "identity": {**d["identity"], "model": "x" * 10_000_000}})

change("objective-text", lambda a: a.update(objective=np.array(["a", "b"])))
change("objective-matrix", lambda a: a.update(objective=np.ones((3, 3))))
change("objective-scalar", lambda a: a.update(objective=np.float64(2)))
change("objective-nan", lambda a: a.update(objective=np.full(2, np.nan)))
change("objective-complex", lambda a: a.update(objective=np.ones(2) * 1j))
change("objective-1e7", lambda a: a.update(objective=np.ones(10**7)))
change("objective-empty", lambda a: a.update(objective=np.ones(0)))
change("path-other-shape", lambda a: a.update(path=np.ones((2, 3))))
change("path-text", lambda a: a.update(path=np.full((2, 2, 64), "a")))
change("path-nan", lambda a: a.update(path=np.full((2, 2, 64), np.nan)))
change("without-state", lambda a: {k: v for k, v in a.items() if not k.startswith("state/")})
change("without-meta", lambda a: {k: v for k, v in a.items() if k != "meta"})
change("without-objective", lambda a: {k: v for k, v in a.items() if k != "objective"})
change("extra-state", lambda a: {**a, "state/virus": np.ones(3)})
change("names-parent", lambda a: {**a, "../../escaped": np.ones(3)})
for what, make in {
    "nan": lambda v: np.full(v.shape, np.nan),
    "text": lambda v: np.full(v.shape, "a"),
    "complex": lambda v: np.ones(v.shape) * 1j,
    "boolean": lambda v: np.ones(v.shape, bool),
    "flat": lambda v: np.ones(v.size + 1),
    "scalar": lambda v: np.float64(1),
    "empty": lambda v: np.ones((0, *v.shape[1:])),
    "larger": lambda v: np.ones([n + 1 for n in v.shape]),
    "negative": lambda v: -np.ones(v.shape),
    "infinite": lambda v: np.full(v.shape, np.inf),
    "fortran": lambda v: np.asfortranarray(v),
}.items():
    change(f"state-{what}", lambda a, make=make: {k: make(v) if k.startswith("state/") else v for k, v in a.items()})


def header(shape: Any, descr: str = "<f8") -> bytes:
    text = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    text += b" " * (64 - (len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x02\x00" + len(text).to_bytes(4, "little") + text


def entry(name: str, raw: bytes, *, repeat: int = 1) -> None:
    """Register a checkpoint whose entry of the objective has this content, compressed, repeated."""

    @kind("checkpoint", f"checkpoint-{name}")
    def _(folder: Path) -> None:
        old = zipfile.ZipFile(folder / FILE)
        parts = {n: old.read(n) for n in old.namelist() if n != "objective.npy"}
        with zipfile.ZipFile(folder / FILE, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as new:
            for part, content in parts.items():
                new.writestr(part, content)
            with new.open("objective.npy", "w", force_zip64=True) as file:
                file.write(raw if repeat == 1 else header(f"({repeat * len(raw) // 8},)"))
                for _ in range(repeat if repeat > 1 else 0):
                    file.write(raw)


entry("zip-of-3-GB", bytes(10_000_000), repeat=300)
entry("claims-1e15", header("(1000000000000000,)"))
entry("claims-1e30", header(f"({10**30},)"))
entry("claims-negative", header("(-5,)"))
entry("claims-text", header("('a',)"))
entry("header-deep", header("(" * 5000))
entry("header-power", header("(9**9**9,)"))
entry("header-noise", b"\x93NUMPY\x01\x00\xff\xff")
entry("dtype-structured", header("(1,)", "[('a', '<f8')]"))
entry("dtype-wide", header("(1,)", "<U1000000000"))
entry("no-npy", b"hello")
entry("of-nothing", b"")


@kind("checkpoint", "checkpoint-pickle")
def _(folder: Path) -> None:
    arrays = contents(folder)
    arrays["objective"] = np.array([Payload()], dtype=object)
    packed(folder, arrays)


@kind("checkpoint", "checkpoint-is-a-pickle")
def _(folder: Path) -> None:
    import pickle

    (folder / FILE).write_bytes(pickle.dumps(Payload()))


@kind("checkpoint", "checkpoint-entries-1e5")
def _(folder: Path) -> None:
    with zipfile.ZipFile(folder / FILE, "a") as file:
        for number in range(100_000):
            file.writestr(f"state/{number}.npy", b"")


@kind("checkpoint", "checkpoint-cut")
def _(folder: Path) -> None:
    content = (folder / FILE).read_bytes()
    (folder / FILE).write_bytes(content[: len(content) // 2])


@kind("checkpoint", "checkpoint-empty")
def _(folder: Path) -> None:
    (folder / FILE).write_bytes(b"")


@kind("checkpoint", "checkpoint-is-one-array")
def _(folder: Path) -> None:
    with (folder / FILE).open("wb") as file:
        np.save(file, np.ones(3))


@kind("checkpoint", "checkpoint-is-a-fifo")
def _(folder: Path) -> None:
    replace_by_fifo(folder / FILE)


@kind("checkpoint", "checkpoint-is-dev-zero")
def _(folder: Path) -> None:
    replace_by_link(folder / FILE, "/dev/zero")


@kind("checkpoint", "checkpoint-is-a-loop")
def _(folder: Path) -> None:
    replace_by_link(folder / FILE, FILE)


@kind("checkpoint", "checkpoint-is-a-folder")
def _(folder: Path) -> None:
    (folder / FILE).unlink()
    (folder / FILE).mkdir()


@kind("checkpoint", "checkpoint-is-8-GB")
def _(folder: Path) -> None:
    with (folder / FILE).open("r+b") as file:
        file.truncate(8_000_000_000)


@kind("checkpoint", "checkpoint-lock-is-a-fifo")
def _(folder: Path) -> None:
    (folder / ".lock").unlink(missing_ok=True)
    os.mkfifo(folder / ".lock")


@kind("checkpoint", "checkpoint-lock-is-a-link-outside")
def _(folder: Path) -> None:
    (folder / ".lock").unlink(missing_ok=True)
    (folder / ".lock").symlink_to("../../outside/created")


@kind("checkpoint", "checkpoint-lock-is-a-folder")
def _(folder: Path) -> None:
    (folder / ".lock").unlink(missing_ok=True)
    (folder / ".lock").mkdir()


@kind("checkpoint", "checkpoint-folder-is-a-fifo")
def _(folder: Path) -> None:
    shutil.rmtree(folder)
    os.mkfifo(folder)
