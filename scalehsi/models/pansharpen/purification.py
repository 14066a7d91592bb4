"""Refine the endmembers of the spectral cube with single pixels of the spatial cube, which are purer but noisier.

Only a K x K mixing matrix is fitted, so the noise of these pixels does not enter the spectra. A factorisation has an
ambiguity: spectra may exchange parts with each other as long as no abundance becomes negative, and they do where no
coarse pixel is pure. The subspace that they span is well determined. A Dirichlet mixture model is therefore fitted to
fine pixels, with a prior for few components per pixel (as in `scalehsi.PSNMF`), and its spectra are projected onto that
subspace.

The mixture has many optima. Factorisations of the coarse pixels from several starts lead to some of them, which explain
the coarse pixels equally well. The evidence of the fine pixels for the projected spectra identifies the right one, by
hundreds of nats; the evidence for the mixture's own spectra does not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np

from scalehsi.arrays import Float
from scalehsi.blocks import Blocks, open_blocks
from scalehsi.cube import make_cube
from scalehsi.fitting.binning import binned
from scalehsi.fitting.loop import fit_inner
from scalehsi.fitting.survey import survey
from scalehsi.kernels.pixel_rows.sparse_counts import Counts
from scalehsi.kernels.poisson import mixture
from scalehsi.kernels.priors.prior_maps import unmixing_matrix
from scalehsi.models.nmf import NMF
from scalehsi.schema import ENERGY

SCREENING_PIXELS: Final = 1024
"""Largest number of pixels on which the starts are compared."""
SCREENING_PASSES: Final = 15
"""Passes with the final concentration in that comparison."""
FINAL_PASSES: Final = 60
"""Passes with the final concentration on all pixels."""
FINAL_STARTS: Final = 3
"""Starts that are fitted to all pixels: few pixels separate wrong starts from right ones, but do not rank these."""
EVIDENCE_STEPS: Final = 60
"""Steps of the posterior of each pixel, when the evidence for the projected spectra is computed."""
STARTS: Final = ("sample", "nndsvda", "nndsvd", "sample")
"""Starts of the further factorisations."""
START_ITERATIONS: Final = (200, 200, 12, 200)
"""Largest number of iterations of each. "nndsvd" is right early on, where zeros separate the spectra, and drifts off
later."""
SAMPLE_PIXELS: Final = 4096
"""Largest number of pixels to which the mixture is fitted."""
ENOUGH_COUNTS: Final = 200.0
"""Pixels of fewer counts are binned up to this many."""
MIN_COUNTS: Final = 60.0
"""If even the largest bins have fewer counts, the spectra are not refined."""
MAX_CLIPPED: Final = 0.05
"""Largest fraction of a spectrum that may become negative; beyond it the spectra are not refined."""


def sample_pixels(view: Blocks, counts: float, *, most: int, seed: int) -> Float | None:
    """Sample pixels of some 200 counts, or bins of pixels, in one pass; (P, E), or None if the counts do not suffice.

    counts: mean of a pixel. most: pixels along a side of the largest bins. seed: of the sample.
    """
    side = min(max(1, most), math.ceil(math.sqrt(ENOUGH_COUNTS / max(counts, 1e-9))))
    if counts * side**2 < MIN_COUNTS:
        return None
    sample = survey(binned(view, side), seed=seed, counts=True).sample
    step = max(1, len(sample) // SAMPLE_PIXELS)
    return np.asarray(sample[::step][:SAMPLE_PIXELS], dtype=np.float64)


def further_starts(view: Blocks, model: NMF, *, seed: int) -> list[Float]:
    """Factorise a sample of the coarse pixels from other starts, into spectra (K, E); reads the coarse cube once.

    view: the spectral cube. model: its factorisation. seed: of the sample and the starts.
    """
    seen = survey(view, seed=seed, counts=True, least=4 * model.n_components)
    axis = view.cube[ENERGY]
    rows = make_cube(seen.sample[:, None, :], energy=axis.values, energy_units=str(axis.attrs.get("units", "")))
    found = []
    for number, (start, most) in enumerate(zip(STARTS, START_ITERATIONS, strict=True)):
        other = replace(model, start=start, max_iter=most, tol=1e-6, compress=False)
        sample = open_blocks(rows, resident=True)
        found.append(fit_inner(sample, other, seed + number, purpose=f"further start {number + 1}").state["kept"])
    return found


def purified(s: Float, here: Float, sample: Float, *, starts: Sequence[Float], concentration: float) -> Float:
    """Return refined spectra (K, E) on the energy axis of the spectral cube.

    Parameters
    ----------
    s : array, shape (K, E)
        Spectra of the factorisation.
    here : array, shape (K, F)
        The same spectra in the channels of the sample.
    sample : array, shape (P, F)
        Counts of fine pixels.
    starts : sequence of array, shape (K, F)
        Further starts, besides ``here``.
    concentration : float
        Final concentration of the Dirichlet prior of the fractions.
    """
    filled = sample[sample.any(axis=1)]
    if len(s) < 2 or len(filled) < 4 * len(s):
        return s
    start = here / np.maximum(here.sum(axis=1, keepdims=True), 1e-300)
    pixels, few = (Counts.from_dense(each) for each in (filled, filled[:: max(1, len(filled) // SCREENING_PIXELS)]))
    ranked = sorted((start, *starts), key=lambda each: -_mixture(few, each, concentration, SCREENING_PASSES)[1])
    weight = 1.0 / np.maximum(start.mean(axis=0), 1e-3 * float(start.mean()))
    back = unmixing_matrix(start, weight)
    kept: list[tuple[float, Float]] = []
    for each in ranked[:FINAL_STARTS]:
        matrix = _mixture(pixels, each, concentration, FINAL_PASSES)[0] @ back
        # The evidence is that of the projected spectra, without the noise of the sample.
        projected = mixture.without_zeros(np.maximum(matrix @ start, 0.0))
        bound = float(mixture.update(pixels, s=projected, alpha=concentration, steps=EVIDENCE_STEPS)[1]["bound"])
        kept.append((bound, matrix))
    # The matrix is for spectra of unit sum; those of s have their own sums.
    raw = max(kept, key=lambda pair: pair[0])[1] @ (s / np.maximum(here.sum(axis=1, keepdims=True), 1e-300))
    clipped = np.maximum(raw, 0.0)
    lost = np.abs(raw - clipped).sum(axis=1) / np.maximum(clipped.sum(axis=1), 1e-300)
    return clipped if bool((lost < MAX_CLIPPED).all()) else s


def _mixture(x: Counts, s: Float, concentration: float, passes: int) -> tuple[Float, float]:
    """Fit a mixture to counts; return spectra (K, F) of unit sum, and the lower bound of the log-evidence.

    s (K, F): start. concentration: final value of the prior. passes: number of passes with it.
    """
    s, gamma = mixture.without_zeros(s), None
    sums: dict[str, Any] = {}
    for alpha, changed in mixture.annealing_schedule(concentration, passes):
        s = mixture.improve(sums, s, power=1.0 if changed else mixture.OVERRELAXATION) if sums else s
        pixels, sums = mixture.update(x, gamma, s=s, alpha=alpha, restart=changed)
        gamma = pixels["gamma"]
    return mixture.improve(sums, s), float(sums["bound"])
