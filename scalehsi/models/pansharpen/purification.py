"""Spectra of a coarse acquisition mixed anew, as the fine pixels want it: these are purer, if noisier.

A factorisation leaves a freedom: spectra may give up parts of each other, as long as no abundance becomes negative, and
where no coarse pixel is pure they do. The subspace that they span is known well. So a mixture of counts is fitted to
fine pixels with a prior that says that pixels have few components (as in `scalehsi.PSNMF`), and of its spectra only
their place in the subspace is kept, a matrix of K x K numbers: the noise of the fine pixels stays out.

The mixture has many optima. Factorisations of the coarse pixels from several starts lead to some of them, which all
explain the coarse pixels alike; the evidence of the fine ones for what is left of the spectra in the subspace tells
which is right, by hundreds of nats (that for the mixture's own spectra does not).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from scalehsi.arrays import Float
from scalehsi.blocks import Blocks, open_blocks
from scalehsi.cube import make_cube
from scalehsi.fitting.binning import binned
from scalehsi.fitting.loop import fit_inner
from scalehsi.fitting.survey import survey
from scalehsi.kernels.pixel_rows.sparse_counts import Counts
from scalehsi.kernels.poisson import mixture
from scalehsi.kernels.priors.prior_maps import unmixing
from scalehsi.models.nmf import NMF
from scalehsi.schema import ENERGY

LADDER: Final = (0.5, 0.2, 0.1, 0.05)
"""Parameters of the prior before the last one."""
RUNGS: Final = 8
PASSES: Final = 60
SCREENED: Final = 1024
"""Pixels, at most, by which starts are compared, and passes for that."""
SHORT: Final = 15
BEST: Final = 3
"""Starts that go on: few pixels tell wrong ones from right ones, but not the best of these."""
STEPS: Final = 60
"""Of the posterior of each pixel, when the spectra that remain are judged."""
STARTS: Final = ("sample", "nndsvda", "nndsvd", "sample")
"""Further factorisations."""
ITERATIONS: Final = (200, 200, 12, 200)
"""Of each, at most. That of "nndsvd" is right early on, where zeros keep spectra apart, and creeps away later."""
POWER: Final = 1.8
"""A step goes so much further than the rule says, in logarithms; up to 2 it still converges."""
SAMPLE: Final = 4096
"""Pixels that are looked at."""
COUNTS: Final = 200.0
"""Counts of a pixel, or of a bin of pixels, that are enough."""
FEW: Final = 60.0
"""With fewer the spectra stay as they are."""
CLIPPED: Final = 0.05
"""Part of a spectrum that may come out negative; with more the mixture is not believed."""


def enough_counts(view: Blocks, counts: float, *, most: int, seed: int) -> Float | None:
    """A sample of pixels of some 200 counts, (P, E), or of bins of at most ``most`` pixels along a side: one reading.

    ``counts`` are those of a pixel. None, without reading, where even the largest bins have too few.
    """
    side = min(max(1, most), math.ceil(math.sqrt(COUNTS / max(counts, 1e-9))))
    if counts * side**2 < FEW:
        return None
    sample = survey(binned(view, side), seed=seed, counts=True).sample
    step = max(1, len(sample) // SAMPLE)
    return np.asarray(sample[::step][:SAMPLE], dtype=np.float64)


def further_starts(view: Blocks, model: NMF, *, seed: int) -> list[Float]:
    """Spectra (K, E) of a sample of the coarse pixels by other starts; one reading of the coarse cube."""
    seen = survey(view, seed=seed, counts=True, least=4 * model.n_components)
    axis = view.cube[ENERGY]
    rows = make_cube(seen.sample[:, None, :], energy=axis.values, energy_units=str(axis.attrs.get("units", "")))
    found = []
    for number, (start, most) in enumerate(zip(STARTS, ITERATIONS, strict=True)):
        other = replace(model, start=start, max_iter=most, tol=1e-6, compress=False)
        sample = open_blocks(rows, resident=True)
        found.append(fit_inner(sample, other, seed + number, purpose=f"further start {number + 1}").state["kept"])
    return found


def remixed(s: Float, here: Float, sample: Float, *, starts: Sequence[Float], concentration: float) -> Float:
    """Spectra (K, E) of the coarse axis, mixed anew.

    Parameters
    ----------
    s : array, shape (K, E)
    here : array, shape (K, F)
        The same in the channels of the sample.
    sample : array, shape (P, F)
        Counts of fine pixels.
    starts : sequence of array, shape (K, F)
        Where to begin, besides from ``here``.
    concentration : float
        Parameter of the Dirichlet prior of the shares.
    """
    filled = sample[sample.any(axis=1)]
    if len(s) < 2 or len(filled) < 4 * len(s):
        return s
    start = here / np.maximum(here.sum(axis=1, keepdims=True), 1e-300)
    pixels, few = (Counts.from_dense(each) for each in (filled, filled[:: max(1, len(filled) // SCREENED)]))
    ranked = sorted((start, *starts), key=lambda each: -_mixture(few, each, concentration, SHORT)[1])
    weight = 1.0 / np.maximum(start.mean(axis=0), 1e-3 * float(start.mean()))
    back = unmixing(start, weight)
    kept: list[tuple[float, Float]] = []
    for each in ranked[:BEST]:
        matrix = _mixture(pixels, each, concentration, PASSES)[0] @ back
        # What is used is judged, not what the noise of the sample made of it.
        seen = mixture.without_zeros(np.maximum(matrix @ start, 0.0))
        bound = float(mixture.update(pixels, s=seen, alpha=concentration, steps=STEPS)[1]["bound"])
        kept.append((bound, matrix))
    # s has its own totals; the matrix is between spectra of unit sum.
    raw = max(kept, key=lambda pair: pair[0])[1] @ (s / np.maximum(here.sum(axis=1, keepdims=True), 1e-300))
    clipped = np.maximum(raw, 0.0)
    lost = np.abs(raw - clipped).sum(axis=1) / np.maximum(clipped.sum(axis=1), 1e-300)
    return clipped if bool((lost < CLIPPED).all()) else s


def _mixture(x: Counts, s: Float, concentration: float, last: int) -> tuple[Float, float]:
    """Spectra of unit sum, and the bound of the logarithm of the evidence."""
    s, gamma = mixture.without_zeros(s), None
    for alpha in (*(a for a in LADDER if a > concentration), concentration):
        passes = RUNGS if alpha > concentration else last
        for i in range(passes):
            pixels, sums = mixture.update(x, gamma, s=s, alpha=alpha, restart=i == 0 and gamma is not None)
            gamma = pixels["gamma"]
            s = mixture.improve(sums, s, power=POWER if i + 1 < passes else 1.0)
    return s, float(sums["bound"])
