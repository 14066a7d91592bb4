"""The command ``scalehsi reconstruct``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import scalehsi as hsi
from scalehsi.cli.disk import tell_written
from scalehsi.cli.session import Session


def reconstruct(session: Session, result: Path, out: Path, *, overwrite: bool) -> dict[str, Any]:
    """Write the denoised cube: maps times spectra."""
    target = session.destination(out, overwrite=overwrite, source=result)
    cube = hsi.reconstruct(hsi.open_result(session.path(result)))
    with session.connected(), session.computing(f"reconstructing {out.name}"):
        hsi.save(cube, target, overwrite=overwrite)
    return tell_written(session, out, cube)
