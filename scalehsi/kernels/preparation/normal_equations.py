"""One step of a fit with three parameters in a pixel: the symmetric equations, by Cramer's rule."""

from __future__ import annotations

from typing import Any

from scalehsi.kernels.compiled import inlined


@inlined
def solve_three(a: Any, b: Any, c: Any, d: Any, f: Any, g: Any, u: Any, v: Any, w: Any) -> Any:
    """Solution of ``[[a, b, c], [b, d, f], [c, f, g]] z = [u, v, w]``, and whether there is one.

    Examples
    --------
    >>> solve_three(2.0, 0.0, 0.0, 4.0, 0.0, 5.0, 2.0, 8.0, 10.0)
    (1.0, 2.0, 2.0, True)
    """
    det = a * (d * g - f * f) - b * (b * g - f * c) + c * (b * f - d * c)
    if not abs(det) > 0.0:
        return 0.0, 0.0, 0.0, False
    first = (u * (d * g - f * f) - b * (v * g - f * w) + c * (v * f - d * w)) / det
    second = (a * (v * g - f * w) - u * (b * g - f * c) + c * (b * w - v * c)) / det
    third = (a * (d * w - v * f) - b * (b * w - v * c) + u * (b * f - d * c)) / det
    return first, second, third, True
