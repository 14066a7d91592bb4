"""The figures: lengths, energies, names, colours and values as they are drawn."""

from __future__ import annotations

import math
import re
import subprocess
import sys

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import scalehsi as hsi
from scalehsi import plots
from scalehsi.physics.identify import name_peaks
from scalehsi.physics.peaks import find_peaks, rise_at
from scalehsi.physics.xray_spectra import eds_spectrum
from scalehsi.plots import style
from scalehsi.plots.digest import digest, intensity_maps
from scalehsi.plots.line_marks import component_marks, strongest
from scalehsi.plots.maps import dominant_colours, mixed_colours, background_component
from scalehsi.schema import InputError
from tests.paths import DATA, ROOT
from tests.report.results import LINES, eds_result, eds_spectra, eels_result, masked_result, pca_result, series_result


@pytest.fixture(scope="module")
def good() -> xr.Dataset:
    return eds_result()[0]


def scale_bars(figure: Figure) -> list[tuple[float, str]]:
    """Length in the axes' unit and label of each scale bar."""
    found = []
    for axes in figure.axes:
        for patch in axes.patches:
            if patch.get_gid() == "scale-bar":
                found.append((patch.get_width(), axes.texts[-1].get_text()))
    return found


def names_at(axes: Axes) -> dict[str, float]:
    """The names over a spectrum and the energies that they stand for, in the axis' unit."""
    texts = [text for text in axes.texts if (text.get_gid() or "").startswith("line ")]
    return {text.get_text(): float(text.get_gid().split()[1]) for text in texts}


# Maps


@pytest.mark.parametrize(
    ("step", "units", "size", "length", "label"),
    [
        (10.0, "nm", 60, 200.0, "200 nm"),
        (0.01, "µm", 60, 200.0, "200 nm"),
        (0.5, "Å", 40, 0.5, "0.5 nm"),
        (0.2, "um", 50, 2000.0, "2 µm"),
        (0.46, "nm", 33, 5.0, "5 nm"),
        (2e-4, "nm", 40, 2e-3, "2 pm"),
        (1.0, "furlong", 60, 20.0, "20 px"),
    ],
)
def test_scale_bar_has_a_round_length(step: float, units: str, size: int, length: float, label: str) -> None:
    result, _ = eds_result(size, step=step, units=units)
    bars = scale_bars(plots.maps(result))
    assert len(bars) == 3
    for width, text in bars:
        assert width == pytest.approx(length)
        assert text == label


@given(st.floats(1e-6, 1e9))
def test_round_lengths_are_the_largest_that_fit(span: float) -> None:
    length = style.round_length(span)
    mantissa = length / 10.0 ** math.floor(math.log10(length) + 1e-9)
    assert round(mantissa, 6) in (1, 2, 5)
    assert length <= span * (1 + 1e-8)
    assert span < 2.5 * length * (1 + 1e-8)


def test_maps_are_to_scale_and_in_counts(good: xr.Dataset) -> None:
    uneven = good.assign_coords(y=("y", 5.0 * np.arange(60), {"units": "nm"}))
    figure = plots.maps(uneven)
    panels = [axes for axes in figure.axes if axes.images]
    assert len(panels) == 3
    assert len(figure.axes) == 6
    for number, axes in enumerate(panels):
        assert axes.images[0].get_extent() == [0.0, 600.0, 300.0, 0.0]
        assert axes.get_aspect() == 1.0
        expected = good.abundances[number] * float(good.endmembers[number].sum())
        np.testing.assert_allclose(np.asarray(axes.images[0].get_array()), expected, rtol=1e-5)
        assert axes.get_title(loc="left") == f"Component {number + 1}"
        assert axes.images[0].get_cmap().name == "viridis"
        low, high = axes.images[0].get_clim()
        assert low == 0.0
        assert high == pytest.approx(np.percentile(expected, 99.8), rel=1e-4)


def test_elongated_maps_are_stretched() -> None:
    scan = eds_result()[0].isel(y=slice(2))
    assert {axes.get_aspect() for axes in plots.maps(scan).axes if axes.images} == {"auto"}


