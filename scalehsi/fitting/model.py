"""What a model is: a frozen dataclass of settings, and four functions that know nothing of loops or files.

A new model is one file with one such class; `scalehsi.fit` gives it the loop, tolerance, progress, checkpoints, resume
and provenance. CONTRIBUTING.md shows one, and the tests run it.
"""

from __future__ import annotations

import dataclasses
import math
import numbers
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, Final, NamedTuple, Self

import numpy as np
import xarray as xr

from scalehsi import arrays
from scalehsi.blocks import BlockFunction, Blocks, Pixels
from scalehsi.checks import is_number, require
from scalehsi.cube import check_cube
from scalehsi.schema import InputError, Status, suggest

State = dict[str, np.ndarray[Any, Any]]
"""What an iteration hands to the next: small named arrays on the host, and all that a checkpoint holds."""

Variables = dict[str, xr.DataArray]

LastPass = tuple[BlockFunction, dict[str, Any], tuple[Pixels | xr.DataArray, ...]]
"""A block function, its shared arguments, and what goes along with the pixels."""

NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})


@dataclass(frozen=True)
class Stats:
    """What one step tells the loop.

    Attributes
    ----------
    objective : float
        The value that the method minimises, at the best point so far.
    done : bool
        True when the model knows that another step would change nothing.
    progressing : bool
        False when the step was rejected, so that the loop does not take a flat objective for convergence.
    settled : bool
        False while a flat objective means nothing, because the model is about to change what it does.
    advice : str
        With ``done``: what to tell the user in place of the standing sentence.
    """

    objective: float
    done: bool = False
    progressing: bool = True
    settled: bool = True
    advice: str = ""


@dataclass(frozen=True)
class Cost:
    """What a fit will need, for `scalehsi.plan`.

    Attributes
    ----------
    passes : int
        Readings of the whole cube, at most.
    sums_bytes : int
        What one block sends to the reduction in each pass.
    work_bytes : int
        What a kernel allocates beside the block.
    columns : int
        Numbers a pixel in the maps.
    kept_bytes : int
        What the workers keep of each pixel between passes where they do not keep the cube.
    aligned_bytes : int
        What goes along with each pixel in every pass; the workers keep it where they keep the cube.
    """

    passes: int
    sums_bytes: int
    work_bytes: int
    columns: int
    kept_bytes: int = 0
    aligned_bytes: int = 0


class Sources(NamedTuple):
    """What a fit is of.

    Attributes
    ----------
    cube : DataArray
        The cube whose pixels the maps of the result have, dims (..., y, x, energy).
    beside : mapping of str to DataArray
        Other cubes, of other pixels or channels. `scalehsi.fit` opens each, and the model finds the blocks in
        ``view.branches[name]``.
    name : str
        What the cube was called among them.
    carried : mapping of str to DataArray
        Variables that go into the result as they are.
    frame : DataArray, optional
        Whose axes and description the result has, where these are not the cube's; its values are not looked at.
    """

    cube: xr.DataArray
    beside: Mapping[str, xr.DataArray] = NOTHING
    name: str = "cube"
    carried: Mapping[str, xr.DataArray] = NOTHING
    frame: xr.DataArray | None = None


