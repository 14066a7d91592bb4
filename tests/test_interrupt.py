"""Signals: what is raised, what waits, and what a second one does."""

# ruff: noqa: PT012 - a signal needs a block

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from zipfile import BadZipFile

import pytest

from scalehsi.interrupt import SIGNALS, Stop, check, stoppable, uninterrupted


@pytest.fixture(autouse=True)
def restored() -> None:
    # A shell starts programs in the background with SIGINT ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    handlers = [signal.getsignal(number) for number in SIGNALS]
    yield
    assert [signal.getsignal(number) for number in SIGNALS] == handlers
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_raises(number: int) -> None:
    with pytest.raises(Stop, match=signal.Signals(number).name), stoppable():
        signal.raise_signal(number)


def test_an_inner_block_raises_its_own_error() -> None:
    with pytest.raises(KeyboardInterrupt, match="after"), stoppable(KeyboardInterrupt):
        try:
            with stoppable():
                signal.raise_signal(signal.SIGTERM)
        except Stop:
            raise KeyboardInterrupt("after") from None


def test_an_exception_that_replaces_the_stop_is_replaced_in_turn() -> None:
    with pytest.raises(Stop, match="SIGINT") as caught, stoppable():
        try:
            signal.raise_signal(signal.SIGINT)
        finally:
            raise BadZipFile("unfinished")
    assert isinstance(caught.value.__cause__, BadZipFile)


def test_a_stop_that_library_code_swallows_is_raised_again() -> None:
    def swallow() -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        except BaseException:
            pass

    with pytest.raises(Stop, match="SIGINT"), stoppable():
        swallow()
    done = []
    with pytest.raises(Stop, match="SIGINT"), stoppable():
        swallow()
        check()
        done.append(1)
    assert not done


def test_a_stop_in_a_finaliser_is_not_lost() -> None:
    class Finalised:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(Stop, match="SIGINT"), stoppable():
        made = Finalised()
        del made
        end = time.monotonic() + 10
        while time.monotonic() < end:
            time.sleep(0.01)


def test_a_held_signal_waits_for_the_end_of_the_block() -> None:
    done = []
    with pytest.raises(Stop, match="SIGTERM"), stoppable():
        with uninterrupted():
            with uninterrupted():
                signal.raise_signal(signal.SIGTERM)
                done.append(1)
            done.append(2)
        done.append(3)
    assert done == [1, 2]
    with pytest.raises(KeyboardInterrupt, match=r"^$"), uninterrupted():
        signal.raise_signal(signal.SIGINT)
        done.append(4)
    assert done[-1] == 4


def test_the_second_signal_does_what_it_did_before() -> None:
    with pytest.raises(KeyboardInterrupt, match=r"^$"), stoppable():
        with uninterrupted():
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)


COMMAND = """
import os, signal, sys, threading, time
from scalehsi.interrupt import own_process, stoppable, end_with, uninterrupted
own_process()
print("ready", flush=True)
{body}
"""


def ended(body: str, *numbers: int, folder: Path) -> tuple[int, str]:
    """How a process with this code ends after these signals, each sent when it prints a line."""
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND.format(body=body)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
    )
    assert process.stdout is not None
    for number in numbers:
        process.stdout.readline()
        process.send_signal(number)
    _, err = process.communicate(timeout=60)
    return process.returncode, err


@pytest.mark.parametrize("number", SIGNALS)
def test_a_command_that_starts_ends_at_once(number: int, tmp_path: Path) -> None:
    status, err = ended("[time.sleep(0.05) for _ in range(1000)]", number, folder=tmp_path)
    assert (status, err) == (130, f"stopped by {signal.Signals(number).name}\n")


def test_a_second_signal_ends_a_command_at_once(tmp_path: Path) -> None:
    body = """
with stoppable(KeyboardInterrupt):
    try:
        print("running", flush=True)
        [time.sleep(0.05) for _ in range(1000)]
    finally:
        print("cleaning up", flush=True)
        [time.sleep(0.05) for _ in range(1000)]
"""
    status, err = ended(body, 0, signal.SIGINT, signal.SIGTERM, folder=tmp_path)
    first, second = err.splitlines()
    assert status == 130
    assert first == "stopping: waits for what is being written and ends; a second Ctrl-C stops at once"
    assert second == "stopped at once"


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_while_the_interpreter_shuts_down_changes_nothing(number: int, tmp_path: Path) -> None:
    # Short sleeps: a signal that arrives just before a sleep is answered after it.
    ending = "lambda: (print('ending', flush=True), [time.sleep(0.05) for _ in range(1000)])"
    late = f"threading._register_atexit({ending})"
    status, err = ended(f"end_with(0); {late}", 0, number, folder=tmp_path)
    assert (status, err) == (0, "")
    body = f"import atexit; atexit.register({ending}); end_with(2)"
    assert ended(body, 0, number, folder=tmp_path) == (2, "")


def test_a_library_keeps_the_handlers_of_its_program(tmp_path: Path) -> None:
    code = "import signal; import scalehsi; assert signal.getsignal(signal.SIGINT) is signal.default_int_handler"
    subprocess.run([sys.executable, "-c", code, "scalehsi"], check=True, cwd=tmp_path, env=dict(os.environ))
