"""Least-squares passes on a GPU: sums and abundances as in `scalehsi.kernels.least_squares.passes`.

A thread block keeps a tile of pixels in shared memory for both products and the solver. If the sums ``N = sum v c' x``
fit into the registers of the block (K E up to 16384), the data are read once; otherwise the second product is a
separate kernel, which reads the data again. Nothing here has run on a GPU yet: see `scalehsi.kernels.cuda`.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np

from scalehsi.arrays import Float
from scalehsi.kernels.cuda.sources import C_TYPES, add, current_device, launch, module, padded_k, runtime, to_host
from scalehsi.schema import InputError

THREADS: Final = 256
WARPS: Final = THREADS // 32
MAX_FLOAT32_PIXELS: Final = 64
"""Pixels summed in float32 before the sum is added in float64. THREADS, WARPS and this are as in tiles.cu."""
MAX_SUMS_PER_THREAD: Final = 64
"""Sums of N that a thread keeps in registers."""
RELATIVE_RIDGE: Final = 1e-12
"""As in `kernels.quadratic.nnls`, whose import would load numba."""
ALIGNMENT: Final = 16
"""Rows are padded to multiples of this many channels and bytes, so that 16 bytes are read at once."""
RESERVED_BYTES: Final = 1024
"""Bytes of shared memory that the system reserves for every block."""
READABLE_DTYPES: Final = frozenset({"u1", "u2", "f4"})


class Plan(NamedTuple):
    """Division of a pass into tiles and thread blocks: constants for the compilation and the launch of a kernel.

    Attributes
    ----------
    components : int
        K, padded.
    tile_pixels : int
        Pixels per warp in the first product.
    packs : int
        Groups of channels per thread in the second product.
    pitch : int
        Channels of a padded row.
    rows : int
        Pixels of a tile.
    shared : int
        Bytes of shared memory per thread block.
    fused : bool
        True if one kernel computes both products.
    blocks_per_processor : int
        Thread blocks that run on a multiprocessor at a time.
    """

    components: int
    tile_pixels: int
    packs: int
    pitch: int
    rows: int
    shared: int
    fused: bool
    blocks_per_processor: int

    @property
    def macros(self) -> tuple[tuple[str, int], ...]:
        return ("COMPONENTS", self.components), ("TILE_PIXELS", self.tile_pixels), ("PACKS", self.packs)

    @property
    def wide(self) -> int:
        """Adjacent channels of a thread."""
        return _wide(self.components)


def plan(n: int, channels: int, itemsize: int, *, per_block: int, per_processor: int) -> Plan:
    """Fit the tiles of a pass to the shared memory of a device.

    Parameters
    ----------
    n, channels : int
        K and E.
    itemsize : int
        Bytes per value of x.
    per_block, per_processor : int
        Limits of shared memory in bytes, for a block and for all blocks of a multiprocessor.

    Raises
    ------
    InputError
        If one pixel does not fit.

    Examples
    --------
    On an H100, six components and 1024 channels of float32: tiles of 24 pixels, two blocks on a multiprocessor, and one
    reading of the data.

    >>> cut = plan(6, 1024, 4, per_block=232448, per_processor=233472)
    >>> cut.components, cut.rows, cut.blocks_per_processor, cut.fused
    (8, 24, 2, True)
    >>> plan(20, 4096, 4, per_block=232448, per_processor=233472).fused
    False
    """
    k = padded_k(n)
    pitch = -(-channels // ALIGNMENT) * ALIGNMENT
    packs = -(-pitch // (THREADS * _wide(k)))
    fused = packs * _wide(k) * k <= MAX_SUMS_PER_THREAD
    # Two blocks on a multiprocessor: one reads while the other computes. With 64 sums, the registers suffice for one.
    max_blocks = 1 if fused and packs * _wide(k) * k > MAX_SUMS_PER_THREAD // 2 else 2
    max_pixels = 32 // k
    choices = [(max_blocks, max_pixels), *((1, max_pixels >> i) for i in range(max_pixels.bit_length()))]
    for blocks, tile_pixels in choices:
        limit = min(per_block, per_processor // blocks - RESERVED_BYTES)
        for rows in range(MAX_FLOAT32_PIXELS // tile_pixels * tile_pixels, 0, -tile_pixels):
            shared = _bytes(k, rows, tile_pixels, pitch, itemsize)
            if shared <= limit:
                return Plan(k, tile_pixels, packs if fused else 1, pitch, rows, shared, fused, blocks)
    raise InputError(
        f"{channels} channels of {itemsize} bytes do not fit into {per_block} bytes of shared memory on this GPU; "
        f"crop or bin the energy axis, or fit with device='cpu'"
    )


def _wide(k: int) -> int:
    return 4 if k <= 8 else 32 // k


def _bytes(k: int, rows: int, tile_pixels: int, pitch: int, itemsize: int) -> int:
    """Size of the struct `SharedTile` in tiles.cu: k components, and the numbers of a `Plan` and of `plan`."""
    partial = max(rows, WARPS * tile_pixels)
    return 16 * k * k + rows * pitch * itemsize + 4 * (partial * k + 2 * rows * k + rows)


def frobenius_update(
    x: Any,
    *,
    s: Float,
    w: Float | None = None,
    weigh_pixels: bool = False,
    gram: Float | None = None,
    shift: Float | None = None,
    simplex: bool = False,
    norm: bool = True,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Solve the abundances of a block, and return the sums for the objective and the next ``s``.

    Parameters
    ----------
    x : CuPy array, shape (P, E)
        On the current device. uint8, uint16 and float32 are read directly; other types are first copied to float32.
    s : array, shape (K, E)
        On the host; K up to 32.
    w : array, shape (E,), optional
        Weight of each channel.
    weigh_pixels : bool
        Divide by the mean of each pixel.
    gram : array, shape (K, K), optional
        Matrix of the quadratic problem of a pixel if it is not ``s w s'``; symmetric.
    shift : array, shape (K,), optional
        Linear cost of the abundances, subtracted from ``x w s'``.
    simplex : bool
        True if the abundances of a pixel sum to one.
    norm : bool
        False skips ``sum v w x^2``, which does not depend on ``s`` and costs a reading of the data.

    Returns
    -------
    pixels : empty dict
    sums : dict
        On the host, float64: ``N`` (K, E) = sum v c' x, ``M`` (K, K) = sum v c' c, ``C`` (K,) = sum v c,
        ``norm`` = sum v w x^2.

    Raises
    ------
    InputError
        Without CuPy, for more than 32 components, for a matrix that is not symmetric, and if a pixel does not fit into
        shared memory (beyond 32768 channels of float32 on an A100).

    Notes
    -----
    float32 sums span at most 64 pixels and are then added in float64; the quadratic problems are solved in float64. No
    sum depends on the order in which blocks run. Consumer GPUs have few float64 units, which limit the speed there.
    """
    cupy = runtime()
    block = _Block(cupy, x, s, w, weigh_pixels=weigh_pixels, gram=gram, shift=shift, simplex=simplex)
    if block.cut.fused:
        big_n, small = block.fused()
    else:
        _, weighted, small = block.solve()
        big_n = block.outer(weighted)
    sums = block.sums(big_n, small)
    if norm:
        unused = cupy.zeros(1, dtype=np.float32)
        sums["norm"] = np.float64(block.losses(unused, unused, 0, None).sum())
    return {}, sums


