"""Modules that are called: one name for a function and for what stands beside it."""

from __future__ import annotations

import sys
import types
from typing import Any


class _CallableModule(types.ModuleType):
    """A module that passes calls on to its function of the same name."""

    def __call__(self, *args: Any, **options: Any) -> Any:
        return getattr(self, self.__name__.rpartition(".")[2])(*args, **options)


def make_callable(module: str) -> None:
    """Let a module be called as the function in it that has the module's own name.

    A public name such as ``scalehsi.report`` is a function, but importing the module of that name first would put the
    module in its place; with this, either can be called.

    Parameters
    ----------
    module : str
        Its ``__name__``; the function must be there when the module is called.

    Examples
    --------
    >>> import scalehsi.report
    >>> callable(sys.modules["scalehsi.report"])
    True
    """
    sys.modules[module].__class__ = _CallableModule
