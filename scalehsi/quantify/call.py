"""The public function `scalehsi.quantify`: check its arguments, and pass spectra or maps to the right part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import xarray as xr

from scalehsi.physics.line_names import split_symbols
from scalehsi.physics.resolution import Width
from scalehsi.quantify.maps import cube_maps, result_maps
from scalehsi.quantify.options import COMPUTED, Options, make_foil, split_by_axis
from scalehsi.quantify.sources import check_regions, of_cube, of_result, of_spectra, refuse_eels, rising_kev
from scalehsi.quantify.spectra import quantify_spectra
from scalehsi.schema import ENERGY, InputError, X, Y


def quantify(
    source: xr.Dataset | xr.DataArray,
    elements: Sequence[str] | None = None,
    *,
    maps: bool = False,
    regions: Any = None,
    method: str = "fit",
    k_factors: str | Mapping[str, float] = COMPUTED,
    k_units: str = "weight",
    counted: str = "window",
    reference: str | None = None,
    lines: Sequence[str] | Mapping[str, str] = (),
    extra: Sequence[str] = (),
    thickness_nm: float | None = None,
    density: float | None = None,
    takeoff_deg: float | None = None,
    beam_kev: float | None = None,
    fwhm: str | float | Width | None = None,
    energy_range: tuple[float, float] | None = None,
    counts: Any = None,
) -> xr.Dataset:
    """Compute the composition of EDX spectra, components, regions or every pixel, in atomic and mass per cent.

    Overlapping lines are solved together, the continuum is subtracted, and net counts are converted to a composition by
    Cliff-Lorimer ratios, corrected for absorption where thickness and density are given. An element whose peak is not
    found gets an upper limit and no number. A strong peak that no named element explains is fitted as an extra.

    Parameters
    ----------
    source : xarray.Dataset or xarray.DataArray
        - a result: the composition of each component, whose spectrum is scaled to all counts of its map;
        - a cube: the composition of the sum of all pixels, or of every pixel with ``maps=True``;
        - spectra with the dims ``(energy,)`` or ``(something, energy)``: the composition of each.
    elements : sequence of str, optional
        Elements of the sample; the percentages of those that are found sum to 100. Default: those of
        ``source.attrs["elements"]`` that have a line on the axis; a warning names the others.
    maps : bool, default False
        Lazy maps of every pixel. Those of a result come from its abundances and have their low noise; those of a cube
        come from the counts of each pixel. Elements that are not found in the sum (in no component) are NaN.
    regions : DataArray of bool, or mapping of str to such, optional
        One composition for each region of a cube or a result; the dims are those of a map. A mask with the dim
        ``region`` holds several.
    method : {"fit", "windows"}
        - "fit": all lines and the continuum are fitted at once, weighted by the expected counts. Least noise.
        - "windows": counts in windows minus those in side windows, then overlaps are solved. The shape of
          the continuum is not needed.
    k_factors : "computed", or mapping of str to float
        ``{"Si_Ka": 1.0, "Fe_Ka": 1.32, ...}``, or by element. "computed": from cross sections, yields and the
        efficiency of a windowless silicon drift detector (see Notes); trust them to some 5 % for K, 15 % for L and
        M lines.
    k_units : {"weight", "atomic"}
        Whether given k-factors make mass fractions, as is usual (Cliff and Lorimer, HyperSpy), or atomic ones.
    counted : {"window", "family"}
        What given k-factors were measured for: counts in a window of 1.2 peak widths (whole channels), or of the whole
        family (Ka without Kb). It does not change a composition from computed k-factors.
    reference : str, optional
        The element whose reported k-factor is one. Default: Si where it is among the elements, else the first.
    lines : sequence of str, or mapping, optional
        Lines to use, as ``["Fe_Ka", "Pt_La"]``. For the other elements: the line with many counts, well-known cross
        sections and little overlap.
    extra : sequence of str
        Elements in the spectrum that are not in the sample (grid, film, holder): fitted, but excluded from the sum.
        Others are added where the spectra have strong peaks of no named element: see the warning
        ``unexplained_peak``, and ``extra_found`` in ``attrs["settings"]``.
    thickness_nm, density : float, optional
        Thickness of the foil in nm, and density in g/cm^3. Without them absorption is not corrected.
    takeoff_deg : float, optional
        Elevation of the detector above the foil in degrees, used with a thickness only. Default:
        ``source.attrs["elevation_angle_deg"]``, else 35 degrees.
    beam_kev : float, optional
        Beam energy in keV. Default: ``source.attrs["beam_energy_keV"]``, else 200 keV.
    fwhm : float, "estimate" or callable, optional
        Width of the peaks: resolution at Mn Ka in eV (130 is usual), or a function of the energy, both in keV.
        "estimate" fits a factor, and a shift of the energy axis of at most 40 eV, to the sum of the spectra (one or two
        seconds). Default: 0.01 E + 0.065 keV.
    energy_range : (float, float), keV, optional
        Fitted range. Default: from 1.3 peak widths below the lowest line to the end of the axis.
    counts : float or sequence of float, optional
        Total counts of each spectrum, where spectra were normalised; the errors need them.

    Returns
    -------
    xarray.Dataset
        Dims ``(component | region | ..., element)``, or ``(element, ..., y, x)`` for maps. ``atomic_percent``,
        ``weight_percent``, ``intensity`` (net counts), each with ``_std``: the standard error from counting statistics
        alone, NaN where counts are not known (``attrs["errors"]`` says so; maps of a result have none). For spectra
        also ``_k_std`` of the percentages, the standard error from computed k-factors, and ``_limit``: the upper limit
        of an element without a found peak, whose other numbers are NaN. ``attrs["warnings"]`` holds
        ``unexplained_peak``, ``element_not_found``, ``element_hidden``, ``peak_shape`` and ``chi_square``. For spectra
        also ``absorption`` (fraction of the photons that leave the foil), ``spectrum``, ``model``, ``background`` (with
        ``energy``) and ``reduced_chi_square``. Coordinates along ``element``: ``line``, ``line_energy`` (keV),
        ``k_factor`` (for mass fractions).

    Raises
    ------
    InputError
        For unknown elements, a line outside the axis, a missing k-factor, an EELS signal, spectra that are all zero or
        negative, a thickness that is not positive.

    Notes
    -----
    Each shell of an element is fitted independently, so a wrong ratio of K and L lines does no harm. Lines, yields and
    attenuation are those of xraylib; cross sections follow Bethe's law with constants fitted to distorted-wave values.
    Cost: 0.1 s of one core for 1917 channels and nine elements, and about 0.2 s more for each unexplained peak; one
    reading of a cube's data for its sum and regions, one more for its maps.
    An element is found when its net counts are three standard errors above zero, and the data near its line have the
    shape of the fitted lines; it has an upper limit too where other lines have more than three times its counts there.
    Errors of k-factors are ``a_i sqrt((1 - a_i)^2 k_i^2 + sum over the others of a_j^2 k_j^2)``, with k = 0.05 for K
    lines and 0.15 for L and M lines, and NaN for given k-factors, whose errors are not known.
    Pixels of a cube are solved with the weights of its sum and without constraint: where counts are few, intensities of
    single pixels scatter below zero, and count as zero in the composition.

    References
    ----------
    Cliff and Lorimer 1975, doi:10.1111/j.1365-2818.1975.tb03895.x. Watanabe and Williams 2006,
    doi:10.1111/j.1365-2818.2006.01549.x. Schoonjans et al. 2011, doi:10.1016/j.sab.2011.09.011 (xraylib).

    Examples
    --------
    >>> import scalehsi as hsi
    >>> truth = hsi.simulate.phases((8, 8)).truth
    >>> found = hsi.quantify(truth["endmembers"], truth.attrs["elements"], thickness_nm=100, density=4.5)
    >>> found["atomic_percent"].sel(component=2, element=["Mg", "Fe", "O"]).round(1).values.tolist()
    [39.0, 10.0, 50.0]
    """
    if not isinstance(source, xr.Dataset | xr.DataArray):
        raise InputError(
            f"a result, a cube or spectra are expected, got {type(source).__name__}; "
            "open a file with scalehsi.open_result or scalehsi.open_cube"
        )
    options = _options(
        source,
        elements,
        extra=extra,
        method=method,
        k_factors=k_factors,
        k_units=k_units,
        counted=counted,
        reference=reference,
        lines=lines,
        fwhm=fwhm,
        energy_range=energy_range,
        foil=make_foil(
            thickness_nm=thickness_nm,
            density=density,
            takeoff_deg=takeoff_deg if takeoff_deg is not None else source.attrs.get("elevation_angle_deg"),
            beam_kev=beam_kev if beam_kev is not None else source.attrs.get("beam_energy_keV"),
        ),
    )
    areas = None if regions is None else check_regions(regions)
    if maps and areas is not None:
        raise InputError("maps and regions cannot be computed together; leave one of them out")
    if isinstance(source, xr.Dataset):
        if maps:
            return result_maps(source, options, counts=counts)
        return quantify_spectra(of_result(source, areas, counts=counts), options)
    if {Y, X, ENERGY} <= set(source.dims):
        if maps:
            return cube_maps(source, options)
        return quantify_spectra(of_cube(source, areas, counts=counts), options)
    if maps or areas is not None:
        raise InputError(f"maps and regions need pixels, and these spectra have the dims {source.dims}")
    return quantify_spectra(of_spectra(source, counts=counts), options)


def _options(source: Any, elements: Sequence[str] | None, *, extra: Sequence[str], **given: Any) -> Options:
    """Collect the options. `given` are fields of `Options`.

    Elements that are not given are those of the source that have a line on its axis.
    """
    if isinstance(elements, str) or isinstance(extra, str):
        raise InputError("elements and extra are lists of symbols; type elements=['Mg', 'Si', 'O']")
    others = tuple(dict.fromkeys(map(str, extra)))
    if elements is not None:
        return Options(tuple(dict.fromkeys(split_symbols(elements))), extra=others, **given)
    refuse_eels(source.attrs)
    named = [e for e in dict.fromkeys(split_symbols(source.attrs.get("elements", ()))) if e not in others]
    usable, left_out = split_by_axis(named, rising_kev(source), given) if ENERGY in source.coords else (named, [])
    return Options(tuple(usable), extra=others, left_out=tuple(left_out), **given)
