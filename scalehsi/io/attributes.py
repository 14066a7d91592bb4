"""Attributes of a store as the package expects them: texts, numbers and lists of texts that can be printed."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any, Final

from scalehsi.schema import InputError

logger = logging.getLogger("scalehsi")

TEXTS: Final = frozenset(
    (
        "signal",
        "title",
        "source",
        "units",
        "long_name",
        "model",
        "status",
        "advice",
        "warnings",
        "settings",
        "versions",
        "parent",
        "loss",
    )
)
LISTS: Final = frozenset(("history", "elements", "components"))
NUMBERS: Final = frozenset(("beam_energy_keV", "live_time_s", "counts_per_pixel", "elevation_angle_deg", "seed"))
LONGEST: Final = {"title": 10_000, "signal": 100, "units": 100, "model": 100, "status": 100}
"""The most letters of texts that are shown on one line."""
MOST_LINES: Final = 10_000


def usable_attrs(attrs: Mapping[str, Any], *, of: str) -> dict[str, Any]:
    """The attributes without those of a wrong kind, which are named in the log. ``of`` is the name of the store.

    Raises
    ------
    InputError
        When a text or a list is far too long.

    Examples
    --------
    >>> usable_attrs({"title": "a", "history": 5, "beam_energy_keV": "high", "mine": [1]}, of="map.zarr")
    {'title': 'a', 'mine': [1]}
    """
    found: dict[str, Any] = {}
    for key, value in attrs.items():
        clean = _clean(value)
        if clean is None and key in TEXTS | LISTS | NUMBERS:
            continue
        if not _fits(key, clean):
            logger.info("%s: the attribute %r is left out, as its value is of another kind", of, key)
            continue
        most = LONGEST.get(key)
        if most is not None and len(clean) > most:
            raise InputError(f"{of!r} has a {key} of {len(clean):,} letters, at most {most:,} are read; shorten it")
        if key in LISTS and (len(clean) if isinstance(clean, list) else clean.count("\n")) > MOST_LINES:
            raise InputError(f"{of!r} has {key} of more than {MOST_LINES:,} entries; shorten it")
        found[_clean(key)] = clean
    return found


def _fits(key: str, value: Any) -> bool:
    if key in TEXTS:
        return isinstance(value, str)
    if key in LISTS:
        return isinstance(value, str) or (isinstance(value, list) and all(isinstance(v, str) for v in value))
    if key in NUMBERS:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return True


def _clean(value: Any) -> Any:
    """Texts without halves of letters (surrogates), which nothing can print."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {_clean(k): _clean(v) for k, v in value.items()}
    return [_clean(v) for v in value] if isinstance(value, list) else value
