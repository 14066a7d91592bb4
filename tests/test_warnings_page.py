"""The page about warnings: every code of the package is on it, and no other."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import scalehsi
from scalehsi.fitting.judge.order import CODES
from tests.paths import ROOT

PAGE = ROOT / "docs" / "warnings.md"


def written_codes() -> set[str]:
    """The codes that some file of the package gives to a warning."""
    found = set()
    for file in Path(scalehsi.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "ResultWarning":
                given = [*node.args[:1], *(word.value for word in node.keywords if word.arg == "code")]
                found |= {code.value for code in given if isinstance(code, ast.Constant)}
    return found


def test_the_page_has_every_code_once_and_no_other() -> None:
    on_page = re.findall(r"^### `(\w+)`$", PAGE.read_text("utf-8"), re.MULTILINE)
    assert len(on_page) == len(set(on_page))
    assert set(on_page) == {*CODES, *written_codes()}


def test_each_code_is_explained_and_has_something_to_do() -> None:
    sections = re.split(r"^### .*$", PAGE.read_text("utf-8"), flags=re.MULTILINE)[1:]
    assert len(sections) > 20
    for section in sections:
        meaning, _, ways = section.partition("*Do:*")
        assert len(meaning.split()) > 4
        assert ways.split()


def test_codes_of_fits_are_in_the_order_of_the_package() -> None:
    on_page = re.findall(r"^### `(\w+)`$", PAGE.read_text("utf-8"), re.MULTILINE)
    assert [code for code in on_page if code in CODES] == list(CODES)
