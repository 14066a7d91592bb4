"""Run a function on every block of a cube in one pass, on whatever Dask scheduler is current.

`map_fold` keeps what the function returns for each pixel in the workers, as handles, and adds up its statistics over
all blocks. Every algorithm of the package is written on it, and nothing outside this folder builds task graphs for
algorithms.

The contract of a block function::

    fn(x, *aligned, **shared) -> (pixels, sums)

``x`` has shape (P, E): the used pixels of the block, in C order, in the dtype of the cube. ``aligned`` are arrays of P
rows; those of cubes that were opened beside the first one come first. ``pixels`` is a dict of arrays of P rows,
``sums`` a dict of arrays or numbers that are added up over blocks. A block without a used pixel is skipped.
"""

from scalehsi.blocks.compute import Capacity, Report, capacity
from scalehsi.blocks.fold import BlockFunction, add, map_fold, map_pixels
from scalehsi.blocks.map_cube import map_cube
from scalehsi.blocks.opening import open_blocks, open_surrounded, open_tiles
from scalehsi.blocks.pixels import Pixels
from scalehsi.blocks.tile import Place, Tile
from scalehsi.blocks.together import compute_together
from scalehsi.blocks.view import Blocks, branch
from scalehsi.blocks.windows import add_up_windows

__all__ = [
    "BlockFunction",
    "Blocks",
    "Capacity",
    "Pixels",
    "Place",
    "Report",
    "Tile",
    "add",
    "add_up_windows",
    "branch",
    "capacity",
    "compute_together",
    "map_cube",
    "map_fold",
    "map_pixels",
    "open_blocks",
    "open_surrounded",
    "open_tiles",
]
