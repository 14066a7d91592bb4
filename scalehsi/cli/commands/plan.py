"""The command ``scalehsi plan``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import scalehsi as hsi
from scalehsi.cli.console import several, size
from scalehsi.cli.model_arguments import make_model, open_data
from scalehsi.cli.session import Session


def plan(
    session: Session,
    path: Path,
    *,
    model: str,
    components: int | None,
    settings: dict[str, Any],
    dataset: str | None,
    spectral: Path | None,
) -> dict[str, Any]:
    """Tell what a fit will need."""
    chosen = make_model(model, components, settings)
    data = open_data(session, path, chosen, dataset=dataset, spectral=spectral, image=None)
    with session.connected():
        found = hsi.plan(data, chosen)
    reads = f", {found.reads} of them from the disk" if found.reads < found.passes else ", all of them from the disk"
    held = "it stays in memory between passes" if found.resident else "too large to stay in memory, read in every pass"
    session.console.answer(f"{path.name} fitted with {found.model}: this will fit in memory")
    session.console.answer()
    session.console.facts(
        [
            ("Cube", f"{size(found.cube_bytes)}; {held}"),
            ("Blocks", f"{several(found.blocks, 'block')} of up to {size(found.block_bytes)}"),
            ("Computing on", f"{several(found.workers, 'process', 'processes')}, {several(found.threads, 'thread')}"),
            ("Memory", f"up to {size(found.worker_bytes)} for data in each process, {size(found.memory)} is there"),
            ("Passes", f"at most {found.passes} over the cube{reads}"),
            ("Maps", f"{size(found.maps_bytes)} in the result"),
        ]
    )
    return {"path": str(path), **found.to_dict()}
