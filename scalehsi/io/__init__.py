"""Open, convert and save cubes and results."""

from scalehsi.io.convert import convert
from scalehsi.io.hyperspy import from_hyperspy
from scalehsi.io.open import open_cube, open_dataset, open_image, open_maps, open_result
from scalehsi.io.save import save
from scalehsi.io.tree import open_tree

__all__ = [
    "convert",
    "from_hyperspy",
    "open_cube",
    "open_dataset",
    "open_image",
    "open_maps",
    "open_result",
    "open_tree",
    "save",
]
