"""Compare results with a known truth.

Spectra by their angle, maps by correlation and error.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import xarray as xr
from typer import Argument

import scalehsi as hsi
from scalehsi import metrics
from scalehsi.cli.runner import command
from scalehsi.cli.session import Session
from scalehsi.io import open_dataset
from scalehsi.result import names_of_components
from scalehsi.schema import COMPONENT


@command
def run(
    session: Session,
    truth: Annotated[Path, Argument(metavar="TRUTH", help="What scalehsi simulate wrote beside its cube.")],
    results: Annotated[list[Path], Argument(metavar="RESULT...", help="One or more results.")],
) -> dict[str, Any]:
    known = open_dataset(session.path(truth))
    opened = [(path, hsi.open_result(session.path(path))) for path in results]
    found = []
    with session.connected():
        for path, result in opened:
            with session.computing(f"comparing {path.name}"):
                rows = score_rows(result, known)
            found.append({"result": str(path), "model": result.attrs["model"], "components": rows})
    for each in found:
        session.console.answer(f"{each['result']} ({each['model']}) against {truth}")
        session.console.answer()
        show_scores(session, each["components"])
        session.console.answer()
    session.console.answer(
        "Spectral angle: 0° for a spectrum of the true shape. Map correlation: 1 for a perfect map. Map error: squared "
        "difference of the maps of signal shares, as part of the squared truth."
    )
    return {"truth": str(truth), "results": found}


def score_rows(result: xr.Dataset, truth: xr.Dataset) -> list[dict[str, Any]]:
    """The scores of each component of the truth, angles in degrees and radians."""
    scores = metrics.score(result, truth)
    default = [str(v) for v in scores[COMPONENT].values]
    names = names_of_components(truth.attrs) or default
    rows = []
    for position, name in enumerate(names):
        row = {str(k): v.values[position].item() for k, v in scores.data_vars.items()}
        rows.append({"name": name, "spectral_angle_deg": float(np.degrees(row["spectral_angle"])), **row})
    return rows


def show_scores(session: Session, rows: Sequence[dict[str, Any]], *, names: dict[str, str] | None = None) -> None:
    """Show the table of `score_rows` in a session's console, with longer names for some components."""
    heads = ["Phase", "Found as component", "Spectral angle"]
    with_maps = "map_similarity" in rows[0]
    body = []
    for row in rows:
        line = [(names or {}).get(row["name"], row["name"]), str(row["matched"]), f"{row['spectral_angle_deg']:.2f}°"]
        if with_maps:
            line += [f"{row['map_similarity']:.3f}", f"{100 * row['map_nmse']:.1f} %"]
        body.append(line)
    session.console.table([*heads, "Map correlation", "Map error"] if with_maps else heads, body)
