"""The command cite: BibTeX of the program and of the papers of a method."""

from __future__ import annotations

import re
import tomllib

import pytest

import scalehsi as hsi
from scalehsi.models.catalogue import CATALOGUE, model_class
from scalehsi.models.citations import citations
from tests.paths import ROOT


@pytest.mark.parametrize("name", CATALOGUE)
def test_every_doi_of_the_section_is_in_one_entry(name: str, answer) -> None:
    section = re.search(r"References\n *-+\n(.*?)\n *\n", model_class(name).__doc__, re.DOTALL)
    assert section, "a method names its paper"
    dois = [doi.rstrip(".,") for doi in re.findall(r"doi:(\S+)", section[1])]
    years = re.findall(r"\b(?:19|20)\d\d\b(?=,| \()", re.sub(r"\s+", " ", section[1]))
    found = answer("cite", name)
    assert [each["doi"] for each in found["papers"] if each["doi"]] == dois
    assert [each["year"] for each in found["papers"]] == years
    assert all(each.count("{") == each.count("}") for each in found["bibtex"])


def test_authors_years_and_notes() -> None:
    lee, *_, muto = citations(hsi.NMF)
    assert (lee.key, lee.authors, lee.doi) == ("lee1999", ("Lee", "Seung"), "10.1038/44565")
    assert (muto.note, muto.year) == ("review", "2020")
    assert citations(hsi.ICA)[1].bibtex().splitlines()[1] == "  author = {{De la Pena} and others},"
    assert citations(hsi.PSNMF)[1].place == "J. Mach. Learn. Res. 3, 993"


def test_without_a_method_the_program_alone(run) -> None:
    status, out, _ = run("cite")
    assert status == 0
    assert out.startswith("@software{scalehsi,")
    assert f"version = {{{hsi.__version__}}}" in out
    assert out.count("@") == 1


def test_a_wrong_name_is_refused(run) -> None:
    status, _, err = run("cite", "nmff")
    assert status == 2
    assert "did you mean 'nmf'" in err


def test_the_citation_file_has_the_version_of_the_next_release() -> None:
    text = (ROOT / "CITATION.cff").read_text("utf-8")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    found = re.search(r"^version: (\S+)$", text, re.MULTILINE)
    assert found
    assert project["tool"]["setuptools_scm"]["fallback_version"] == f"{found[1]}.dev0"
    assert f"## {found[1]} " in (ROOT / "CHANGELOG.md").read_text("utf-8")
