"""Scenes with a known truth: lazy spectrum images of any size, the same in whatever chunks they are computed.

A scene is three separate things put together in `scalehsi.simulate.scene`: a *layout* (window -> abundances,
`scalehsi.kernels.scenes`), *spectra* (`scalehsi.kernels.xrays`, `scalehsi.kernels.edges`) and the *drawing* of counts
(`scalehsi.kernels.counting`). A new kind of scene brings a layout and spectra.
"""

from collections.abc import Callable
from typing import Final

from scalehsi.simulate.board import chequerboard
from scalehsi.simulate.minerals import phases
from scalehsi.simulate.pairs import Acquisitions, acquisitions
from scalehsi.simulate.scene import Scene, make_scene

__all__ = ["KINDS", "Acquisitions", "Scene", "acquisitions", "chequerboard", "make_scene", "phases"]

KINDS: Final[dict[str, Callable[..., Scene | Acquisitions]]] = {
    "acquisitions": acquisitions,
    "chequerboard": chequerboard,
    "phases": phases,
}
"""What the command line can simulate, by name."""
