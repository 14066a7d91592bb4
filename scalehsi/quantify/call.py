"""The public function: what it takes, what it gives, and to which part it hands over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import xarray as xr

from scalehsi.physics.line_templates import Width
from scalehsi.quantify.maps import cube_maps, result_maps
from scalehsi.quantify.options import COMPUTED, Options, make_foil
from scalehsi.quantify.sources import check_regions, of_cube, of_result, of_spectra
from scalehsi.quantify.spectra import quantify_spectra
from scalehsi.schema import ENERGY, InputError, X, Y


def quantify(
    source: xr.Dataset | xr.DataArray,
    elements: Sequence[str] | None = None,
    *,
    maps: bool | None = None,
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
    """Give the composition of EDX spectra, components, regions or every pixel, in atomic and mass per cent.

    Overlapping lines are solved together, the continuum is taken off, and net counts become a composition by
    Cliff-Lorimer ratios, corrected for absorption where thickness and density are given.

    Parameters
    ----------
    source : xarray.Dataset or xarray.DataArray
        - a result: the composition of each component, whose spectrum stands for all counts of its map;
        - a cube: that of every pixel, or of the sum of all pixels with ``maps=False``;
        - spectra with the dims ``(energy,)`` or ``(something, energy)``: that of each.
    elements : sequence of str, optional
        Those of the sample; their percentages sum to 100. The source's own list by default.
    maps : bool, optional
        Maps of every pixel, lazy: the default for a cube without regions. Of a result they come from its abundances and
        are as free of noise as these; of a cube each pixel speaks for itself.
    regions : DataArray of bool, or mapping of str to such, optional
        One composition a region of a cube or a result; the dims are those of a map. A dim ``region`` holds several.
    method : {"fit", "windows"}
        - "fit": all lines and the continuum at once, weighted by the expected counts. Least noise.
        - "windows": counts in windows minus their side windows, then the overlaps. Needs no shape of the continuum.
    k_factors : "computed", or mapping of str to float
        ``{"Si_Ka": 1.0, "Fe_Ka": 1.32, ...}``, or by element. "computed": from cross sections, yields and the
        efficiency of a windowless silicon drift detector (see Notes); trust them to some 5 % for K, 10 to 20 % for L
        and M lines.
    k_units : {"weight", "atomic"}
        Whether given k-factors make mass fractions, as is usual (Cliff and Lorimer, HyperSpy), or atomic ones.
    counted : {"window", "family"}
        What k-factors that are given were measured for: counts in a window of 1.2 peak widths (whole channels), or of
        the whole family (Ka without Kb). Without effect on a composition from computed ones.
    reference : str, optional
        The element whose k-factor is one in what is told: Si where it is there, else the first.
    lines : sequence of str, or mapping, optional
        Lines to use, as ``["Fe_Ka", "Pt_La"]``; for the other elements the strongest that is well known and little
        covered.
    extra : sequence of str
        Elements in the spectrum that are not in the sample (grid, film, holder): fitted, and left out of the sum.
    thickness_nm, density : float, optional
        Of the foil, in nm and g/cm^3. Without them absorption is not corrected.
    takeoff_deg : float, optional
        Elevation of the detector above the foil; the source's ``elevation_angle_deg``, else 35 degrees. It matters with
        a thickness only.
    beam_kev : float, optional
        The source's ``beam_energy_keV``, else 200 keV.
    fwhm : float, "estimate" or callable, optional
        Width of the peaks: resolution at Mn Ka in eV (130 is usual), or a function of the energy, both in keV.
        "estimate" fits a factor, and a shift of the energy axis of at most 40 eV, to the sum of the spectra (a second
        or two). Default: 0.01 E + 0.065 keV.
    energy_range : (float, float), keV, optional
        What is fitted; from 1.3 peak widths below the lowest line to the end of the axis by default.
    counts : float or sequence of float, optional
        Total counts of each spectrum, where spectra were normalised: errors rest on it.

    Returns
    -------
    xarray.Dataset
        Dims ``(component | region | ..., element)``, or ``(element, ..., y, x)`` for maps. ``atomic_percent``,
        ``weight_percent``, ``intensity`` (net counts), each with ``_std``: the standard error that counting alone
        makes, NaN where counts are not known (``attrs["errors"]`` says so; maps of a result have none). For spectra
        also ``absorption`` (share of the photons that leaves the foil), ``spectrum``, ``model``, ``background`` (with
        ``energy``) and ``reduced_chi_square``. Coordinates along ``element``: ``line``, ``line_energy`` (keV),
        ``k_factor`` (for mass fractions).

    Raises
    ------
    InputError
        For unknown elements, a line outside the axis, a missing k-factor, an EELS signal, spectra that are all zero or
        negative, a thickness that is not positive.

    Notes
    -----
    Each shell of an element is fitted apart, so a wrong balance of K and L lines harms nothing. Lines, yields and
    attenuation are those of xraylib; cross sections follow Bethe's law with constants fitted to distorted-wave values.
    Cost: milliseconds a spectrum; one reading of a cube's data for its sum and regions, one more for its maps. Pixels
    of a cube are solved with the weights of its sum, without further constraint: where counts are few, single pixels
    scatter below zero, which counts as zero.

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
        raise InputError("maps and regions are two questions; ask them one after the other")
    if isinstance(source, xr.Dataset):
        if maps:
            return result_maps(source, options, counts=counts)
        return quantify_spectra(of_result(source, areas, counts=counts), options)
    if {Y, X, ENERGY} <= set(source.dims):
        if maps or (maps is None and areas is None):
            return cube_maps(source, options)
        return quantify_spectra(of_cube(source, areas, counts=counts), options)
    if maps or areas is not None:
        raise InputError(f"maps and regions need pixels, and these spectra have the dims {source.dims}")
    return quantify_spectra(of_spectra(source, counts=counts), options)


def _options(source: Any, elements: Sequence[str] | None, *, extra: Sequence[str], **given: Any) -> Options:
    """The options, with the elements that the source names where none are given."""
    if isinstance(elements, str) or isinstance(extra, str):
        raise InputError("elements and extra are lists of symbols; type elements=['Mg', 'Si', 'O']")
    named = source.attrs.get("elements", ()) if elements is None else elements
    named = [named] if isinstance(named, str) else named
    beside = tuple(dict.fromkeys(map(str, extra)))
    wanted = [e for e in dict.fromkeys(map(str, named)) if elements is not None or e not in beside]
    return Options(tuple(wanted), extra=beside, **given)
