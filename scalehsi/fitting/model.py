"""The contract of a method: settings in a frozen dataclass, and a few functions that know nothing of files or loops.

There are two kinds. An `IterativeModel` improves its state step by step (`init`, `step`, `finish`); a `DirectModel`
computes it in one go (`solve`, `finish`). `scalehsi.fit` gives both the loop, tolerance, progress, checkpoints, resume
and provenance. CONTRIBUTING.md shows how to write one.
"""

from __future__ import annotations

import dataclasses
import numbers
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple, Self

import numpy as np
import xarray as xr

from scalehsi import arrays
from scalehsi.blocks import BlockFunction, Blocks, Pixels
from scalehsi.checks import is_number, require
from scalehsi.cube import check_cube
from scalehsi.fitting.foreign_words import attribute_answer, setting_answer
from scalehsi.result import ResultWarning
from scalehsi.schema import InputError, Status, suggest

State = dict[str, np.ndarray[Any, Any]]
"""What an iteration passes to the next: small named arrays on the host, and all that a checkpoint holds."""

Variables = dict[str, xr.DataArray]

MapPass = tuple[BlockFunction, dict[str, Any], tuple[Pixels | xr.DataArray, ...]]
"""A block function, its shared arguments, and arrays that are aligned with the pixels."""

NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})


@dataclass(frozen=True)
class Stats:
    """What one step reports to the loop.

    Attributes
    ----------
    objective : float
        The value that the method minimises, at the best point so far.
    done : bool
        True when the model knows that another step would change nothing.
    progressing : bool
        False when the step was rejected, so that the loop does not take a flat objective for convergence.
    settled : bool
        False during phases in which convergence must not be tested, for example before relevances are updated.
    advice : str
        With ``done``: the sentence for the user in place of the standard one.
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
        What is aligned with each pixel in every pass; the workers keep it where they keep the cube.
    keeps_counts : float
        Largest share of values other than zero with which the workers also keep the counts without their zeros, if
        they are small enough; 0 for never, 1 for any.
    """

    passes: int
    sums_bytes: int
    work_bytes: int
    columns: int
    kept_bytes: int = 0
    aligned_bytes: int = 0
    keeps_counts: float = 0.0


class Inputs(NamedTuple):
    """The data of a fit.

    Attributes
    ----------
    cube : DataArray
        The cube whose pixels the maps of the result have, dims (..., y, x, energy).
    others : mapping of str to DataArray
        Other cubes, of other pixels or channels. `scalehsi.fit` opens each, and the model finds the blocks in
        ``view.branches[name]``.
    name : str
        The name of the cube among them.
    carried : mapping of str to DataArray
        Variables that are copied into the result.
    frame : DataArray, optional
        Gives the axes and the description of the result, where these are not the cube's; its values are not read.
    beside : mapping of str to DataArray
        Cubes on the pixels of the cube, whose rows reach every block function behind its own. The ``others`` are then
        single inputs that the fit reads a few times, so they are not kept in memory.
    """

    cube: xr.DataArray
    others: Mapping[str, xr.DataArray] = NOTHING
    name: str = "cube"
    carried: Mapping[str, xr.DataArray] = NOTHING
    frame: xr.DataArray | None = None
    beside: Mapping[str, xr.DataArray] = NOTHING

    @property
    def pixel_bytes(self) -> int:
        """Bytes of a pixel of the cube and of the cubes beside it."""
        return sum(int(each.shape[-1]) * each.dtype.itemsize for each in (self.cube, *self.beside.values()))


