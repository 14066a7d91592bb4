"""Pan-sharpening: spectra from an acquisition with many counts, resolution from one with small pixels."""

from __future__ import annotations

import numbers
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar, Final

import numpy as np
import xarray as xr

from scalehsi import arrays
from scalehsi.arrays import Float
from scalehsi.blocks import BlockFunction, Blocks, map_fold
from scalehsi.checks import check_components, choice, is_number, require
from scalehsi.cube import length_factor
from scalehsi.fitting.model import Cost, Inputs, IterativeModel, MapPass, Model, State, Stats, Variables
from scalehsi.fitting.sources import named_cubes
from scalehsi.fitting.survey import survey
from scalehsi.kernels import least_squares, poisson
from scalehsi.kernels.priors.prior_maps import STRIP_PIXELS, unmixing_matrix
from scalehsi.models.nmf import NMF
from scalehsi.models.pansharpen import prior_maps
from scalehsi.models.pansharpen.overview import cells_of, look
from scalehsi.models.pansharpen.panchromatic import detail_of, image_cube, image_shift, moved_image, read_image
from scalehsi.models.pansharpen.purification import further_starts, purified, sample_pixels
from scalehsi.models.pansharpen.shared_channels import Channels, shared_channels
from scalehsi.registration.images import Images
from scalehsi.registration.rasters import Placement, Raster, check_overlap, rasters
from scalehsi.registration.register import Registration, register
from scalehsi.schema import COMPONENT, ENDMEMBERS, ENERGY, MEAN_SPECTRUM, X, Y

LOSSES: Final = ("poisson", "frobenius")
SPATIAL: Final = "spatial"
SPECTRAL: Final = "spectral"
IMAGE: Final = "image"
COARSE: Final = "coarse_abundances"
WEIGHT: Final = "prior_weight"
SHIFT: Final = "registration_shift"
SCALE: Final = "registration_scale"
IMAGE_SHIFT: Final = "image_shift"
IMAGE_GAIN: Final = "image_gain"
NESTED: Final = "spectral_"
"""Prefix of the state of the spectral factorisation within the state of the fit."""


