"""The command plan."""

from __future__ import annotations

import json
import re

import pytest

import scalehsi as hsi

pytestmark = pytest.mark.long


def test_plan(run, scene):
    status, out, err = run("plan", scene / "map.zarr", "--model", "nmf", "-k", "3", "--set", "max_iter=7", "--json")
    found = json.loads(out)
    expected = hsi.plan(hsi.open_cube(scene / "map.zarr"), hsi.NMF(3, max_iter=7)).to_dict()
    assert status == 0
    # The memory that is free changes from one moment to the next.
    assert {k: v for k, v in found.items() if k not in ("path", "memory")} == {
        k: v for k, v in expected.items() if k != "memory"
    }
    assert re.search(r"^Passes +at most 10 over the cube, 1 of them from the disk$", err, re.MULTILINE)