def test_signed_maps_are_symmetric_about_zero() -> None:
    figure = plots.maps(pca_result())
    for axes in (axes for axes in figure.axes if axes.images):
        low, high = axes.images[0].get_clim()
        assert low == -high
        assert axes.images[0].get_cmap().name == "PuOr_r"


def test_leading_dims_share_a_scale_per_component() -> None:
    panels = [axes for axes in plots.maps(series_result()).axes if axes.images]
    assert len(panels) == 9
    assert panels[5].get_title(loc="left") == "Component 2\ntime = 5 s"
    assert len({axes.images[0].get_clim() for axes in panels[3:6]}) == 1


# The composite


def test_composite_has_the_colours_of_the_spectra(good: xr.Dataset) -> None:
    drawn = np.maximum(intensity_maps(digest(good)), 0)[:, 0]
    pure = np.zeros((3, 1, 3))
    pure[0, 0, :2] = 10.0, 5.0
    pure[:, 0, 2] = np.nan
    mixed = mixed_colours(pure, 10.0)
    first, second = (np.array([int(style.colour(k)[i : i + 2], 16) / 255 for i in (1, 3, 5)]) for k in range(2))
    np.testing.assert_allclose(mixed[0, 0], first)
    np.testing.assert_allclose(mixed[0, 1], 0.5 + 0.5 * first)
    np.testing.assert_allclose(mixed[0, 2], [0xD4 / 255] * 3)
    strongest_pixel = dominant_colours(drawn)[39, 39]
    np.testing.assert_allclose(strongest_pixel, second)
    labels = [text.get_text() for text in plots.composite(good).legends[0].get_texts()]
    assert labels == ["Component 1", "Component 2", "Component 3"]


def test_composite_numbers_lie_in_their_regions(good: xr.Dataset) -> None:
    axes = plots.composite(good).axes[1]
    winner = np.argmax(intensity_maps(digest(good))[:, 0], axis=0)
    numbers = {text.get_text(): text.get_position() for text in axes.texts if text.get_text().isdigit()}
    assert set(numbers) == {"1", "2", "3"}
    for number, (x, y) in numbers.items():
        assert winner[int(y / 10), int(x / 10)] == int(number) - 1


def test_composite_leaves_out_a_background_and_greys_what_was_masked() -> None:
    assert background_component(digest(eels_result())) == 0
    labels = [text.get_text() for text in plots.composite(eels_result()).legends[0].get_texts()]
    assert labels == ["Component 2", "Component 3", "Component 4"]
    figure = plots.composite(masked_result())
    assert figure.legends[0].get_texts()[-1].get_text() == "not used"
    for axes in figure.axes:
        np.testing.assert_allclose(np.asarray(axes.images[0].get_array())[0, 0], [0xD4 / 255] * 3)


def test_composite_of_signed_maps_is_refused() -> None:
    with pytest.raises(InputError, match=r"this PCA result has negative values; draw scalehsi\.plots\.maps"):
        plots.composite(pca_result())


# Spectra and their names


def test_lines_are_named_at_their_energies_where_there_is_a_peak(good: xr.Dataset) -> None:
    panels = plots.spectra(good).axes[1:]
    expected = [
        {"O Kα", "Mg Kα", "Al Kα", "Si Kα", "Fe Kα"},
        {"O Kα", "Mg Kα", "Fe Kα", "Fe Kβ"},
        {"O Kα", "Si Kα", "Ca Kα", "Ca Kβ", "Fe Kα"},
    ]
    for axes, names in zip(panels, expected, strict=True):
        assert set(names_at(axes)) == names
        for name, energy in names_at(axes).items():
            assert energy == pytest.approx(LINES[name.replace("α", "a").replace("β", "b")], abs=0.006)
        assert axes.get_yscale() == "log"


