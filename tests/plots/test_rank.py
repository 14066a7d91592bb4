"""The figure of a choice of rank."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from scalehsi import plots
from scalehsi.schema import InputError


def choice(*, halves: bool = True) -> xr.Dataset:
    ratio = np.array([[20.0, 3.0, 0.9, 0.8], [40.0, 6.0, 1.2, 0.7]])
    score = {"malinowski": [1.2, 1.0, 1.1]}
    if halves:
        score |= {"spectra": [1.0, 0.99, 0.5], "maps": [1.0, 0.9, 0.1], "deviance": [0.1, 0.0, 0.2]}
    return xr.Dataset(
        {"eigenvalue": (("bins", "rank"), ratio), "score": (("criterion", "k"), np.array(list(score.values())))},
        coords={"bins": [1, 2], "rank": [1, 2, 3, 4], "criterion": list(score), "k": [1, 2, 3]},
        attrs={"significant": 3, "resolved": 2 if halves else -1},
    )


def test_eigenvalues_and_agreement_are_drawn() -> None:
    left, right = plots.rank(choice()).axes
    np.testing.assert_allclose(left.lines[1].get_ydata(), choice()["eigenvalue"].values[1])
    assert left.get_yscale() == "log"
    assert left.get_title(loc="left") == "3 above the noise"
    np.testing.assert_allclose(right.lines[0].get_ydata(), [1.0, 0.99, 0.5])
    assert right.get_title(loc="left") == "2 come out the same"
    assert [t.get_text() for t in left.get_legend().get_texts()] == ["single pixels", "bins of 2 × 2"]


def test_without_halves_there_is_one_panel() -> None:
    assert len(plots.rank(choice(halves=False)).axes) == 1


def test_other_data_are_refused() -> None:
    with pytest.raises(InputError, match=r"draw what hsi\.select_rank\(cube\) gives"):
        plots.rank(choice().drop_vars("score"))
