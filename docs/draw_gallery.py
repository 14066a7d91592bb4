"""Draw the figures of the gallery: run each example, and store its figures small in docs/gallery.

Run with: make gallery, or python docs/draw_gallery.py [part of a name ...]
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

HERE = Path(__file__).parent
OF_A_REPORT = ("composite.png", "spectra.png")
"""What is shown of an example that writes a report and no figure of its own."""
MOST = 3
WIDTH = 900


def figures(folder: Path) -> list[Path]:
    """The figures that an example wrote: its own, else those of its report."""
    own = sorted(folder.glob("*.png"))
    return (own or [found for name in OF_A_REPORT for found in sorted(folder.rglob(name))])[:MOST]


def store(figure: Path, place: Path) -> None:
    """Write a figure at most `WIDTH` pixels wide, in 128 colours: 20 to 60 kB."""
    with Image.open(figure) as picture:
        small = picture.convert("RGB")
        small.thumbnail((WIDTH, 4 * WIDTH))
        small.quantize(128, dither=Image.Dither.NONE).save(place, optimize=True)


def main(wanted: list[str]) -> None:
    """Draw the figures of all examples, or of those whose names contain one of the words."""
    (HERE / "gallery").mkdir(exist_ok=True)
    for example in sorted((HERE.parent / "examples").glob("[0-9]*.py")):
        if wanted and not any(word in example.stem for word in wanted):
            continue
        for old in (HERE / "gallery").glob(f"{example.stem}-*.png"):
            old.unlink()
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run([sys.executable, str(example.resolve()), "out"], cwd=folder, check=True)
            for number, figure in enumerate(figures(Path(folder) / "out"), start=1):
                store(figure, HERE / "gallery" / f"{example.stem}-{number}.png")


if __name__ == "__main__":
    main(sys.argv[1:])