def test_an_absent_element_gets_no_name_and_a_foreign_peak_a_question_mark(good: xr.Dataset) -> None:
    asked = good.assign_attrs(elements=["O", "Mg", "Si", "Fe", "Ti", "Pt"])
    names = names_at(plots.spectra(asked, components=[0], overview=False).axes[0])
    assert set(names) == {"O Kα", "Mg Kα", "Al Kα?", "Si Kα", "Fe Kα"}
    copper = good.copy(deep=True)
    energy = good.energy.values
    for line, height in (("Cu Ka", 0.02), ("Cu Kb", 0.0028)):
        copper["endmembers"][1] += height * 0.15 * np.exp(-0.5 * ((energy - LINES[line]) / 0.066) ** 2)
    names = names_at(plots.spectra(copper, components=[1], overview=False).axes[0])
    assert {"Cu Kα?", "Cu Kβ?"} <= set(names)
    assert names["Cu Kα?"] == pytest.approx(8.041, abs=0.01)


def test_a_weak_line_needs_its_strong_line() -> None:
    energy = 0.2 + 0.01 * np.arange(1000)
    alone = 100.0 + 5000.0 * np.exp(-0.5 * ((energy - LINES["Fe Kb"]) / 0.06) ** 2)
    drawn = np.random.default_rng(0).poisson(alone)
    assert [mark.label for mark in name_peaks(find_peaks(energy, drawn), ["Fe"]) if mark.certain] == []
    both = np.random.default_rng(0).poisson(alone + 40000 * np.exp(-0.5 * ((energy - LINES["Fe Ka"]) / 0.057) ** 2))
    assert [mark.label for mark in name_peaks(find_peaks(energy, both), ["Fe"])] == ["Fe Kα", "Fe Kβ"]


def test_a_listed_element_without_a_peak_does_not_hide_the_copper_of_the_grid() -> None:
    energy = 0.2 + 0.01 * np.arange(1000)
    spectrum = np.full(energy.size, 30.0)
    for line, height in (("Cu Ka", 6000), ("Cu Kb", 820)):
        spectrum += height * np.exp(-0.5 * ((energy - LINES[line]) / 0.063) ** 2)
    drawn = np.random.default_rng(0).poisson(spectrum)
    marks = name_peaks(find_peaks(energy, drawn), ["Hf", "Lu", "Fe"])  # Hf Lα lies at 7.90 keV, beside Cu Kα at 8.04
    assert [(mark.label, mark.certain) for mark in marks] == [("Cu Kα", False), ("Cu Kβ", False)]


def test_unknown_elements_are_found_from_the_peaks(good: xr.Dataset) -> None:
    unknown = good.assign_attrs(elements=[])
    marks = component_marks(digest(unknown))
    assert strongest(marks[0]) == ["Mg Kα", "Si Kα", "O Kα", "Al Kα"]
    assert {mark.label for mark in marks[1]} == {"O Kα", "Mg Kα", "Fe Kα", "Fe Kβ"}
    assert {mark.label for mark in marks[2]} == {"O Kα", "Si Kα", "Ca Kα", "Ca Kβ", "Fe Kα"}
    assert not any(mark.certain for row in marks for mark in row)


def test_energies_in_ev_are_named_alike(good: xr.Dataset) -> None:
    in_ev = good.assign_coords(energy=("energy", 1000 * good.energy.values, {"units": "eV"}))
    names = names_at(plots.spectra(in_ev, components=[2], overview=False).axes[0])
    assert names["Ca Kα"] == pytest.approx(3691, abs=6)


def test_noise_makes_no_peaks_and_peaks_lie_where_they_should() -> None:
    energy = 0.2 + 0.01 * np.arange(1000)
    for seed in range(10):
        flat = np.random.default_rng(seed).poisson(200 * np.exp(-energy / 3) + 5)
        assert find_peaks(energy, flat).energy.size == 0
    drawn = np.random.default_rng(0).poisson(1e6 * eds_spectra(energy)[2])
    found = find_peaks(energy, drawn)
    np.testing.assert_allclose(found.energy, [0.525, 1.740, 3.691, 4.013, 6.399], atol=0.005)
    # Gain must not matter.
    np.testing.assert_allclose(find_peaks(energy, 1e-4 * drawn).energy, found.energy)


