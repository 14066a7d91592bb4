"""Show what a fit will need, before it runs.

Memory, and how often the data will be read. No values are read for it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from dask.utils import format_bytes
from typer import Argument

import scalehsi as hsi
from scalehsi.cli.arguments import Components, Dataset, Inputs, ModelName, Settings, Spectral, settings_of
from scalehsi.cli.console import several
from scalehsi.cli.model_arguments import make_model, open_data, signals_of
from scalehsi.cli.runner import command
from scalehsi.cli.session import Session
from scalehsi.schema import InputError


@command
def run(
    session: Session,
    cube: Annotated[Path | None, Argument(metavar="CUBE", help="A Zarr store, or a file of any known format.")] = None,
    *,
    inputs: Inputs = None,
    model: ModelName = "nmf",
    n_components: Components = None,
    assignments: Settings = None,
    dataset: Dataset = None,
    spectral: Spectral = None,
) -> dict[str, Any]:
    signals = signals_of(inputs)
    if cube is None and not signals:
        raise InputError("Missing argument 'CUBE'; type scalehsi plan --help")
    chosen = make_model(model, n_components, settings_of(assignments))
    data = open_data(session, cube, chosen, dataset=dataset, signals=signals, spectral=spectral)
    name = ", ".join(signals) if cube is None else cube.name
    with session.connected():
        needs = hsi.plan(data, chosen)
    reads = f", {needs.reads} of them from the disk" if needs.reads < needs.passes else ", all of them from the disk"
    place = "it stays in memory between passes" if needs.resident else "too large to stay in memory, read in every pass"
    session.console.answer(f"{name} fitted with {needs.model}: this will fit in memory")
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
    return {"path": str(cube or name), **needs.to_dict()}
