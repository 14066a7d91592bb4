"""A full disk is reported in plain words, and no partly written data remain."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from zarr.storage import LocalStore

import scalehsi as hsi
from scalehsi.cli import main
from scalehsi.cube import make_cube
from tests.refusals import refused, tree


def no_room(write: Callable[..., Any], where: Callable[[Any], Path], place: Path) -> Callable[..., Any]:
    """The method ``write``, which fails for paths in a folder; ``where`` returns the path of its object."""

    def refuse(thing: Any, *given: Any, **options: Any) -> Any:
        if where(thing).resolve().is_relative_to(place.resolve()):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(thing, *given, **options)

    return refuse


@pytest.fixture
def full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A full folder: a small file system if this user may mount one, otherwise writing methods that fail."""
    place = tmp_path / "full"
    place.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(place)]
    mounted = os.geteuid() == 0 and shutil.which("mount") and subprocess.run(words, capture_output=True).returncode == 0
    if mounted:
        (place / "filling").write_bytes(b"x" * 180_000)
    else:
        monkeypatch.setattr(LocalStore, "set", no_room(LocalStore.set, lambda store: store.root, place))
        monkeypatch.setattr(Path, "write_bytes", no_room(Path.write_bytes, lambda path: path, place))
    yield place
    if mounted:
        subprocess.run(["umount", str(place)], check=True)


FULL = {
    "fit": "fit big.zarr full/new.zarr -k 2 --set max_iter=1 --quiet",
    "convert": "convert big.zarr full/new.zarr",
    "prepare": "prepare big.zarr full/new.zarr --step bin:y=1",
    "reconstruct": "reconstruct fitted_big.zarr full/new.zarr",
    "project": "project fitted_big.zarr big.zarr full/new.zarr",
    "simulate": "simulate chequerboard full/new.zarr --set shape=40,40 --set n_channels=200",
    "report": "report fitted_big.zarr full/page",
    "demo": "demo full/demo --size 20",
}


@pytest.fixture
def big(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cube and a result of more than some kilobytes."""
    monkeypatch.chdir(tmp_path)
    data = np.random.default_rng(0).integers(0, 255, (40, 40, 50), dtype="u1")
    cube = make_cube(data, energy=np.linspace(1, 3, 50), energy_units="keV", signal="EDS")
    hsi.save(cube, "big.zarr")
    hsi.save(hsi.fit(cube, hsi.NMF(2, max_iter=1)), "fitted_big.zarr")
    return tmp_path


@pytest.mark.parametrize("command", FULL)
def test_a_full_disk_is_reported_and_no_partial_data_remain(big, full_disk, capsys, command):
    before = tree(big)
    assert "no space left on the disk" in refused(capsys, FULL[command].split(), status=1)
    assert {k: size for k, (size, _) in tree(big).items()} == {k: size for k, (size, _) in before.items()}


def test_a_full_disk_in_python(big, full_disk):
    before = tree(full_disk)
    with pytest.raises(OSError, match="the disk is full; the partly written data are removed") as caught:
        hsi.save(hsi.open_cube("big.zarr"), "full/new.zarr")
    assert caught.value.errno == errno.ENOSPC
    assert set(tree(full_disk)) == set(before)


def test_a_full_disk_after_a_fit_names_the_checkpoint(big, full_disk, capsys):
    words = "fit big.zarr full/new.zarr -k 2 --set max_iter=1 --checkpoint ck"
    said = refused(capsys, words.split(), status=1)
    assert "the state of the fit is in 'ck': type the same with --resume" in said
    assert main([*words.replace("full/", "").split(), "--resume", "--quiet"]) == 0
