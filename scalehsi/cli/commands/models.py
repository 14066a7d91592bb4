"""List the methods, or the settings of one.

With NAME: the settings that scalehsi fit takes with --set, each with its type or allowed values, and its default.

\b
scalehsi models
scalehsi models nmf
scalehsi models nmf --json
"""

from __future__ import annotations

import dataclasses
import re
from typing import Annotated, Any

from typer import Argument

from scalehsi.cli.runner import command
from scalehsi.cli.session import Session
from scalehsi.models.catalogue import CATALOGUE, model_class, settings_of_model, summary


@command
def run(
    session: Session,
    name: Annotated[str | None, Argument(metavar="[NAME]", help="A method, such as nmf.")] = None,
) -> dict[str, Any]:
    if name is None:
        found = [{"name": each, "text": summary(model_class(each))} for each in CATALOGUE]
        rows = [[each["name"], _flowing(each["text"])] for each in found]
        session.console.table(["Method", "What it does"], rows, text=True)
        return {"models": found}
    model = model_class(name)
    settings = settings_of_model(model)
    rows = []
    for each in settings:
        default = "required" if each.required else str(each.default)
        rows.append([each.name, re.sub(r'[{}"]', "", each.type), default, _flowing(each.text)])
    session.console.answer(_flowing(summary(model)))
    session.console.answer()
    session.console.table(["Setting", "Type or allowed values", "Default", "What it does"], rows, text=True)
    return {"model": model.name, "settings": [dataclasses.asdict(each) for each in settings]}


def _flowing(text: str) -> str:
    """Text of a docstring without its backticks, and without line ends inside of paragraphs."""
    return re.sub(r"(?<!\n)\n(?!\n|\s*- )\s*", " ", text.replace("`", ""))
