"""Read wall times in the formats of the batch queues, and compute when a worker should stop before its own."""

from __future__ import annotations

import re

from scalehsi.schema import InputError


def walltime_seconds(kind: str, walltime: str) -> int | None:
    """Convert a wall time to seconds, in the format of the queue; None for no limit.

    Parameters
    ----------
    kind : {"slurm", "sge", "pbs", "lsf"}
        Slurm and LSF read a bare number as minutes, SGE and PBS as seconds.
    walltime : str
        For example ``"08:00:00"``.

    Raises
    ------
    InputError
        When the queue does not accept this format.

    Examples
    --------
    >>> walltime_seconds("slurm", "1-02:30:00"), walltime_seconds("slurm", "30"), walltime_seconds("pbs", "01:00:00")
    (95400, 1800, 3600)
    >>> walltime_seconds("lsf", "2:30")
    9000
    """
    text = str(walltime).strip()
    if text.lower() in {"infinite", "unlimited", "-1"}:
        return None
    days, _, clock = text.rpartition("-") if kind == "slurm" else ("", "", text)
    clock = clock.split("/")[0] if kind == "lsf" else clock
    if not re.fullmatch(r"\d+(:\d{1,2}){0,2}", clock) or not re.fullmatch(r"\d*", days):
        form = {"slurm": "'2-12:00:00' or '08:00:00'", "lsf": "'8:00' (hours:minutes)"}.get(kind, "'08:00:00'")
        raise InputError(f"walltime {text!r} is not what {kind} reads; type for example {form}")
    parts = [int(p) for p in clock.split(":")]
    if days:  # D-HH[:MM[:SS]]
        hours, minutes, seconds = [*parts, 0, 0][:3]
    elif kind == "lsf" or (kind == "slurm" and len(parts) == 1):  # [HH:]MM
        hours, minutes, seconds = [*([0, *parts][-2:]), 0]
    else:  # [[HH:]MM:]SS
        hours, minutes, seconds = [0, 0, *parts][-3:]
    return int(days or 0) * 86400 + hours * 3600 + minutes * 60 + seconds


def lifetime(walltime: int) -> tuple[int, int]:
    """Seconds after which a worker stops, and the random stagger around them, for a wall time in seconds.

    A worker that the queue kills loses its data; one that stops in time hands them to the others. The margin is a tenth
    of the wall time, at least a minute and at most ten, and half of a wall time under two minutes. The stagger keeps
    the workers from stopping together; all have stopped a quarter of the margin before the wall time.

    Examples
    --------
    >>> lifetime(8 * 3600), lifetime(600)
    ((28200, 450), (540, 45))
    """
    margin = min(max(60, walltime // 10), 600, walltime // 2)
    return walltime - margin, margin * 3 // 4