def frobenius_abundances(
    x: Any,
    *,
    s: Float,
    w: Float | None = None,
    weigh_pixels: bool = False,
    gram: Float | None = None,
    shift: Float | None = None,
    simplex: bool = False,
    residual: bool = True,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Solve the abundances of a block exactly in the last pass, and return the residuals of the model.

    Parameters
    ----------
    x, s, w, weigh_pixels, gram, shift, simplex
        As in `frobenius_update`.
    residual : bool
        False skips the residuals, which cost two more readings of the data.

    Returns
    -------
    pixels : dict
        CuPy arrays: ``abundances`` (P, K) float32, ``residual`` (P,) root mean square over the channels.
    sums : dict
        On the host: ``residual_spectrum`` (E,) sum of data minus model, ``objective``.
    """
    cupy = runtime()
    block = _Block(cupy, x, s, w, weigh_pixels=weigh_pixels, gram=gram, shift=shift, simplex=simplex)
    scaled, _, _ = block.solve()
    c = cupy.ascontiguousarray(scaled[:, : len(s)] / cupy.asarray(block.unit, dtype=np.float32))
    if not residual:
        return {"abundances": c}, {}
    rms = cupy.empty(len(x), dtype=np.float32)
    loss = block.losses(c, cupy.asarray(s, dtype=np.float32), len(s), rms).sum()
    # The sum over pixels is a product with ones.
    total = block.outer(cupy.ones((len(x), block.cut.components), dtype=np.float32))[0, : block.channels]
    spectrum = total - to_host(cupy, cupy.sum(c, axis=0, dtype=np.float64)) @ np.asarray(s, dtype=np.float64)
    return {"abundances": c, "residual": rms}, {"residual_spectrum": spectrum, "objective": np.float64(0.5 * loss)}


class _Block:
    """Data on the device, the problem scaled to components of unit length, and the kernels.

    Arguments as in `frobenius_update`; cupy is the module.
    """

    def __init__(
        self, cupy: Any, x: Any, s: Any, w: Any, *, weigh_pixels: bool, gram: Any, shift: Any, simplex: bool
    ) -> None:
        ends = np.asarray(s, dtype=np.float64)
        weighted = ends if w is None else ends * w
        matrix = weighted @ ends.T if gram is None else np.asarray(gram, dtype=np.float64)
        if not np.allclose(matrix, matrix.T, rtol=1e-12, atol=0.0):
            raise InputError(
                "the GPU kernels need a symmetric matrix; fit penalties between components on device='cpu'"
            )
        length = np.sqrt(np.diag(matrix))
        self.unit = np.where(length > 0, length, 1.0)
        linear = np.zeros(len(ends)) if shift is None else np.asarray(shift, dtype=np.float64)
        if simplex:
            # The unit of abundances is fixed, so the loss is scaled. A constant for all components changes nothing in
            # b: without their mean, spectra are small and float32 products of them accurate.
            one = length.max(initial=0.0) ** 2 or 1.0
            self.unit = np.ones_like(length)
            weighted, matrix, linear = (weighted - weighted.mean(axis=0)) / one, matrix / one, linear / one
        self.n, self.channels = ends.shape
        ready = x.dtype.isnative and x.dtype.str[1:] in READABLE_DTYPES
        self.x = cupy.ascontiguousarray(x if ready else x.astype(np.float32))
        self.w = cupy.asarray(np.ones(self.channels) if w is None else np.asarray(w, dtype=np.float64))
        self.weigh_pixels = weigh_pixels
        device = current_device(cupy)
        self.cut = plan(
            self.n,
            self.channels,
            self.x.dtype.itemsize,
            per_block=device.per_block,
            per_processor=device.per_processor,
        )
        self._cupy = cupy
        self._processors = device.processors
        special = (("SIMPLEX", self.n),) if simplex else ()
        self._kernels = module(cupy, "frobenius", (("DATA", C_TYPES[self.x.dtype.str[1:]]), *self.cut.macros, *special))
        self._problem = self._padded_problem(weighted, matrix, linear)

    def _padded_problem(self, weighted: Float, matrix: Float, shift: Float) -> tuple[Any, ...]:
        """Scale the problem (K, E), (K, K), (K,) and pad it with components that a unit matrix keeps at zero."""
        k, n = self.cut.components, self.n
        scaled = matrix / np.outer(self.unit, self.unit)
        rows, gram, linear = np.zeros((k, self.cut.pitch), dtype=np.float32), np.eye(k), np.zeros(k)
        rows[:n, : self.channels] = weighted / self.unit[:, None]
        gram[:n, :n] = scaled + np.diag(np.where(np.diag(scaled) > 0, RELATIVE_RIDGE * np.diag(scaled), 1.0))
        linear[:n] = shift / self.unit
        # The inverse only provides the first passive set; if it is inaccurate, zeros take its place.
        inverse = np.linalg.inv(gram) if np.linalg.cond(gram) < 1e14 else np.zeros((k, k))
        return tuple(self._cupy.asarray(part) for part in (rows, gram, inverse, linear))

    def _solver_arguments(self) -> tuple[Any, ...]:
        cut = self.cut
        # If rows and the start address are multiples of 16 bytes, 16 bytes are read at a time.
        aligned = self.channels * self.x.dtype.itemsize % ALIGNMENT == 0 and self.x.data.ptr % ALIGNMENT == 0
        numbers = (self.channels, cut.pitch, cut.rows, int(self.weigh_pixels), int(aligned))
        return (self.x, *self._problem, np.int64(len(self.x)), *(np.int32(number) for number in numbers))

    def _grid(self) -> int:
        return max(min(-(-len(self.x) // self.cut.rows), self.cut.blocks_per_processor * self._processors), 1)

    def fused(self) -> tuple[Float, Float]:
        """Compute N (K, pitch) and the small sums with one reading of the data."""
        blocks, k = self._grid(), self.cut.components
        big_n = self._cupy.zeros((blocks, k, self.cut.pitch), dtype=np.float64)
        small = self._cupy.empty((blocks, k * k + k), dtype=np.float64)
        kernel = self._kernels.get_function("fused_pass")
        launch(kernel, (blocks,), THREADS, (*self._solver_arguments(), big_n, small), shared=self.cut.shared)
        return add(self._cupy, self._kernels, big_n), add(self._cupy, self._kernels, small)

    def solve(self) -> tuple[Any, Any, Float]:
        """Solve c (P, K); returns c and v c on the device, and the small sums."""
        blocks, k = self._grid(), self.cut.components
        c = self._cupy.empty((len(self.x), k), dtype=np.float32)
        weighted = self._cupy.empty((len(self.x), k), dtype=np.float32)
        small = self._cupy.empty((blocks, k * k + k), dtype=np.float64)
        kernel = self._kernels.get_function("solve_pass")
        launch(kernel, (blocks,), THREADS, (*self._solver_arguments(), c, weighted, small), shared=self.cut.shared)
        return c, weighted, add(self._cupy, self._kernels, small)

    def outer(self, weighted: Any) -> Float:
        """Compute ``weighted' x`` (K, pitch)."""
        runs = -(-self.cut.pitch // (THREADS * self.cut.wide))
        blocks = max(min(-(-len(self.x) // MAX_FLOAT32_PIXELS), -(-4 * self._processors // runs)), 1)
        big_n = self._cupy.empty((blocks, self.cut.components, self.cut.pitch), dtype=np.float64)
        arguments = (self.x, weighted, np.int64(len(self.x)), np.int32(self.channels), np.int32(self.cut.pitch), big_n)
        launch(self._kernels.get_function("outer_pass"), (blocks, runs), THREADS, arguments)
        return add(self._cupy, self._kernels, big_n)

    def losses(self, c: Any, s: Any, components: int, rms: Any) -> Float:
        """Compute ``sum v w (x - c s)^2`` (blocks,), and the root mean square of each pixel in ``rms`` unless None.

        c is (P, components) and s (components, E), both float32 on the device; with no components the residual is x.
        """
        blocks = max(min(-(-len(self.x) // WARPS), 8 * self._processors), 1)
        loss = self._cupy.empty(blocks, dtype=np.float64)
        numbers = (np.int64(len(self.x)), *(np.int32(v) for v in (self.channels, components, self.weigh_pixels)))
        output = np.intp(0) if rms is None else rms
        launch(
            self._kernels.get_function("residual_pass"),
            (blocks,),
            THREADS,
            (self.x, c, s, self.w, *numbers, output, loss),
        )
        return to_host(self._cupy, loss)

    def sums(self, big_n: Float, small: Float) -> dict[str, Any]:
        """Remove the scaling and the padding from ``big_n`` and the ``small`` sums."""
        k, n = self.cut.components, self.n
        pairs = small[: k * k].reshape(k, k)[:n, :n]
        return {
            "N": big_n[:n, : self.channels] / self.unit[:, None],
            "M": pairs / np.outer(self.unit, self.unit),
            "C": small[k * k : k * k + n] / self.unit,
        }