@pytest.mark.parametrize("elements", [("Fe", "Pt"), ()])
def test_real_nanoparticles_show_their_lines(elements: tuple[str, ...]) -> None:
    file = DATA / "edx_FePt" / "compact.npz"
    if not file.is_file():
        pytest.skip("the test data are not beside this checkout; test_unknown_elements_are_found is the twin")
    spectrum = np.load(file)["core_shell"].sum((0, 1), dtype=np.int64)
    energy = 0.16 + 0.02 * np.arange(spectrum.size)
    marks = name_peaks(find_peaks(energy, spectrum), elements)
    named = {mark.label: mark.energy for mark in marks}
    for label, at in (("Fe Kα", 6.40), ("Pt Mα", 2.05), ("Pt Lα", 9.44), ("Cu Kα", 8.04), ("C Kα", 0.28)):
        assert named[label] == pytest.approx(at, abs=0.02)
    assert {mark.label.split()[0] for mark in marks if mark.certain} == set(elements)


def test_real_minerals_show_their_lines() -> None:
    file = DATA / "edx_88ESLP" / "compact.npz"
    if not file.is_file():
        pytest.skip("the test data are not beside this checkout; test_lines_are_named_at_their_energies is the twin")
    spectrum = np.load(file)["counts"].sum((0, 1), dtype=np.int64)
    energy = 0.83152 + 0.01000468 * np.arange(spectrum.size)
    named = {mark.label for mark in name_peaks(find_peaks(energy, spectrum), ("Mg", "Si", "Ca", "Fe"))}
    assert {"Mg Kα", "Si Kα", "Ca Kα", "Fe Kα", "Fe Kβ", "Al Kα", "Cu Kα"} <= named


def test_edges_are_marked_and_told_apart_from_those_that_show() -> None:
    result = eels_result()
    panels = plots.spectra(result).axes[1:]
    for axes in panels:
        assert names_at(axes) == pytest.approx({"C K": 283.8, "Ca L3": 346.4, "Ca L2": 350.0, "O K": 532.0}, abs=0.1)
        assert axes.get_yscale() == "linear"
    shown = [strongest(row) for row in component_marks(digest(result))]
    assert shown == [[], ["C K"], ["Ca L3"], ["O K"]]


def test_rises_need_more_than_noise_or_a_falling_trend() -> None:
    energy = 200.0 + np.arange(400)
    falling = (energy / 200) ** -3.0
    assert rise_at(energy, falling, 400.0) == 0.0
    noisy = falling + np.random.default_rng(0).normal(0, 0.01, 400)
    assert rise_at(energy, noisy, 400.0) == 0.0
    assert rise_at(energy, noisy + 0.1 * (energy > 400), 400.0) == pytest.approx(0.1, abs=0.02)
    assert rise_at(energy, noisy, 205.0) == 0.0


def test_spectra_are_scaled_to_the_counts_of_the_map(good: xr.Dataset) -> None:
    axes = plots.spectra(good, components=[1], overview=False, scale="linear").axes[0]
    expected = good.endmembers[1] * float(good.abundances[1].sum())
    np.testing.assert_allclose(axes.lines[0].get_ydata(), expected, rtol=1e-5)
    assert axes.get_yscale() == "linear"
    assert axes.get_xlim() == (pytest.approx(0.2), pytest.approx(10.19))
    assert axes.get_xlabel() == "Energy (keV)"


def test_colours_and_line_styles_differ_and_are_the_same_everywhere(good: xr.Dataset) -> None:
    overview = plots.spectra(good, components=[]).axes[0]
    drawn = [line for line in overview.lines if len(line.get_xdata()) == 1000]
    assert [line.get_color() for line in drawn] == [style.colour(k) for k in range(3)]
    assert len({(style.colour(k), str(style.line_style(k))) for k in range(35)}) == 35
    assert [text.get_text() for text in overview.texts] == ["Component 1", "Component 2", "Component 3"]


