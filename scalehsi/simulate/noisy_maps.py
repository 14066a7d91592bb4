"""Simulate maps with a known truth and with noise of each component, for tests of Gaussian processes."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, NamedTuple, Protocol

import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from scalehsi.arrays import Float
from scalehsi.chunks import WORK_BLOCK_BYTES
from scalehsi.schema import ABUNDANCES, COMPONENT, InputError, X, Y, suggest
from scalehsi.simulate.scene import pair, real, whole
from scalehsi.simulate.shapes.map_patterns import add_noise, atom_maps, positions, sine_maps, smooth_maps
from scalehsi.simulate.shapes.phase_layouts import Window

DEFAULT_FEATURE_PIXELS: Final = 48
"""Distance of hills in smooth scenes, for maps with a side of at least this length."""
ATOM_NOISE: Final = (0.05, 0.08, 0.05, 0.1, 0.15, 0.15)
"""Standard deviation of the noise of each map of atoms."""
MODELS: Final = (1, 2)


class Maps(NamedTuple):
    """Simulated maps, with and without noise.

    Parameters
    ----------
    maps : xarray.DataArray
        Noisy maps: lazy, dims ``(component, y, x)``, float32, NaN where a pixel is missing. The name is ``abundances``,
        so that `scalehsi.save` writes a store from which maps can be read. The attributes are ``kind``, ``settings``
        (JSON), ``seed`` and ``history``; the coordinate ``noise`` (component) has the standard deviations.
    truth : xarray.DataArray
        The same maps without noise and without missing pixels, lazy, on a finer grid where ``upsample`` is above one.
    """

    maps: xr.DataArray
    truth: xr.DataArray


class Form(Protocol):
    """A picklable function of positions along y (h,) and x (w,) that returns maps, shape (K, h, w)."""

    def __call__(self, y: Float, x: Float, /) -> Float: ...


def sines(
    shape: Sequence[int] = (48, 48),
    *,
    n_components: int = 3,
    period: float = 12.0,
    model: int = 2,
    sigma0: float = 0.3,
    alpha: float = 1.0,
    noise: float | Sequence[float] | None = None,
    missing: float = 0.0,
    upsample: int = 1,
    seed: int = 0,
    pixel_size_nm: float = 1.0,
    chunk: int | Sequence[int] | None = None,
) -> Maps:
    """Simulate maps of sinusoids, some of them equal and some noisier than others.

    Each map is a product of two sinusoids, from 0 to 1 with a standard deviation of 1/4. The first, third and fifth map
    are equal; the second and fourth have twice the period along x. The third map shows how much a joint reconstruction
    uses a map with little noise for an equal one with more. After figure 7 of [1]_.

    Parameters
    ----------
    shape : (int, int), default (48, 48)
        Pixels along y and x. Any size: the maps are lazy, and computing a pixel of a map takes about 25 nanoseconds.
    n_components : int, default 3
        Number of maps.
    period : float, default 12
        Period in pixels.
    model : {1, 2}, default 2
        Noise of the maps. ``1``: none on the first map, ``sigma0`` on the second, ``alpha * sigma0`` on the others.
        ``2``: ``sigma0`` on the first map, ``alpha * sigma0`` on the others.
    sigma0 : float, default 0.3
        Standard deviation of the noise.
    alpha : float, default 1
        Noise ratio.
    noise : float or sequence of float, optional
        Standard deviation of the noise of all maps, or of each map, in place of ``model``, ``sigma0`` and ``alpha``.
    missing : float, 0 to 0.99, default 0
        Share of pixels that are NaN in all maps.
    upsample : int, default 1
        Number of points in a pixel of the truth along each axis. It does not change the noisy maps.
    seed : int, default 0
        Seed of the noise and of the missing pixels.
    pixel_size_nm : float, default 1
        Size of a pixel in nm.
    chunk : int or (int, int), optional
        Pixels of a chunk along y and x. It does not change the data.

    Returns
    -------
    Maps
        ``maps`` and ``truth``, each (component, y, x), lazy.

    Raises
    ------
    InputError
        When a setting is outside its allowed values.

    References
    ----------
    .. [1] S. V. Kalinin, A. R. Lupini, R. K. Vasudevan, M. Ziatdinov, npj Comput. Mater. 7 (2021) 154.
       doi:10.1038/s41524-021-00611-8

    Examples
    --------
    >>> maps, truth = sines((32, 32), model=1, sigma0=0.5, alpha=2.0)
    >>> maps.dims, maps["noise"].values.tolist()
    (('component', 'y', 'x'), [0.0, 0.5, 1.0])
    >>> bool(np.array_equal(truth[0], truth[2])), bool(np.array_equal(maps[0], truth[0]))
    (True, True)
    """
    count = whole("n_components", n_components, least=1)
    if model not in MODELS:
        raise InputError(f"model must be 1 (a first map without noise) or 2, got {model!r}")
    base = real("sigma0", sigma0, closed=True)
    ratio = real("alpha", alpha, closed=True)
    first = [0.0, base] if model == 1 else [base]
    settings = {
        "shape": pair("shape", shape),
        "n_components": count,
        "period": real("period", period),
        "model": model,
        "sigma0": base,
        "alpha": ratio,
    }
    return _make(
        "sines",
        form=partial(sine_maps, components=count, period=settings["period"]),
        noise=_noises(noise, count, ([*first, *[ratio * base] * count])[:count]),
        given=noise,
        settings=settings,
        common={"missing": missing, "upsample": upsample, "seed": seed, "pixel_size_nm": pixel_size_nm},
        chunk=chunk,
    )


def maps(
    shape: Sequence[int] = (48, 48),
    *,
    kind: str = "smooth",
    n_components: int | None = None,
    noise: float | Sequence[float] | None = None,
    missing: float = 0.0,
    feature: float | None = None,
    upsample: int = 1,
    seed: int = 0,
    pixel_size_nm: float = 1.0,
    chunk: int | Sequence[int] | None = None,
) -> Maps:
    """Simulate noisy maps of smooth structures, or of an atomically resolved scan.

    Parameters
    ----------
    shape : (int, int), default (48, 48)
        Pixels along y and x. Any size: the maps are lazy, and computing a pixel of a map takes about 40 nanoseconds.
    kind : {"smooth", "atoms"}, default "smooth"
        ``"smooth"``: an oblique wave, round hills, a wavy interface, and from the fourth map on clouds. The values go
        from 0 to 1, the standard deviations are 0.35, 0.2, 0.45 and about 0.2, after figure 4 of [1]_. ``"atoms"``:
        maps as those of an atomically resolved EELS scan, with an interface and with columns of two kinds every 6
        pixels. Maps five and six are weaker than their noise; most maps have two length scales.
    n_components : int, optional
        Number of maps. By default 3 smooth ones, or 6 of atoms, which is also the maximum.
    noise : float or sequence of float, optional
        Standard deviation of the noise of all maps, or of each map. By default 0.3 for smooth maps and 0.05 to 0.15 for
        atoms.
    missing : float, 0 to 0.99, default 0
        Share of pixels that are NaN in all maps.
    feature : float, optional
        Size of the smooth structures in pixels: the distance of hills or of interfaces. By default 48, or the longer
        side of the map where that is shorter.
    upsample : int, default 1
        Number of points in a pixel of the truth along each axis. It does not change the noisy maps.
    seed : int, default 0
        Seed of the noise, of the missing pixels and of the clouds.
    pixel_size_nm : float, default 1
        Size of a pixel in nm.
    chunk : int or (int, int), optional
        Pixels of a chunk along y and x. It does not change the data.

    Returns
    -------
    Maps
        ``maps`` and ``truth``, each (component, y, x), lazy.

    Raises
    ------
    InputError
        When a setting is outside its allowed values.

    References
    ----------
    .. [1] S. V. Kalinin, A. R. Lupini, R. K. Vasudevan, M. Ziatdinov, npj Comput. Mater. 7 (2021) 154.
       doi:10.1038/s41524-021-00611-8

    Examples
    --------
    >>> noisy, truth = maps((40, 30), noise=0.3, missing=0.5)
    >>> noisy.sizes["component"], 0.4 < float(noisy.isnull().mean()) < 0.6, bool(truth.isnull().any())
    (3, True, False)
    >>> large = maps((4096, 4096), n_components=8).maps
    >>> large[:, 1000:1002, 3000:3003].compute().shape  # makes one chunk
    (8, 2, 3)
    """
    size = pair("shape", shape)
    if kind not in ("smooth", "atoms"):
        raise InputError(f"kind {kind!r} is not known; {suggest(str(kind), ('smooth', 'atoms'))}")
    most = len(ATOM_NOISE) if kind == "atoms" else 2**63 - 1
    default = 3 if kind == "smooth" else most
    count = default if n_components is None else whole("n_components", n_components, least=1, most=most)
    length = float(min(DEFAULT_FEATURE_PIXELS, max(size))) if feature is None else real("feature", feature)
    start = whole("seed", seed, least=0)
    form: Form
    if kind == "smooth":
        form = partial(smooth_maps, components=count, feature=length, seed=start)
    else:
        form = partial(atom_maps, components=count, feature=length)
    return _make(
        "maps",
        form=form,
        noise=_noises(noise, count, [0.3] * count if kind == "smooth" else ATOM_NOISE[:count]),
        given=noise,
        settings={"shape": size, "kind": kind, "n_components": count, "feature": length},
        common={"missing": missing, "upsample": upsample, "seed": start, "pixel_size_nm": pixel_size_nm},
        chunk=chunk,
    )


def _noises(noise: float | Sequence[float] | None, count: int, default: Sequence[float]) -> tuple[float, ...]:
    """Return the standard deviation of the noise of each of ``count`` maps; ``default`` where ``noise`` is None."""
    if noise is None:
        return tuple(default)
    if isinstance(noise, Sequence | np.ndarray) and not isinstance(noise, str):
        if len(noise) != count:
            raise InputError(f"noise has {len(noise)} numbers for {count} maps; give one for each, or one for all")
        return tuple(real("noise", sigma, closed=True) for sigma in noise)
    return (real("noise", noise, closed=True),) * count


@dataclass(frozen=True)
class _Recipe:
    """All settings that a chunk is computed from; small and picklable."""

    form: Form
    noise: tuple[float, ...]
    missing: float
    seed: int
    chunk: tuple[int, int]
    shape: tuple[int, int]
    upsample: int

    def window(self, block_id: tuple[int, int, int]) -> Window:
        """Return the points of a chunk, on the grid with ``upsample`` points in a pixel."""
        y, x = (number * step for number, step in zip(block_id[1:], self.chunk, strict=True))
        return Window(y, min(y + self.chunk[0], self.shape[0]), x, min(x + self.chunk[1], self.shape[1]))


def _make(
    name: str,
    *,
    form: Form,
    noise: tuple[float, ...],
    given: Any,
    settings: Mapping[str, Any],
    common: Mapping[str, Any],
    chunk: int | Sequence[int] | None,
) -> Maps:
    """Wrap a form and noise as lazy maps with their truth.

    ``name`` is the kind of scene, ``form`` the function of its maps, ``noise`` the standard deviation of each map,
    ``given`` the argument ``noise`` of the caller, ``settings`` those of the kind, ``common`` those of all kinds, and
    ``chunk`` the pixels of a chunk.
    """
    height, width = settings["shape"]
    fine = whole("upsample", common["upsample"], least=1)
    pixel = real("pixel_size_nm", common["pixel_size_nm"])
    all_settings = {
        **settings,
        "noise": None if given is None else list(noise),
        "missing": real("missing", common["missing"], most=0.99, closed=True),
        "upsample": fine,
        "seed": whole("seed", common["seed"], least=0),
        "pixel_size_nm": pixel,
    }
    steps = _chunk(chunk, (height, width), len(noise))
    attrs = {
        "kind": name,
        "settings": json.dumps(all_settings),
        "seed": all_settings["seed"],
        "history": [f"simulate.{name}({', '.join(f'{key}={value!r}' for key, value in all_settings.items())})"],
    }

    def lazy(block: Any, upsample: int) -> xr.DataArray:
        size, step = (height * upsample, width * upsample), (steps[0] * upsample, steps[1] * upsample)
        recipe = _Recipe(form, noise, all_settings["missing"], all_settings["seed"], step, size, upsample)
        cuts = [(s,) * (n // s) + ((n % s,) if n % s else ()) for n, s in zip(size, step, strict=True)]
        data = da.map_blocks(
            block,
            recipe,
            chunks=((len(noise),), *cuts),
            dtype=np.float32,
            meta=np.empty((0, 0, 0), dtype=np.float32),
            token=f"simulate-{name}{block.__name__}",
        )
        axes = {
            dim: (dim, (positions(0, n, upsample=upsample) - 0.5) * pixel, {"units": "nm"})
            for dim, n in zip((Y, X), size, strict=True)
        }
        number = (COMPONENT, np.arange(1, len(noise) + 1), {"long_name": "component"})
        deviation = (COMPONENT, np.array(noise), {"long_name": "standard deviation of the noise"})
        return xr.DataArray(
            data,
            dims=(COMPONENT, Y, X),
            coords={COMPONENT: number, **axes, "noise": deviation},
            name=ABUNDANCES,
            attrs=dict(attrs),
        )

    return Maps(lazy(_noisy_block, 1), lazy(_true_block, fine))


def _chunk(chunk: int | Sequence[int] | None, shape: tuple[int, int], components: int) -> tuple[int, int]:
    """Return the pixels of a chunk along y and x, for maps of ``shape`` and of this many components."""
    if chunk is not None:
        steps = pair("chunk", chunk if isinstance(chunk, Sequence) else (chunk, chunk))
    else:
        side = 2 ** int(math.log2(max(1.0, math.sqrt(WORK_BLOCK_BYTES / (16 * components)))))
        steps = (side, side)
    return min(steps[0], shape[0]), min(steps[1], shape[1])


def _true_block(recipe: _Recipe, block_id: tuple[int, int, int]) -> NDArray[np.float32]:
    """Compute the truth of one chunk, shape (K, h, w)."""
    window = recipe.window(block_id)
    y, x = (positions(a, b, upsample=recipe.upsample) for a, b in ((window.y0, window.y1), (window.x0, window.x1)))
    return recipe.form(y, x).astype(np.float32)


def _noisy_block(recipe: _Recipe, block_id: tuple[int, int, int]) -> NDArray[np.float32]:
    """Compute the noisy maps of one chunk, shape (K, h, w)."""
    window = recipe.window(block_id)
    clean = recipe.form(positions(window.y0, window.y1), positions(window.x0, window.x1))
    noise = np.array(recipe.noise)
    return add_noise(clean, window, noise=noise, missing=recipe.missing, seed=recipe.seed).astype(np.float32)
