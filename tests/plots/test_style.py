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
