"""A command with its processes, which are found by a mark in their environment."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import psutil

MARK: Final = "SCALEHSI_CHAOS"
"""Environment variable by which the processes of a run are found."""


class Started:
    """A process and those that it starts."""

    def __init__(self, words: Sequence[str], folder: Path) -> None:
        self.mark = uuid.uuid4().hex
        (folder / "tmp").mkdir(exist_ok=True)
        self.log = tempfile.TemporaryFile("w+")  # a pipe would stay open in orphans
        self.process = subprocess.Popen(
            words,
            cwd=folder,
            stdout=self.log,
            stderr=self.log,
            env={**os.environ, MARK: self.mark, "TMPDIR": str(folder / "tmp")},
            process_group=0,
        )

    def send_to_all(self, number: signal.Signals) -> None:
        """What a terminal does at a Ctrl-C."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, number)

    def wait_for_end(self, seconds: float) -> tuple[int | None, str]:
        try:
            status: int | None = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            status = None
            self.process.kill()
            self.process.wait()
        self.log.seek(0)
        text = self.log.read()
        self.log.close()
        return status, text

    def wait_for_words(self, words: str, seconds: float) -> None:
        """Wait until the command has said these words, or has ended."""
        end = time.monotonic() + seconds
        while self.process.poll() is None and time.monotonic() < end:
            if words.encode() in os.pread(self.log.fileno(), 4096, 0):
                return
            time.sleep(0.05)

    def processes(self) -> Iterator[psutil.Process]:
        """The other processes of this run."""
        for each in psutil.process_iter():
            try:
                if each.pid != self.process.pid and each.environ().get(MARK) == self.mark:
                    if each.status() != psutil.STATUS_ZOMBIE:
                        yield each
            except psutil.Error:
                continue

    def workers(self) -> Iterator[psutil.Process]:
        for each in self.processes():
            try:
                if any("spawn_main" in word for word in each.cmdline()):
                    yield each
            except psutil.Error:
                continue

    def left_after(self, seconds: float) -> list[str]:
        """Processes that are still there after this time; they are killed."""
        end = time.monotonic() + seconds
        while left := list(self.processes()):
            if time.monotonic() > end:
                break
            time.sleep(0.05)
        names = []
        for each in left:
            names.append(" ".join(each.cmdline())[:200])
            each.kill()
        return names
