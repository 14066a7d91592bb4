"""What the commands do; `scalehsi.cli` says how they are called.

The names below are loaded when they are first used, so that ``scalehsi --help`` answers at once.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scalehsi.commands.composition import quantify
    from scalehsi.commands.demonstrate import demo
    from scalehsi.commands.fitting import fit, report
    from scalehsi.commands.gaussian import gp
    from scalehsi.commands.look import compare, info, plan
    from scalehsi.commands.make import convert, prepare, project, reconstruct, simulate
    from scalehsi.commands.session import Session, settings_of

__all__ = [
    "Session",
    "compare",
    "convert",
    "demo",
    "fit",
    "gp",
    "info",
    "plan",
    "prepare",
    "project",
    "quantify",
    "reconstruct",
    "report",
    "settings_of",
    "simulate",
]

_HOMES = {
    "Session": "session",
    "compare": "look",
    "convert": "make",
    "demo": "demonstrate",
    "fit": "fitting",
    "gp": "gaussian",
    "info": "look",
    "plan": "look",
    "prepare": "make",
    "project": "make",
    "quantify": "composition",
    "reconstruct": "make",
    "report": "fitting",
    "settings_of": "session",
    "simulate": "make",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'scalehsi.commands' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"scalehsi.commands.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
