"""Words that the warnings share."""

from __future__ import annotations

import shlex
from pathlib import Path

from scalehsi.fitting.judge.evidence import Evidence


def prepare(evidence: Evidence, step: str) -> str:
    """The command that prepares the fitted cube by one step; SRC and DST where its file is not known.

    step: as ``scalehsi prepare --step`` takes it.
    """
    source = evidence.source
    made = f"{Path(source.rstrip('/')).stem}-prepared.zarr" if source else "DST"
    return shlex.join(["scalehsi", "prepare", source or "SRC", made, "--step", step])


def at_energy(evidence: Evidence, channel: int) -> str:
    """The energy of a channel in the unit of the axis: ``1076 eV``; its number where the axis has no unit."""
    if not evidence.energy_unit:
        return f"channel {channel}"
    return f"{float(evidence.energy[channel]):.4g} {evidence.energy_unit}"


def number(value: float) -> str:
    """A number with two digits, and never with an exponent up to a million.

    Examples
    --------
    >>> number(8.43), number(66.2), number(1770.4)
    ('8.4', '66', '1770')
    """
    return f"{value:.2g}" if abs(value) < 99.5 else f"{value:.0f}" if abs(value) < 1e6 else f"{value:.2g}"