def test_wrong_choices_are_refused(good: xr.Dataset) -> None:
    with pytest.raises(InputError, match="scale 'logg' is not known; did you mean 'log'"):
        plots.spectra(good, scale="logg")
    with pytest.raises(InputError, match="there is no component 3: there are 3, counted from 0"):
        plots.spectra(good, components=[3])


@given(st.lists(st.floats(0, 10), min_size=1, max_size=30), st.floats(0.05, 1.0))
def test_names_never_overlap_and_keep_their_order(wanted: list[float], gap: float) -> None:
    wanted = sorted(wanted)
    placed = style.spread_labels(wanted, gap, 0.0, 10.0)
    free = min(gap, 10.0 / max(len(wanted) - 1, 1))
    assert (np.diff(placed) >= free - 1e-9).all()
    assert placed[0] >= -1e-9
    assert placed[-1] <= 10.0 + 1e-9
    if len(wanted) == 1 or (np.diff(wanted) >= gap).all():
        np.testing.assert_allclose(placed, wanted, atol=1e-9)


# Quality


def test_objective_is_logarithmic_only_over_decades(good: xr.Dataset) -> None:
    assert plots.objective(good).axes[0].get_yscale() == "log"
    slow = good.drop_vars("objective").assign(objective=("iteration", [3.0, 2.5, np.nan, 2.4]))
    axes = plots.objective(slow).axes[0]
    assert axes.get_yscale() == "linear"
    np.testing.assert_array_equal(axes.lines[0].get_xdata(), [1, 2, 4])


def test_residual_of_poisson_counts_is_one_in_units_of_noise(good: xr.Dataset) -> None:
    view = digest(good)
    assert view.relative_residual is not None
    assert np.median(view.relative_residual) == pytest.approx(1.0, abs=0.05)
    figure = plots.residual(good)
    assert [axes.get_title(loc="left") for axes in figure.axes[:2]] == ["RMS residual", "RMS residual / counting noise"]
    spectrum = figure.axes[-1].lines[-1].get_ydata()
    np.testing.assert_allclose(spectrum, good.residual_spectrum)


def test_scree_marks_the_lowest_indicator() -> None:
    result = pca_result()
    figure = plots.scree(result)
    lowest = int(np.nanargmin(result.malinowski_ind[:125])) + 1
    assert lowest == 3
    assert [text.get_text() for text in figure.axes[1].texts] == ["kept", "lowest at 3"]
    np.testing.assert_allclose(figure.axes[0].lines[0].get_ydata()[:30], result.eigenvalues[:30])


def test_comparison_pairs_truth_and_estimate() -> None:
    result, truth = eds_result()
    figure = plots.comparison(result, truth)
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    heads = [title for title in titles if "→" in title]
    assert [re.sub(r": .*", "", head) for head in heads] == [
        "CaPv → Component 3",
        "Brg → Component 1",
        "Fp → Component 2",
    ]
    assert all(float(re.search(r": ([\d.]+)°", head)[1]) < 3 for head in heads)
    shares = [np.asarray(axes.images[0].get_array()) for axes in figure.axes if axes.images]
    np.testing.assert_allclose(np.nansum(shares[0::2], axis=0), 1.0, rtol=1e-5)


def test_comparison_with_fewer_components_and_another_grid() -> None:
    result, truth = eds_result()
    figure = plots.comparison(result.isel(component=[0, 2]), truth.isel(x=slice(30)))
    assert len(figure.axes) == 2
    assert figure.axes[0].get_title(loc="left").startswith("CaPv → Component 2")


def test_composition_draws_the_fit_and_names_what_was_measured(good: xr.Dataset) -> None:
    found = hsi.quantify(good)
    figure = plots.composition(found, which=[0, 2])
    assert len(figure.subfigs) == 2
    top, bottom = figure.subfigs[0].axes
    names = {text.get_text(): text.get_fontweight() for text in top.texts}
    for line in ("O Kα", "Mg Kα", "Si Kα"):
        assert names[line] == "bold"
    assert names["Component 1"] == "bold"
    data = next(line for line in top.lines if line.get_label() == "data")
    np.testing.assert_array_equal(data.get_ydata(), found["spectrum"][0])
    one = found.isel(component=0)
    np.testing.assert_allclose(bottom.lines[-1].get_ydata(), (one["spectrum"] - one["model"]) / np.sqrt(one["model"]))
    assert top.get_yscale() == "log"


