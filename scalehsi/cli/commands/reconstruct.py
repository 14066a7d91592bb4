"""Write the denoised spectrum image: maps times spectra.

As floats it is up to four times as large as the counts were.
"""

from __future__ import annotations

from typing import Any

import scalehsi as hsi
from scalehsi.cli.arguments import Out, Overwrite, Result
from scalehsi.cli.disk import show_written
from scalehsi.cli.runner import command
from scalehsi.cli.session import Session


@command
def run(session: Session, result: Result, out: Out, *, overwrite: Overwrite = False) -> dict[str, Any]:
    target = session.destination(out, overwrite=overwrite, source=result)
    cube = hsi.reconstruct(hsi.open_result(session.path(result)))
    with session.connected(), session.computing(f"reconstructing {out.name}"):
        hsi.save(cube, target, overwrite=overwrite)
    return show_written(session, out, cube)
