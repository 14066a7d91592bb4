"""Simulate a stack of EELS maps of a specimen that changes under the beam: a tensor of frames, pixels and energies."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Final

import numpy as np
import xarray as xr

from scalehsi.arrays import Float
from scalehsi.kernels.statistics.counted_random import CountedRandom
from scalehsi.schema import COMPONENT, InputError
from scalehsi.simulate.scene import Scene, make_scene, pair, real, whole
from scalehsi.simulate.shapes import near_edge
from scalehsi.simulate.shapes.phase_layouts import LAYOUT_STREAM, Window, smooth_noise

FRAME: Final = "frame"
FACTORS: Final = f"{FRAME}_factors"
ENERGY_EV: Final = np.arange(278.0, 330.0, 0.5)
ONSET_EV: Final = 284.0
COMPOSITIONS: Final = {"support": {"C": 100.0}, "polymer": {"C": 100.0}, "damaged": {"C": 100.0}}
TAIL: Final = 0.1
"""Height of the tail of lower losses under the edges, which all phases share."""
LIFETIME: Final = 0.35
"""Frames in which the polymer decays to 1 / e, as a share of all frames."""
INDUCTION: Final = 0.6
"""Frames after which 1 - 1 / e of the product is there, as a share of all frames; it starts slowly."""
FIELDS: Final = 5.0
"""Values of the smooth fields of fractions along a side of the map."""
RATE_CHANNEL: Final = 7
"""Channel of the smooth field of rates."""


def tensor_stack(
    shape: Sequence[int] = (32, 32),
    *,
    frames: int = 12,
    counts_per_pixel: float = 200.0,
    purity: float = 1.0,
    rate_spread: float = 0.0,
    drift: float = 0.0,
    seed: int = 0,
    pixel_size_nm: float = 1.0,
    chunk: int | Sequence[int] | None = None,
) -> Scene:
    """Simulate beam damage: a support that stays, a polymer that decays and a product that grows, at the C K edge.

    The three spectra overlap strongly, and hardly any pixel is pure, so that the sum of the frames can be unmixed in
    many ways. The time courses make the spectra unique, see `scalehsi.CPD`.

    Parameters
    ----------
    shape : (int, int), default (32, 32)
        Pixels along y and x. Any size: the cube is lazy, each frame has chunks of its own.
    frames : int, default 12
        Number of maps.
    counts_per_pixel : float, default 200
        Expected counts of a pixel in one frame over all 104 channels (278 to 329.5 eV), the mean over the frames.
    purity : float, default 1
        Exponent of the smooth fields whose shares are the fractions: at 1 hardly a pixel is pure, at 2.5 some are.
    rate_spread : float, 0 to 0.9, default 0
        Largest deviation of the rate of damage over the map, relative to its mean. Above 0 the stack is not exactly a
        sum of products any more.
    drift : float, default 0
        Pixels by which the specimen moves along x from one frame to the next. Maps that move are no tensor of low rank.
    seed : int, default 0
        Seed of the layout and of the counts.
    pixel_size_nm : float, default 1
        Size of a pixel in nm.
    chunk : int or (int, int), optional
        Pixels of a chunk along y and x. It does not change the data.

    Returns
    -------
    Scene
        A cube of dims (frame, y, x, energy). ``truth["endmembers"]`` (component, energy) are the spectra,
        ``truth["abundances"]`` (component, y, x) the fractions, ``truth["frame_factors"]`` (component, frame) the time
        courses, of mean one.

    Raises
    ------
    InputError
        When a setting is outside its allowed values.

    Examples
    --------
    >>> cube, truth = tensor_stack((16, 16), frames=6)
    >>> cube.dims, truth["frame_factors"].shape
    (('frame', 'y', 'x', 'energy'), (3, 6))
    """
    size = pair("shape", shape)
    if not isinstance(drift, int | float) or isinstance(drift, bool) or not np.isfinite(drift):
        raise InputError(f"drift must be a number of pixels a frame, got {drift!r}; type drift=0.5")
    settings: dict[str, Any] = {
        "shape": size,
        "frames": whole("frames", frames, least=2),
        "counts_per_pixel": real("counts_per_pixel", counts_per_pixel),
        "purity": real("purity", purity),
        "rate_spread": real("rate_spread", rate_spread, closed=True, most=0.9),
        "drift": float(drift),
        "seed": whole("seed", seed, least=0),
        "pixel_size_nm": real("pixel_size_nm", pixel_size_nm),
    }
    spectra = _spectra()
    spectra *= counts_per_pixel / spectra.sum(axis=1).mean()
    courses = _courses(np.ones(1), frames)[..., 0]
    layout = partial(_fractions, shape=size, purity=float(purity), seed=int(seed))
    scene = partial(
        make_scene,
        "tensor_stack",
        spectra=spectra,
        compositions=COMPOSITIONS,
        energy=ENERGY_EV,
        energy_units="eV",
        signal="EELS",
        title="Simulated polymer under the beam, C K",
        settings=settings,
        chunk=chunk,
    )
    maps = [
        scene(
            layout=partial(_changed, layout=layout, frame=t, settings=settings),
            largest_abundance=float(courses.max()) * (1 + float(rate_spread)),
            stream=t,
        ).cube
        for t in range(frames)
    ]
    cube = xr.concat(maps, dim=FRAME, combine_attrs="override", coords="minimal", compat="override")
    cube = cube.assign_coords({FRAME: (FRAME, np.arange(frames), {"long_name": "frame"})})
    truth = scene(layout=layout, largest_abundance=1.0).truth
    own = xr.DataArray(
        courses, dims=(COMPONENT, FRAME), coords={FRAME: cube[FRAME]}, attrs={"long_name": "time course"}
    )
    return Scene(cube, truth.assign({FACTORS: own}))


def _spectra() -> Float:
    """C K edges of support, polymer and damaged polymer on a common tail (3, E); largest value about one."""
    energy = ENERGY_EV
    tail = TAIL * (energy / ONSET_EV) ** -3.0
    bump, step = partial(near_edge.bump, energy, onset=ONSET_EV), partial(near_edge.step, energy)
    parts = (
        step(293.0, 2.0) + bump(285.6, 0.9, 0.5) + bump(297.5, 4.5, 0.9),
        step(291.0, 1.5) + bump(285.0, 0.7, 1.1) + bump(288.4, 0.8, 0.9) + bump(293.5, 2.5, 0.6),
        step(291.0, 3.5) + bump(286.8, 1.3, 0.7) + bump(304.0, 6.0, 0.7),
    )
    return np.array([part + tail for part in parts])


def _courses(rate: Float, frames: int) -> Float:
    """Time courses (3, frames, ...) of mean one where the rate, relative to its mean, is one.

    rate (...): of each place. frames: their number.
    """
    time = np.arange(frames).reshape(-1, *(1,) * rate.ndim) / frames
    left, grown = np.exp(-rate * time / LIFETIME), 1 - np.exp(-((rate * time / INDUCTION) ** 2))
    means = float(np.exp(-time / LIFETIME).mean()), float((1 - np.exp(-((time / INDUCTION) ** 2))).mean())
    return np.stack([np.ones_like(left), left / means[0], grown / means[1]])


def _fractions(window: Window, *, shape: tuple[int, int], purity: float, seed: int, shift: float = 0.0) -> Float:
    """Fractions of the phases (3, h, w), which sum to one.

    window: pixels to compute. shape: of the whole map. purity: exponent of the fields. seed: of the fields. shift: of
    the specimen along x, in pixels.
    """
    fields = np.stack([_field(window, k, shape=shape, seed=seed, shift=shift) for k in range(3)])
    weights = (0.02 + fields) ** purity
    return np.asarray(weights / (weights[0] + weights[1] + weights[2]))


def _field(window: Window, channel: int, *, shape: tuple[int, int], seed: int, shift: float) -> Float:
    """A smooth field from 0 to 1 (h, w); channel: its number, the rest as for `_fractions`."""
    y = (np.arange(window.y0, window.y1) + 0.5) / shape[0]
    x = (np.arange(window.x0, window.x1) + 0.5 - shift) / shape[1]
    return smooth_noise(FIELDS * y, FIELDS * x, source=CountedRandom(seed, LAYOUT_STREAM), channel=channel)


def _changed(window: Window, *, layout: Any, frame: int, settings: dict[str, Any]) -> Float:
    """Fractions times the time courses in one frame (3, h, w).

    layout: gives the fractions. frame: its number. settings: of the scene.
    """
    shift = settings["drift"] * frame
    field = _field(window, RATE_CHANNEL, shape=settings["shape"], seed=settings["seed"], shift=shift)
    rate = 1 + settings["rate_spread"] * (2 * field - 1)
    return np.asarray(layout(window, shift=shift) * _courses(rate, settings["frames"])[:, frame])