@dataclass(frozen=True)
class Model:
    """What both kinds of model share. The fields of a subclass are its settings, and nothing else is.

    A subclass sets ``name`` and defines `finish` and `projector`. A variant of a method is a field, not another
    subclass. A method with more inputs than one cube names them in ``inputs`` and ``optional_inputs``, and the cube
    whose pixels the maps have in ``main_input``; the user gives them as a mapping of these names. One that takes any
    number of signals, by names that the user chooses, sets ``named_signals``. ``judged`` is False where the channels of
    a pixel are no spectrum, so that `scalehsi.fitting.judge` does not know what to expect.
    """

    name: ClassVar[str] = ""
    main_input: ClassVar[str] = "cube"
    judged: ClassVar[bool] = True
    inputs: ClassVar[tuple[str, ...]] = ()
    optional_inputs: ClassVar[tuple[str, ...]] = ()

    named_signals: ClassVar[bool] = False

    max_iter: int = dataclasses.field(default=1, kw_only=True)
    tol: float = dataclasses.field(default=0.0, kw_only=True)

    def __new__(cls, *_: Any, **settings: Any) -> Self:
        """Answer keywords of scikit-learn with ours, before the dataclass refuses them as unknown."""
        for name in settings.keys() - {f.name for f in dataclasses.fields(cls)}:
            if answer := setting_answer(cls.__name__, name):
                raise InputError(answer)
        return super().__new__(cls)

    if not TYPE_CHECKING:  # type checkers would take every attribute for known

        def __getattr__(self, name: str) -> Any:
            raise AttributeError(attribute_answer(type(self).__name__, name))

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
        """Pixels along y and x that the projector sees around a block; if not 0 it is called with a ``tile``, too."""
        return 0

    @property
    def takes_sparse_counts(self) -> bool:
        """True where the projector works on sparse counts (`Counts`), which are then preferred to dense blocks."""
        return False

    @property
    def priors_on_maps(self) -> bool:
        """True where the abundances minimise more than the misfit, so that solving them again would change them."""
        return False

    def check(self, cube: xr.DataArray) -> None:
        """Refuse a cube whose metadata do not fit the settings. Reads no values."""

    def select_inputs(self, data: Any) -> Inputs:
        """Turn the data that the user gave into the cubes that the fit opens; refuse what does not fit.

        Reads no values. This one takes a single cube. A model of several acquisitions
        (`scalehsi.fitting.sources.named_cubes`) or of maps overrides it.
        """
        if isinstance(data, Mapping) and not isinstance(data, xr.Dataset):
            given = ", ".join(map(repr, data))
            raise InputError(f"{self.name} takes one cube, got a mapping of {given}; give it the cube alone")
        check_cube(data)
        self.check(data)
        return Inputs(data)

    def rows_of(self, cube: xr.DataArray, result: xr.Dataset | None = None) -> xr.DataArray:
        """The cube whose pixels the passes and the projector take: another view of the user's cube, or the cube itself.

        cube: of the fit, or one that a result is projected on, with that result.
        """
        return cube

    def submodels(self, others: Mapping[str, xr.DataArray]) -> tuple[tuple[xr.DataArray, Model], ...]:
        """Fits of other cubes that are parts of this one, for `scalehsi.plan`."""
        return ()

    def finish(self, view: Blocks, state: State) -> Variables:
        """The variables of the result except the maps, which the engine computes with `map_pass`."""
        raise TypeError(f"{type(self).__name__} does not define finish")

    def final_status(self, variables: Variables, status: Status, advice: str) -> tuple[Status, str]:
        """How the fit ended, once the variables are known; by default as the loop says."""
        return status, advice

    def attributes(self, variables: Variables) -> dict[str, str]:
        """Further attributes of the result, such as what the model chose; ``variables`` as for `final_status`."""
        return {}

    def warnings(self, variables: Variables) -> list[ResultWarning]:
        """What to object to in a fit of this method, beyond what `scalehsi.fitting.judge` sees in the last pass.

        Called with all variables of the result, maps included.
        """
        return []

    def projector(self, result: xr.Dataset) -> tuple[BlockFunction, dict[str, Any]]:
        """A block function that gives ``abundances`` (and ``residual``) of any pixels, and its shared arguments."""
        raise TypeError(f"{type(self).__name__} does not define projector")

    def projection_note(self, result: xr.Dataset) -> str:
        """What the maps of the fit have that those of `projector` lack; empty where both are the same."""
        return ""

    def map_pass(self, view: Blocks, found: xr.Dataset) -> MapPass:
        """How the maps of the fitted cube are computed from the variables of `finish`.

        By default the function and the shared arguments of `projector`. A model that knows more of this cube than of
        any other returns its own, with arrays that are aligned with the pixels of the view behind ``x``.
        """
        return (*self.projector(found), ())

    def further_maps(self, variables: Variables) -> Mapping[str, bool]:
        """What `map_pass` gives of a pixel beside abundances and residual: True where each component has a value.

        variables: of `finish`.
        """
        return {}

    def cost(self, shape: tuple[int, ...], itemsize: int) -> Cost:
        """What a fit of a cube of that shape and bytes per value needs; E counts the channels of cubes beside it."""
        return Cost(self.max_iter + 2, 0, 0, 1)

    def to_settings(self) -> dict[str, Any]:
        """The settings as plain values that JSON can hold."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {k: v.item() if isinstance(v, np.generic) else v for k, v in values.items()}

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> Self:
        """Make a model from plain values, as the command line and a stored result have them.

        Raises
        ------
        InputError
            For a name that is not a setting; says the nearest one.
        """
        known = {f.name for f in dataclasses.fields(cls) if f.init}
        for name in settings:
            if name not in known:
                answer = setting_answer(cls.name, name)
                raise InputError(answer or f"{cls.name} has no setting {name!r}; {suggest(name, known)}")
        try:
            return cls(**settings)
        except TypeError as error:
            raise InputError(f"{cls.name} cannot be set up: {error}") from error


@dataclass(frozen=True)
class IterativeModel(Model):
    """A model that improves its state step by step, until the loop sees convergence or ``max_iter`` is reached."""

    def init(self, view: Blocks, seed: int) -> State:
        """The state before the first step. May read the cube a fixed number of times."""
        raise TypeError(f"{type(self).__name__} does not define init")

    def step(self, view: Blocks, state: State) -> tuple[State, Stats]:
        """One iteration: at best one pass over the cube. Leaves the old state unchanged."""
        raise TypeError(f"{type(self).__name__} does not define step")

    def spectra(self, state: State) -> np.ndarray[Any, Any] | None:
        """The endmembers (K, E) of a state, in any scale: a fit has not converged while they still turn.

        None, as here: the objective alone decides.
        """
        return None


@dataclass(frozen=True)
class DirectModel(Model):
    """A model that computes its state in one go; the loop calls `solve` once."""

    def solve(self, view: Blocks, seed: int) -> tuple[State, Stats]:
        """The whole computation except the maps. May read the cube a fixed number of times."""
        raise TypeError(f"{type(self).__name__} does not define solve")
