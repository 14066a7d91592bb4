"""Reference engine of `ParallelGP`: gpytorch as in the paper, with dense matrices of all pixels and all maps.

The other engines are exact too, and thousands of times faster. This one is independent of their code, and serves to
check them. torch and gpytorch are the extra ``gp``.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from typing import Any, Final

import numpy as np

from scalehsi.arrays import Bool, Float
from scalehsi.blocks.compute import free_memory
from scalehsi.kernels.gaussian_process.covariance import parse
from scalehsi.kernels.gaussian_process.gaps import by_map, common_gaps
from scalehsi.kernels.gaussian_process.likelihood import Bounds, Hyper, default_bounds, standardised
from scalehsi.kernels.gaussian_process.radial_kernel import RADIAL_SUFFIX, is_radial, radial_covariance
from scalehsi.kernels.gaussian_process.sampling_points import Points, axis_points, pixels_at, positions
from scalehsi.schema import InputError

Interval = tuple[tuple[float, ...], tuple[float, ...] | None]

TRAINING_STEPS: Final = 200
LEARNING_RATE: Final = 0.05
TRAINING_MATRICES: Final = 12
"""Matrices of all pixels in memory during training, those for the gradient included."""
PREDICTION_MATRICES: Final = 3
"""Matrices of all pixels and maps in memory during predictions."""
CHUNK_POINTS: Final = 512
"""Points whose deviation is computed in one block."""
NU: Final = {"matern12": 0.5, "matern32": 1.5, "matern52": 2.5}
"""Smoothness of the Matern kernels."""


def fit(
    maps: Float,
    observed: Bool | None = None,
    *,
    kernel: str = "matern52-radial",
    bounds: Bounds | None = None,
    isotropic: bool = False,
    rank: int = 1,
    steps: int = TRAINING_STEPS,
    rate: float = LEARNING_RATE,
    device: str = "cpu",
    report: Callable[[int, float], None] | None = None,
) -> tuple[Hyper, Float]:
    """Fit the hyperparameters by Adam on the marginal likelihood, as in the paper.

    Parameters
    ----------
    maps : array, shape (H, W, T)
        Values at missing pixels are ignored.
    observed : array of bool, shape (H, W) or (H, W, T), optional
        True where all maps, or each of them, were measured.
    kernel : str
        With the ending "-radial" a kernel of distance; else a product of one for each axis. See
        `scalehsi.kernels.gaussian_process.radial_kernel.radial_covariance` and
        `scalehsi.kernels.gaussian_process.covariance.parse`.
    bounds : ((low, high), (low, high)), optional
        Of the lengths along y and x, in pixels. The search starts in the middle. Default: from half a pixel to the
        extent, starting from their geometric mean.
    isotropic : bool, default False
        One length for both axes.
    rank : int, default 1
    steps : int, default 200
    rate : float, default 0.05
        Learning rate of Adam.
    device : {"cpu", "cuda"}
    report : callable, optional
        Called after each step with its number, counted from 1, and the loss.

    Returns
    -------
    hyper : Hyper
    losses : array, shape (steps,)
        Negative log likelihood before each step.

    Raises
    ------
    InputError
        Without gpytorch, without a GPU for "cuda", and for maps that do not fit into memory.

    Notes
    -----
    Unlike in the paper, the maps are scaled to unit variance first, so that one learning rate suits all of them.
    Cost: a step takes eigendecompositions of a matrix of all pixels, 0.1 s at 24 x 24 and 8 s at 48 x 48 on one core.
    """
    torch, gpytorch = _libraries(device)
    seen = np.ones(maps.shape[:2], dtype=bool) if observed is None else common_gaps(observed)
    if not seen.any():
        raise InputError("no pixel was measured, so that there is nothing to fit")
    used = by_map(seen).any(axis=-1)
    kept = None if seen.ndim == 2 else torch.as_tensor(np.flatnonzero(seen[used]), device=device)
    _check_memory(torch, device, TRAINING_MATRICES, int(used.sum()) if kept is None else len(kept), kernel)
    (scaled,), mean, scale = standardised([maps], [seen])
    places = torch.as_tensor(np.argwhere(used).astype(np.float64), device=device)
    targets = torch.as_tensor(np.ascontiguousarray(scaled[:, used].T), device=device)
    spatial = _spatial(torch, gpytorch, kernel, _length_limits(bounds, maps.shape, isotropic=isotropic))
    if bounds is None:
        interval = spatial.raw_lengthscale_constraint
        spatial.initialize(lengthscale=torch.sqrt(interval.lower_bound * interval.upper_bound))
    model = _model(torch, gpytorch, spatial, places, targets, min(rank, maps.shape[2]))
    model.to(device=device, dtype=torch.float64).train()
    whole = gpytorch.mlls.ExactMarginalLogLikelihood(model.likelihood, model)
    numbers = int(used.sum()) if kept is None else seen.sum(axis=(0, 1))
    optimiser = torch.optim.Adam(model.parameters(), lr=rate)
    constant = float((numbers * np.log(scale)).sum())
    losses = []
    for step in range(steps + 1):
        count = targets.numel() if kept is None else len(kept)
        loss = -(whole(model(places), targets) if kept is None else _marginal(torch, model, places, targets, kept))
        losses.append(float(loss.detach()) * count + constant)
        if step < steps:
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            if report is not None:
                report(step + 1, losses[-1])
    found = _hyper(model, kernel, losses[-1] - constant, steps)
    return found.in_units(mean, scale, numbers), np.array(losses[:-1])


def predict(
    y: Float, observed: Bool | None, hyper: Hyper, *, upsample: Points = 1, device: str = "cpu"
) -> tuple[Float, Float]:
    """Predict exact mean and standard deviation of the maps without their noise, by a Cholesky factorisation.

    Parameters
    ----------
    y : array, shape (H, W, T)
        Values at missing pixels are ignored.
    observed : array of bool, shape (H, W) or (H, W, T), or None
        True where all maps, or each of them, were measured; None where nothing is missing.
    hyper : Hyper
    upsample : int or two tuples of float, default 1
        Points per pixel along each axis, or the positions of points; see
        `scalehsi.kernels.gaussian_process.sampling_points`.
    device : {"cpu", "cuda"}

    Returns
    -------
    mean, std : array, shape (H * upsample, W * upsample, T)

    Raises
    ------
    InputError
        Without gpytorch, without a GPU for "cuda", and where the matrices do not fit into memory.

    Notes
    -----
    Unlike in the paper, nothing is sampled, and the standard deviation is that of the maps without their noise.
    Memory: three squares of (measured pixels x maps) in float64, 0.9 GiB at 32 x 32 pixels of 6 maps.
    """
    torch, gpytorch = _libraries(device)
    seen = by_map(np.ones(y.shape[:2], dtype=bool) if observed is None else observed)
    seen = np.broadcast_to(seen, y.shape)
    used, maps = seen.any(axis=-1), y.shape[2]
    kept = np.flatnonzero(seen[used])
    _check_memory(torch, device, PREDICTION_MATRICES, int(used.sum()) * maps, hyper.kernel)
    spatial = _spatial(torch, gpytorch, hyper.kernel, (hyper.lengths, None)).to(device=device, dtype=torch.float64)
    as_tensor = lambda v: torch.as_tensor(np.ascontiguousarray(v, dtype=np.float64), device=device)  # noqa: E731
    places, signal, noise = as_tensor(np.argwhere(used)), as_tensor(hyper.signal), as_tensor(hyper.noise)
    points, index = as_tensor(_points((y.shape[0], y.shape[1]), upsample)), torch.as_tensor(kept, device=device)
    with torch.no_grad():
        whole = torch.kron(spatial(places, places).to_dense(), signal)
        whole.diagonal().add_((noise**2).repeat(len(places)))
        whole = whole if len(kept) == len(whole) else whole[index][:, index]
        root = torch.linalg.cholesky(whole)
        del whole
        centred = as_tensor((y[used] - hyper.mean).reshape(-1, 1)[kept])
        weights = torch.cholesky_solve(centred, root)
        means, variances = [], []
        for first in range(0, len(points), CHUNK_POINTS):
            cross = torch.kron(spatial(points[first : first + CHUNK_POINTS], places).to_dense(), signal)[:, index]
            means.append((cross @ weights).reshape(-1, maps))
            half = torch.linalg.solve_triangular(root, cross.T.contiguous(), upper=False)
            variances.append(signal.diagonal() - (half**2).sum(dim=0).reshape(-1, maps))
        mean, variance = torch.cat(means), torch.cat(variances).clamp_min(0.0)
    shape = (*(len(pixels_at(axis_points(upsample, axis), y.shape[axis])) for axis in (0, 1)), maps)
    return mean.cpu().numpy().reshape(shape) + hyper.mean, np.sqrt(variance.cpu().numpy().reshape(shape))


def _points(shape: tuple[int, int], upsample: Points) -> Float:
    """Positions of the points for maps of ``shape``, (points along y * points along x, 2), in pixels."""
    y, x = (positions(axis_points(upsample, axis), n) for axis, n in enumerate(shape))
    return np.stack(np.meshgrid(y, x, indexing="ij"), axis=-1).reshape(-1, 2)


def _libraries(device: str) -> tuple[Any, Any]:
    """Import torch and gpytorch, and check the device."""
    try:
        torch = importlib.import_module("torch")
        with warnings.catch_warnings():
            # An import of gpytorch compiles a function in a way that torch has deprecated.
            warnings.filterwarnings("ignore", message=r"`torch\.jit\.script`", category=DeprecationWarning)
            gpytorch = importlib.import_module("gpytorch")
    except ImportError as error:
        raise InputError(
            f"engine='dense' needs torch and gpytorch ({error}); type pip install 'scalehsi[gp]', or leave out engine"
        ) from error
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("device='cuda' was asked for, but torch finds no usable GPU; use device='cpu'")
    return torch, gpytorch


def _check_memory(torch: Any, device: str, copies: int, size: int, kernel: str) -> None:
    """Refuse ``copies`` matrices of ``size`` x ``size`` that do not fit into the memory of the device.

    ``kernel`` decides which other engine the message recommends.
    """
    needed = copies * 8 * size**2
    free = torch.cuda.mem_get_info()[0] if device == "cuda" else free_memory()
    if needed > free:
        other = "iterative" if is_radial(kernel) else "structured"
        raise InputError(
            f"engine='dense' needs {needed / 2**30:.1f} GiB for matrices of {size} x {size}, and "
            f"{free / 2**30:.1f} GiB are free; type engine={other!r}, which needs no matrix"
        )


def _length_limits(bounds: Bounds | None, shape: tuple[int, ...], *, isotropic: bool) -> Interval:
    """Least and largest lengths along y and x, or of both axes; ``shape`` (H, W, T) gives the default of ``bounds``."""
    (a, b), (c, d) = bounds or default_bounds(*shape[:2])
    low, high = ((max(a, c),), (min(b, d),)) if isotropic else ((a, c), (b, d))
    if any(one > other for one, other in zip(low, high, strict=True)):
        raise InputError(f"bounds={bounds}: no length is within both, as isotropic=True asks for")
    # gpytorch needs an interval of some width: a millionth fixes a length as well.
    return low, tuple(max(one * (1 + 1e-6), other) for one, other in zip(low, high, strict=True))


def _spatial(torch: Any, gpytorch: Any, kernel: str, limits: Interval) -> Any:
    """Make the gpytorch kernel of positions (n, 2) with an interval of its lengths, or given lengths and None."""
    low, high = limits
    interval = None
    if high is not None:
        interval = gpytorch.constraints.Interval(torch.tensor([low]).double(), torch.tensor([high]).double())
    how = {"ard_num_dims": len(low), "lengthscale_constraint": interval}
    if is_radial(kernel):
        radial_covariance(kernel, 0.0, 0.0, (1.0, 1.0))
        name = kernel.removesuffix(RADIAL_SUFFIX)
        made = gpytorch.kernels.RBFKernel(**how) if name == "rbf" else gpytorch.kernels.MaternKernel(NU[name], **how)
    else:
        made = _product(torch, gpytorch)(parse(kernel), **how)
    made.double()
    if high is None:
        made.initialize(lengthscale=torch.tensor([low]).double())
    return made


def _product(torch: Any, gpytorch: Any) -> Any:
    """Make the gpytorch class of products of one covariance for y and one for x, as `covariance` defines them."""
    root3, root5 = float(np.sqrt(3.0)), float(np.sqrt(5.0))
    stationary = {
        "matern12": lambda r: torch.exp(-r),
        "matern32": lambda r: (1 + root3 * r) * torch.exp(-root3 * r),
        "matern52": lambda r: (1 + root5 * r + 5 * r * r / 3) * torch.exp(-root5 * r),
        "rbf": lambda r: torch.exp(-r * r / 2),
    }

    class Product(gpytorch.kernels.Kernel):
        has_lengthscale = True

        def __init__(self, terms: Any, **how: Any) -> None:
            super().__init__(**how)
            self.terms = terms

        def forward(self, x1: Any, x2: Any, diag: Any = False, **_: Any) -> Any:  # noqa: FBT002 (gpytorch's order)
            lengths = self.lengthscale.expand(1, 2)
            value = 1.0
            for axis in range(2):
                a, b = x1[..., axis], x2[..., axis]
                d = (a - b if diag else a[..., :, None] - b[..., None, :]).abs()
                value = value * self.axis_covariance(d, lengths[0, axis])
            return value

        def axis_covariance(self, d: Any, length: Any) -> Any:
            total = torch.zeros_like(d)
            for factors in self.terms:
                product = torch.ones_like(d)
                for name, period in factors:
                    if name == "periodic":
                        product = product * torch.exp(-2 * (period * torch.sin(np.pi * d / period) / length) ** 2)
                    else:
                        product = product * stationary[name](d / length)
                total = total + product
            return total / len(self.terms)

    return Product


def _model(torch: Any, gpytorch: Any, spatial: Any, places: Any, targets: Any, rank: int) -> Any:
    """Make the paper's model: maps coupled by a matrix of low rank, each with its own noise and constant mean.

    ``spatial`` is the kernel of positions, ``places`` (n, 2) the measured pixels, ``targets`` (n, T) their values, and
    ``rank`` the columns of L.
    """
    maps = targets.shape[1]

    class Parallel(gpytorch.models.ExactGP):
        def __init__(self) -> None:
            super().__init__(places, targets, gpytorch.likelihoods.MultitaskGaussianLikelihood(num_tasks=maps))
            self.mean_function = gpytorch.means.MultitaskMean(gpytorch.means.ConstantMean(), num_tasks=maps)
            self.coupled = gpytorch.kernels.MultitaskKernel(spatial, num_tasks=maps, rank=rank)

        def forward(self, x: Any) -> Any:
            return gpytorch.distributions.MultitaskMultivariateNormal(self.mean_function(x), self.coupled(x))

    model = Parallel()
    # gpytorch starts from torch's global random numbers; these are the same in each run.
    start = torch.as_tensor(np.random.default_rng(0).standard_normal((maps, rank + 1)))
    model.coupled.task_covar_module.initialize(covar_factor=start[:, :rank], raw_var=start[:, rank])
    return model


def _marginal(torch: Any, model: Any, places: Any, targets: Any, kept: Any) -> Any:
    """Logarithm of the likelihood for each value, of the values ``kept`` of ``targets`` (n, T) at ``places`` (n, 2)."""
    prior = model(places)
    task_noise = model.likelihood.task_noises + model.likelihood.noise
    signal = model.coupled.task_covar_module.covar_matrix.to_dense()
    values = torch.kron(model.coupled.data_covar_module(places).to_dense(), signal)[kept][:, kept]
    values = values + torch.diag(task_noise.repeat(len(places))[kept])
    off = (targets - prior.mean).reshape(-1)[kept]
    root = torch.linalg.cholesky(values)
    square = (off * torch.cholesky_solve(off[:, None], root)[:, 0]).sum()
    return -0.5 * (square + 2 * root.diagonal().log().sum() + len(kept) * np.log(2 * np.pi)) / len(kept)


def _hyper(model: Any, kernel: str, loss: float, steps: int) -> Hyper:
    """Read the hyperparameters of a trained model of this kernel; ``loss`` and ``steps`` are those of its training."""
    values = lambda v: np.atleast_1d(v.detach().cpu().double().numpy())  # noqa: E731
    lengths = np.broadcast_to(values(model.coupled.data_covar_module.lengthscale).ravel(), 2)
    signal = values(model.coupled.task_covar_module.covar_matrix.to_dense())
    noise = np.sqrt(values(model.likelihood.task_noises) + values(model.likelihood.noise))
    mean = np.array([float(one.constant.detach()) for one in model.mean_function.base_means])
    scan = np.array([[float(np.sqrt(lengths[0] * lengths[1])), loss]])
    return Hyper(kernel, (float(lengths[0]), float(lengths[1])), signal, noise, mean, loss, scan, steps)
