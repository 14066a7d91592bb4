"""Small scenes of counts for the detectors' tests, with their true maps and spectra."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter

from scalehsi.arrays import Float
from scalehsi.fitting.judge.evidence import Evidence
from scalehsi.fitting.judge.outliers import joined
from scalehsi.kernels.pixel_rows import sparse_counts
from scalehsi.kernels.pixel_rows.sparse_counts import Counts
from scalehsi.kernels.pixel_rows.strips import strips
from scalehsi.kernels.statistics.outliers import Search
from scalehsi.physics.eels_edges import eels_spectrum
from scalehsi.physics.xray_spectra import eds_spectrum
from tests.fitting.judge.reference import evidence_of

MINERALS = ({"Mg": 25, "Si": 20, "O": 55}, {"Mg": 40, "Fe": 10, "O": 50}, {"Ca": 20, "Si": 20, "O": 60})
OXIDES = ({"Ti": 33, "O": 67}, {"Fe": 40, "O": 60}, {"Mn": 43, "O": 57})


class Scene:
    """Data x (y, x, E), maps c (y, x, K), spectra s (K, E), and an energy axis."""

    def __init__(
        self,
        signal: str,
        counts: float,
        *,
        seed: int,
        k: int = 3,
        gain: float = 1.0,
        grains: bool = False,
        size: int = 24,
    ) -> None:
        rng = np.random.default_rng(seed)
        self.signal, self.gain, self.rng = signal, gain, rng
        if signal == "EDS":
            self.energy, self.unit = 0.2 + 0.02 * np.arange(500), "keV"
            s = np.stack([eds_spectrum(each, self.energy) for each in MINERALS[:k]])
        else:
            self.energy, self.unit = 360.0 + np.arange(400), "eV"
            s = np.stack([eels_spectrum(each, self.energy) for each in OXIDES[:k]])
        self.s = s / s.sum(axis=1, keepdims=True) * counts
        field = np.stack(
            [gaussian_filter(rng.standard_normal((size, size)), 3, mode="wrap") for _ in range(k)], axis=-1
        )
        share = np.eye(k)[field.argmax(axis=-1)] if grains else np.exp(1.5 * field / field.std())
        self.c: Float = share / share.sum(axis=-1, keepdims=True)
        thickness = gaussian_filter(rng.standard_normal((size, size)), 5, mode="wrap")
        self.c = self.c * (1 + 0.3 * thickness / abs(thickness).max())[..., None]
        self.x: Float = rng.poisson(self.c @ self.s / gain) * gain

    def evidence(self, **others: Any) -> Evidence:
        """The evidence that a fit with the true maps and spectra leaves; others: fields in place of it."""
        return evidence_with_outliers(
            self.x, self.c, self.s, energy=self.energy, energy_unit=self.unit, signal=self.signal, **others
        )


def evidence_with_outliers(x: Float, c: Float, s: Float, **others: Any) -> Evidence:
    """The evidence of a fit of x by c s, with what stands out of the data."""
    found = evidence_of(x, c, s, **others)
    rows, maps = x.reshape(-1, x.shape[-1]), c.reshape(-1, len(s))
    filled = np.where(np.isfinite(rows), rows, maps @ s)
    sums = outliers(
        rows,
        maps,
        index=np.arange(len(rows)),
        shape=x.shape[:-1],
        totals=filled.sum(axis=1, dtype=np.float64),
        mean=filled.mean(axis=0, dtype=np.float64),
        s=s,
        offset=np.zeros(x.shape[-1]),
    )
    return replace(found, **joined(sums, shape=x.shape[:-1], phi=found.variance_index))


def outliers(x: Any, c: Float, *, totals: Float, **given: Any) -> dict[str, Any]:
    """What `Search` finds in a block; nothing in an empty one. totals: of its pixels. given: arguments of `Search`."""
    if not len(totals):
        return {}
    search = Search(x, c, **given)
    if isinstance(x, Counts):
        for part, *rows in sparse_counts.strips(x):
            search.strip(part, rows, totals[part])
    else:
        for part, strip in strips(x):
            search.strip(part, strip, totals[part])
    return search.result(totals)
