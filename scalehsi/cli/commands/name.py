"""Name the components of a result, once for its report, figures and exports.

\b
scalehsi name result.zarr matrix "Fe oxide" film
"""

from __future__ import annotations

from typing import Annotated, Any

from typer import Argument

import scalehsi as hsi
from scalehsi.cli.arguments import Result
from scalehsi.cli.runner import command
from scalehsi.cli.session import Session


@command
def run(
    session: Session,
    result: Result,
    names: Annotated[list[str], Argument(metavar="NAME...", help="A name for each component, in their order.")],
) -> dict[str, Any]:
    place = session.path(result)
    named = hsi.name_components(hsi.open_result(place), names)
    with session.connected(), session.computing(f"writing {result.name}"):
        hsi.save(named, place, overwrite=True)
    session.console.say(f"{result}: {', '.join(f'{k} {name}' for k, name in enumerate(names, start=1))}")
    return {"result": str(result), "components": names}