@dataclass(frozen=True, eq=False)
class PanSharpen(IterativeModel):
    """Fuse two acquisitions of one region: the spectra of one, the resolution of the other.

    Fit it to ``{"spatial": a, "spectral": b}``: ``a`` has small pixels and few counts, ``b`` large pixels and many
    counts. They may differ in raster, pixel size, dose and energy axis. An image such as HAADF, a DataArray of dims
    (y, x), can be added as ``"image": c``.

    1. The spectral cube is factorised (`NMF`).
    2. With counts, its spectra are purified with pixels of the spatial cube, which are purer.
    3. Shift and scale between the two cubes are estimated (registration).
    4. The abundances of every spatial pixel are solved with these spectra; the upsampled maps of the spectral cube,
       with the detail of the image, are the prior.

    Parameters
    ----------
    n_components : int
        K, the number of endmembers.
    loss : {"poisson", "frobenius"}, default "poisson"
        - "poisson": for counts. Weighted factorisation, abundances by the Poisson likelihood with a Gamma prior.
        - "frobenius": least squares with a Gaussian prior, for intensities such as EELS with its background removed.
    prior : "auto" or float, default "auto"
        Weight of the prior maps, in doses of a spatial pixel. "auto" estimates it for each component from their
        agreement with the spatial pixels beyond noise (empirical Bayes), so a bad registration or a drifting sample
        does no harm. 0 switches the prior off; 0.1 is a careful value.
    registration : "auto", None or (float, float), default "auto"
        Shift of the spectral cube along y and x relative to the spatial one, in nm (or in the unit of the axes, where
        these are not lengths). "auto" estimates shift and scale from the data, up to a quarter of the field and 5 %.
        None uses the axes unchanged.
    remix : bool, default True
        Do step 2. It is skipped with fewer than 60 counts in the area of half a spectral pixel, and with "frobenius".
    concentration : float, default 0.02
        Parameter of the Dirichlet prior of step 2; below one for spatial pixels with few components.
    max_iter : int, default 300
        Readings of the spectral cube, at most.
    tol : float, default 1e-7
        Tolerance of its factorisation.

    Notes
    -----
    The result has ``endmembers`` on the energy axis of the spectral cube, scaled so that they have the mean counts of
    a spatial pixel, and ``abundances`` on the pixels of the spatial cube; `scalehsi.reconstruct` gives the lazy fused
    cube in counts of the spatial cube. Where the axes differ, spectra are rebinned to the channels of the spatial cube
    that the other axis covers, which preserves counts; ``residual`` is that of these channels.

    It also has ``coarse_abundances`` (component, coarse_y, coarse_x), in the same unit and in the spatial
    cube's coordinates; ``registration_shift`` and ``registration_shift_error`` (y and x), ``registration_scale`` about
    the middle of the spectral field, ``registration_blur`` (standard deviation of its probe beyond the footprint),
    ``registration_residual`` (root mean square difference between coarse maps and means of fine ones, relative to
    their variation); ``dose_ratio``, counts of a spatial pixel for one of a spectral pixel; ``prior_weight``
    (component). With an image its values on the spatial pixels as ``image`` (y, x), ``image_shift``, and ``image_gain``
    (component): slope of the spatial pixels with the image relative to that of the spectral map.

    The spatial cube is read four times: for the survey, for step 2, for the registration, for the maps. The maps of the
    spectral cube and the image are kept in this process.

    References
    ----------
    Borodinov, Hachtel et al. 2021 (two acquisitions in EELS). Lanaras et al. 2015, doi:10.1109/ICCV.2015.409 (coupled
    unmixing). Aiazzi et al. 2002, doi:10.1109/TGRS.2002.803623 (detail of an image by local gains).

    Examples
    --------
    >>> import scalehsi as hsi
    >>> pair = hsi.simulate.acquisitions((36, 36), footprint=6, seed=1)
    >>> result = hsi.fit(pair.cubes, hsi.PanSharpen(4), seed=0)
    >>> hsi.reconstruct(result).shape == (36, 36, pair.cubes["spectral"].sizes["energy"])
    True
    """

    n_components: int
    _: KW_ONLY
    loss: str = "poisson"
    prior: Any = "auto"
    registration: Any = "auto"
    remix: bool = True
    concentration: float = 0.02
    max_iter: int = 300
    tol: float = 1e-7

    name: ClassVar[str] = "PanSharpen"
    main_input: ClassVar[str] = SPATIAL
    inputs: ClassVar[tuple[str, ...]] = (SPECTRAL,)
    optional_inputs: ClassVar[tuple[str, ...]] = (IMAGE,)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_components(self.n_components)
        choice("loss", self.loss, LOSSES)
        require(isinstance(self.remix, bool), f"remix is True or False, got {self.remix!r}")
        require(
            self.prior == "auto" or _amount(self.prior),
            f"prior is 'auto' or a number of at least 0, got {self.prior!r}",
        )
        require(
            _amount(self.concentration) and self.concentration > 0,
            f"concentration is a number above 0, got {self.concentration!r}",
        )
        pair = self.registration if isinstance(self.registration, (tuple, list)) else ()
        good = len(pair) == 2 and all(is_number(v, numbers.Real) and np.isfinite(v) for v in pair)
        require(
            good or self.registration in ("auto", None),
            f"registration is 'auto', None or a shift (y, x) in nm, got {self.registration!r}",
        )

    @property
    def counts(self) -> bool:
        return self.loss == "poisson"

    @property
    def priors_on_maps(self) -> bool:
        return True

    @property
    def devices(self) -> tuple[arrays.Device, ...]:
        return ("cpu",)

    @property
    def coarse(self) -> NMF:
        """The factorisation of the spectral cube."""
        weighting = "poisson" if self.counts else None
        return NMF(
            self.n_components, loss="frobenius", weighting=weighting, start="nndsvd", max_iter=self.max_iter,
            tol=self.tol,
        )  # fmt: skip

    def select_inputs(self, data: Any) -> Inputs:
        names = (self.main_input, *self.inputs, *self.optional_inputs)
        given = named_cubes(data, names, optional=self.optional_inputs, model=self.name)
        cube, other = given[SPATIAL], given[SPECTRAL]
        for name, each in ((SPATIAL, cube), (SPECTRAL, other)):
            _check_map(name, each)
            check_components(self.n_components, each)
        channels = shared_channels(cube, other, (SPATIAL, SPECTRAL), least=self.n_components)
        if len(channels.axis) < cube.sizes[ENERGY]:
            cube = cube.isel({ENERGY: channels.own})
        others = {SPECTRAL: other}
        if IMAGE in given:
            others[IMAGE] = image_cube(given[IMAGE])
        places = rasters({SPATIAL: cube, **others})
        for name in others:
            shift = self._given.shift if name == SPECTRAL and self._given else (0.0, 0.0)
            check_overlap(places[SPATIAL], places[name], (SPATIAL, name), shift)
        return Inputs(cube, others, SPATIAL)

    def submodels(self, others: Mapping[str, xr.DataArray]) -> tuple[tuple[xr.DataArray, Model], ...]:
        return ((others[SPECTRAL], self.coarse),)

    @property
    def _given(self) -> Placement | None:
        """A given registration; None where it has to be estimated."""
        if isinstance(self.registration, str):
            return None
        dy, dx = self.registration or (0.0, 0.0)
        return Placement((float(dy), float(dx)))

    def init(self, view: Blocks, seed: int) -> State:
        seen = survey(view, seed=seed, counts=self.counts)
        own = {"pixels": seen.pixels, "filled": seen.filled, "spectrum": seen.spectrum, "seed": seed}
        return {**{k: np.asarray(v) for k, v in own.items()}, **_nested(self.coarse.init(_spectral(view), seed))}

    def step(self, view: Blocks, state: State) -> tuple[State, Stats]:
        new, stats = self.coarse.step(_spectral(view), _inner(state))
        return {**{k: v for k, v in state.items() if not k.startswith(NESTED)}, **_nested(new)}, stats

    def spectra(self, state: State) -> Float:
        return state[NESTED + "kept"]

    def finish(self, view: Blocks, state: State) -> Variables:
        channels, places = _channels(view), _places(view)
        first = self.coarse.finish(_spectral(view), _inner(state))
        mean = state["spectrum"] / float(state["pixels"])
        s = self._spectra(view, state, np.asarray(first[ENDMEMBERS].values, dtype=np.float64), places)
        here = channels.here(s)
        weight = 1.0 / np.maximum(mean, 1e-3 * max(float(mean.mean()), 1e-300)) if self.counts else None
        back = unmixing_matrix(here, weight)
        cells = cells_of(places[SPATIAL], places[SPECTRAL])
        images, sample = look(view, places[SPATIAL], back, cells, seed=int(state["seed"]))
        maps = _solved(_spectral(view), s, counts=self.counts)
        coarse = Images(np.nan_to_num(maps), np.isfinite(maps[..., 0]).astype(np.float64), places[SPECTRAL])
        found = register(images, coarse, whitening=_whitening(here, weight), given=self._given)
        maps = maps * found.gain
        variables = _described(s, maps, found, places[SPECTRAL], view)
        # Channels that the spatial cube does not cover come from the spectral one, scaled to the dose of the spatial
        # one.
        covered = channels.there(mean)
        elsewhere = np.asarray(first[MEAN_SPECTRUM].values) * found.gain
        variables[MEAN_SPECTRUM] = first[MEAN_SPECTRUM].copy(data=np.where(covered != 0, covered, elsewhere))
        guess, at = (
            prior_maps.make_guess(maps, found.placement.pixel_transform(places[SPECTRAL], places[SPATIAL])),
            None,
        )
        if IMAGE in places:
            given = read_image(view.branches[IMAGE].cube)
            move = image_shift(given, places[IMAGE], images) if self.registration == "auto" else (0.0, 0.0)
            image = moved_image(given, places[IMAGE], move, on=places[SPATIAL])
            detail = detail_of(image, on=places[SPATIAL], coarse=places[SPECTRAL], placing=found.placement)
            slopes = prior_maps.slopes_of(maps, detail.coarse)
            at = detail.fine[sample.rows, sample.columns].astype(np.float64)
            gain = prior_maps.trusted(guess, slopes, sample, at, back=back)
            guess = guess._replace(slopes=slopes * gain)
            variables[IMAGE] = xr.DataArray(image.astype(np.float32), dims=(Y, X), attrs={"long_name": "image"})
            variables[IMAGE_SHIFT] = variables[SHIFT].copy(data=list(move))
            variables[IMAGE_GAIN] = xr.DataArray(gain, dims=(COMPONENT,), attrs={"long_name": "trust in the image"})
        if self.prior == "auto":
            amount = prior_maps.worth(guess, sample, at, s=here, counts=self.counts)
        else:
            amount = np.full(len(s), float(self.prior))
        variables[WEIGHT] = xr.DataArray(amount, dims=(COMPONENT,), attrs={"long_name": "weight of the spectral maps"})
        return variables

    def _spectra(self, view: Blocks, state: State, s: Float, places: dict[str, Raster]) -> Float:
        """Endmembers (K, E): purified, and scaled to the mean counts of a spatial pixel."""
        channels, total = _channels(view), float(state["spectrum"].sum())
        if self.remix and self.counts:
            fine, coarse = places[SPATIAL], places[SPECTRAL]
            most = int(min(abs(c / f) for c, f in zip(coarse.step, fine.step, strict=True))) // 2
            counts = total / max(1, int(state["filled"]))
            sample = sample_pixels(view, counts, most=most, seed=int(state["seed"]))
            if sample is not None:
                others = further_starts(_spectral(view), self.coarse, seed=int(state["seed"]))
                starts = [channels.here(each) for each in others]
                s = purified(s, channels.here(s), sample, starts=starts, concentration=self.concentration)
        mean = abs(total) / float(state["pixels"])
        return np.asarray(s * (mean / np.maximum(channels.here(s).sum(axis=1), 1e-300))[:, None])

    def projection_note(self, result: xr.Dataset) -> str:
        weighed = bool(np.any(result[WEIGHT].values))
        return "The maps of the fit also use the maps of the spectral cube; here each pixel is solved alone." * weighed

    def map_pass(self, view: Blocks, found: xr.Dataset) -> MapPass:
        channels, weight = _channels(view), np.asarray(found[WEIGHT].values, dtype=np.float64)
        s = channels.here(np.asarray(found[ENDMEMBERS].values, dtype=np.float64))
        shared = {"s": s, "counts": self.counts, "weight": weight, "to_axis": channels.to_other}
        if not weight.any():
            return prior_maps.sharpened, shared, ()
        places, shift = _places(view), found[SHIFT].values
        placing = Placement((float(shift[0]), float(shift[1])), float(found[SCALE]))
        maps = np.moveaxis(np.asarray(found[COARSE].values), 0, -1)
        guess = prior_maps.make_guess(maps, placing.pixel_transform(places[SPECTRAL], places[SPATIAL]))
        fine = None
        if IMAGE in found:
            image = np.asarray(found[IMAGE].values, dtype=np.float64)
            detail = detail_of(image, on=places[SPATIAL], coarse=places[SPECTRAL], placing=placing)
            fine = xr.DataArray(detail.fine, dims=(Y, X))
            guess = guess._replace(slopes=prior_maps.slopes_of(maps, detail.coarse) * found[IMAGE_GAIN].values)
        return prior_maps.sharpened, shared, (guess.upsampled(view.grid, fine),)

    def projector(self, result: xr.Dataset) -> tuple[BlockFunction, dict[str, Any]]:
        s = np.asarray(result[ENDMEMBERS].values, dtype=np.float64)
        return (poisson.abundances if self.counts else least_squares.abundances), {"s": s}

    def cost(self, shape: tuple[int, ...], itemsize: int) -> Cost:
        k, channels = self.n_components, shape[-1]
        work = STRIP_PIXELS * (channels + k) * 8 * 3 + 64 * k * 1024
        return Cost(passes=4, sums_bytes=16 * channels * k, work_bytes=work, columns=k + 1, aligned_bytes=4 * k)


