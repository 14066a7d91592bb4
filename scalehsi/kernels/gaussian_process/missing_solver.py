"""Independent maps with missing pixels on a grid, many at a time, by conjugate gradients on the missing pixels."""

from __future__ import annotations

from typing import Any, Final

import array_api_compat
import numpy as np

from scalehsi.arrays import Float, to_host
from scalehsi.kernels.gaussian_process.likelihood import Hyper
from scalehsi.kernels.gaussian_process.posterior import Place, filter_at, gains, smoothed
from scalehsi.kernels.gaussian_process.sampling_points import Points, along

STEPS: Final = 500


class Grid:
    """Independent maps of strengths s and unit noise on a grid with missing pixels."""

    def __init__(self, place: Place, hyper: Hyper, seen: Any, s: Float, *, upsample: Points, dtype: str) -> None:
        self.place, self.dtype, self.s, self.seen = place, dtype, s, seen
        height, width = seen.shape
        self.rows, self.columns = (
            filter_at(place, hyper.kernel, n, hyper.lengths[axis], along(upsample, axis), dtype)
            for axis, n in enumerate((height, width))
        )
        self.gain = gains(s, self.rows, self.columns, place, dtype)
        # 1 / (1 + s lam mu): what the noise keeps of each direction.
        spectrum = self.rows.values[:, None] * self.columns.values[None, :]
        self.weight = 1 / (1 + place.put(s[:, None, None], dtype) * spectrum)

    def complete(self, z: Any, tolerance: float) -> tuple[Any, int, float]:
        """Maps (..., T, H, W) with values at the missing pixels, steps, and the largest relative residual.

        Plain conjugate gradients on the missing pixels. To solve for the observed ones instead, and to precondition
        either by the other's matrix, took as long or longer at 1 % to 80 % missing, with holes and without.
        """
        xp, zero = self.place.library, self.place.put(0.0, self.dtype)
        shape = z.shape
        z = xp.reshape(z, (-1, *shape[-2:]))
        weight = xp.reshape(xp.broadcast_to(self.weight, shape), z.shape)
        out = xp.where(self.seen, z, zero)
        r = xp.where(self.seen, zero, -self._product(out, weight))
        size = _squares(xp, r)
        # Maps that are done leave the batch; ``index`` says which ones are in it.
        index, target = np.flatnonzero(size > 0), tolerance**2 * size
        x, end, steps = xp.zeros_like(z), np.where(size > 0, 1.0, 0.0), 0
        r, weight, now = _rows(xp, r, index), _rows(xp, weight, index), size[index]
        p, part = r, _rows(xp, x, index)
        while len(index) and steps < STEPS:
            q = xp.where(self.seen, zero, self._product(p, weight))
            along = self._column(now / _dots(xp, p, q))
            part = part + along * p
            r = r - along * q
            new = _squares(xp, r)
            steps += 1
            end[index] = new / size[index]
            stay = np.flatnonzero((new > target[index]) & np.isfinite(new))
            p = r + self._column(new / now) * p
            now = new
            if len(stay) < len(index):
                for at in np.setdiff1d(np.arange(len(index)), stay):
                    out[int(index[at]), ...] += part[int(at), ...]
                p, r, part, weight = (_rows(xp, v, stay) for v in (p, r, part, weight))
                index, now = index[stay], now[stay]
        for at, which in enumerate(index):
            out[int(which), ...] += part[at, ...]
        return xp.reshape(out, shape), steps, float(np.sqrt(end.max(initial=0.0)))

    def _product(self, v: Any, weight: Any) -> Any:
        q, m = self.rows.vectors, self.columns.vectors
        return q @ (weight * (q.T @ v @ m)) @ m.T

    def _column(self, values: Float) -> Any:
        return self.place.put(values[:, None, None], self.dtype)

    def field(self, z: Any) -> Any:
        """Mean on the points of complete maps (..., T, H, W)."""
        return smoothed(z, self.gain, self.rows, self.columns)


def _squares(xp: Any, v: Any) -> Float:
    return _dots(xp, v, v)


def _dots(xp: Any, a: Any, b: Any) -> Float:
    """Sums over the last two axes, on the host."""
    return np.asarray(to_host(xp.sum(a * b, axis=(-2, -1))), dtype=np.float64)


def _rows(xp: Any, v: Any, index: Any) -> Any:
    if len(index) == v.shape[0]:
        return v
    return xp.take(v, xp.asarray(index, device=array_api_compat.device(v)), axis=0)
