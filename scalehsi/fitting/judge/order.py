"""Put the warnings of a fit in order: data, model, remarks. A cause silences what follows from it."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import numpy as np

from scalehsi.fitting.judge import channels, drift, maps, outliers, rank, totals, uniqueness
from scalehsi.fitting.judge.evidence import Evidence
from scalehsi.result import ResultWarning

DATA: Final = (
    "saturated",
    "spike",
    "hot_pixel",
    "drift",
    "dead_channel",
    "background_on",
    "zero_loss",
    "gain",
    "negative_values",
)
MODEL: Final = (
    "totals",
    "below_noise",
    "missing_component",
    "no_pure_pixels",
    "no_zeros",
    "background_window",
    "no_edge",
    "negative_components",
    "chains_differ",
    "one_pixel_component",
    "bins_too_large",
    "maps_too_small",
    "length_at_bound",
    "noise_not_identifiable",
    "map_without_values",
    "network_collapsed",
    "dead_component",
    "restarts_disagree",
)
REMARKS: Final = (
    "still_turning",
    "no_specimen",
    "thickness_in_simplex",
    "maps_not_optimal",
    "other_start_better",
    "not_unique",
)
CODES: Final = (*DATA, *MODEL, *REMARKS)
"""All codes of fits, in the order in which they are reported. Those of a composition: `scalehsi.quantify`."""

SILENCED: Final = {
    "drift": ("missing_component", "not_unique", "other_start_better"),
    "below_noise": ("not_unique",),
    "hot_pixel": ("totals",),
    "saturated": ("totals",),
    "zero_loss": ("background_on",),
}
"""What follows from a cause that has been said already."""
MANY_SPIKES: Final = 20
"""Drift moves peaks into channels where none are expected: more spikes than this are it."""

DETECTORS: Final[tuple[Callable[[Evidence], ResultWarning | None], ...]] = (
    channels.saturated,
    outliers.spike,
    outliers.hot_pixel,
    drift.drift,
    channels.dead_channel,
    channels.background_on,
    channels.zero_loss,
    channels.gain,
    channels.negative_values,
    totals.totals,
    totals.thickness_in_simplex,
    rank.below_noise,
    rank.missing_component,
    maps.one_pixel_component,
    maps.bins_too_large,
    maps.maps_not_optimal,
    uniqueness.not_unique,
)
"""In the order of their codes. A new detector is added here."""

log = logging.getLogger("scalehsi")


def judge(evidence: Evidence) -> list[ResultWarning]:
    """Run all detectors; one that fails is logged, as a fit of hours must not be lost by its judgement.

    Parameters
    ----------
    evidence : Evidence

    Returns
    -------
    list of ResultWarning
        In no order yet, see `ordered`.
    """
    found = []
    for detector in DETECTORS:
        try:
            with np.errstate(all="ignore"):
                warning = detector(evidence)
        except (ArithmeticError, ValueError, LookupError, RuntimeError, np.linalg.LinAlgError):
            log.exception("the detector %r failed; the result is without its judgement", detector.__name__)
            continue
        if warning is not None:
            found.append(warning)
    many = evidence.spikes.number > MANY_SPIKES and any(w.code == "drift" for w in found)
    return [w for w in found if not (many and w.code == "spike")]


def inherited(attrs: Mapping[str, Any]) -> list[ResultWarning]:
    """The warnings of the fit whose maps are the data of this one, from the attributes of these maps.

    Examples
    --------
    >>> inherited({"parent": '{"warnings": [{"code": "drift", "text": "Spectra shift.", "remedy": ""}]}'})
    [ResultWarning(code='drift', text="Of the maps' fit: Spectra shift.", remedy='')]
    """
    parent = json.loads(attrs.get("parent") or "{}")
    return [ResultWarning(w["code"], f"Of the maps' fit: {w['text']}", w["remedy"]) for w in parent.get("warnings", ())]


def ordered(found: Iterable[ResultWarning]) -> list[ResultWarning]:
    """Warnings in the order of `CODES`, unknown codes last, without those that follow from another one.

    Examples
    --------
    >>> [w.code for w in ordered([ResultWarning("totals", ""), ResultWarning("hot_pixel", "")])]
    ['hot_pixel']
    """
    given = list(found)
    silent = {code for w in given for code in SILENCED.get(w.code, ())}
    place = {code: i for i, code in enumerate(CODES)}
    return sorted((w for w in given if w.code not in silent), key=lambda w: place.get(w.code, len(CODES)))
