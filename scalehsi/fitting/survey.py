"""The first reading of a cube: refuse data that no fit can use, and keep a sample of pixels for the start."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from scalehsi import arrays
from scalehsi.blocks import Blocks, Tile, map_fold
from scalehsi.cube import check_finite
from scalehsi.kernels.pixel_rows.sparse_counts import Counts
from scalehsi.kernels.statistics.fingerprint import fingerprint
from scalehsi.kernels.statistics.survey import SAMPLE_ITEM_BYTES
from scalehsi.kernels.statistics.survey import survey as survey_block
from scalehsi.kernels.statistics.variance_index import variance_index_of_sums
from scalehsi.schema import InputError

SAMPLE_PIXELS: Final = 8192
SAMPLE_BYTES: Final = 24 * 2**20
"""Largest sample, in bytes of float32; it is brought to the client, and a start holds several copies."""
LEAST_SHARE_OF_SAMPLE: Final = 1 / 8
"""A sample with fewer than this share of the wanted pixels is drawn again."""
LARGEST_NORM: Final = 1e37
"""Largest ``sum x^2``: products of the data are float32, which ends at 3e38."""


@dataclass(frozen=True)
class Survey:
    """Statistics of a cube from one reading.

    Attributes
    ----------
    pixels, filled : int
        Used pixels, and those of them that are not empty.
    density : float
        Share of the values that are not zero.
    spectrum : array, shape (E,)
        Sum over the used pixels.
    norm, entropy : float
        ``sum x^2`` and ``sum x log x - x``.
    lost, negative : int
        Values that are NaN or Inf, and values below zero.
    variance_index : float
        Variance of the noise divided by the mean, from sampled pixels and their neighbours: 1 for single counts, too
        large where neighbours differ much. NaN where it cannot be estimated.
    whole : bool
        True where all values of the sample are whole numbers.
    sample : array, shape (S, E)
        Pixels spread over the whole cube, none of them empty, in the order of their numbers.
    """

    pixels: int
    filled: int
    density: float
    spectrum: np.ndarray[Any, np.dtype[np.float64]]
    norm: float
    entropy: float
    lost: int
    negative: int
    variance_index: float
    whole: bool
    sample: np.ndarray[Any, Any]


def survey(
    view: Blocks, *, seed: int, counts: bool, least: int = 1, missing: bool = False, entropy: bool | None = None
) -> Survey:
    """Read the cube, refuse what no fit can use, and keep a sample of its pixels.

    Cost: one reading, and a second one where nearly all pixels are masked or empty.

    Parameters
    ----------
    view : Blocks
    seed : int
        Of the random sample.
    counts : bool
        True where the method needs values that are not negative.
    least : int
        The smallest sample that is enough.
    missing : bool
        True: NaN marks a voxel that was not measured; in the sample it is replaced by the mean spectrum, scaled to the
        pixel.
    entropy : bool, optional
        Whether to compute the entropy; by default with ``counts``.

    Raises
    ------
    InputError
        For NaN or Inf, for negative values with ``counts``, for a mask that leaves no pixel, for a cube of zeros, for
        values whose squares are too large or too small.
    """
    wanted = max(least, _sample_pixels(view.n_energies))
    stride = _stride(math.prod(view.shape), wanted)
    sums = _read(view, stride=stride, seed=seed, entropy=counts if entropy is None else entropy)
    if sums["bad"] and not missing:
        check_finite(view.cube)
        raise InputError(f"{int(sums['bad'])} values are NaN or Inf when read as float32; rescale the cube")
    if counts and sums["negative"]:
        raise InputError(
            f"{int(sums['negative'])} values are negative, which counts never are; "
            "fit with loss='frobenius' and weighting=None, or clip them with cube.clip(min=0)"
        )
    check_magnitude(float(sums["norm"]), filled=bool(sums["filled"]))
    sample, filled = _sample(sums), int(sums["pixels"] - sums["empty"])
    if len(sample) < min(filled, max(least, int(wanted * LEAST_SHARE_OF_SAMPLE))):
        # Nearly all pixels are masked or empty, and the sample missed the others: draw a denser one.
        sample = _sample(_read(view, stride=max(1, filled // wanted), seed=seed, entropy=False))
    whole = sample.dtype.kind in "biu" or bool(np.all(np.rint(sample) == sample, where=np.isfinite(sample)))
    if missing:
        sample = _filled(sample, np.asarray(sums["spectrum"], dtype=np.float64))
    spectrum = np.asarray(sums["spectrum"], dtype=np.float64)
    if missing:
        spectrum = spectrum * (float(sums["pixels"]) / np.maximum(sums["measured"], 1))
    return Survey(
        pixels=int(sums["pixels"]),
        filled=filled,
        density=float(sums["filled"]) / max(1, int(sums["pixels"]) * len(spectrum)),
        spectrum=spectrum,
        norm=float(sums["norm"]),
        entropy=float(sums["entropy"]),
        lost=int(sums["bad"]),
        negative=int(sums["negative"]),
        variance_index=variance_index_of_sums(sums["pair_squares"], sums["pair_means"]),
        whole=whole,
        sample=sample,
    )


def check_magnitude(norm: float, *, filled: bool) -> None:
    """Refuse a cube of zeros, and values whose squares are no numbers any more.

    Parameters
    ----------
    norm : float
        ``sum x^2``.
    filled : bool
        Whether a value is not zero.

    Raises
    ------
    InputError
    """
    if not filled:
        raise InputError("every value of the cube is zero; is it the right file, or the right dataset of it?")
    if not norm:
        raise InputError("the values are too small: their squares are zero; multiply the cube by 1e20 or more")
    if not norm <= LARGEST_NORM:
        raise InputError(
            f"the values are too large: their squares add up to {norm:.2g}, at most {LARGEST_NORM:g} can be fitted; "
            "divide the cube by a constant"
        )


def _sample_pixels(channels: int) -> int:
    return min(SAMPLE_PIXELS, SAMPLE_BYTES // (4 * channels))


def sample_bytes(shape: tuple[int, ...], itemsize: int) -> int:
    """Bytes of the sample of a cube of that shape (..., E) and bytes per value.

    One pixel of a whole number of them is drawn, so the sample of a small cube has up to twice the wanted pixels.

    Examples
    --------
    >>> [sample_bytes((side, side, 1024), 2) // 2**20 for side in (100, 128, 1000)]
    [19, 16, 12]
    """
    pixels = math.prod(shape[:-1])
    stride = _stride(pixels, _sample_pixels(shape[-1]))
    return math.ceil(pixels / stride) * shape[-1] * min(itemsize, SAMPLE_ITEM_BYTES)


def _stride(pixels: int, wanted: int) -> int:
    """One pixel of this many joins the sample. pixels: of the cube. wanted: of the sample."""
    return max(1, pixels // wanted)


def _read(view: Blocks, *, stride: int, seed: int, entropy: bool) -> dict[str, Any]:
    """The sums of one pass. stride: pixels for one of the sample. seed: of the sample. entropy: sum x log x - x too."""
    # Neighbours along x, or along the line of a line scan.
    width = next((n for n in reversed(view.shape) if n > 1), 1)
    shared = {"stride": stride, "seed": seed, "entropy": entropy, "width": width}
    shared["marked"] = view.keeps_fingerprint
    _, sums = map_fold(_survey, view, shared=shared, tile=True, name="survey")
    if view.keeps_fingerprint:
        view.fingerprint = _text(sums)
    return sums


def read_fingerprint(view: Blocks) -> str:
    """The fingerprint of a cube, by one reading of its own."""
    _, sums = map_fold(_fingerprint, view, tile=True, name="fingerprint")
    view.fingerprint = _text(sums)
    return view.fingerprint


def _text(sums: dict[str, Any]) -> str:
    return f"{int(sums['fingerprint'][0]) % 2**64:016x}"


def _fingerprint(x: Any, *, tile: Tile) -> tuple[dict[str, Any], dict[str, Any]]:
    """The fingerprint of one block."""
    x = x if isinstance(x, Counts) else arrays.to_host(x)
    return {}, {"fingerprint": fingerprint(x, index=tile.index)}


def _survey(x: Any, *, tile: Tile, marked: bool, **shared: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Survey of one block; arguments as in `_read`. marked: also its fingerprint."""
    pixels, sums = survey_block(x, index=tile.index, **shared)
    return pixels, sums if not marked else {**sums, **_fingerprint(x, tile=tile)[1]}


def _sample(sums: dict[str, Any]) -> np.ndarray[Any, Any]:
    """The sampled pixels that are not empty, in the order of their numbers; shape (S, E), S may be 0."""
    if not sums["sample"]:
        return np.zeros((0, len(sums["spectrum"])))
    sample: np.ndarray[Any, Any] = np.concatenate(sums["sample"])[np.argsort(np.concatenate(sums["sample_index"]))]
    return sample[sample.any(axis=1)]


def _filled(sample: np.ndarray[Any, Any], spectrum: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The sample with missing voxels replaced by the mean spectrum, scaled to the measured part of the pixel."""
    measured = np.isfinite(sample)
    there = np.where(measured, sample, 0.0)
    scale = there.sum(axis=1) / np.maximum((measured * spectrum).sum(axis=1), 1e-300)
    filled = np.where(measured, there, np.outer(scale, spectrum))
    return np.asarray(filled[filled.any(axis=1)])
