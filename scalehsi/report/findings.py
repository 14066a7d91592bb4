"""Sentences about a result: how its fit ended, what it warns of, and one line on each component. Nothing is judged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

import numpy as np

from scalehsi.physics.identify import Mark
from scalehsi.plots.digest import Digest
from scalehsi.plots.line_marks import strongest
from scalehsi.plots.spectra import share_text, share_unit
from scalehsi.report.page import Box

STATUS_WORDS: Final[dict[str, tuple[Literal["good", "warning", "bad"], str]]] = {
    "converged": ("good", "Converged"),
    "max_iter": ("warning", "Stopped at the iteration limit"),
    "stagnated": ("warning", "Stagnated before it converged"),
    "nonfinite": ("bad", "Failed: NaN or Inf appeared"),
    "interrupted": ("warning", "Interrupted before it converged"),
}

_UNCONVERGED: Final = "Spectra and maps may still change: read them with care."
CONSEQUENCES: Final = {
    **dict.fromkeys(("max_iter", "stagnated", "interrupted"), _UNCONVERGED),
    "nonfinite": "Nothing below is reliable.",
}
"""What a status means for the reader of the figures."""


def status_box(view: Digest) -> Box:
    """How the fit ended. It is green only where the fit looked for faults and found none."""
    level, words = STATUS_WORDS.get(
        view.status, ("warning", f"Status {view.status!r}" if view.status else "Status unknown")
    )
    text = f"{view.advice} {CONSEQUENCES.get(view.status, '')}".strip()
    if level != "good":
        return Box(level, text, lead=f"{words}.")
    if view.warnings is None:
        unknown = "The version of scalehsi that wrote this result did not look for faults; fit again to see them."
        return Box("note", f"{text} {unknown}", lead=f"{words}.")
    if view.warnings:
        count = len(view.warnings)
        lead = f"{words}, with {'a warning' if count == 1 else f'{count} warnings'}."
        return Box("warning", text, lead=lead)
    return Box("good", text, lead=f"{words}.")


def warning_boxes(view: Digest) -> list[Box]:
    """The warnings of the fit, as it wrote them."""
    return [Box("warning", text, lead=f"{code}:", remedy=remedy) for code, text, remedy in view.warnings or ()]


def masked_pixels(view: Digest) -> list[Box]:
    """How many pixels were not used, where there are such."""
    left_out = view.pixels_total - view.pixels_used
    if not left_out:
        return []
    if not view.pixels_used:
        return [Box("note", "No pixel has a value: the maps are empty.")]
    percent = share_text(left_out / view.pixels_total, unit="pixels")
    return [Box("note", f"{percent} are masked. They were not used, and are grey in the maps.")]


def component_line(view: Digest, number: int, marks: Sequence[Mark]) -> str:
    """Describe one component: ``Component 1: 84 % of the counts, strongest lines Mg Kα, Si Kα``.

    `marks` are the line labels of component `number`.
    """
    share = share_text(view.shares[number], unit=share_unit(view)) or "share not known"
    names = strongest(marks)
    kind = "edges" if view.signal == "EELS" else "strongest lines" if len(names) > 1 else "strongest line"
    feature = f"{kind} {', '.join(names)}" if names else _maximum(view, number)
    return f"{view.names[number]}: {share}, {feature}"


def _maximum(view: Digest, number: int) -> str:
    """Where the spectrum of a component is largest."""
    row = np.nan_to_num(np.abs(view.endmembers[number]))
    if not row.any():
        return "no intensity"
    where = f"{view.energy[int(np.argmax(row))]:.4g} {view.energy_unit}".replace("channel", "(channel)")
    return f"largest {'magnitude' if view.signed else 'intensity'} at {where}"
