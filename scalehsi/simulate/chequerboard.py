"""Simulate an EELS or EDX map of a chequerboard whose squares have one dominant phase each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from scalehsi.physics.eels_edges import eels_spectrum
from scalehsi.physics.xray_spectra import eds_spectrum
from scalehsi.schema import InputError, suggest
from scalehsi.simulate.scene import Scene, make_scene, pair, real, whole
from scalehsi.simulate.shapes.phase_layouts import board_abundances

Composition = dict[str, float]

PHASES: Final[dict[str, dict[str, Composition]]] = {
    "EELS": {
        "C": {"C": 100.0},
        "TiO2": {"Ti": 33.3, "O": 66.7},
        "CrN": {"Cr": 50.0, "N": 50.0},
        "Fe3O4": {"Fe": 42.9, "O": 57.1},
        "CaCO3": {"Ca": 20.0, "C": 20.0, "O": 60.0},
        "MnO": {"Mn": 50.0, "O": 50.0},
        "FeF2": {"Fe": 33.3, "F": 66.7},
        "V2O3": {"V": 40.0, "O": 60.0},
    },
    "EDS": {
        "SiO2": {"Si": 33.3, "O": 66.7},
        "FeS": {"Fe": 50.0, "S": 50.0},
        "Al2O3": {"Al": 40.0, "O": 60.0},
        "CaTiO3": {"Ca": 20.0, "Ti": 20.0, "O": 60.0},
        "NiCu": {"Ni": 50.0, "Cu": 50.0},
        "MgO": {"Mg": 50.0, "O": 50.0},
        "NaCl": {"Na": 50.0, "Cl": 50.0},
        "ZrO2": {"Zr": 33.3, "O": 66.7},
    },
}
"""Composition of each phase in atomic per cent, by signal."""
EELS_RANGE_EV: Final = (250.0, 762.0)
EDS_RANGE_KEV: Final = (0.2, 20.0)


def chequerboard(
    shape: Sequence[int] = (256, 256),
    *,
    squares: Sequence[int] = (2, 2),
    n_components: int = 4,
    n_channels: int = 1024,
    counts_per_pixel: float = 500.0,
    seed: int = 0,
    signal: str = "EELS",
    background: float = 0.0,
    mixing: float = 0.3,
    border: float = 0.1,
    wedge: float = 0.3,
    pixel_size_nm: float = 1.0,
    chunk: int | Sequence[int] | None = None,
) -> Scene:
    """Simulate a chequerboard whose squares have one dominant phase each.

    A method that learns from one block after another gets one phase after another here; for a method that learns from
    the whole cube the order makes no difference. The squares are not pure: fractions of other phases vary smoothly, and
    so does the thickness of the foil.

    Parameters
    ----------
    shape : (int, int), default (256, 256)
        Pixels along y and x. Any size: the cube is lazy.
    squares : (int, int), default (2, 2)
        Squares along y and x.
    n_components : int, 1 to 8, default 4
        Number of phases, at most the number of squares.
    n_channels : int, default 1024
        Channels of the energy axis.
    counts_per_pixel : float, default 500
        Expected number of counts of a pixel of thickness one, which is about the mean over the board.
    seed : int, default 0
        Seed of the mixing, the thickness and the counts.
    signal : {"EELS", "EDS"}
        ``"EELS"``: core losses of 250 to 762 eV. ``"EDS"``: X-rays of 0.2 to 20 keV, which differ much more between
        phases, so that far fewer counts are enough.
    background : float, default 0
        Height of the power-law background of EELS spectra at the O K edge, in O K jumps of pure oxygen. Thin foils have
        0.3 to 1; 0 is a cube whose background was removed. With a common background no phase has a channel of its own,
        and NMF without further knowledge cannot separate the phases to better than 10 to 30 degrees.
    mixing : float, 0 to 0.9, default 0.3
        Largest fraction of other phases inside a square. It falls to 0 in some places.
    border : float, 0 to 1, default 0.1
        Width of the smooth border between squares, as a fraction of a square.
    wedge : float, 0 to 0.9, default 0.3
        Largest deviation of the thickness from one; the thickness varies smoothly.
    pixel_size_nm : float, default 1
        Size of a pixel in nm.
    chunk : int or (int, int), optional
        Pixels of a chunk along y and x. It does not change the data.

    Returns
    -------
    Scene
        The abundances are fractions times thickness; their sum over the components is the thickness.

    Raises
    ------
    InputError
        When a setting is outside its allowed values, or there are more components than squares.

    Examples
    --------
    >>> cube, truth = chequerboard((32, 32), n_channels=64)
    >>> truth.abundances.compute().argmax("component").values[::31, ::31].tolist()
    [[0, 1], [2, 3]]
    """
    size, board = pair("shape", shape), pair("squares", squares)
    background = real("background", background, closed=True)
    mixing = real("mixing", mixing, most=0.9, closed=True)
    border = real("border", border, most=1.0, closed=True)
    wedge = real("wedge", wedge, most=0.9, closed=True)
    chosen = _phases(signal, n_components, board=board, shape=size)
    settings: dict[str, Any] = {
        "shape": size,
        "squares": board,
        "n_components": len(chosen),
        "n_channels": whole("n_channels", n_channels, least=2),
        "counts_per_pixel": real("counts_per_pixel", counts_per_pixel),
        "seed": whole("seed", seed, least=0),
        "signal": signal,
        "background": background,
        "mixing": mixing,
        "border": border,
        "wedge": wedge,
        "pixel_size_nm": real("pixel_size_nm", pixel_size_nm),
    }
    energy, spectra = _spectra(signal, chosen, n_channels, background=background)
    return make_scene(
        "chequerboard",
        layout=partial(
            board_abundances,
            shape=size,
            squares=board,
            components=len(chosen),
            mixing=mixing,
            border=border,
            wedge=wedge,
            seed=int(seed),
        ),
        spectra=spectra * (counts_per_pixel / spectra.sum(axis=1, keepdims=True)),
        largest_abundance=1.0 + wedge,
        compositions=chosen,
        energy=energy,
        energy_units="eV" if signal == "EELS" else "keV",
        signal=signal,
        title=f"Simulated chequerboard: {', '.join(chosen)}",
        settings=settings,
        chunk=chunk,
    )


def _phases(
    signal: str, n_components: int, *, board: tuple[int, int], shape: tuple[int, int]
) -> dict[str, Composition]:
    """Return the first ``n_components`` phases of a signal; refuse more than there are squares on the board.

    ``board`` are the squares, ``shape`` the pixels along y and x.
    """
    if signal not in PHASES:
        raise InputError(f"signal {signal!r} is not simulated; {suggest(str(signal), PHASES)}")
    count = whole("n_components", n_components, least=1, most=len(PHASES[signal]))
    if count > math.prod(board):
        side = math.isqrt(count - 1) + 1
        raise InputError(
            f"{count} components do not find room on {board[0]} x {board[1]} squares; type squares=({side}, {side})"
        )
    if board[0] > shape[0] or board[1] > shape[1]:
        raise InputError(f"squares={board} are more than the pixels of shape={shape}; type a larger shape")
    return dict(list(PHASES[signal].items())[:count])


def _spectra(
    signal: str, chosen: dict[str, Composition], n_channels: int, *, background: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the energy axis, shape (E,), and the spectra of the ``chosen`` phases on it, shape (K, E).

    ``background`` is that of `chequerboard`.
    """
    if signal == "EELS":
        energy = np.linspace(*EELS_RANGE_EV, n_channels, endpoint=False)
        return energy, np.stack([eels_spectrum(each, energy, background=background) for each in chosen.values()])
    energy = np.linspace(*EDS_RANGE_KEV, n_channels)
    return energy, np.stack([eds_spectrum(each, energy) for each in chosen.values()])
