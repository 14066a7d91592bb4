"""Train R networks side by side on a sample in memory: schedule, optimiser, held-out loss, exact batch statistics.

An epoch is a function of the weights, the optimiser's moments and the number of the epoch alone, so that a resumed
training gives the same bits. torch is used here and nowhere else in this folder.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Protocol

import numpy as np

from scalehsi.arrays import Int, NumpyArray
from scalehsi.networks.layers import Noise, Stats, Weights
from scalehsi.networks.torch_library import load_torch, one_torch_thread

DECODER: Final = "decoder"
"""The last of the weights: the endmembers (K, E), in the units of the weighted data."""
THRESHOLD: Final = "threshold"
HELD_OUT_SHARE: Final = 0.1
LEAST_HELD_OUT: Final = 16
EVALUATED_VALUES: Final = 2**27
"""Inputs that are held at a time when batch statistics are computed over the whole training set."""
MOMENTUM: Final = 0.9
SECOND_MOMENTUM: Final = {"adam": 0.999, "rmsprop": 0.9}


class Architecture(Protocol):
    """What differs between the networks."""

    def weights(self, channels: int, rng: np.random.Generator) -> dict[str, NumpyArray]:
        """First weights of the encoder by name."""

    def encode(self, xp: Any, weights: Weights, x: Any, stats: Stats, known: Stats | None, noise: Noise | None) -> Any:
        """Abundances (..., m, K) of the target pixels of items x (b, W, E); m is b times the targets of an item."""


@dataclass(frozen=True)
class Schedule:
    """How long and how fast a network learns.

    Attributes
    ----------
    pretrain, epochs : int
        Epochs of the encoder alone, then of encoder and decoder.
    batch : int
        Items a step.
    rate, joint_rate, decoder_rate : float
        Learning rates of the encoder in the first and second part, and of the decoder.
    optimiser : str
        "adam", whose rates fall to zero by a cosine in each part, or "rmsprop" with constant rates.
    patience : int
        Training ends when the held-out loss has not fallen for this many epochs of the second part.
    """

    pretrain: int
    epochs: int
    batch: int
    rate: float
    joint_rate: float
    decoder_rate: float
    optimiser: str = "adam"
    patience: int = 20

    @property
    def total(self) -> int:
        return self.pretrain + self.epochs

    def rates(self, epoch: int) -> tuple[float, float]:
        """Rates of encoder and decoder in an epoch."""
        first = epoch < self.pretrain
        length, place = (self.pretrain, epoch) if first else (self.epochs, epoch - self.pretrain)
        fall = 0.5 * (1 + math.cos(math.pi * place / length)) if self.optimiser == "adam" else 1.0
        return (self.rate * fall, 0.0) if first else (self.joint_rate * fall, self.decoder_rate * fall)


@dataclass(frozen=True)
class Items:
    """What the network is trained on.

    Attributes
    ----------
    inputs, targets : array, shape (n + 1, E), float32
        Of the sampled pixels: inputs of the network, and unit spectra that it reproduces. The last row is of zeros and
        stands for masked pixels and those beyond the border.
    seen, wanted : array of int, shape (N, W) and (N, T)
        Rows that the network sees in each item, and rows that it reproduces.
    """

    inputs: NumpyArray
    targets: NumpyArray
    seen: Int
    wanted: Int

    def held_out(self, seed: int) -> tuple[Int, Int]:
        """Numbers of the items to train on, and of those that only measure."""
        order = np.random.default_rng([seed, 1]).permutation(len(self.seen))
        number = int(HELD_OUT_SHARE * len(order))
        return (order, order) if number < LEAST_HELD_OUT else (np.sort(order[number:]), np.sort(order[:number]))


class Trainer:
    """Training of R networks of one architecture on one sample.

    network: the architecture. items: what it is trained on. schedule: how. shapes: of the weights by name, the decoder
    last. seed: of batches, dropout and the choice of held-out items. device: "cpu" or "cuda". name: of the model.
    """

    def __init__(
        self,
        network: Architecture,
        items: Items,
        schedule: Schedule,
        shapes: Mapping[str, tuple[int, ...]],
        *,
        seed: int,
        device: str,
        name: str,
    ) -> None:
        self.torch = load_torch(name, device)
        self.network, self.schedule, self.shapes, self.seed, self.device = network, schedule, dict(shapes), seed, device
        self.train, self.held = items.held_out(seed)
        to = {"device": device}
        self.inputs, self.targets = (self.torch.as_tensor(v, **to) for v in (items.inputs, items.targets))
        self.seen, self.wanted = (self.torch.as_tensor(v, **to) for v in (items.seen, items.wanted))
        self.valid = (self.targets != 0).any(axis=1).to(self.targets.dtype)
        self.all_valid = bool(self.valid[self.wanted].all())

    def epoch(
        self, flat: NumpyArray, first: NumpyArray, second: NumpyArray, number: int, steps: int
    ) -> tuple[NumpyArray, NumpyArray, NumpyArray, int, NumpyArray]:
        """One epoch: new weights and moments, steps so far, and the mean loss of each network (R,).

        flat, first, second (R, n): weights and moments. number: of the epoch. steps: of the optimiser so far.
        """
        torch, schedule = self.torch, self.schedule
        joint = number >= schedule.pretrain
        rng = np.random.default_rng([self.seed, 2, number])
        order = rng.permutation(self.train)
        generator = torch.Generator(device=self.device).manual_seed(int(rng.integers(2**62)))
        with one_torch_thread(torch):
            w, m, v = (torch.tensor(each, device=self.device) for each in (flat, first, second))
            views = self._views(w)
            leaves = {k: x.detach().requires_grad_() for k, x in views.items() if joint or k != DECODER}
            rates = self._rates(number, w.shape[1])[: None if joint else self._encoder_size()]
            part = slice(0, len(rates))
            fixed = None if joint else (self.targets @ views[DECODER].mT, views[DECODER] @ views[DECODER].mT)
            total, count = torch.zeros(len(w), device=self.device), 0
            weights = {**views, **leaves}
            clamped = [leaves[name].detach() for name in (DECODER, THRESHOLD) if name in leaves]
            for rows in torch.as_tensor(order, device=self.device).split(schedule.batch):
                if len(rows) < 2 <= len(order):
                    continue  # batch statistics of one item are none
                loss = self._loss(weights, rows, fixed, generator)
                grads = torch.autograd.grad(loss.sum(), list(leaves.values()))
                g = torch.cat([each.reshape(len(w), -1) for each in grads], dim=1)
                steps += 1
                self._step(w[:, part], m[:, part], v[:, part], g, rates, steps)
                for each in clamped:
                    each.clamp_(min=0.0)
                total += loss.detach()
                count += 1
            mean = (total / max(count, 1)).cpu().numpy()
            return w.cpu().numpy(), m.cpu().numpy(), v.cpu().numpy(), steps, mean

    def held_out_loss(self, flat: NumpyArray) -> NumpyArray:
        """Loss of each network (R,) on the held-out items, with batch statistics of the training set."""
        torch = self.torch
        with torch.no_grad(), one_torch_thread(torch):
            weights = self._views(torch.tensor(flat, device=self.device))
            stats = self._statistics(weights)
            return np.asarray(self._loss(weights, self._some(self.held), None, None, stats).cpu().numpy())

    def statistics(self, flat: NumpyArray) -> dict[str, tuple[NumpyArray, NumpyArray]]:
        """Exact batch statistics over the training set of one network, flat (n,): mean and variance by name."""
        with self.torch.no_grad(), one_torch_thread(self.torch):
            found = self._statistics(self._views(self.torch.tensor(flat[None], device=self.device)))
            return {k: (a.cpu().numpy().reshape(-1), b.cpu().numpy().reshape(-1)) for k, (a, b) in found.items()}

    def unpack(self, flat: NumpyArray) -> dict[str, NumpyArray]:
        """The weights of one network by name, flat (n,)."""
        found, at = {}, 0
        for name, shape in self.shapes.items():
            size = math.prod(shape)
            found[name] = flat[at : at + size].reshape(shape)
            at += size
        return found

    def _views(self, flat: Any) -> dict[str, Any]:
        """Views of the weights of all networks by name. flat (R, n)."""
        found, at = {}, 0
        for name, shape in self.shapes.items():
            size = math.prod(shape)
            # A vector is one row for all pixels of a batch.
            full = (len(flat), 1, *shape) if len(shape) == 1 else (len(flat), *shape)
            found[name] = flat[:, at : at + size].view(full)
            at += size
        return found

    def _encoder_size(self) -> int:
        return sum(math.prod(shape) for name, shape in self.shapes.items() if name != DECODER)

    def _rates(self, number: int, size: int) -> Any:
        encoder, decoder = self.schedule.rates(number)
        rates = self.torch.full((size,), encoder, device=self.device)
        rates[self._encoder_size() :] = decoder
        return rates

    def _some(self, rows: Int) -> Any:
        """As many of the items as are evaluated at a time."""
        most = max(2, EVALUATED_VALUES // (self.seen.shape[1] * self.inputs.shape[1]))
        return self.torch.as_tensor(rows[:most], device=self.device)

    def _statistics(self, weights: Weights) -> Stats:
        stats: Stats = {}
        self.network.encode(self.torch, weights, self.inputs[self.seen[self._some(self.train)]], stats, None, None)
        return stats

    def _loss(self, weights: Weights, rows: Any, fixed: Any, generator: Any, known: Stats | None = None) -> Any:
        """Mean of one minus the cosine between target and reconstruction, of each network (R,).

        weights: of all networks. rows: items. fixed: products of all targets with the decoder, and of the decoder with
        itself, where it does not change. generator: of dropout; None for none. known: batch statistics to use.
        """
        torch = self.torch
        noise = None if generator is None else partial(self._uniform, generator)
        seen, wanted = self.seen[rows], self.wanted[rows].reshape(-1)
        x = self.inputs[seen[:, 0]] if seen.shape[1] == 1 else self.inputs[seen]
        a = self.network.encode(torch, weights, x, {}, known, noise)
        if fixed is None:
            decoder = weights[DECODER]
            products, gram = self.targets[wanted] @ decoder.mT, decoder @ decoder.mT
        else:
            products, gram = fixed[0].index_select(1, wanted), fixed[1]
        length = torch.linalg.vecdot(a @ gram, a)
        cosine = torch.linalg.vecdot(products, a) * torch.rsqrt(length + 1e-12)
        if self.all_valid:
            return 1.0 - cosine.mean(-1)
        valid = self.valid[wanted]
        return 1.0 - (cosine * valid).sum(-1) / valid.sum()

    def _uniform(self, generator: Any, like: Any) -> Any:
        """Uniform random numbers of the shape of ``like``."""
        return self.torch.rand(like.shape, generator=generator, device=self.device)

    def _step(self, w: Any, m: Any, v: Any, g: Any, rates: Any, steps: int) -> None:
        """One step of the optimiser, in place. w, m, v, g (R, n): weights, moments, gradient."""
        decay = SECOND_MOMENTUM[self.schedule.optimiser]
        v.mul_(decay).addcmul_(g, g, value=1 - decay)
        if self.schedule.optimiser == "rmsprop":
            # The published loss is this one divided by the number of channels, and its optimiser adds 1e-7.
            w.addcdiv_(rates * g, v.sqrt().add_(1e-7 * self.inputs.shape[1]), value=-1.0)
            return
        m.lerp_(g, 1 - MOMENTUM)
        scale = math.sqrt(1 - decay**steps) / (1 - MOMENTUM**steps)
        w.addcdiv_(rates * m, v.sqrt().add_(1e-8), value=-scale)


def glorot(rng: np.random.Generator, rows: int, columns: int) -> NumpyArray:
    """Uniform first weights whose range keeps the variance of the activations (Glorot and Bengio 2010)."""
    limit = math.sqrt(6.0 / (rows + columns))
    return rng.uniform(-limit, limit, (rows, columns)).astype(np.float32)
