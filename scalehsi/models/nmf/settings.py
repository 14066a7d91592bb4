"""The settings of NMF as a dataclass, so that the files of this folder need not import the model itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any, Final, Self

import numpy as np

from scalehsi import arrays
from scalehsi.fitting.model import IterativeModel
from scalehsi.kernels import cuda
from scalehsi.models.nmf import known_maps

GIVEN: Final = "given"
"""The stored settings have this word for a start or fixed endmembers that were given as arrays."""
AUTO: Final = "auto"
"""The loss that the data decide."""


@dataclass(frozen=True, eq=False)
class Settings(IterativeModel):
    """The fields of `scalehsi.NMF`, which documents them, and what follows from them."""

    n_components: int
    _: KW_ONLY
    loss: str = AUTO
    weighting: str | None = None
    bin_factor: int | str = "auto"
    simplex: bool = False
    orthogonality: float = 0.0
    ard: str | None = None
    ard_shape: float = 1.0 + 1e-15
    sparsity: float = 0.0
    smoothness: float = 0.0
    smoothness_kind: str = "quadratic"
    missing: bool = False
    solver: str = "exact"
    spectral_smoothness: float = 0.0
    compress: bool | str = "auto"
    fixed: Mapping[str, Any] | str | None = None
    start: Any = "sample"
    restarts: int = 10
    max_iter: int = 400
    tol: float = 1e-6

    @property
    def possible_losses(self) -> tuple[str, ...]:
        """The loss; with "auto" those that the other settings allow."""
        if self.loss != AUTO:
            return (self.loss,)
        squares = self.weighting or self.orthogonality or self.smoothness or self.spectral_smoothness
        if squares or self.compress is True or self.solver not in ("exact", "mu"):
            return ("frobenius",)
        bins = self.bin_factor != "auto" and self.bin_factor != 1
        return ("poisson",) if bins else ("frobenius", "poisson")

    @property
    def possible(self) -> tuple[Self, ...]:
        """These settings with each possible loss."""
        return tuple(replace(self, loss=loss) for loss in self.possible_losses)

    @property
    def weightable(self) -> bool:
        """True where least squares may be weighted."""
        plain = self.simplex or self.missing or self.smoothness or self.textbook or self.spectral_smoothness
        return not (plain or (self.compress is True and known_maps.numbers(self.fixed)))

    @property
    def costly(self) -> bool:
        """True where abundances have a cost of their own, so that spectra must keep their length."""
        return bool(self.sparsity or self.ard or self.orthogonality)

    @property
    def compressible(self) -> bool:
        """True where the iterations can run in a subspace of the data."""
        special = self.smoothness or self.missing or self.textbook or self.spectral_smoothness
        own = known_maps.numbers(self.fixed)
        # The pixels of the subspace are divided by their means, maps are not; with all maps fixed one step is enough.
        given = bool(own) and (self.weighting is not None or len(own) == self.n_components)
        return self.loss == "frobenius" and not (self.costly or special or given)

    @property
    def textbook(self) -> bool:
        """True for the textbook rules, in place of exact pixels."""
        return self.solver != "exact"

    @property
    def priors_on_maps(self) -> bool:
        """True where abundances have a cost or are known."""
        smooth = self.smoothness > 0 or self.spectral_smoothness > 0
        return self.costly or smooth or len(known_maps.numbers(self.fixed)) > 0

    @property
    def counts(self) -> bool:
        """True where the data must not be negative."""
        return self.possible_losses == ("poisson",) or self.weighting == "poisson"

    @property
    def devices(self) -> tuple[arrays.Device, ...]:
        """Plain least squares and plain Poisson fits have GPU kernels, which have not run on a GPU yet."""
        if self.loss == AUTO:
            return min((each.devices for each in self.possible), key=len)
        special = self.simplex or self.orthogonality or self.smoothness or self.missing or self.textbook
        if self.loss == "poisson":
            special = special or self.ard or self.sparsity or self.n_components > cuda.MAX_COMPONENTS
        return ("cpu",) if special or known_maps.numbers(self.fixed) else ("cpu", "cuda")

    def to_settings(self) -> dict[str, Any]:
        start = self.start if isinstance(self.start, str) else GIVEN
        plain = {k: v for k, v in vars(self).items() if k not in ("start", "fixed")}
        plain = {k: v.item() if isinstance(v, np.generic) else v for k, v in plain.items()}
        return {**plain, "start": start, "fixed": None if self.fixed is None else GIVEN}