def test_an_element_that_is_not_found_is_not_set_in_bold(good: xr.Dataset) -> None:
    found = hsi.quantify(good, ["O", "Mg", "Al", "Si", "Ca", "Fe", "Ti"])
    (top, _) = plots.composition(found, which=[0]).subfigs[0].axes
    weights = {text.get_text(): text.get_fontweight() for text in top.texts}
    assert (weights["Ti Kα"], weights["Mg Kα"]) == ("normal", "bold")


def test_composition_needs_spectra(good: xr.Dataset) -> None:
    with pytest.raises(InputError, match=r"this Dataset has no 'spectrum'; give what hsi.quantify"):
        plots.composition(hsi.quantify(good, maps=True))
    with pytest.raises(InputError, match="there is no spectrum 7: there are 3, counted from 0"):
        plots.composition(hsi.quantify(good), which=[7])


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("objective", "this NMF result has no 'objective'"),
        ("residual", "this NMF result has no 'residual'"),
        ("scree", "this NMF result has no 'eigenvalues'; fit hsi.PCA"),
    ],
)
def test_missing_variables_are_named(good: xr.Dataset, name: str, match: str) -> None:
    bare = good.drop_vars(["objective", "residual", "residual_spectrum"])
    with pytest.raises(InputError, match=match):
        getattr(plots, name)(bare)


