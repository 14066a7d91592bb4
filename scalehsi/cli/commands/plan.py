"""Show what a fit will need, before it runs.

Memory, and how often the data will be read. No values are read for it.
"""

from __future__ import annotations

from typing import Any

from dask.utils import format_bytes

import scalehsi as hsi
from scalehsi.cli.arguments import Components, Cube, Dataset, ModelName, Settings, Spectral, settings_of
from scalehsi.cli.console import several
from scalehsi.cli.model_arguments import make_model, open_data
from scalehsi.cli.runner import command
from scalehsi.cli.session import Session


@command
def run(
    session: Session,
    cube: Cube,
    *,
    model: ModelName = "nmf",
    n_components: Components = None,
    assignments: Settings = None,
    dataset: Dataset = None,
    spectral: Spectral = None,
) -> dict[str, Any]:
    chosen = make_model(model, n_components, settings_of(assignments))
    data = open_data(session, cube, chosen, dataset=dataset, spectral=spectral)
    with session.connected():
        needs = hsi.plan(data, chosen)
    reads = f", {needs.reads} of them from the disk" if needs.reads < needs.passes else ", all of them from the disk"
    place = "it stays in memory between passes" if needs.resident else "too large to stay in memory, read in every pass"
    session.console.answer(f"{cube.name} fitted with {needs.model}: this will fit in memory")
    session.console.answer()
    memory = f"up to {format_bytes(needs.worker_bytes)} for data in each process, {format_bytes(needs.memory)} is there"
    session.console.facts(
        [
            ("Cube", f"{format_bytes(needs.cube_bytes)}; {place}"),
            ("Blocks", f"{several(needs.blocks, 'block')} of up to {format_bytes(needs.block_bytes)}"),
            ("Computing on", f"{several(needs.workers, 'process', 'processes')}, {several(needs.threads, 'thread')}"),
            ("Memory", memory),
            ("Passes", f"at most {needs.passes} over the cube{reads}"),
            ("Maps", f"{format_bytes(needs.maps_bytes)} in the result"),
        ]
    )
    return {"path": str(cube), **needs.to_dict()}
