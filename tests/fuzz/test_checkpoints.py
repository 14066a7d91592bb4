"""Changed checkpoints: as bytes, as arrays, and in their document."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.conftest import Survives
from tests.fuzz.strategies import bytes_change, json_change

pytestmark = [pytest.mark.long, pytest.mark.filterwarnings("ignore")]

CHANGES: dict[str, Any] = {
    "flat": np.ravel,
    "larger": lambda v: np.pad(v, 1) if v.ndim else np.ones(2),
    "smaller": lambda v: v[:0] if v.ndim else np.ones(0),
    "nan": lambda v: np.full(v.shape, np.nan),
    "text": lambda v: v.astype("U8"),
    "negative": lambda v: -v.astype("f8"),
    "other dtype": lambda v: v.astype("f2"),
    "zero": lambda v: v * 0,
    "huge": lambda v: v.astype("f8") * 1e300,
}


@settings(settings.get_profile("fuzz"))
@given(data=st.data(), how=st.sampled_from(["bytes", "arrays", "arrays", "document"]))
def test_checkpoints(data: st.DataObject, how: str, good: Path, work: Callable[[], Path], survives: Survives) -> None:
    shutil.copytree(good / "run.ckpt", work() / "run.ckpt")
    file = Path("run.ckpt") / "state.npz"
    if how == "bytes":
        file.write_bytes(data.draw(bytes_change(file.read_bytes())))
    else:
        with np.load(file) as archive:
            arrays = {name: archive[name] for name in archive.files}
        if how == "document":
            text = data.draw(json_change(json.loads(bytes(arrays["meta"]).decode())))
            arrays["meta"] = np.frombuffer(text.encode(), np.uint8)
        else:
            name = data.draw(st.sampled_from(sorted(arrays)))
            usable = ["flat", "smaller", "text"] if arrays[name].dtype.kind == "U" else sorted(CHANGES)
            change = data.draw(st.sampled_from([*usable, "drop"]))
            if change == "drop":
                del arrays[name]
            else:
                arrays[name] = CHANGES[change](arrays[name])
        with file.open("wb") as opened:
            np.savez(opened, **arrays)
    resume = ["--checkpoint", "run.ckpt", "--resume", "--set", "max_iter=3"]
    survives("fit", good / "map.zarr", "out.zarr", "-k", "2", *resume)