def _amount(value: Any) -> bool:
    return is_number(value, numbers.Real) and bool(np.isfinite(value)) and value >= 0


def _check_map(name: str, cube: xr.DataArray) -> None:
    dims = tuple(map(str, cube.dims))
    require(
        dims == (Y, X, ENERGY),
        f"PanSharpen takes maps of dims ('y', 'x', 'energy'), {name!r} has {dims}; add up the others with "
        "cube.sum(...), or pick one with cube.isel(...)",
    )


def _nested(state: State) -> State:
    return {NESTED + name: value for name, value in state.items()}


def _inner(state: State) -> State:
    return {name.removeprefix(NESTED): value for name, value in state.items() if name.startswith(NESTED)}


def _spectral(view: Blocks) -> Blocks:
    return view.branches[SPECTRAL]


def _channels(view: Blocks) -> Channels:
    return shared_channels(view.cube, _spectral(view).cube, (SPATIAL, SPECTRAL))


def _places(view: Blocks) -> dict[str, Raster]:
    names: tuple[str, ...] = (SPECTRAL, IMAGE)
    return rasters({SPATIAL: view.cube, **{n: view.branches[n].cube for n in names if n in view.branches}})


def _solved(view: Blocks, s: Float, *, counts: bool) -> Float:
    """Abundances of the pixels of a cube, (rows, columns, K); NaN where the mask leaves one out."""
    fn = poisson.abundances if counts else least_squares.abundances
    handles, _ = map_fold(fn, view, shared={"s": s, "residual": False}, keep=["abundances"], name="pansharpen-coarse")
    maps = handles["abundances"].to_dataarray({COMPONENT: len(s)}).compute().values
    return np.ascontiguousarray(np.moveaxis(maps, 0, -1), dtype=np.float64)


