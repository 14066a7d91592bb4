"""The losses of NMF: arguments of a pass, value of the objective, and the next endmembers.

A loss is a small object made from the settings; everything that changes from pass to pass is in the state. The problem
of a pixel in least squares is ``1/2 c' G c - (b - shift)' c``. Priors enter as a linear cost ``shift``, as a ridge on
the diagonal of ``G`` and as off-diagonal elements of ``G``, so they need no extra time.
"""

from __future__ import annotations

from typing import Any, Final, Protocol

import numpy as np

from scalehsi.arrays import Float
from scalehsi.blocks import BlockFunction
from scalehsi.fitting.model import State
from scalehsi.kernels import least_squares, poisson
from scalehsi.kernels.least_squares import endmember_update, missing_voxels
from scalehsi.kernels.priors import relevance
from scalehsi.models.nmf import known_maps
from scalehsi.models.nmf.settings import Settings

Sums = dict[str, Any]

UNDAMPED_ITERATIONS: Final = 20
"""Iterations before components are removed for good and before the orthogonality multipliers are damped. Undamped
multipliers oscillate, which removes duplicate components; damped from the start they do not (measured on a mixture of
3, fitted with 8: 3 components remain, otherwise 4 to 6)."""


class Loss(Protocol):
    """Interface of a loss. ``s`` (K, E) is the point of the pass."""

    update: BlockFunction

    def shared(self, s: Float, state: State) -> dict[str, Any]:
        """Arguments of the pass."""

    def value(self, sums: Sums, s: Float, state: State) -> float:
        """The objective at the point of the pass."""

    def slack(self, sums: Sums, state: State) -> float:
        """Rise of the objective that rounding alone can explain."""

    def lag(self, sums: Sums, s: Float, state: State) -> State:
        """Numbers that the next pass takes from this one, such as the scales of priors."""

    def improve(self, sums: Sums, s: Float, state: State) -> tuple[Float, Float]:
        """A better ``s``, and one that cannot raise the objective."""

    def unit(self, s: Float, fallback: Float, state: State) -> Float:
        """``s`` normalised; rows of zeros are replaced by those of the fallback."""