@dataclass(frozen=True)
class Model:
    """Base of all models. Fields of a subclass are its settings, and nothing else is.

    A subclass sets ``name`` and defines `init`, `step`, `finish` and `projector`. A variant of a method is a field, not
    another subclass.
    """

    name: ClassVar[str] = ""

    max_iter: int = dataclasses.field(default=1, kw_only=True)
    tol: float = dataclasses.field(default=0.0, kw_only=True)

    def __post_init__(self) -> None:
        whole, real = is_number(self.max_iter, numbers.Integral), is_number(self.tol, numbers.Real)
        require(whole and self.max_iter >= 1, f"max_iter is a whole number of at least 1, got {self.max_iter!r}")
        require(real and self.tol >= 0, f"tol is a number that is not negative, got {self.tol!r}")

    @property
    def devices(self) -> tuple[arrays.Device, ...]:
        """Where the kernels of these settings run; ``device="auto"`` chooses among them."""
        return ("cpu", "cuda")

    @property
    def halo(self) -> int:
        """Pixels along y and x that the projector sees around a block; with any it is called with a ``tile``, too."""
        return 0

    @property
    def packed(self) -> bool:
        """True where the projector works on sparse counts (`Counts`), which are then preferred to dense blocks."""
        return False

    def check(self, cube: xr.DataArray) -> None:
        """Refuse a cube whose metadata do not fit the settings. Reads no values."""

    def sources(self, data: Any) -> Sources:
        """Turn what `scalehsi.fit` was given into the data that it opens; refuse what does not fit. Reads no values.

        One cube, as it is. A model that takes something else, such as several acquisitions by name
        (`scalehsi.fitting.sources.named`) or maps, says so here.
        """
        if isinstance(data, Mapping) and not isinstance(data, xr.Dataset):
            given = ", ".join(map(repr, data))
            raise InputError(f"{self.name} takes one cube, got a mapping of {given}; give it the cube alone")
        check_cube(data)
        self.check(data)
        return Sources(data)

    def parts(self, beside: Mapping[str, xr.DataArray]) -> tuple[tuple[xr.DataArray, Model], ...]:
        """Fits of other cubes that are parts of this one, for `scalehsi.plan`."""
        return ()

    def init(self, view: Blocks, seed: int) -> State:
        """The state before the first step. May read the cube a fixed number of times."""
        raise TypeError(f"{type(self).__name__} does not define init")

    def step(self, view: Blocks, state: State) -> tuple[State, Stats]:
        """One iteration: at best one pass over the cube."""
        raise TypeError(f"{type(self).__name__} does not define step")

    def finish(self, view: Blocks, state: State) -> Variables:
        """The variables of the result except the maps, which the loop makes with `projector`."""
        raise TypeError(f"{type(self).__name__} does not define finish")

    def ending(self, variables: Variables, status: Status, advice: str) -> tuple[Status, str]:
        """How the fit ended, once it is known what `finish` found; as the loop says, unless the model knows better."""
        return status, advice

    def projector(self, result: xr.Dataset) -> tuple[BlockFunction, dict[str, Any]]:
        """A block function that gives ``abundances`` (and ``residual``) of any pixels, and its shared arguments."""
        raise TypeError(f"{type(self).__name__} does not define projector")

    def last_pass(self, view: Blocks, found: xr.Dataset) -> LastPass:
        """How the loop makes the maps of the cube that was fitted, from what `finish` found.

        The function and the shared arguments of `projector`, or others that know more of this cube than of any other,
        and what goes along with the pixels of the view, behind ``x``.
        """
        return (*self.projector(found), ())

    def cost(self, shape: tuple[int, ...], itemsize: int) -> Cost:
        """What a fit of a cube of that shape needs."""
        return Cost(self.max_iter + 2, 0, 0, 1)

    def to_settings(self) -> dict[str, Any]:
        """The settings as plain values that JSON can hold."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {k: v.item() if isinstance(v, np.generic) else v for k, v in values.items()}

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> Self:
        """Make a model of plain values, as the command line and a stored result have them.

        Raises
        ------
        InputError
            For a name that is no setting, with the nearest one.
        """
        known = {f.name for f in dataclasses.fields(cls) if f.init}
        for name in settings:
            if name not in known:
                raise InputError(f"{cls.name} has no setting {name!r}; {suggest(name, known)}")
        try:
            return cls(**settings)
        except TypeError as error:
            raise InputError(f"{cls.name} cannot be set up: {error}") from error


def check_components(n_components: Any, cube: xr.DataArray | None = None) -> None:
    """Refuse a number of components that is no number, below one, or more than the cube can tell apart."""
    if not is_number(n_components, numbers.Integral):
        raise InputError(f"n_components is a whole number, got {n_components!r}")
    require(n_components >= 1, f"n_components is at least 1, got {n_components}")
    if cube is None:
        return
    channels, pixels = int(cube.shape[-1]), math.prod(cube.shape[:-1])
    require(
        n_components <= channels,
        f"n_components={n_components} is more than the {channels} channels of the cube; take {channels} or fewer",
    )
    require(
        n_components <= pixels,
        f"n_components={n_components} is more than the {pixels} pixels of the cube; take {pixels} or fewer",
    )


def check_weighting(weighting: Any) -> None:
    """Refuse a weighting other than None and "poisson"."""
    require(weighting in (None, "poisson"), f"weighting={weighting!r} is not known; it is None or 'poisson'")
