"""Scenes with a known truth: lazy spectrum images of any size, the same in whatever chunks they are computed.

A scene is three separate things put together in `scalehsi.simulate.scene`: a *layout* (window -> abundances,
`scalehsi.simulate.shapes.phase_layouts`), *spectra* (`scalehsi.physics.xray_spectra`, `scalehsi.physics.eels_edges`)
and the
*drawing* of counts
(`scalehsi.kernels.statistics.counted_random`). A new kind of scene brings a layout and spectra. Maps without spectra,
for Gaussian
processes, are made by `sines` and `maps` (`scalehsi.simulate.shapes.map_patterns`).
"""

from collections.abc import Callable
from typing import Final

from scalehsi.simulate.acquisitions import Acquisitions, acquisitions
from scalehsi.simulate.chequerboard import chequerboard
from scalehsi.simulate.minerals import phases
from scalehsi.simulate.noisy_maps import Maps, maps, sines
from scalehsi.simulate.scene import Scene, make_scene

__all__ = [
    "KINDS",
    "Acquisitions",
    "Maps",
    "Scene",
    "acquisitions",
    "chequerboard",
    "make_scene",
    "maps",
    "phases",
    "sines",
]

KINDS: Final[dict[str, Callable[..., Scene | Acquisitions | Maps]]] = {
    "acquisitions": acquisitions,
    "chequerboard": chequerboard,
    "maps": maps,
    "phases": phases,
    "sines": sines,
}
"""What the command line can simulate, by name."""
