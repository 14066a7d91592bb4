"""Independent component analysis of a cube of any size, by the conventions of HyperSpy."""

from __future__ import annotations

import numbers
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar, Final

import numpy as np
import xarray as xr

from scalehsi import arrays
from scalehsi.arrays import Float
from scalehsi.blocks import BlockFunction, Blocks
from scalehsi.checks import check_components, is_number, require
from scalehsi.fitting.model import Cost, DirectModel, State, Stats, Variables
from scalehsi.kernels.subspace import moments
from scalehsi.models.pca import PCA
from scalehsi.result import ResultWarning
from scalehsi.schema import ABUNDANCES, COMPONENT, ENDMEMBERS, ENERGY, MEAN_SPECTRUM

MAX_TURNS: Final = 200
"""Iterations of FastICA; those of scikit-learn by default."""
NEGATIVE_SHARE: Final = 0.02
"""Share of the absolute sum of a spectrum, or of a map, below zero from which it is no phase."""


@dataclass(frozen=True)
class ICA(DirectModel):
    """Rotate the principal components until their derivatives along the energy are as independent as possible.

    FastICA (Hyvarinen 1999) on the first derivative of the factors of an uncentred decomposition, as HyperSpy's
    ``blind_source_separation`` does by default. Scales and signs are arbitrary, and values may be
    negative. On EELS with a common background it is erratic at any dose: `VCA` is the better choice there.

    Parameters
    ----------
    n_components : int
        K.
    weighting : {None, "poisson", "channels"}, default None
        Of the decomposition, as in `PCA`; None is HyperSpy's default.
    diff_order : int, default 1
        Order of the derivative along the energy; 0 for the factors themselves.
    max_iter : int, default 1
        Not used: the rotation is computed in memory, after one reading of the cube.
    tol : float, default 0
        Not used.

    Notes
    -----
    The warning ``negative_components`` says that a spectrum or a map has a negative part, which no phase has.

    References
    ----------
    Hyvarinen 1999, doi:10.1109/72.761722. De la Pena et al. 2011, doi:10.1016/j.ultramic.2010.10.001 (EELS).

    Examples
    --------
    >>> import scalehsi as hsi
    >>> cube, truth = hsi.simulate.chequerboard((24, 24), n_channels=64)
    >>> hsi.fit(cube, hsi.ICA(4), seed=0)["endmembers"].sizes["component"]
    4
    """

    n_components: int
    _: KW_ONLY
    weighting: str | None = None
    diff_order: int = 1

    name: ClassVar[str] = "ICA"

    def __post_init__(self) -> None:
        super().__post_init__()
        PCA(self.n_components, weighting=self.weighting)  # refuses what it does not know
        whole = is_number(self.diff_order, numbers.Integral) and 0 <= self.diff_order <= 2
        require(whole, f"diff_order is 0, 1 or 2, got {self.diff_order!r}")

    @property
    def devices(self) -> tuple[arrays.Device, ...]:
        return ("cpu", "cuda")

    def check(self, cube: xr.DataArray) -> None:
        check_components(self.n_components, cube)
        room = cube.sizes[ENERGY] - self.diff_order
        require(room >= self.n_components, f"the derivative has {room} channels; take n_components={room} or fewer")

    def solve(self, view: Blocks, seed: int) -> tuple[State, Stats]:
        k = self.n_components
        found, stats = PCA(k, weighting=self.weighting).solve(view, seed)
        factors = found["vectors"] * found["scale"][:, None]
        unmixing, settled = fast_ica(np.diff(factors, n=self.diff_order, axis=0), seed=seed)
        spectra = (factors @ unmixing.T).T
        # Loadings are orthogonal with the eigenvalues as their squares; the unmixing matrix turns them, too.
        back = np.linalg.inv(unmixing)
        power = (back.T**2 @ found["eigenvalues"][:k]) * (spectra**2).sum(axis=1)
        spectra = spectra[np.argsort(-power, kind="stable")]
        spectra *= np.where(-spectra.min(axis=1) > spectra.max(axis=1), -1.0, 1.0)[:, None]
        state = {**{n: found[n] for n in ("pixels", "spectrum", "scale")}, "s": spectra, "settled": np.asarray(settled)}
        return state, Stats(stats.objective, done=True, advice="The rotation was computed directly.")

    def finish(self, view: Blocks, state: State) -> Variables:
        return {
            ENDMEMBERS: xr.DataArray(state["s"], dims=(COMPONENT, ENERGY)),
            MEAN_SPECTRUM: xr.DataArray(state["spectrum"] / float(state["pixels"]), dims=(ENERGY,)),
            "scale": xr.DataArray(
                state["scale"], dims=(ENERGY,), attrs={"long_name": "square root of the channel weight"}
            ),
        }

    def projector(self, result: xr.Dataset) -> tuple[BlockFunction, dict[str, Any]]:
        s = np.asarray(result[ENDMEMBERS].values, dtype=np.float64)
        weighted = s / np.asarray(result["scale"].values, dtype=np.float64) ** 2
        loadings = (np.linalg.pinv(weighted @ s.T, hermitian=True) @ weighted).T
        return moments.scores, {"loadings": loadings, "offset": np.zeros(s.shape[1]), "basis": s}

    def warnings(self, variables: Variables) -> list[ResultWarning]:
        parts = [variables[ENDMEMBERS], variables[ABUNDANCES]]
        # Lazy maps would be one more reading of the cube.
        known = [np.asarray(v).reshape(v.sizes[COMPONENT], -1) for v in parts if v.chunks is None or v.nbytes < 2**26]
        shares = [
            np.nansum(np.maximum(-v, 0), axis=1) / np.maximum(np.nansum(np.abs(v), axis=1), 1e-300) for v in known
        ]
        share = np.max(shares, axis=0)
        worst = int(np.argmax(share))
        if share[worst] <= NEGATIVE_SHARE:
            return []
        text = f"Component {worst + 1}, or its map, is negative in {share[worst]:.0%} of its area: it is no phase."
        return [ResultWarning("negative_components", text, f"VCA({self.n_components}) or NMF({self.n_components})")]

    def cost(self, shape: tuple[int, ...], itemsize: int) -> Cost:
        return PCA(self.n_components, weighting=self.weighting).cost(shape, itemsize)


def fast_ica(x: Float, *, seed: int, tol: float = 1e-10) -> tuple[Float, bool]:
    """Find the matrix (K, K) whose product with signals makes them independent: FastICA, all at once, log cosh.

    x (T, K): the signals. seed: of the first rotation. tol: the change of the rotation at the end. Also returns whether
    it was reached, which rounding may prevent.
    """
    centred = x - x.mean(axis=0)
    k = x.shape[1]
    _, sizes, vectors = np.linalg.svd(centred, full_matrices=False)
    whitening = vectors / np.maximum(sizes, 1e-12 * sizes[0])[:, None] * np.sqrt(len(x))
    white = whitening @ centred.T
    w = _orthogonal(np.random.default_rng(seed).standard_normal((k, k)))
    for _ in range(MAX_TURNS):
        bent = np.tanh(w @ white)
        new = _orthogonal(bent @ white.T / len(x) - (1 - bent**2).mean(axis=1)[:, None] * w)
        change = float(np.max(np.abs(np.abs(np.einsum("ij,ij->i", new, w)) - 1)))
        w = new
        if change < tol:
            return w @ whitening, True
    return w @ whitening, False


def _orthogonal(w: Float) -> Float:
    """The nearest matrix with orthonormal rows."""
    left, _, right = np.linalg.svd(w, full_matrices=False)
    return np.asarray(left @ right)
