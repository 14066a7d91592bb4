"""Names of stores."""

from __future__ import annotations

import pytest

from scalehsi.io import save
from scalehsi.io.rosettasciio import extensions
from scalehsi.io.save import OTHER_FORMATS, check_store_name
from scalehsi.schema import InputError
from tests.helpers import counts_cube


def test_endings_of_all_readers_are_refused() -> None:
    pytest.importorskip("rsciio", reason="the extra io is not installed")
    assert set(extensions()) - {".zarr"} <= OTHER_FORMATS


@pytest.mark.parametrize("name", ["a.dm4", "A.DM3", "a.bcf", "a.msa", "a.zspy", "a.b.npz"])
def test_a_store_is_not_named_like_a_file_of_another_program(tmp_path, name: str) -> None:
    with pytest.raises(InputError, match=r"writes Zarr stores, not \.\w+ files; type '.*\.zarr'"):
        save(counts_cube((2, 2, 3)), tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a.zarr", "a", "scan 2.5 nm", "a.v2", ".hidden"])
def test_other_names_are_free(name: str) -> None:
    check_store_name(name)
