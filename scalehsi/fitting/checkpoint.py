"""Checkpoints: the state of a fit on disk, one file of plain arrays, safe to open even from a stranger."""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import xarray as xr

from scalehsi.fitting.model import Inputs, Model, State
from scalehsi.fitting.turning import Path as TurnPath
from scalehsi.fitting.turning import no_path
from scalehsi.interrupt import uninterrupted
from scalehsi.io.archive import read_archive
from scalehsi.schema import ENERGY, InputError

log = logging.getLogger("scalehsi")

FILE: Final = "state.npz"
LOCK: Final = ".lock"
MOST_ITERATIONS: Final = 10**6
FREE_SETTINGS: Final = ("max_iter", "tol")
"""Settings that may change before a resume: they say when to stop, not what is computed."""


@dataclass(frozen=True)
class Saved:
    """The state after an iteration.

    Attributes
    ----------
    state : State
    objective : list of float
        After each iteration.
    done : bool
        True when the model asked for no more steps.
    rejected : int
        Rejected steps in a row.
    inner : list of dict
        How the inner fits ended, see `scalehsi.fitting.loop.fit_inner`.
    path : array, shape (n, K, E)
        Endmembers of the last iterations, see `scalehsi.fitting.turning`; empty in checkpoints of earlier versions.
    """

    state: State
    objective: list[float]
    done: bool = False
    rejected: int = 0
    inner: list[dict[str, Any]] = field(default_factory=list)
    path: TurnPath = field(default_factory=no_path)
    fingerprints: dict[str, str] = field(default_factory=dict)
    """Of the values of each input, by name; empty in checkpoints of earlier versions."""


