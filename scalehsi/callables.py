"""Let a module be called like its main function, as in ``scalehsi.quantify(...)`` and ``scalehsi.quantify.NAME``."""

from __future__ import annotations

import sys
import types
from typing import Any


class _CallableModule(types.ModuleType):
    """A module that calls its function of the same name when it is called."""

    def __call__(self, *args: Any, **options: Any) -> Any:
        return getattr(self, self.__name__.rpartition(".")[2])(*args, **options)


def make_callable(module: str) -> None:
    """Let a module be called as its function of the same name.

    A public name such as ``scalehsi.report`` is a function, but importing the module of that name would replace it by
    the module. With this, both can be called.

    Parameters
    ----------
    module : str
        Its ``__name__``; the function must exist when the module is called.

    Examples
    --------
    >>> import scalehsi.report
    >>> callable(sys.modules["scalehsi.report"])
    True
    """
    sys.modules[module].__class__ = _CallableModule