class LeastSquares:
    """``1/2 sum v w (x - c s)^2`` and the costs of priors."""

    def __init__(self, model: Settings) -> None:
        self.model = model
        self.update: BlockFunction = least_squares.update

    def weights(self, state: State) -> Float | None:
        """Weight of each channel, shape (E,); None without weighting."""
        if not self.model.weighting:
            return None
        return channel_weights(state["spectrum"] / float(state["pixels"]))

    def shared(self, s: Float, state: State) -> dict[str, Any]:
        found: dict[str, Any] = {"s": s, "norm": not np.isfinite(state["norm"])}
        if self.model.weighting:
            found |= {"w": self.weights(state), "weigh_pixels": True}
        if self.model.simplex:
            found["simplex"] = True
        if own := known_maps.numbers(self.model.fixed):
            found["known"] = own
        shift, gram = self.shift(state), self.gram(s, state)
        if shift.any():
            found["shift"] = shift
        if gram is not None:
            found["gram"] = gram
        return found

    def shift(self, state: State) -> Float:
        """Linear cost of each component's abundance, shape (K,)."""
        k = len(state["s"])
        shift = np.full(k, self.model.sparsity * float(state["level"]))
        if self.model.ard == "exponential" and np.isfinite(state["lam"]).all():
            shift = shift + float(state["sigma2"]) / state["lam"]
        shift[known_maps.mapped(self.model.fixed, k)] = 0.0
        return np.asarray(shift)

    def ridge(self, s: Float, state: State) -> Float:
        """Quadratic cost of each component's abundance, shape (K,)."""
        ridge = self.model.spectral_smoothness * endmember_update.roughness(s)
        if self.model.ard == "half-normal" and np.isfinite(state["lam"]).all():
            ridge = ridge + float(state["sigma2"]) / state["lam"]
        return np.asarray(ridge)

    def gram(self, s: Float, state: State) -> Float | None:
        """The matrix of the problem of a pixel, or None where it is plain ``s w s'``."""
        extra = self.extra(s, state)
        return None if not extra.any() else self._plain(s, state) + extra

    def extra(self, s: Float, state: State) -> Float:
        """What the priors add to the matrix of the pixel's problem."""
        found = np.diag(self.ridge(s, state))
        if self.model.orthogonality:
            pull = self.model.orthogonality * np.repeat(state["xi"][:, None], len(s), axis=1)
            np.fill_diagonal(pull, 0.0)
            found = found + pull
        return np.asarray(found)

    def _plain(self, s: Float, state: State) -> Float:
        w = self.weights(state)
        return np.asarray((s if w is None else s * w) @ s.T)

    def value(self, sums: Sums, s: Float, state: State) -> float:
        base = least_squares.objective({**sums, "norm": state["norm"]}, s, self.weights(state))
        if not self.model.ard:
            cost = float(self.shift(state) @ sums["C"] + 0.5 * self.ridge(s, state) @ np.diag(sums["M"]))
            return base + cost
        # The negative logarithm of the posterior, noise and scales at their best for these abundances.
        number = float(state["pixels"]) * s.shape[1]
        lam, sigma2 = self._scales(sums, s, state)
        prior = relevance.cost(str(self.model.ard), lam, sums["C"], np.diag(sums["M"]), **self._prior(state))
        return 0.5 * number * float(np.log(2 * np.pi * sigma2)) + 0.5 * number + prior

    def slack(self, sums: Sums, state: State) -> float:
        # A small difference of large sums of float32 products, whose roundings average out over tiles of pixels.
        tiles = max(1.0, float(state["pixels"]) / 64)
        return (1e-9 + 1e-7 / float(np.sqrt(tiles))) * float(state["norm"])

    def lag(self, sums: Sums, s: Float, state: State) -> State:
        found: State = {}
        if self.model.ard:
            lam, sigma2 = self._scales(sums, s, state)
            found |= {"lam": lam, "sigma2": np.asarray(sigma2)}
        if self.model.orthogonality:
            w = self.weights(state)
            weighted = s if w is None else s * w
            pull = relevance.orthogonality_pull(sums, weighted, weighted @ s.T, self.shift(state))
            if int(state["passes"]) < UNDAMPED_ITERATIONS:
                found |= {"xi": pull, "drift": pull - state["xi"]}
            else:
                found |= relevance.damped_multipliers(pull, state["xi"], state["ease"], state["drift"])
        return found

    def _prior(self, state: State) -> dict[str, float]:
        return {"pixels": float(state["pixels"]), "shape": self.model.ard_shape, "scale": float(state["prior"])}

    def _scales(self, sums: Sums, s: Float, state: State) -> tuple[Float, float]:
        """Scales of the relevance prior and the noise variance, from the sums of the pass at ``s``."""
        base = least_squares.objective({**sums, "norm": state["norm"]}, s, self.weights(state))
        number = float(state["pixels"]) * s.shape[1]
        sigma2 = max(2 * base, 1e-12 * float(state["norm"])) / number
        lam = relevance.scales(str(self.model.ard), sums["C"], np.diag(sums["M"]), **self._prior(state))
        return lam, sigma2

    def improve(self, sums: Sums, s: Float, state: State) -> tuple[Float, Float]:
        n, m, free = sums["N"], sums["M"], state["free"]
        if self.model.costly:
            root = np.sqrt(self._even(state, s))
            own = known_maps.mapped(self.model.fixed, len(s))
            new = endmember_update.unit_length(n * root, m, s * root, free=free, own=own) / root
        elif self.model.spectral_smoothness:
            new = endmember_update.smooth(n, m, s, strength=self.model.spectral_smoothness, free=free)
        else:
            new = endmember_update.least_squares(n, m, s, free=free)
        return new, new

    def _even(self, state: State, s: Float) -> Float:
        w = self.weights(state)
        return np.ones(s.shape[1]) if w is None else w

    def unit(self, s: Float, fallback: Float, state: State) -> Float:
        if self.model.simplex:
            return np.where(s.any(axis=1, keepdims=True), s, fallback)
        free = normed(self.model, state)
        if not self.model.costly:
            return unit_rows(s, fallback, free)
        root = np.sqrt(self._even(state, s))
        filled = np.where(s.any(axis=1, keepdims=True), s, fallback)
        length = np.linalg.norm(filled * root, axis=1, keepdims=True)
        return np.where(free[:, None], filled / np.where(length > 0, length, 1.0), s)


class Incomplete(LeastSquares):
    """Least squares over the measured voxels; the others are NaN."""

    def __init__(self, model: Settings) -> None:
        super().__init__(model)
        self.update = missing_voxels.update

    def value(self, sums: Sums, s: Float, state: State) -> float:
        return missing_voxels.objective({**sums, "norm": state["norm"]}, s)

    def improve(self, sums: Sums, s: Float, state: State) -> tuple[Float, Float]:
        new = missing_voxels.improve(sums, s)
        new[~state["free"]] = s[~state["free"]]
        return new, new