def _whitening(s: Float, weight: Float | None) -> Float:
    """Matrix (K, K) that gives all columns of unmixed maps the same noise."""
    gram = (s if weight is None else s * weight) @ s.T
    return np.asarray(np.linalg.cholesky(gram + 1e-9 * np.diag(np.diag(gram))))


def _described(s: Float, maps: Float, found: Registration, raster: Raster, view: Blocks) -> Variables:
    """Spectra, coarse maps and registration as variables of a result."""
    placing = found.placement
    unit = str(view.cube[Y].attrs.get("units", ""))
    nm = {"units": "nm" if length_factor(unit) else unit}
    at = [placing.place(raster, raster.centres(axis), axis) for axis in (0, 1)]
    return {
        ENDMEMBERS: xr.DataArray(s, dims=(COMPONENT, ENERGY), coords={ENERGY: _spectral(view).cube[ENERGY]}),
        COARSE: xr.DataArray(
            np.moveaxis(maps, -1, 0).astype(np.float32),
            dims=(COMPONENT, "coarse_y", "coarse_x"),
            coords={"coarse_y": ("coarse_y", at[0], nm), "coarse_x": ("coarse_x", at[1], nm)},
            attrs={"long_name": "abundance in the spectral cube"},
        ),
        SHIFT: xr.DataArray(list(placing.shift), dims=("axis",), attrs={"long_name": "shift, y and x", **nm}),
        "registration_shift_error": xr.DataArray(list(found.error), dims=("axis",), attrs=nm),
        "registration_blur": xr.DataArray(found.blur, attrs={"long_name": "probe of the spectral cube", **nm}),
        SCALE: xr.DataArray(placing.scale, attrs={"long_name": "scale of the spectral cube's axes"}),
        "registration_residual": xr.DataArray(found.residual, attrs={"long_name": "difference, relative to variation"}),
        "dose_ratio": xr.DataArray(found.gain, attrs={"long_name": "counts of a spatial pixel for one of a spectral"}),
    }
