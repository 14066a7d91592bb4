"""Print what to cite: the program, and the papers of a method, for BibTeX.

Nothing is looked up. Title and journal are not part of the entries; reference managers add them by the DOI.

\b
scalehsi cite nmf >> papers.bib
"""

from __future__ import annotations

from typing import Annotated, Any, Final

from typer import Argument

import scalehsi
from scalehsi.cli.runner import command
from scalehsi.cli.session import Session
from scalehsi.models.catalogue import model_class
from scalehsi.models.citations import citations

PROGRAM: Final = """@software{{scalehsi,
  author = {{{{the scalehsi developers}}}},
  title = {{scalehsi: Dask-parallel unmixing and reconstruction of spectrum images}},
  version = {{{version}}},
}}"""


@command
def run(
    session: Session,
    model: Annotated[str | None, Argument(metavar="[MODEL]", help="A method; see scalehsi models.")] = None,
) -> dict[str, Any]:
    papers = citations(model_class(model)) if model else []
    entries = [PROGRAM.format(version=scalehsi.__version__), *(paper.bibtex() for paper in papers)]
    session.console.answer("\n\n".join(entries))
    shown = [{"key": paper.key, **paper._asdict()} for paper in papers]
    return {"model": model_class(model).__name__ if model else None, "papers": shown, "bibtex": entries}
