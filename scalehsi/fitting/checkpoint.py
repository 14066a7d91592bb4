"""The state of a fit on disk: one file of plain arrays, replaced in one step, safe to open from a stranger."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from zipfile import BadZipFile

import numpy as np
import xarray as xr

from scalehsi.fitting.model import Model, Sources, State
from scalehsi.schema import ENERGY, InputError

FILE: Final = "state.npz"
LOOSE: Final = ("max_iter", "tol")
"""Settings that may change between a run and its resumption: they say when to stop, not what is computed."""


@dataclass(frozen=True)
class Saved:
    """A state as it was after some iteration.

    ``done`` says that the model asked for no more steps, ``rejected`` how many steps in a row it had rejected.
    """

    state: State
    objective: list[float]
    done: bool = False
    rejected: int = 0


class Checkpoint:
    """A folder that holds the last state of one fit.

    Parameters
    ----------
    folder : path
    model, seed, given
        What the fit is of; a state of another fit is refused.
    """

    def __init__(self, folder: str | os.PathLike[str], *, model: Model, seed: int, given: Sources) -> None:
        self.folder = Path(folder)
        self.identity = _identity(model, seed, given)

    @property
    def path(self) -> Path:
        return self.folder / FILE

    def exists(self) -> bool:
        return self.path.is_file()

    def prepare(self, *, resume: bool) -> Saved | None:
        """Give the saved state to go on from, or None for a fresh start.

        Raises
        ------
        InputError
            When a state is there and ``resume`` is not set, when it is of another fit, and when it cannot be read.
        """
        if self.folder.exists() and not self.folder.is_dir():
            raise InputError(f"checkpoint={str(self.folder)!r} is a file; give the name of a folder")
        if not self.exists():
            return None
        if not resume:
            raise InputError(
                f"checkpoint={str(self.folder)!r} holds the state of an earlier fit; go on from it with resume=True "
                "(--resume), or give another folder"
            )
        return self.read()

    def write(self, saved: Saved) -> None:
        """Write beside, then rename: a kill at any moment leaves the old state or the new one."""
        self.folder.mkdir(parents=True, exist_ok=True)
        meta = {"identity": self.identity, "done": saved.done, "rejected": saved.rejected}
        temporary = self.folder / f".{FILE}.{os.getpid()}.partial"
        try:
            with temporary.open("wb") as file:
                np.savez(
                    file,
                    allow_pickle=False,
                    **{f"state/{k}": v for k, v in saved.state.items()},
                    objective=np.asarray(saved.objective, dtype=np.float64),
                    meta=np.frombuffer(json.dumps(meta).encode(), dtype=np.uint8),
                )
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self.path)
        finally:
            temporary.unlink(missing_ok=True)

    def read(self) -> Saved:
        try:
            with self.path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
                meta = json.loads(file["meta"].tobytes().decode())
                state = {k.removeprefix("state/"): file[k] for k in file.files if k.startswith("state/")}
                objective = [float(v) for v in file["objective"]]
        except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
            raise InputError(
                f"the checkpoint {str(self.path)!r} cannot be read ({error}); remove it to start anew"
            ) from error
        for what, now in self.identity.items():
            then = meta["identity"].get(what)
            if then != now:
                raise InputError(
                    f"the checkpoint {str(self.folder)!r} is of another fit: its {what} is {then}, this one's "
                    f"is {now}; use the same settings, or another folder"
                )
        return Saved(state, objective, bool(meta["done"]), int(meta["rejected"]))


def _identity(model: Model, seed: int, given: Sources) -> dict[str, Any]:
    settings = {k: v for k, v in model.to_settings().items() if k not in LOOSE}
    plain = {"model": model.name, "settings": settings, "seed": int(seed), **_looks(given.cube)}
    for name, data in given.beside.items():
        plain |= {f"{what} of {name!r}": value for what, value in _looks(data).items()}
    found: dict[str, Any] = json.loads(json.dumps(plain))
    return found


def _looks(data: xr.DataArray) -> dict[str, Any]:
    """What tells one cube, or image, from another without reading it."""
    looks: dict[str, Any] = {"shape": list(data.shape), "dtype": str(data.dtype)}
    if ENERGY in data.coords:
        energy = np.asarray(data[ENERGY].values, dtype=np.float64)
        looks["energy axis"] = [float(energy[0]), float(energy[-1])]
    return looks


@dataclass
class _Saver:
    """Decides when the last state goes to disk, and writes what is pending when the process is told to stop."""

    store: Checkpoint | None
    every: int
    minutes: float | None
    iteration: int = 0
    pending: Saved | None = None
    written: float = 0.0

    def __post_init__(self) -> None:
        if self.every < 1:
            raise InputError(f"checkpoint_every is a whole number of at least 1, got {self.every}")
        self.written = time.monotonic()

    def keep(self, saved: Saved, *, final: bool) -> None:
        self.iteration = len(saved.objective)
        self.pending = saved
        due = self.iteration % self.every == 0
        if self.minutes is not None:
            due = time.monotonic() - self.written >= 60 * self.minutes
        if final or due:
            self.flush()

    def flush(self) -> str | None:
        """Write the pending state; give the folder's name if it holds one."""
        if self.store is None:
            return None
        if self.pending is not None:
            self.store.write(self.pending)
            self.pending = None
            self.written = time.monotonic()
        return str(self.store.folder) if self.store.exists() else None
