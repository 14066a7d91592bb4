"""The common look: scale bars, labels, colours, and no trace in pyplot."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from scalehsi import plots
from scalehsi.plots import style
from tests.paths import ROOT
from tests.plots.drawn import scale_bars
from tests.report.results import eds_result

pytestmark = pytest.mark.long


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


@given(st.lists(st.floats(0, 10), min_size=1, max_size=30), st.floats(0.05, 1.0))
def test_labels_never_overlap_and_keep_their_order(wanted: list[float], gap: float) -> None:
    wanted = sorted(wanted)
    placed = style.spread_labels(wanted, gap, 0.0, 10.0)
    free = min(gap, 10.0 / max(len(wanted) - 1, 1))
    assert (np.diff(placed) >= free - 1e-9).all()
    assert placed[0] >= -1e-9
    assert placed[-1] <= 10.0 + 1e-9
    if len(wanted) == 1 or (np.diff(wanted) >= gap).all():
        np.testing.assert_allclose(placed, wanted, atol=1e-9)


def test_colours_and_line_styles_differ_and_are_the_same_everywhere(good: xr.Dataset) -> None:
    overview = plots.spectra(good, components=[]).axes[0]
    drawn = [line for line in overview.lines if len(line.get_xdata()) == 1000]
    assert [line.get_color() for line in drawn] == [style.colour(k) for k in range(3)]
    assert len({(style.colour(k), str(style.line_style(k))) for k in range(35)}) == 35
    assert [text.get_text() for text in overview.texts] == ["Component 1", "Component 2", "Component 3"]


def test_importing_stays_light_and_pyplot_is_never_touched() -> None:
    heavy = "matplotlib", "xraylib", "torch", "cupy", "distributed", "rsciio"
    code = f"""
import sys, scalehsi.report, scalehsi.plots
found = [name for name in {heavy} if name in sys.modules]
assert not found, found
from tests.report import results
scalehsi.plots.maps(results.eds_result(8)[0]).savefig(sys.stdout.buffer)
assert "matplotlib.pyplot" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("ticks", "texts"),
    [
        ([0, 20_000, 40_000], ["0", "20 k", "40 k"]),
        ([1.111e9, 1.1115e9, 1.112e9], ["1.1110 G", "1.1115 G", "1.1120 G"]),
        ([0, 5000, 10_000], ["0", "5 k", "10 k"]),
        ([0, 500, 1000], ["0", "500", "1000"]),
        ([-0.002, 0, 0.002], ["\N{MINUS SIGN}0.002", "0", "0.002"]),
        ([0, 2e-5, 4e-5], ["0", "20 µ", "40 µ"]),
        ([0.0], ["0"]),
    ],
)
def test_ticks_have_a_letter_in_place_of_a_power_of_ten(ticks: list[float], texts: list[str]) -> None:
    assert style.tick_labels(ticks) == texts


@given(st.floats(1e-11, 1e14), st.integers(1, 9), st.sampled_from([0.0, 1.0, 7.0, 1000.0]))
def test_ticks_are_read_back_as_they_are(step: float, count: int, first: float) -> None:
    """No tick hides a difference, whatever its size."""
    step = float(f"{step:.1g}")
    ticks = step * (first + np.arange(count))
    letters = {letter: power for power, letter in style.PREFIXES.items()}
    for value, text in zip(ticks, style.tick_labels(ticks), strict=True):
        number, _, letter = text.partition(" ")
        assert float(number) * 10.0 ** letters[letter] == pytest.approx(value, rel=1e-3, abs=1e-2 * step)
        assert "e" not in text


def test_no_figure_of_a_result_has_an_exponent_or_an_offset() -> None:
    result, _ = eds_result(20)
    large = result.assign(abundances=1e6 * result.abundances, objective=1.111e9 + 1e-4 * result.objective)
    for draw in (plots.maps, plots.objective, plots.residual):
        figure = draw(large)
        figure.canvas.draw()
        for axes in figure.axes:
            assert axes.yaxis.get_offset_text().get_text() == ""
            texts = [] if axes.get_yscale() == "log" else [tick.get_text() for tick in axes.get_yticklabels()]
            assert not any("e" in text or "\N{MULTIPLICATION SIGN}" in text for text in texts)
    assert any(text.get_text().endswith(" M") for axes in plots.maps(large).axes for text in axes.get_yticklabels())


def test_the_overview_of_counts_is_logarithmic() -> None:
    """A line of a hundredth of the strongest one is a third of a panel high, not a hundredth."""
    result, _ = eds_result(20)
    (axes,) = plots.spectra(result, components=()).axes
    curve = next(line for line in axes.lines if len(line.get_xdata()) == 1000)
    energy, height = np.asarray(curve.get_xdata()), np.asarray(curve.get_ydata())
    share = float(result.endmembers[0].sel(energy=slice(6.3, 6.5)).max() / result.endmembers[0].max())
    weak = float(height[abs(energy - 6.4) < 0.1].max()) - 2 * 1.12
    assert share < 0.1
    assert weak == pytest.approx(1 + np.log10(share) / 3, abs=0.05)
