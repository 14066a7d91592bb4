"""Tests of layouts: any window equals the same window of the whole scene, bit for bit."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scalehsi.kernels.statistics.counted_random import CountedRandom
from scalehsi.simulate.shapes.phase_layouts import (
    Grains,
    Window,
    board_abundances,
    board_phase,
    fade,
    grain_fractions,
    smooth_noise,
)

GRAINS = (
    Grains(1, cell=30, radius=(6, 10), half_depth=(10, 40), level=(0, 1)),
    Grains(2, cell=70, radius=(9, 11), half_depth=(50, 60), level=(0.4, 0.6), margin=0.2),
)
SIZE = 90
LAYOUTS = {
    "grains": partial(grain_fractions, grains=GRAINS, components=3, seed=4),
    "small grains": partial(grain_fractions, grains=GRAINS, components=3, seed=4, scale=0.37, blur=0.6),
    "sharp grains": partial(grain_fractions, grains=GRAINS, components=3, seed=4, blur=0.0),
    "board": partial(
        board_abundances, shape=(SIZE, SIZE), squares=(2, 3), components=4, mixing=0.3, border=0.2, wedge=0.3, seed=4
    ),
}
WHOLE = {name: layout(Window(0, SIZE, 0, SIZE)) for name, layout in LAYOUTS.items()}

sides = st.tuples(st.integers(0, SIZE - 1), st.integers(1, SIZE)).map(lambda p: (p[0], min(p[0] + p[1], SIZE)))


@pytest.mark.parametrize("name", LAYOUTS)
@settings(max_examples=25, deadline=None)
@given(rows=sides, columns=sides)
def test_any_window_equals_that_of_the_whole_scene(name, rows, columns):
    window = LAYOUTS[name](Window(*rows, *columns))
    np.testing.assert_array_equal(window, WHOLE[name][:, rows[0] : rows[1], columns[0] : columns[1]])


@pytest.mark.parametrize("name", ["grains", "small grains", "sharp grains"])
def test_fractions_sum_to_one(name):
    assert WHOLE[name].min() >= 0
    np.testing.assert_allclose(WHOLE[name].sum(axis=0), 1.0, atol=1e-12)


def test_far_away_there_are_grains_too():
    here, far = (LAYOUTS["grains"](Window(a, a + 300, a, a + 300)) for a in (0, 10**8))
    assert not np.array_equal(here, far)
    np.testing.assert_allclose(here.mean(axis=(1, 2)), far.mean(axis=(1, 2)), atol=0.05)


def test_an_upright_column_fills_the_foil_and_a_small_sphere_does_not():
    column = [Grains(1, cell=80, radius=(12, 12), half_depth=(400, 400), level=(0.5, 0.5))]
    sphere = [Grains(1, cell=80, radius=(6, 6), half_depth=(6, 6), level=(0.5, 0.5))]
    tall, small = (grain_fractions(Window(0, 800, 0, 800), grains=g, components=2, seed=1)[1] for g in (column, sphere))
    assert tall.max() == pytest.approx(1.0, abs=1e-6)
    assert small.max() < 2 * 6 / 40 + 1 / 40
    # Each cell has an ellipse of area 144 pi, or a spheroid of volume 4/3 pi 216 in a depth of 40.
    assert tall.mean() == pytest.approx(np.pi * 144 / 6400, rel=0.1)
    assert small.mean() == pytest.approx(4 / 3 * np.pi * 216 / 40 / 6400, rel=0.1)


def test_later_grains_win_where_they_overlap():
    both = [
        Grains(1, cell=60, radius=(30, 30), half_depth=(400, 400), level=(0.5, 0.5)),
        Grains(2, cell=60, radius=(10, 10), half_depth=(400, 400), level=(0.5, 0.5)),
    ]
    alone = grain_fractions(Window(0, 60, 0, 60), grains=[both[0]._replace(component=0), both[1]], components=3, seed=2)
    maps = grain_fractions(Window(0, 60, 0, 60), grains=both, components=3, seed=2)
    np.testing.assert_array_equal(maps[2], alone[2])
    assert maps[1].mean() > 0.3


def test_blur_keeps_the_amount_and_softens_the_edges():
    sharp, blurred = (LAYOUTS[name](Window(0, 400, 0, 400)) for name in ("sharp grains", "grains"))
    np.testing.assert_allclose(sharp.mean(axis=(1, 2)), blurred.mean(axis=(1, 2)), atol=2e-3)
    assert np.abs(np.diff(blurred[2], axis=1)).max() < 0.6 * np.abs(np.diff(sharp[2], axis=1)).max()


def test_noise_is_smooth_and_between_its_bounds():
    axis = np.linspace(-3, 5, 400)
    field = smooth_noise(axis, axis, source=CountedRandom(0, 1))
    assert 0 <= field.min() < 0.2
    assert 0.8 < field.max() <= 1
    assert np.abs(np.diff(field, axis=0)).max() < 0.05
    assert not np.array_equal(field, smooth_noise(axis, axis, source=CountedRandom(0, 1), channel=1))


def test_fade_is_a_flat_ended_step():
    np.testing.assert_allclose(fade(np.array([-1.0, 0.0, 0.5, 1.0, 2.0])), [0, 0, 0.5, 1, 1])


@pytest.mark.parametrize("squares", [(1, 1), (1, 8), (2, 2), (2, 3), (3, 3), (8, 8)])
def test_every_phase_has_a_square(squares):
    for components in range(1, min(8, squares[0] * squares[1]) + 1):
        board = [
            [board_phase(i, j, squares=squares, components=components) for j in range(squares[1])]
            for i in range(squares[0])
        ]
        assert {phase for row in board for phase in row} == set(range(components))


def test_a_board_without_mixing_or_borders_is_pure():
    maps = board_abundances(
        Window(0, 8, 0, 8), shape=(8, 8), squares=(2, 2), components=4, mixing=0, border=0, wedge=0, seed=0
    )
    np.testing.assert_array_equal(np.unique(maps), [0.0, 1.0])
    np.testing.assert_array_equal(maps.argmax(axis=0)[::7, ::7], [[0, 1], [2, 3]])
    np.testing.assert_array_equal(maps.sum(axis=(1, 2)), 16)


def test_a_board_mixes_within_its_bounds():
    maps = WHOLE["board"]
    thickness = maps.sum(axis=0)
    assert 0.7 <= thickness.min() < 0.95
    assert 1.05 < thickness.max() <= 1.3
    share = (maps / thickness).max(axis=0)
    middle = share[15:30, 10:20]  # of a square
    assert middle.min() >= 0.7
    assert share.max() == pytest.approx(1.0, abs=1e-12)
