"""Warnings of a Gaussian process, from small arrays."""

from __future__ import annotations

import pytest

import scalehsi as hsi
from scalehsi.fitting.judge.gaussian_process import judge, length_at_bound, maps_too_small, noise_not_identifiable
from scalehsi.result import ResultWarning, result_warnings, warnings_text

SHAPE = (32, 40)


@pytest.mark.parametrize(
    ("lengths", "bounds", "text", "remedy"),
    [
        ((10.0, 10.0), ((10, 11), (10, 11)), "The length ended at 10, the end of (10, 11)", "lengthscale=(1, 22)"),
        ((10.2, 10.5), ((10, 11), (10, 11)), "10.2, the end of (10, 11)", "lengthscale=(1, 22)"),
        ((2.0, 2.99), ((1, 3), (1, 3)), "2.99, the end of (1, 3)", "lengthscale=(1, 15)"),
        ((32.0, 32.0), ((20, 60), (20, 32)), "32, the end of (20, 32)", ""),
        ((3.0, 5.0), ((1, 3), (5, 9)), "3, the end of (1, 3) and 5, the end of (5, 9)", "lengthscale=(0.5, 18)"),
    ],
)
def test_a_length_at_an_end_of_its_interval(lengths, bounds, text, remedy) -> None:
    found = length_at_bound(lengths, bounds, SHAPE)
    assert found is not None
    assert found.code == "length_at_bound"
    assert text in found.text
    assert found.remedy == remedy


@pytest.mark.parametrize(
    ("lengths", "bounds", "shape"),
    [
        ((5.0, 6.0), ((1, 20), (1, 20)), SHAPE),
        ((1.05, 19.3), ((1, 20), (1, 20)), SHAPE),
        ((3.0, 3.0), ((3, 3), (3, 3)), SHAPE),
        ((3.1, 3.1), ((3, 3.1), (3, 3.1)), SHAPE),
        ((32.0, 40.0), None, SHAPE),
        ((1.0, 5.0), ((1, 20), (1, 20)), (1, 90)),
    ],
)
def test_lengths_inside_fixed_ones_and_default_ends_are_right(lengths, bounds, shape) -> None:
    assert length_at_bound(lengths, bounds, shape) is None


@pytest.mark.parametrize(
    ("lengths", "gain", "shape", "remedy"),
    [((0.6, 0.6), 100.0, SHAPE, "lengthscale=(2, 20)"), ((9.0, 2.0), 5.0, SHAPE, ""), ((0.5, 0.9), 40.0, (1, 60), "")],
)
def test_noise_that_looks_like_structure(lengths, gain, shape, remedy) -> None:
    found = noise_not_identifiable(lengths, shape, gain)
    assert found is not None
    assert found.code == "noise_not_identifiable"
    assert "noise and structure look alike; do not use the deviation" in found.text
    assert remedy in found.remedy


def test_streaks_along_an_axis_show_their_noise() -> None:
    assert noise_not_identifiable((0.5, 9.0), SHAPE, 900.0) is None
    assert noise_not_identifiable((2.2, 2.2), SHAPE, 900.0) is None


@pytest.mark.parametrize(
    ("lengths", "shape", "frames", "pixels", "text"),
    [
        ((3.0, 3.0), (5, 5), 1, [25, 25], "have 25 measured pixels"),
        ((3.0, 3.0), (24, 24), 1, [576, 30, 576], "in component 2 (30 pixels)"),
        ((24.0, 24.0), (24, 24), 1, [576, 576], "hold only 1 squares"),
        ((0.7, 20.0), (1, 70), 1, [70], "hold only 3.5 squares"),
    ],
)
def test_maps_that_are_too_small(lengths, shape, frames, pixels, text) -> None:
    found = maps_too_small(lengths, shape, frames, pixels)
    assert found is not None
    assert found.code == "maps_too_small"
    assert text in found.text


@pytest.mark.parametrize(
    ("lengths", "shape", "frames", "pixels"),
    [((6.0, 6.0), (24, 24), 1, [576, 50]), ((20.0, 20.0), (24, 24), 5, [2880]), ((0.7, 10.0), (1, 70), 1, [70])],
)
def test_maps_that_are_large_enough(lengths, shape, frames, pixels) -> None:
    assert maps_too_small(lengths, shape, frames, pixels) is None


def test_lengths_of_maps_without_structure_are_not_judged() -> None:
    interval = ((10.0, 30.0), (10.0, 30.0))
    codes = lambda gain: [w.code for w in judge((30, 30), interval, (32, 32), frames=1, pixels=[1024], gain=gain)]  # noqa: E731
    assert codes(3.0) == ["noise_not_identifiable"]
    assert codes(300.0) == ["maps_too_small", "length_at_bound"]
    assert judge((5, 5), None, (32, 32), frames=1, pixels=[1024], gain=300.0) == []


def test_warnings_of_the_maps_fit_are_inherited() -> None:
    cube, _ = hsi.simulate.phases((16, 16), counts_per_pixel=60, seed=1)
    result = hsi.fit(cube, hsi.NMF(2, max_iter=3))
    surplus = ResultWarning("below_noise", "Component 2 is nothing.", "n_components=1")
    said = [surplus, ResultWarning("drift", "It moves.")]
    found = result_warnings(hsi.fit(result.assign_attrs(warnings=warnings_text(said)), hsi.ParallelGP()))
    assert [w.code for w in found][:2] == ["drift", "below_noise"]
    assert found[1] == surplus._replace(text="Of the maps' fit: Component 2 is nothing.")
    alone = result_warnings(hsi.fit(result.assign_attrs(warnings="[]")["abundances"], hsi.ParallelGP()))
    assert not any(w.text.startswith("Of the maps") for w in alone)
