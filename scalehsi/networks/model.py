"""What the trained networks share: settings, start, epochs as iterations, result variables, projection, warnings."""

from __future__ import annotations

import numbers
import weakref
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any, ClassVar, Final

import numpy as np
import xarray as xr

from scalehsi.arrays import Int, NumpyArray
from scalehsi.blocks import BlockFunction, Blocks
from scalehsi.checks import check_components, check_weighting, choice, is_number, require
from scalehsi.fitting.energy_axis import check_axis
from scalehsi.fitting.model import Cost, IterativeModel, State, Stats, Variables
from scalehsi.fitting.survey import survey
from scalehsi.networks.checks import CHECKS, collapse_warnings, measure
from scalehsi.networks.inference import sample_maps
from scalehsi.networks.sample import NEIGHBOURS, Scaling, choose_pixels, gather, scaling_of, vertices
from scalehsi.networks.stored import (
    SCALING,
    WEIGHTS,
    network_variables,
    stored_projector,
    stored_scaling,
    stored_weights,
)
from scalehsi.networks.training import DECODER, Architecture, Items, Schedule, Trainer, glorot
from scalehsi.result import ResultWarning, settings_of
from scalehsi.schema import COMPONENT, ENDMEMBERS, ENERGY, ITERATION, MEAN_SPECTRUM

GIVEN: Final = "given"
"""The stored settings have this word for a start that was given as a result."""
STARTS: Final = ("auto", "vca", "random", GIVEN)
RESTARTS_OF_RANDOM: Final = 5
TRAINED: Final = "Training has had all its epochs."
STOPPED: Final = "Training ended because the held-out loss had stopped falling; the best weights are kept."

_trainers: weakref.WeakKeyDictionary[Blocks, dict[str, Any]] = weakref.WeakKeyDictionary()
"""Sample and trainer of a fit while its blocks exist. They are made again from the state where a fit is resumed."""


