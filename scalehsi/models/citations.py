"""The papers of a method, read from the section References of its docstring, and their BibTeX."""

from __future__ import annotations

import inspect
import re
import unicodedata
from typing import Final, NamedTuple

from scalehsi.fitting.model import Model

_SECTION: Final = re.compile(r"^References\n-+\n(.*?)(?=\n\n\w+\n-+\n|\Z)", re.DOTALL | re.MULTILINE)
_NEXT: Final = re.compile(r"(?<=[^\W_]|\))\.\s+(?=(?:[^.]|et al\.)*?\b(?:19|20)\d\d\b)(?=[A-Z])")
"""Between two papers: a full stop, before words of which a year is one."""
_PAPER: Final = re.compile(r"(?P<authors>.+?)\s(?P<year>(?:19|20)\d\d)\b,?\s*(?P<place>[^(]*)(?:\((?P<note>.*)\))?\.?$")


class Citation(NamedTuple):
    """One paper as a docstring names it.

    Attributes
    ----------
    authors : tuple of str
        Family names; "others" last where the docstring says "et al.".
    year : str
    doi : str
        Without an address; empty where the docstring has none.
    place : str
        Where it was published, when there is no DOI: a journal, or ``arXiv:...``.
    note : str
        What it is cited for.
    """

    authors: tuple[str, ...]
    year: str
    doi: str
    place: str
    note: str

    @property
    def key(self) -> str:
        """Its key in BibTeX: first author and year.

        Examples
        --------
        >>> Citation(("De la Pena", "others"), "2011", "", "", "").key
        'delapena2011'
        """
        plain = unicodedata.normalize("NFKD", self.authors[0]).encode("ascii", "ignore").decode().lower()
        return re.sub(r"[^a-z]", "", plain) + self.year

    def bibtex(self) -> str:
        """The entry of BibTeX. Title and journal are not in the docstring; reference managers add them by the DOI.

        Examples
        --------
        >>> print(Citation(("Winter",), "1999", "10.1117/12.366289", "", "").bibtex())
        @article{winter1999,
          author = {{Winter}},
          year = {1999},
          doi = {10.1117/12.366289},
        }
        """
        names = " and ".join(name if name == "others" else f"{{{name}}}" for name in self.authors)
        fields = {"author": names, "year": self.year, "doi": self.doi, "howpublished": self.place, "note": self.note}
        lines = [f"  {name} = {{{value}}}," for name, value in fields.items() if value]
        return "\n".join([f"@{'article' if self.doi else 'misc'}{{{self.key},", *lines, "}"])


def citations(model: type[Model]) -> list[Citation]:
    """Read the papers of a method from its docstring.

    Parameters
    ----------
    model : type
        The class of the method, as `scalehsi.models.catalogue.model_class` finds it.

    Returns
    -------
    list of Citation
        In the order of the docstring; empty without a section References.

    Examples
    --------
    >>> from scalehsi.models.catalogue import model_class
    >>> [(each.key, each.doi) for each in citations(model_class("nfindr"))]
    [('winter1999', '10.1117/12.366289')]
    """
    section = _SECTION.search(inspect.cleandoc(model.__doc__ or ""))
    if section is None:
        return []
    return [_citation(text) for text in _NEXT.split(" ".join(section[1].split()))]


def _citation(text: str) -> Citation:
    """Read one paper, such as ``Lee and Seung 1999, doi:10.1038/44565 (the rules)``."""
    found = _PAPER.match(text)
    if found is None:
        raise ValueError(f"{text!r} is no reference; write it as 'Lee and Seung 1999, doi:10.1038/44565 (what for)'")
    names = re.sub(r",? et al\.$", ", others", found["authors"])
    place = found["place"].strip(" .,")
    doi = place.removeprefix("doi:") if place.startswith("doi:") else ""
    return Citation(
        tuple(re.split(r", | and ", names)), found["year"], doi, "" if doi else place, (found["note"] or "").strip()
    )
