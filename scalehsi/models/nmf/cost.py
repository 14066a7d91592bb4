"""What a fit of NMF needs: readings, sums, work space and maps, for `scalehsi.plan`."""

from __future__ import annotations

from dataclasses import astuple

from scalehsi.fitting.binning import DENSE_SHARE
from scalehsi.fitting.model import Cost
from scalehsi.kernels.pixel_rows.strips import PIXELS_PER_STRIP
from scalehsi.kernels.poisson.passes import STRIP_PIXELS
from scalehsi.models.nmf import known_maps, subspace
from scalehsi.models.nmf.settings import AUTO, Settings
from scalehsi.models.nmf.starts import READINGS


def cost_of(model: Settings, shape: tuple[int, ...], itemsize: int) -> Cost:
    """The cost of a fit; the larger one of each kind where the data decide the loss.

    shape: of the cube, channels last. itemsize: bytes of a value.
    """
    if model.loss == AUTO:
        return Cost(*map(max, zip(*(astuple(cost_of(each, shape, itemsize)) for each in model.possible), strict=True)))
    k, channels = model.n_components, shape[-1]
    # One for the survey (two where nearly all pixels are masked or empty), one for the maps.
    passes = model.max_iter + 2 + (READINGS.get(model.start, 0) if isinstance(model.start, str) else 0)
    own = known_maps.numbers(model.fixed)
    passes += bool(own)  # one assigns fixed maps to components
    kept = 0
    if model.loss == "poisson":
        sums = 8 * channels * (k + k * (k + 1) // 2)
        work = STRIP_PIXELS * channels * (itemsize + 12) + 8 * channels * (16 * k + k * (k + 1))
        if model.missing:
            sums, work = sums + 8 * channels * k, work + 8 * channels * (STRIP_PIXELS + 3 * k)
        # The bins have their own survey.
        passes += model.bin_factor != 1 and not model.textbook and not model.missing
    else:
        sums = 8 * channels * k
        work = PIXELS_PER_STRIP * (2 * 4 * channels + 8 * k)
        if model.compress and model.compressible and channels > 2 * subspace.size(k):
            kept = 4 * subspace.size(k)
    if isinstance(model.start, str) and model.start in ("nndsvd", "nndsvda"):
        sums = max(sums, 8 * channels * (k + 12))
    return Cost(
        *(passes, sums, work, k + 1),
        kept_bytes=kept,
        aligned_bytes=4 * len(own),
        keeps_counts=DENSE_SHARE if model.loss == "poisson" and not model.missing else 0.0,
    )
