"""Figures of the benchmark of warnings: lines with what is asked and measured, and the table of faults."""

from __future__ import annotations

from collections import Counter
from collections.abc import Set
from typing import Any

import xarray as xr

from scalehsi.result import result_warnings

TRUE_OF_CLEAN_SCENES = frozenset({"thickness_in_simplex", "background_on"})
"""Totals of the clean scenes vary, and their EELS spectra stand on a background: these warnings are right."""


def codes(result: xr.Dataset) -> set[str]:
    """Codes of a result's warnings."""
    return {each.code for each in result_warnings(result)}


def text(result: xr.Dataset, code: str) -> str:
    """The sentence of a warning; empty without it."""
    return next((each.text for each in result_warnings(result) if each.code == code), "")


class Report:
    """What the parts found."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.false: Counter[str] = Counter()
        self.clean_fits = 0
        self.cost: dict[str, str] = {}

    def line(self, point: int, what: str, *, asked: str, measured: str, held: bool) -> None:
        """Print one figure.

        point: its number in the list of acceptance. what: the figure. asked, measured: as words. held: whether it is
        as asked.
        """
        print(f"{point}. {'ok  ' if held else 'MISS'} {what}: asked {asked}, measured {measured}", flush=True)

    def found(self, fault: str, code: str, shares: dict[float, float], unit: str) -> None:
        """Add a fault to the table.

        fault: in words. code: of its warning. shares: part that was found, by size. unit: of the sizes.
        """
        size = next((s for s in sorted(shares) if all(shares[t] >= 0.9 for t in shares if t >= s)), None)
        row = {"fault": fault, "code": code, "90 % found at": "-" if size is None else f"{size:g} {unit}".strip()}
        row["all sizes"] = ", ".join(f"{s:g}: {share:.2g}" for s, share in sorted(shares.items()))
        self.rows.append(row)

    def clean(self, result: xr.Dataset, *, true: Set[str] = frozenset()) -> set[str]:
        """Count the warnings of a fit of a clean scene; returns those that are false. true: codes that are right."""
        said = codes(result) - TRUE_OF_CLEAN_SCENES - true
        self.false.update(said)
        self.clean_fits += 1
        return said

    def table(self) -> list[dict[str, Any]]:
        """Rows of the table, with false alarms where clean scenes were fitted."""
        for row in self.rows:
            if self.clean_fits:
                row["false alarms, clean"] = f"{self.false[row['code']]} of {self.clean_fits}"
            if self.cost:
                row["cost of all / fit"] = self.cost.get("all", "")
        return self.rows