def test_pyplot_is_never_touched() -> None:
    code = (
        "import sys; from tests.report import results as r; from scalehsi import plots; "
        "plots.maps(r.eds_result(8)[0]).savefig(sys.stdout.buffer); assert 'matplotlib.pyplot' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(b"\x89PNG")


# Bins, and what denoising brings


def scan() -> xr.Dataset:
    """A scan of bins as `scalehsi.scan_bins` gives it."""
    return xr.Dataset(
        {
            "score": ("bin", [-0.8, -0.02, 0.0, -0.5, -11.0]),
            "score_error": ("bin", [0.03, 0.02, 0.0, 0.05, 0.3]),
            "stability": ("bin", [3.0, 2.5, 2.4, 3.1, 4.0]),
        },
        coords={"bin": [2, 4, 8, 12, 24]},
        attrs={"chosen": 8},
    )


def test_bins_are_drawn_with_their_errors_and_the_choice(good: xr.Dataset) -> None:
    figure = plots.bins(scan())
    left, right = figure.axes
    line, _, (bars,) = left.containers[0]
    np.testing.assert_allclose(line.get_xydata(), np.column_stack([scan()["bin"], scan()["score"]]))
    spans = np.array([segment[:, 1] for segment in bars.get_segments()])
    np.testing.assert_allclose(spans[:, 1] - spans[:, 0], 2 * scan()["score_error"])
    np.testing.assert_allclose(right.lines[0].get_ydata(), scan()["stability"])
    assert left.get_yscale() == "symlog"
    for axes in (left, right):
        chosen = next(patch for patch in axes.patches if patch.get_gid() == "chosen")
        assert chosen.get_x() < 8 < chosen.get_x() + chosen.get_width()
        assert [text.get_text() for text in axes.get_xticklabels()] == ["2", "4", "8", "12", "24"]
        assert axes.get_title(loc="left") == "used: 8 × 8 pixels"


def test_bins_of_a_result_are_those_of_its_scan(good: xr.Dataset) -> None:
    kept = {f"bin_{name}": values for name, values in scan().data_vars.items()}
    figure = plots.bins(good.assign(kept).assign(bin_factor=("axis", [4, 4])))
    assert figure.axes[0].get_title(loc="left") == "used: 4 × 4 pixels"
    np.testing.assert_allclose(figure.axes[1].lines[0].get_ydata(), scan()["stability"])
    with pytest.raises(InputError, match=r"no scan of bins .* draw what hsi\.scan_bins\(cube\) gives"):
        plots.bins(good)


def counts_of(truth: xr.Dataset) -> xr.DataArray:
    """Counts drawn from a truth."""
    drawn = np.random.default_rng(3).poisson(np.einsum("kyx,ke->yxe", truth.abundances, truth.endmembers))
    coords = {name: truth[name] for name in ("y", "x", "energy")}
    attrs = {"signal": "EDS", "elements": ["O", "Mg", "Al", "Si", "Ca", "Fe"]}
    return xr.DataArray(drawn.astype("u2"), dims=("y", "x", "energy"), coords=coords, attrs=attrs)


def test_denoised_maps_share_a_scale_and_say_how_near_they_are(good: xr.Dataset) -> None:
    truth = eds_result()[1]
    cube = counts_of(truth)
    results = {"NMF": good, "PCA": good.assign(offset=("energy", np.full(1000, 0.01)))}
    figure = plots.denoised(cube, results, "Ca Ka", truth)
    panels = [axes for axes in figure.axes if axes.images]
    assert len({axes.images[0].get_clim() for axes in panels}) == 1
    assert len(scale_bars(figure)) == 4
    inside = (truth.energy.values >= 3.691 - 0.06) & (truth.energy.values <= 3.691 + 0.06)
    true = np.einsum("kyx,k->yx", truth.abundances, truth.endmembers.values[:, inside].sum(axis=1))
    model = np.einsum("kyx,k->yx", good.abundances, good.endmembers.values[:, inside].sum(axis=1))
    expected = {
        "Truth": true,
        "Measured": cube.values[..., inside].sum(axis=-1),
        "NMF": model,
        "PCA": model + 0.01 * inside.sum(),
    }
    for axes, (name, values) in zip(panels, expected.items(), strict=True):
        np.testing.assert_allclose(np.asarray(axes.images[0].get_array()), values, rtol=1e-5, atol=1e-6)
        title = axes.get_title(loc="left")
        assert title.split("\n")[0] == name
        if name != "Truth":
            found = np.corrcoef(values.ravel(), true.ravel())[0, 1]
            assert float(title.split()[-1]) == pytest.approx(found, abs=6e-4)
    assert figure.axes[-1].get_ylabel() == "counts per pixel at Ca Kα"


def test_denoised_maps_without_a_truth_and_with_a_mask(good: xr.Dataset) -> None:
    masked = masked_result()
    cube = counts_of(eds_result()[1]).assign_coords(mask=masked["mask"])
    figure = plots.denoised(cube, {"NMF": masked}, (1.0, 1.5))
    panels = [axes for axes in figure.axes if axes.images]
    assert [axes.get_title(loc="left") for axes in panels] == ["Measured", "NMF"]
    for axes in panels:
        assert np.isnan(np.ma.filled(axes.images[0].get_array(), np.nan)[~masked["mask"].values]).all()
    assert figure.axes[-1].get_ylabel() == "counts per pixel at 1 to 1.5 keV"
    with pytest.raises(InputError, match="no result is given"):
        plots.denoised(cube, {}, "Fe Ka")
    with pytest.raises(InputError, match=r"a window is a line such as 'Fe Ka' or its ends"):
        plots.denoised(cube, {"NMF": masked}, (1.0, 2.0, 3.0))


def test_faint_lines_of_known_elements_come_before_other_elements() -> None:
    """The weakest lines of uranium and neodymium are no palladium, and no lanthanum."""
    energy = np.linspace(0.2, 20.0, 1980)
    spectrum = eds_spectrum({"Si": 20.0, "U": 1.0, "Nd": 3.0, "O": 76.0}, energy)
    named = name_peaks(find_peaks(energy, spectrum / spectrum.sum() * 3e5), ("Si", "U", "Nd", "O"))
    certain = {mark.label for mark in named if mark.certain}
    assert {"U M", "U Mα", "Nd Lα", "Nd Lℓ"} <= certain
    assert not {"Pd Lα", "La Lα"} & {mark.label for mark in named}


def test_peaks_are_looked_for_before_smoothing(good: xr.Dataset) -> None:
    rng = np.random.default_rng(0)
    flat = np.full((3, 1000), 20.0)
    rough = rng.poisson(flat).astype(float)
    soft = np.array([np.convolve(row, np.ones(12) / 12, mode="same") for row in rough])
    result = good.assign(endmembers=(("component", "energy"), soft / soft.sum(axis=1, keepdims=True)))
    share = result.abundances.sum(("y", "x")).values
    result["abundances"] = result.abundances * (2e4 / share)[:, None, None]
    raw = (("component", "energy"), rough / rough.sum(axis=1, keepdims=True))
    with_raw = component_marks(digest(result.assign(unsmoothed_endmembers=raw)))
    assert sum(map(len, with_raw)) == 0


# Length scales


@pytest.fixture(scope="module")
def lengths() -> xr.Dataset:
    return hsi.lengthscale_scan(hsi.simulate.maps(kind="atoms", pixel_size_nm=0.05).maps)


def test_length_scales_are_drawn_where_they_are(lengths: xr.Dataset) -> None:
    figure = plots.lengthscales(lengths)
    left, right = figure.axes
    drawn = [line for line in left.lines if line.get_label().startswith("Component")]
    assert len(drawn) == 6
    for line, own in zip(drawn, lengths["converged"], strict=True):
        np.testing.assert_allclose(line.get_ydata(), own)
        np.testing.assert_allclose(line.get_xdata(), lengths["limit"])
    markers = [line.get_xdata() for line in right.lines if line.get_marker() == "v"]
    np.testing.assert_allclose(markers[0], lengths["basin"][0])
    shades = [patch for axes in figure.axes for patch in axes.patches if patch.get_gid() == "recommended"]
    assert len(shades) == 2
    low, high = lengths["recommended"].values
    assert shades[0].get_y() == pytest.approx(low)
    assert shades[1].get_x() + shades[1].get_width() == pytest.approx(high)
    assert left.get_title(loc="left").endswith("(28 pm to 0.17 nm)")
    assert left.get_xlabel() == "Upper limit of the length scale (pixels)"
    assert len(style.to_png(figure)) > 10_000


def test_length_scales_without_any(lengths: xr.Dataset) -> None:
    none = lengths.assign(
        recommended=lengths["recommended"] * np.nan, recommended_nm=lengths["recommended_nm"] * np.nan
    )
    left, _ = plots.lengthscales(none.chunk()).axes
    assert left.get_title(loc="left") == "no length scale below the last limit"
    assert not left.patches
    with pytest.raises(InputError, match=r"draw what hsi\.lengthscale_scan"):
        plots.lengthscales(xr.Dataset({"loss": 1}))


def test_noise_ratios_are_a_line_each() -> None:
    sigma0, alpha = [0.1, 0.5, 1.0], [0.5, 1.0, 2.0, 4.0]
    values = np.random.default_rng(0).random((3, 3, 4))
    table = xr.Dataset(
        {"together": (("component", "sigma0", "alpha"), values), "alone": (("alpha", "sigma0", "component"), values.T)},
        coords={"component": [1, 2, 3], "sigma0": sigma0, "alpha": alpha},
    )
    figure = plots.noise_ratios(table)
    assert len(figure.axes) == 6
    assert [axes.get_title(loc="left") for axes in figure.axes[:2]] == [
        "Component 1, together",
        "Component 2, together",
    ]
    assert [axes.get_xlabel() for axes in figure.axes] == [""] * 3 + ["Noise σ₀"] * 3
    for number, axes in enumerate(figure.axes):
        assert len(axes.lines) == 4
        np.testing.assert_allclose(axes.lines[2].get_ydata(), values[number % 3, :, 2])
    assert len(style.to_png(figure)) > 10_000
    with pytest.raises(InputError, match="have the dims"):
        plots.noise_ratios(table.isel(alpha=0))