class Counts:
    """``sum c s - x log(c s)``, the likelihood of counts, and the costs of priors."""

    def __init__(self, model: Settings) -> None:
        self.model = model
        self.update: BlockFunction = poisson.update

    def shared(self, s: Float, state: State) -> dict[str, Any]:
        found: dict[str, Any] = {"s": s}
        shift, ridge = self.shift(state), self.ridge(state)
        if shift.any():
            found["tau"] = shift
        if ridge.any():
            found["ridge"] = ridge
        if self.model.simplex:
            found["simplex"] = True
        if own := known_maps.numbers(self.model.fixed):
            found["known"] = own
        if self.model.missing:
            found["missing"] = True
        return found

    def shift(self, state: State) -> Float:
        """Linear cost of each component's abundance, shape (K,), in addition to the sum of its spectrum."""
        shift = np.full(len(state["s"]), float(self.model.sparsity))
        if self.model.ard == "exponential" and np.isfinite(state["lam"]).all():
            shift = shift + 1.0 / state["lam"]
        shift[known_maps.mapped(self.model.fixed, len(shift))] = 0.0
        return np.asarray(shift)

    def ridge(self, state: State) -> Float:
        if self.model.ard == "half-normal" and np.isfinite(state["lam"]).all():
            return np.asarray(1.0 / state["lam"])
        return np.zeros(len(state["s"]))

    def extra(self, s: Float, state: State) -> Float:
        return np.diag(self.ridge(state))

    def value(self, sums: Sums, s: Float, state: State) -> float:
        base = poisson.objective(sums, s, float(state["entropy"]))
        if not self.model.ard:
            return base + float(self.shift(state) @ sums["C"])
        lam = self._scales(sums, state)
        return base + relevance.cost(str(self.model.ard), lam, sums["C"], _square(sums), **self._prior(state))

    def slack(self, sums: Sums, state: State) -> float:
        return 1e-13 * abs(float(sums["likelihood"]))

    def lag(self, sums: Sums, s: Float, state: State) -> State:
        return {"lam": self._scales(sums, state)} if self.model.ard else {}

    def _prior(self, state: State) -> dict[str, float]:
        # Number of pixels of the passes, which may be bins.
        pixels = float(state["pixels"]) / float(state["bin"]) ** 2
        return {"pixels": pixels, "shape": self.model.ard_shape, "scale": float(state["prior"])}

    def _scales(self, sums: Sums, state: State) -> Float:
        return relevance.scales(str(self.model.ard), sums["C"], _square(sums), **self._prior(state))

    def improve(self, sums: Sums, s: Float, state: State) -> tuple[Float, Float]:
        # Multipliers keep the spectra at unit sum, so the cost of the abundances is added to the sum of the spectrum.
        level = np.maximum(s.sum(axis=1), 1e-300)
        used = sums["C"] if self.model.simplex else sums["C"] * (1.0 + self.shift(state) / level)
        newton, safe = poisson.improve({**sums, "C": used}, s)
        fixed = ~state["free"][:, None]
        return np.where(fixed, s, newton), np.where(fixed, s, safe)

    def unit(self, s: Float, fallback: Float, state: State) -> Float:
        if self.model.simplex:
            return np.where(s.any(axis=1, keepdims=True), s, fallback)
        return unit_rows(s, fallback, normed(self.model, state))


def normed(model: Settings, state: State) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """True for components whose endmembers are normalised, shape (K,): neither spectrum nor map is fixed."""
    return np.asarray(state["free"] & ~known_maps.mapped(model.fixed, len(state["free"])))


def channel_weights(mean: Float) -> Float:
    """One over the mean of each channel, shape (E,).

    The mean is at least a millionth of the average channel, so that the weight of an empty channel stays finite.

    Examples
    --------
    >>> channel_weights(np.array([2.0, 2.0])).tolist()
    [0.5, 0.5]
    """
    return np.asarray(1.0 / np.maximum(mean, 1e-6 * max(float(mean.mean()), 1e-300)))


def unit_rows(s: Float, fallback: Float, free: Any) -> Float:
    """Rows of unit sum; a row of zeros is replaced by that of the fallback; rows that are not free do not change."""
    total = s.sum(axis=1, keepdims=True)
    filled = np.where(total > 0, s, fallback)
    sums = filled.sum(axis=1, keepdims=True)
    return np.where(np.asarray(free)[:, None], filled / np.where(sums > 0, sums, 1.0), s)


def _square(sums: Sums) -> Float:
    return np.asarray(sums.get("CC", sums["C"] ** 2))