class Checkpoint:
    """A folder that holds the last state of one fit.

    Parameters
    ----------
    folder : path
    model : Model
    seed : int
    inputs : Inputs
        With model and seed they identify the fit; the state of another fit is refused.
    """

    def __init__(self, folder: str | os.PathLike[str], *, model: Model, seed: int, inputs: Inputs) -> None:
        self.folder = Path(folder)
        self.identity = _identity(model, seed, inputs)
        self.fingerprints: Callable[[], dict[str, str]] = dict
        self._lock: int | None = None

    @property
    def path(self) -> Path:
        return self.folder / FILE

    def exists(self) -> bool:
        return self.path.is_file()

    def prepare(self, *, resume: bool) -> Saved | None:
        """Return the saved state to resume from, or None for a fresh start.

        Raises
        ------
        InputError
            When a state is there and ``resume`` is not set, when it is of another fit, and when it cannot be read.
        """
        if self.folder.exists() and not self.folder.is_dir():
            raise InputError(f"checkpoint={str(self.folder)!r} is a file; give the name of a folder")
        self._take()
        if not self.exists():
            return None
        if not resume:
            self.release()
            raise InputError(
                f"checkpoint={str(self.folder)!r} holds the state of an earlier fit; resume it with resume=True "
                "(--resume), or give another folder"
            )
        try:
            return self.read()
        except BaseException:
            self.release()
            raise

    def _take(self) -> None:
        """Lock the folder for this process: two fits would overwrite each other's state. The lock ends with its owner.

        Temporary files of a killed owner are removed.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        for file in (self.folder / LOCK, self.path):
            if file.is_symlink() or (file.exists() and not file.is_file()):
                raise InputError(f"{str(file)!r} is no file of a checkpoint; remove it, or give another folder")
        self._lock = os.open(self.folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)  # alone: the file is that of the other fit
            self._lock = None
            raise InputError(
                f"checkpoint={str(self.folder)!r} is in use by another fit; wait for its end, or give another folder"
            ) from None
        except OSError:
            log.info("the file system of %s has no locks", self.folder)
        for left in self.folder.glob(f".{FILE}.*.partial"):
            left.unlink(missing_ok=True)

    def release(self) -> None:
        """Let other processes use the folder; it stays only if it holds a state, or anything else."""
        if self._lock is None:
            return
        os.close(self._lock)
        self._lock = None
        if not self.exists():
            (self.folder / LOCK).unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                self.folder.rmdir()

    def write(self, saved: Saved) -> None:
        """Write a temporary file, then rename it: a kill at any moment leaves the old state or the new one."""
        self.folder.mkdir(parents=True, exist_ok=True)
        meta = {"identity": self.identity, "done": saved.done, "rejected": saved.rejected, "inner": saved.inner}
        meta["fingerprints"] = {**saved.fingerprints, **self.fingerprints()}
        temporary = self.folder / f".{FILE}.{os.getpid()}-{threading.get_ident()}-{secrets.token_hex(4)}.partial"
        # A signal's exception inside numpy's writer would be replaced by that of an unfinished zip file.
        with uninterrupted():
            self._write(temporary, saved, meta)

    def _write(self, temporary: Path, saved: Saved, meta: dict[str, Any]) -> None:
        """Write the state to a temporary file, and rename it. meta: what JSON holds."""
        try:
            with temporary.open("wb") as file:
                np.savez(
                    file,
                    allow_pickle=False,
                    **{f"state/{k}": v for k, v in saved.state.items()},
                    objective=np.asarray(saved.objective, dtype=np.float64),
                    path=saved.path,
                    meta=np.frombuffer(json.dumps(meta).encode(), dtype=np.uint8),
                )
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self.path)
        finally:
            temporary.unlink(missing_ok=True)

    def read(self) -> Saved:
        """The state on disk; an `InputError` when it cannot be read or is of another fit."""
        try:
            arrays = read_archive(self.path)
            meta = json.loads(arrays["meta"].tobytes().decode())
            state = {k.removeprefix("state/"): v for k, v in arrays.items() if k.startswith("state/")}
            if arrays["objective"].size > MOST_ITERATIONS:
                raise ValueError(f"it is of {arrays['objective'].size:,} iterations")
            objective = [float(v) for v in arrays["objective"]]
            path = arrays.get("path", no_path())
            then = {str(k): v for k, v in meta["identity"].items()}
            flags = bool(meta["done"]), int(meta["rejected"]), [dict(each) for each in meta.get("inner", [])]
            fingerprints = {str(k): str(v) for k, v in meta.get("fingerprints", {}).items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            reason = (str(error).splitlines() or [""])[0][:200] or type(error).__name__
            raise InputError(
                f"the checkpoint {str(self.path)!r} cannot be read ({reason}); remove it to start again"
            ) from error
        for what, now in self.identity.items():
            if then.get(what) != now:
                other = str(then.get(what))[:500]
                raise InputError(
                    f"the checkpoint {str(self.folder)!r} is of another fit: its {what} is {other}, this one's "
                    f"is {now}; use the same settings, or another folder"
                )
        return Saved(state, objective, *flags, path, fingerprints)


def _identity(model: Model, seed: int, inputs: Inputs) -> dict[str, Any]:
    """Model, settings, seed and the metadata of the inputs as plain values."""
    settings = {k: v for k, v in model.to_settings().items() if k not in FREE_SETTINGS}
    plain = {"model": model.name, "settings": settings, "seed": int(seed), **_metadata(inputs.cube)}
    for name, data in inputs.others.items():
        plain |= {f"{what} of {name!r}": value for what, value in _metadata(data).items()}
    found: dict[str, Any] = json.loads(json.dumps(plain))
    return found


def _metadata(data: xr.DataArray) -> dict[str, Any]:
    """What distinguishes one cube, or image, from another without reading it."""
    found: dict[str, Any] = {"shape": list(data.shape), "dtype": str(data.dtype)}
    if ENERGY in data.coords:
        energy = np.asarray(data[ENERGY].values, dtype=np.float64)
        found["energy axis"] = [float(energy[0]), float(energy[-1])]
    return found


@dataclass
class Saver:
    """Decides when the last state is written, and writes the pending one when the process has to stop.

    Attributes
    ----------
    store : Checkpoint, optional
        Nothing is written without it.
    every : int
        Iterations between two writes.
    minutes : float, optional
        Minutes between two writes, in place of ``every``.
    iteration : int
        Finished iterations.
    """

    store: Checkpoint | None = None
    every: int = 1
    minutes: float | None = None
    iteration: int = 0
    pending: Saved | None = None
    written: float = 0.0

    def __post_init__(self) -> None:
        if self.every < 1:
            raise InputError(f"checkpoint_every is a whole number of at least 1, got {self.every}")
        self.written = time.monotonic()

    def keep(self, saved: Saved, *, final: bool) -> None:
        """Take the state after an iteration; ``final`` ones are written at once."""
        self.iteration = len(saved.objective)
        self.pending = saved
        due = self.iteration % self.every == 0
        if self.minutes is not None:
            due = time.monotonic() - self.written >= 60 * self.minutes
        if final or due:
            self.flush()

    def flush(self) -> str | None:
        """Write the pending state; return the folder's name if it holds one."""
        if self.store is None:
            return None
        if self.pending is not None:
            self.store.write(self.pending)
            self.pending = None
            self.written = time.monotonic()
        return str(self.store.folder) if self.store.exists() else None
