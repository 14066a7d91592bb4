"""Simulate spectrum images and maps with a known truth: lazy, of any size, and the same for any chunks.

`scalehsi.simulate.scene` makes a scene of three parts: a layout (a function from a window of pixels to abundances,
`scalehsi.simulate.shapes.phase_layouts`), spectra (`scalehsi.physics.xray_spectra`, `scalehsi.physics.eels_edges`), and
Poisson counts (`scalehsi.kernels.statistics.counted_random`). A new kind of scene needs a layout and spectra. `sines`
and `maps` simulate maps without spectra, for Gaussian processes (`scalehsi.simulate.shapes.map_patterns`).
"""

from collections.abc import Callable
from typing import Final

from scalehsi.simulate.acquisitions import Acquisitions, acquisitions
from scalehsi.simulate.chequerboard import chequerboard
from scalehsi.simulate.coupled import Coupled, coupled
from scalehsi.simulate.live import acquire
from scalehsi.simulate.minerals import phases
from scalehsi.simulate.noisy_maps import Maps, maps, sines
from scalehsi.simulate.oxide_particle import oxide_particle
from scalehsi.simulate.scene import Scene, make_scene
from scalehsi.simulate.tensor_stack import tensor_stack

__all__ = [
    "KINDS",
    "Acquisitions",
    "Coupled",
    "Maps",
    "Scene",
    "acquire",
    "acquisitions",
    "chequerboard",
    "coupled",
    "make_scene",
    "maps",
    "oxide_particle",
    "phases",
    "sines",
    "tensor_stack",
]

KINDS: Final[dict[str, Callable[..., Scene | Acquisitions | Coupled | Maps]]] = {
    kind.__name__: kind
    for kind in (acquisitions, chequerboard, coupled, maps, oxide_particle, phases, sines, tensor_stack)
}
"""The kinds of scenes that the command line simulates, by name."""
