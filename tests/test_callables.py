"""Modules that can be called like a function."""

from __future__ import annotations

import sys
import types

import pytest

from scalehsi.callables import make_callable


def test_a_module_passes_calls_on_to_its_function(monkeypatch: pytest.MonkeyPatch):
    module = types.ModuleType("some.place.double")
    module.double = lambda value, *, plus=0: 2 * value + plus
    monkeypatch.setitem(sys.modules, module.__name__, module)
    make_callable(module.__name__)
    assert module(3, plus=1) == 7
    assert module.double(3) == 6
