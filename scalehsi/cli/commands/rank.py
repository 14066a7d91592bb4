"""Find how many components a cube holds.

Significant components are above the noise; resolved ones come out the same from both halves of the counts.

\b
scalehsi rank map.zarr
scalehsi rank map.zarr --most 12 --figure rank.png
"""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from typer import Option

import scalehsi as hsi
from scalehsi.cli.arguments import Cube, Dataset, Overwrite, Seed, dataset_of
from scalehsi.cli.runner import command
from scalehsi.cli.session import Session
from scalehsi.io.atomic import check_file, write_file
from scalehsi.schema import InputError

FIGURES = (".png", ".pdf", ".svg")


@command
def run(
    session: Session,
    cube: Cube,
    *,
    most: Annotated[int, Option(min=1, metavar="K", help="Largest number of components to try on the halves.")] = 8,
    figure: Annotated[Path | None, Option(metavar="FILE", help="Also draw it: a .png, .pdf or .svg file.")] = None,
    seed: Seed = 0,
    dataset: Dataset = None,
    overwrite: Overwrite = False,
) -> dict[str, Any]:
    if figure is not None:
        if figure.suffix.lower() not in FIGURES:
            raise InputError(f"{str(figure)!r}: a figure ends in {', '.join(FIGURES)}")
        check_file(session.path(figure), overwrite=overwrite)
    data = hsi.open_cube(session.path(cube), dataset=dataset_of(dataset))
    with session.connected(), session.computing("counting components"):
        found = hsi.select_rank(data, range(1, most + 1), seed=seed)
    if figure is not None:
        picture = BytesIO()
        hsi.plots.rank(found).savefig(picture, format=figure.suffix[1:].lower())
        write_file(session.path(figure), picture.getvalue(), overwrite=overwrite)
    console = session.console
    console.answer(f"{cube.name}: {found.attrs['text']}")
    console.answer()
    bins = [f"{w} x {w} pixels" for w in found["bins"].values]
    ratios = [[f"{v:.3g}" if np.isfinite(v) else "" for v in row] for row in found["eigenvalue"].values[:, :most].T]
    scores = {str(name): found["score"].sel(criterion=name) for name in found["criterion"].values}
    heads = ["Component", *(f"Above noise, {b}" for b in bins)]
    named = {"spectra": "Same spectra", "maps": "Same maps", "deviance": "Held-out deviance"}
    shown = [name for name in named if name in scores and np.isfinite(scores[name].values).any()]
    body = [
        [str(k), *row, *(f"{float(scores[name].sel(k=k)):.3g}" for name in shown)]
        for k, row in enumerate(ratios, start=1)
        if k <= most
    ]
    console.table([*heads, *(named[name] for name in shown)], body)
    console.answer()
    others = (("Malinowski", "malinowski"), ("held-out deviance", "deviance"), ("relevance determination", "relevance"))
    said = [f"{words} {found.attrs[name]}" for words, name in others if found.attrs[name] > 0]
    console.facts(
        [
            ("Above noise", f"{found.attrs['significant']} components"),
            ("The same twice", f"{found.attrs['resolved']}" if found.attrs["resolved"] >= 0 else "not tested"),
            ("Other criteria", ", ".join(said)),
            ("Noise", f"variance {found.attrs['noise_index']:.3g} times the mean"),
        ]
    )
    warnings = console.show_warnings(found, session.translate)
    return {
        "path": str(cube),
        **{k: v for k, v in found.attrs.items() if k != "warnings"},
        "eigenvalue": {
            str(w): row for w, row in zip(found["bins"].values.tolist(), _plain(found["eigenvalue"]), strict=True)
        },
        "k": found["k"].values.tolist(),
        "score": {name: _plain(values) for name, values in scores.items()},
        "figure": None if figure is None else str(figure),
        "warnings": warnings,
    }


def _plain(values: Any) -> Any:
    """Numbers for JSON; None where there is none."""
    array = np.asarray(values.values, dtype=float)
    return np.where(np.isfinite(array), array, None).tolist()
