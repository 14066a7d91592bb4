"""Settings of Sphinx for the documentation: `make docs` builds it, without a network, into build/docs."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path
from types import ModuleType
from typing import Any

from sphinx.errors import ExtensionError
from sphinx.util import logging

import scalehsi

HERE = Path(__file__).parent
EXAMPLES = HERE.parent / "examples"
FIGURES = HERE / "gallery"

project = "scalehsi"
author = "the scalehsi developers"
project_copyright = "2026, the scalehsi developers"
version = release = scalehsi.__version__

extensions = ["myst_parser", "numpydoc", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx_design"]
exclude_patterns = ["gallery/README.md"]
templates_path = ["_templates"]

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
myst_links_external_new_tab = True

# Docstrings: a word in single backquotes is a name of Python where there is one, and else only code.
default_role = "py:obj"
autosummary_generate = True
autodoc_typehints = "none"
autodoc_member_order = "bysource"
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False

html_theme = "pydata_sphinx_theme"
html_title = "scalehsi"
html_static_path = ["_static"]
html_css_files = ["scalehsi.css"]
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "navbar_align": "left",
    "show_toc_level": 2,
    "navigation_with_keys": False,
    "show_prev_next": False,
    "footer_start": ["copyright"],
    "footer_end": [],
    "secondary_sidebar_items": ["page-toc"],
    "header_links_before_dropdown": 7,
}
html_sidebars = {"*": [], "gallery/index": []}


def write_gallery(_: Any) -> None:
    """Write a page for each example, and the page that shows them all, from examples/ and docs/gallery/."""
    FIGURES.mkdir(exist_ok=True)
    stems = [file.stem for file in sorted(EXAMPLES.glob("[0-9]*.py"))]
    for page in FIGURES.glob("*.md"):
        if page.stem not in {*stems, "README"}:
            page.unlink()
    cards = []
    for stem in stems:
        title, rest = _words(EXAMPLES / f"{stem}.py")
        pictures = sorted(FIGURES.glob(f"{stem}*.png"))
        shown = "\n".join(f"```{{image}} {each.name}\n:alt: Figure of the example: {title}\n```\n" for each in pictures)
        code = f"```{{literalinclude}} ../../examples/{stem}.py\n:language: python\n:caption: examples/{stem}.py\n```\n"
        _write(FIGURES / f"{stem}.md", f"# {title}\n\n{rest}\n\n{shown}\n{code}")
        picture = f":img-top: {pictures[0].name}\n:img-alt: {title}\n" if pictures else ""
        cards.append(f":::{{grid-item-card}} {title}\n:link: {stem}\n:link-type: doc\n{picture}:::\n")
    grid = "::::{grid} 1 2 2 3\n:gutter: 3\n\n" + "\n".join(cards) + "::::\n"
    toc = "```{toctree}\n:hidden:\n\n" + "\n".join(stems) + "\n```\n"
    intro = (
        "# Gallery\n\nEach example is a script of its own: `python examples/01_unmix_edx.py`. The tests run all of "
        "them, and `make gallery` draws these figures again.\n\n"
    )
    _write(FIGURES / "index.md", intro + grid + "\n" + toc)


def _words(example: Path) -> tuple[str, str]:
    """Title of an example, and what its docstring says below it."""
    title, _, rest = (ast.get_docstring(ast.parse(example.read_text("utf-8"))) or example.stem).partition("\n")
    return title.rstrip("."), rest.partition("Run with:")[0].replace("``", "`").strip()


def _write(page: Path, text: str) -> None:
    if not page.is_file() or page.read_text("utf-8") != text:
        page.write_text(text, "utf-8")


def public_names() -> list[str]:
    """The names of `scalehsi.__all__`, and those of its public modules."""
    names = []
    for name in scalehsi.__all__:
        names.append(name)
        value = getattr(scalehsi, name)
        if isinstance(value, ModuleType):
            names += [f"{name}.{each}" for each in value.__all__ if f"{name}.{each}" != "report.report"]
    return names


def write_further_names(_: Any) -> None:
    """Write the page of the names that api/index.md does not list, so that a new name has a page at once."""
    listed = re.findall(r"^   ([\w.]+)$", (HERE / "api" / "index.md").read_text("utf-8"), re.MULTILINE)
    rest = [name for name in public_names() if name not in listed]
    table = [
        ".. currentmodule:: scalehsi",
        ".. autosummary::",
        "   :toctree: generated",
        "",
        *(f"   {n}" for n in rest),
    ]
    block = "\n".join(["```{eval-rst}", *table, "```"]) if rest else "There are none: all are in [](index.md)."
    _write(HERE / "api" / "more.md", f"# Further names\n\nNames that are new, and not sorted by task yet.\n\n{block}\n")


def count_pages(app: Any, error: Exception | None) -> None:
    """Refuse a site in which a public name has no page."""
    if error is None and app.builder.format == "html":
        pages = Path(app.outdir, "api", "generated")
        missing = [name for name in public_names() if not (pages / f"scalehsi.{name}.html").is_file()]
        if missing:
            raise ExtensionError(f"no page for {', '.join(missing)}; add them to docs/api/index.md")
        logging.getLogger(__name__).info("%d public names, each with a page", len(public_names()))


def settings_of_class(*given: Any) -> tuple[str, str] | None:
    """The settings of a method as its signature; Sphinx alone would show the arguments of ``Model.__new__``."""
    _, what, _, value, *_ = given
    if what != "class" or issubclass(value, Exception):
        return None
    own = inspect.signature(value)
    bare = [each.replace(annotation=inspect.Parameter.empty) for each in own.parameters.values()]
    return str(own.replace(parameters=bare, return_annotation=inspect.Signature.empty)), ""


def setup(app: Any) -> None:
    """Connect what is done before Sphinx reads pages and docstrings."""
    app.connect("builder-inited", write_gallery, priority=100)  # before autosummary looks for names
    app.connect("builder-inited", write_further_names, priority=100)
    app.connect("build-finished", count_pages)
    app.connect("autodoc-process-signature", settings_of_class)
