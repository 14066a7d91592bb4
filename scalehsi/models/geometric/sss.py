"""SSS: endmembers, or maps, are the corners of all combinations of the signal subspace that are nowhere negative."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

import numpy as np
import xarray as xr

from scalehsi.arrays import Float
from scalehsi.blocks import Blocks
from scalehsi.checks import choice, is_number, require
from scalehsi.fitting.model import State, Stats, Variables
from scalehsi.kernels import least_squares
from scalehsi.kernels.extraction.polytope import far_corners, sampled_corners
from scalehsi.kernels.extraction.simplex import simplex_volume
from scalehsi.kernels.quadratic.sum_to_one import map_moments, sum_to_one_scales
from scalehsi.models.geometric.base import DIRECT, Geometric
from scalehsi.models.geometric.cloud import Cloud, read_cloud
from scalehsi.result import ResultWarning
from scalehsi.schema import COMPONENT, InputError

SIDES: Final = ("maps", "spectra")
METHODS: Final = ("lp", "sample")
VANISHING: Final = "vanishing"
LEAST_VANISHING: Final = 0.015
"""Share of the strong values of a source that must be near zero, below `NEAR_ZERO` of its largest."""
NEAR_ZERO: Final = 0.02


@dataclass(frozen=True)
class SSS(Geometric):
    """Find endmembers without pure pixels from where sources vanish: the signal subspace, sampled, and VCA.

    Spiegelberg et al. 2017. All combinations of the subspace that are nowhere negative form a polytope; its corners are
    the sources, if each vanishes where the others do not. No pixel has to be pure. For EDX take ``side="spectra"``, as
    lines vanish between their energies; for EELS, whose background vanishes nowhere, ``side="maps"``.

    Parameters
    ----------
    n_components : int
        K, at least 2.
    side : {"maps", "spectra"}, default "maps"
        What must vanish somewhere: each map in some pixels, or each spectrum in some channels.
    method : {"lp", "sample"}, default "lp"
        "lp": exact corners by 2 K linear programmes a run. "sample": 20000 random combinations, as published; few of
        them are nowhere negative where K is large.
    least_counts : float, default 2500
        With ``side="spectra"``: channels with fewer counts in the whole cube are no constraints, as their noise would
        be one. 2500 counts are a signal of 50 times the noise.
    weighting : {"poisson", None}, default "poisson"
        Divide each channel by the square root of its mean, as `VCA` does. None for data with uniform noise.
    smooth : int, default 3
        With ``side="maps"``: average the scores over this many pixels along y and x. 0 for none.
    restarts : int, default 20
        Runs with other random directions; the largest simplex is kept.
    constraint : {"fcls", "nnls"}, default "fcls"
        Fractions are not negative and sum to one, or are only not negative (thickness varies).
    max_iter : int, default 1
        Not used: the corners are searched directly.
    tol : float, default 0
        Not used.

    Notes
    -----
    On EDX-like data without pure pixels and 1000 counts a pixel the mean angle is 0.02 rad, where VCA has 0.22
    (``python -m tests.bench.unmixing``). The warning ``no_zeros`` says that a source vanishes nowhere.

    References
    ----------
    Spiegelberg, Rusz, Thersleff and Pelckmans 2017, doi:10.1016/j.ultramic.2016.12.014.

    Examples
    --------
    >>> import scalehsi as hsi
    >>> cube, truth = hsi.simulate.chequerboard((24, 24), n_channels=64, wedge=0.0, counts_per_pixel=5000)
    >>> hsi.fit(cube, hsi.SSS(4), seed=0)["endmembers"].sizes["component"]
    4
    """

    side: str = "maps"
    method: str = "lp"
    least_counts: float = 2500.0

    name: ClassVar[str] = "SSS"

    def __post_init__(self) -> None:
        super().__post_init__()
        choice("side", self.side, SIDES)
        choice("method", self.method, METHODS)
        given = is_number(self.least_counts, int | float) and self.least_counts >= 0
        require(given, f"least_counts is a number that is not negative, got {self.least_counts!r}")

    def solve(self, view: Blocks, seed: int) -> tuple[State, Stats]:
        cloud, kept = read_cloud(view, self.n_components, weighting=self.weighting, seed=seed)
        rows = cloud.smoothed(self.smooth) if self.side == "maps" else self._strong_channels(cloud, kept)
        # Points in units of their spread, so that volumes weigh all directions alike.
        spread = np.linalg.cholesky(rows.T @ rows / len(rows) + 1e-14 * np.trace(rows.T @ rows) * np.eye(rows.shape[1]))
        v = np.linalg.solve(spread, rows.T).T
        total = v.mean(axis=0)
        if self.method == "lp":
            found = far_corners(v, total, restarts=self.restarts, seed=seed)
        else:
            found = sampled_corners(v, total, np.eye(len(total)), restarts=self.restarts, seed=seed)
        combination = np.linalg.solve(spread.T, found.T)
        values = rows @ combination
        points = self._points(cloud, combination)
        # Pixels of zero abundance scatter by the noise of their scores.
        noise = 3 * cloud.noise / max(self.smooth, 1) * np.linalg.norm(combination, axis=0) * (self.side == "maps")
        state = {
            **kept,
            "s": np.maximum(cloud.spectra(points), 0.0),
            VANISHING: (values < np.maximum(NEAR_ZERO * values.max(axis=0), noise)).mean(axis=0),
        }
        return state, Stats(-simplex_volume(found), done=True, advice=DIRECT)

    def _strong_channels(self, cloud: Cloud, kept: State) -> Float:
        """Rows of the basis (channels, K) whose channels have enough counts to be constraints."""
        strong = kept["spectrum"] > self.least_counts
        if np.count_nonzero(strong) < self.n_components:
            raise InputError(
                f"{np.count_nonzero(strong)} channels have more than least_counts={self.least_counts:g} counts in the "
                f"whole cube, {self.n_components} are needed; type a smaller one, or side='maps'"
            )
        return cloud.basis[strong]

    def _points(self, cloud: Cloud, combination: Float) -> Float:
        """Scores (K, K) of the endmembers in counts. combination (K, K): a source a column, in scores."""
        if self.side == "spectra":
            points = combination.T
            maps = least_squares.abundances(cloud.scores, s=points, residual=False)[0]["abundances"]
        else:
            points = np.linalg.inv(combination)
            maps = np.maximum(cloud.scores @ combination, 0.0)
        scales = sum_to_one_scales(**map_moments(maps))
        # A component that the sum does not need keeps its mean map at its share.
        safe = np.where(scales > 0, scales, 1.0 / (len(scales) * np.maximum(maps.mean(axis=0), 1e-300)))
        return np.asarray(points / safe[:, None])

    def finish(self, view: Blocks, state: State) -> Variables:
        words = {"long_name": f"share of the {self.side} in which a source vanishes"}
        return {
            **super().finish(view, state),
            VANISHING: xr.DataArray(state[VANISHING], dims=(COMPONENT,), attrs=words),
        }

    def warnings(self, variables: Variables) -> list[ResultWarning]:
        share = np.asarray(variables[VANISHING].values)
        bad = np.flatnonzero(share < LEAST_VANISHING)
        if not bad.size:
            return []
        where = "pixels" if self.side == "maps" else "channels"
        text = (
            f"Component {bad[0] + 1} vanishes in {share[bad[0]]:.1%} of the {where}: its zeros do not decide its shape."
        )
        other = "spectra" if self.side == "maps" else "maps"
        return [
            ResultWarning("no_zeros", text, f"SSS({self.n_components}, side={other!r}), or VCA({self.n_components})")
        ]
