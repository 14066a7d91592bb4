"""Write spectra, maps or a figure of a result for other programs; the ending of OUT says which.

\b
.csv              a table of the spectra, with units
.msa              the EMSA/MAS format of EELS and EDX programs, a file for each spectrum
.tif              the maps, as a stack of ImageJ with names and scale
.pdf .svg .png    a figure of maps and spectra, with names and scale bars

\b
scalehsi export result.zarr spectra.csv
scalehsi export result.zarr figure.pdf --component matrix --component 3
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option

import scalehsi as hsi
from scalehsi.cli.arguments import Overwrite, Result
from scalehsi.cli.runner import command
from scalehsi.cli.session import Session


@command
def run(
    session: Session,
    result: Result,
    out: Annotated[Path, Argument(metavar="OUT", help="The file to write, such as spectra.csv.")],
    *,
    components: Annotated[
        list[str] | None,
        Option("--component", metavar="N|NAME", help="A component, counted from 1, or its name; may be repeated."),
    ] = None,
    overwrite: Overwrite = False,
) -> dict[str, Any]:
    fitted = hsi.open_result(session.path(result))
    with session.connected(), session.console.busy(f"writing {out.name}"):
        files = hsi.export(fitted, session.path(out), components=components, overwrite=overwrite)
    for file in files:
        session.console.say(f"written: {file}")
    return {"result": str(result), "written": [str(file) for file in files]}