@dataclass(frozen=True)
class Network(IterativeModel):
    """A network with abundances as its bottleneck and endmembers as the weights of its linear decoder.

    The fields are described at the methods, such as `scalehsi.networks.daeu.DAEU`. A subclass sets ``presets`` and
    ``network``; one that sees neighbours also ``windows``.
    """

    n_components: int
    _: KW_ONLY
    settings: str = "default"
    weighting: str | None = "poisson"
    start: Any = "auto"
    restarts: int = 1
    pretrain: int | None = None
    epochs: int | None = None
    batch: int | None = None
    rate: float | None = None
    patience: int = 20
    n_samples: int = 20_000
    max_iter: int = None  # type: ignore[assignment]

    presets: ClassVar[dict[str, Schedule]] = {}
    paper_samples: ClassVar[int] = 2000
    simplex: ClassVar[bool] = True

    def __post_init__(self) -> None:
        choice("settings", self.settings, tuple(self.presets))
        for name in ("pretrain", "epochs", "batch"):
            value = getattr(self, name)
            fits = value is None or (is_number(value, numbers.Integral) and value >= (name == "batch"))
            require(fits, f"{name} is a whole number that is not negative, got {value!r}")
        if self.max_iter is None:
            object.__setattr__(self, "max_iter", max(1, self.schedule.total))
        super().__post_init__()
        check_components(self.n_components)
        check_weighting(self.weighting)
        if isinstance(self.start, str):
            choice("start", self.start, STARTS)
        for name, least in (("restarts", 1), ("patience", 1), ("n_samples", 2)):
            value = getattr(self, name)
            whole = is_number(value, numbers.Integral)
            require(whole and value >= least, f"{name} is a whole number of at least {least}, got {value!r}")
        given = self.rate is None or (is_number(self.rate, numbers.Real) and self.rate > 0)
        require(given, f"rate is a number above 0, got {self.rate!r}")
        require(self.schedule.total >= 1, "pretrain and epochs are both 0; train at least one epoch")

    def to_settings(self) -> dict[str, Any]:
        found = super().to_settings()
        return found if isinstance(self.start, str) else {**found, "start": GIVEN}

    @property
    def schedule(self) -> Schedule:
        """The preset with the settings that were given."""
        preset = self.presets[self.settings]
        given = {k: getattr(self, k) for k in ("pretrain", "epochs", "batch") if getattr(self, k) is not None}
        if self.rate is not None:
            scale = self.rate / preset.rate
            given |= {"rate": self.rate, "joint_rate": preset.joint_rate * scale}
        patience = self.patience if self.settings == "default" else preset.total + self.patience
        return replace(preset, patience=patience, **given)

    @property
    def network(self) -> Architecture:
        raise TypeError(f"{type(self).__name__} does not define network")

    def windows(self, index: Int, shape: tuple[int, ...]) -> tuple[Int, Int]:
        """Pixels that the network sees and reproduces in the item at each pixel of ``index``, (N, W) and (N, T)."""
        return index[:, None], index[:, None]

    @property
    def window(self) -> int:
        """Pixels that the network sees in an item."""
        return int(self.windows(np.zeros(1, dtype=np.int64), (64, 64))[0].shape[1])

    @property
    def wanted_samples(self) -> int:
        """Items of the training sample."""
        return min(self.n_samples, self.paper_samples) if self.settings == "paper" else self.n_samples

    @property
    def scaled(self) -> bool:
        """Whether channels are weighted and inputs standardised."""
        return self.weighting is not None and self.settings == "default"

    def check(self, cube: xr.DataArray) -> None:
        check_components(self.n_components, cube)
        if isinstance(self.start, str):
            return
        require(isinstance(self.start, xr.Dataset), f"start is a word or a result, got {type(self.start).__name__}")
        then = settings_of(self.start)
        same = self.start.attrs.get("model") == self.name and f"{WEIGHTS}{DECODER}" in self.start
        same = same and all(then.get(k) == getattr(self, k) for k in ("n_components", "settings", "weighting"))
        require(
            same,
            f"start is a result of {self.start.attrs.get('model')} with {then.get('n_components')} components, "
            f"{self.name} with the same n_components, settings and weighting is expected",
        )
        check_axis("start", self.start[ENDMEMBERS], cube)

    def init(self, view: Blocks, seed: int) -> State:
        require(
            self.start != GIVEN if isinstance(self.start, str) else True,
            "start='given' stands for a given start in a stored result; give the result itself",
        )
        counts = view.cube.dtype.kind in "bu"
        seen = survey(view, seed=seed, counts=False, least=4 * self.n_components)
        how = {"wanted": self.wanted_samples, "channels": view.n_energies, "seed": seed, "window": self.window}
        centres = choose_pixels(seen, view.shape, **how)
        _, x = gather(view, np.unique(self.windows(centres, view.shape)[0]))
        given = None if isinstance(self.start, str) else self.start
        scaling = scaling_of(x, seen, weighted=self.scaled, counts=counts) if given is None else stored_scaling(given)
        first, corners, outside = self._first_decoders(view, x, scaling, seed)
        # Rare endmembers are in the sample too; large patches hold the neighbours of a vertex anyway.
        centres = np.unique(np.concatenate([centres, corners if self.window <= 9 else corners[:: len(NEIGHBOURS)]]))
        keep = {f"scaling_{k}": getattr(scaling, k) for k in SCALING}
        state = {
            "pixels": np.asarray(seen.pixels),
            "spectrum": seen.spectrum,
            "centres": centres,
            "seed": np.asarray(seed),
            "epoch": np.asarray(0),
            "steps": np.asarray(0),
            "outside": np.asarray(outside),
            **keep,
        }
        rng = np.random.default_rng([seed, 3])
        nets = [{**self.network.weights(view.n_energies, rng), DECODER: decoder} for decoder in first]
        if given is not None:
            nets = [stored_weights(given)]
        flat = np.stack([np.concatenate([np.ravel(v) for v in net.values()]) for net in nets]).astype(np.float32)
        none = np.zeros_like(flat)
        record = {"held_out": np.zeros((0, len(flat))), "best": flat, "best_loss": np.full(len(flat), np.inf)}
        return {**state, "flat": flat, "first": none, "second": none.copy(), "since": np.asarray(0), **record}

    def _first_decoders(
        self, view: Blocks, x: NumpyArray, scaling: Scaling, seed: int
    ) -> tuple[list[NumpyArray], Int, float]:
        """First decoder of each restart, the pixels of its vertices, and the share of pixels outside of their simplex.

        x: the training sample. scaling: of its channels. seed: of the vertices.
        """
        nothing = np.zeros(0, dtype=np.int64)
        if not isinstance(self.start, str):
            return [], nothing, 0.0
        if self.start == "random" or (self.start == "auto" and self.settings == "paper"):
            rng = np.random.default_rng([seed, 4])
            return [glorot(rng, self.n_components, x.shape[1]) for _ in range(self.restarts)], nothing, 0.0
        found, around, outside = vertices(view, x, scaling.weight, self.n_components, seed=seed)
        return [found.astype(np.float32)] * self.restarts, np.unique(around), outside

    def step(self, view: Blocks, state: State) -> tuple[State, Stats]:
        trainer, number, schedule = self.trainer(view, state), int(state["epoch"]), self.schedule
        moments = [state["first"], state["second"]]
        steps = int(state["steps"])
        if number == schedule.pretrain:  # another problem: its gradients are not those of the encoder alone
            moments, steps = [np.zeros_like(each) for each in moments], 0
        flat, first, second, steps, loss = trainer.epoch(state["flat"], *moments, number, steps)
        held = trainer.held_out_loss(flat)
        new = {**state, "flat": flat, "first": first, "second": second, "steps": np.asarray(steps)}
        new |= {"epoch": np.asarray(number + 1), "held_out": np.concatenate([state["held_out"], held[None]])}
        advice, done = TRAINED, number + 1 >= schedule.total
        if number >= schedule.pretrain:
            better = held < state["best_loss"]
            new["best"] = np.where(better[:, None], flat, state["best"])
            new["best_loss"] = np.where(better, held, state["best_loss"])
            new["since"] = np.asarray(0 if better.any() else int(state["since"]) + 1)
            if not done and int(new["since"]) >= schedule.patience:
                new["flat"], advice, done = new["best"], STOPPED, True
        known = loss[np.isfinite(loss) & np.isfinite(held)]
        objective = float(known.min()) if known.size else float("nan")
        return new, Stats(objective, done=done, settled=False, advice=advice)

    def trainer(self, view: Blocks, state: State) -> Trainer:
        """The trainer of this fit; where it is resumed, the sample is read again."""
        if view not in _trainers:
            x, index, items = self._items(view, state)
            shapes = {k: v.shape for k, v in self.network.weights(view.n_energies, np.random.default_rng(0)).items()}
            shapes[DECODER] = (self.n_components, view.n_energies)
            how: dict[str, Any] = {"seed": int(state["seed"]), "device": view.device, "name": self.name}
            made = Trainer(self.network, items, self.schedule, shapes, **how)
            _trainers[view] = {"trainer": made, "x": x, "index": index}
        found: Trainer = _trainers[view]["trainer"]
        return found

    def _items(self, view: Blocks, state: State) -> tuple[NumpyArray, Int, Items]:
        """The sampled spectra (n, E), the numbers of their pixels, and what the network is trained on."""
        seen, wanted = self.windows(state["centres"], view.shape)
        index, x = gather(view, np.unique(seen))
        scaling = Scaling(*(state[f"scaling_{k}"] for k in SCALING))
        z = x * scaling.weight.astype(np.float32)
        length = np.linalg.norm(z, axis=1, keepdims=True)
        unit = z / np.where(length > 0, length, 1.0)
        filled = np.flatnonzero(length[:, 0] > 0)
        at = np.full(len(x), len(x))
        at[filled] = filled  # an empty pixel has no direction

        def rows(numbers: Int) -> Int:
            place = np.clip(np.searchsorted(index, numbers), 0, len(index) - 1)
            return np.where(index[place] == numbers, at[place], len(x)).astype(np.int64)

        seen, wanted = rows(seen), rows(wanted)
        some = rows(state["centres"]) < len(x)
        require(some.sum() >= 2, f"{self.name} needs at least two pixels with counts; got {int(some.sum())}")
        nothing = np.zeros((1, x.shape[1]), dtype=np.float32)
        inputs = np.concatenate([scaling.inputs(x), nothing])
        return x, index, Items(inputs, np.concatenate([unit, nothing]), seen[some], wanted[some])

    def finish(self, view: Blocks, state: State) -> Variables:
        trainer = self.trainer(view, state)
        x = _trainers[view]["x"]
        held = state["held_out"]
        best = int(np.nanargmin(held[-1])) if len(held) and np.isfinite(held[-1]).any() else 0
        scaling = Scaling(*(state[f"scaling_{k}"] for k in SCALING))
        weights = trainer.unpack(state["flat"][best])
        for name, (mean, variance) in trainer.statistics(state["flat"][best]).items():
            weights |= {f"{name}_mean": mean, f"{name}_variance": variance}
        spectra = [scaling.counts(trainer.unpack(each)[DECODER]) for each in state["flat"]]
        items = trainer.seen.cpu().numpy(), trainer.wanted.cpu().numpy()
        a, rows = sample_maps(self.network, weights, trainer.inputs.cpu().numpy(), *items)
        how = {"best": best, "weight": scaling.weight, "seed": int(state["seed"])}
        checks = measure(x[rows], a, spectra, outside=float(state["outside"]), **how)
        _trainers.pop(view, None)
        loss = held[:, best] if len(held) else np.zeros(0)
        return {
            ENDMEMBERS: xr.DataArray(spectra[best], dims=(COMPONENT, ENERGY)),
            MEAN_SPECTRUM: xr.DataArray(state["spectrum"] / float(state["pixels"]), dims=(ENERGY,)),
            "held_out_loss": xr.DataArray(loss, dims=(ITERATION,), attrs={"long_name": "held-out loss"}),
            "training_pixel": xr.DataArray(state["centres"], dims=("sample",)),
            "network_checks": xr.DataArray(checks, dims=("check",), coords={"check": list(CHECKS)}),
            **network_variables(weights, scaling),
        }

    def warnings(self, variables: Variables) -> list[ResultWarning]:
        random = self.start == "random" or (self.start == "auto" and self.settings == "paper")
        remedy = "start='vca', settings='default'" if random else "restarts=5, or hsi.VCA"
        return collapse_warnings(variables["network_checks"], model=self.name, restarts=self.restarts, remedy=remedy)

    def projector(self, result: xr.Dataset) -> tuple[BlockFunction, dict[str, Any]]:
        return stored_projector(self.network, result, halo=self.halo)

    def cost(self, shape: tuple[int, ...], itemsize: int) -> Cost:
        channels = shape[-1]
        # The client trains on the sample; a worker only collects it.
        sample = itemsize * channels * min(self.wanted_samples, int(np.prod(shape[:-1])))
        return Cost(6, sample, 2**20, self.n_components + 1)
