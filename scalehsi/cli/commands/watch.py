"""Follow an acquisition: the maps of a fitted result in each block of the scan as it is written.

CUBE is the Zarr store that another program writes, with named axes and without shards; it need not be there yet. The
maps are written again as they grow, and stay when Ctrl-C ends the watch.

\b
scalehsi watch scan.zarr --model result.zarr
scalehsi watch scan.zarr --model result.zarr --out maps.zarr --figure maps.png --until-idle 60
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option

import scalehsi as hsi
from scalehsi.cli.arguments import Overwrite
from scalehsi.cli.runner import command
from scalehsi.cli.session import Session
from scalehsi.interrupt import uninterrupted
from scalehsi.io.atomic import check_file, write_file
from scalehsi.models.live import Live
from scalehsi.plots.digest import digest
from scalehsi.plots.maps import draw_maps
from scalehsi.plots.style import to_png
from scalehsi.schema import InputError


@command
def run(
    session: Session,
    cube: Annotated[Path, Argument(metavar="CUBE", help="The store that is being written, such as scan.zarr.")],
    *,
    model: Annotated[Path, Option(metavar="RESULT", help="A store that scalehsi fit wrote.")],
    out: Annotated[
        Path | None, Option(metavar="MAPS", help="The store of the maps; scan_maps.zarr beside scan.zarr by default.")
    ] = None,
    figure: Annotated[Path | None, Option(metavar="FILE.png", help="Draw the maps, again as they grow.")] = None,
    every: Annotated[float, Option(min=0.0, metavar="S", help="Seconds between two writings of maps.")] = 5.0,
    interval: Annotated[float, Option(min=0.001, metavar="S", help="Seconds between two looks at the store.")] = 0.2,
    until_idle: Annotated[
        float | None, Option(min=0.001, metavar="S", help="End when nothing new came for so long.")
    ] = None,
    overwrite: Overwrite = False,
) -> dict[str, Any]:
    place = cube.with_name(f"{cube.stem}_maps.zarr") if out is None else out
    target = session.destination(place, overwrite=overwrite, source=cube)
    session.destination(place, overwrite=True, source=model)
    if figure is not None:
        if figure.suffix.lower() != ".png":
            raise InputError(f"{str(figure)!r}: a figure of maps ends in .png")
        check_file(session.path(figure), overwrite=overwrite)
    kept = _Maps(target, None if figure is None else session.path(figure), overwrite=overwrite)
    alarms: list[str] = []
    looks = hsi.watch(
        session.path(cube),
        hsi.open_result(session.path(model)),
        interval=interval,
        until_idle=until_idle,
        waiting=lambda reason: session.console.remark(f"waiting: {reason}"),
    )
    try:
        with session.connected(), session.console.bar(f"watching {cube.name}") as done:
            for live in looks:
                done(live.blocks, live.expected)
                if live.restarted:
                    session.console.warn(f"{cube.name} is another store now; the maps begin anew")
                for words in filter(None, (live.alarm, *live.troubles)):
                    session.console.warn(words)
                alarms += [live.alarm] if live.alarm else []
                kept.note(live, every=every)
        kept.write()
    except KeyboardInterrupt as stop:
        kept.write()
        stop.add_note(kept.words())
        raise
    except InputError:
        kept.write()
        if kept.written:
            session.console.warn(kept.words())
        raise
    session.console.say(kept.words())
    last = kept.last
    return {
        "cube": str(cube),
        "maps": str(place) if last else None,
        "blocks": last.blocks if last else 0,
        "expected": last.expected if last else 0,
        "complete": bool(last and last.complete),
        "alarms": alarms,
    }


class _Maps:
    """The maps of a watch on disk.

    target: their store. figure: a PNG of them, or None. overwrite: whether a store there before may be replaced.
    """

    def __init__(self, target: Path, figure: Path | None, *, overwrite: bool) -> None:
        self.target, self.figure, self.overwrite = target, figure, overwrite
        self.last: Live | None = None
        self.written: Live | None = None
        self.when = -float("inf")

    def note(self, live: Live, *, every: float) -> None:
        """Keep the newest maps, and write them where the last time is `every` seconds ago."""
        self.last = live
        if live.blocks and time.monotonic() - self.when >= every:
            self.write()
            self.when = time.monotonic()

    def write(self) -> None:
        """Write the newest maps, in one step each, unless they are written."""
        if self.last is None or self.last is self.written or not self.last.blocks:
            return
        with uninterrupted():  # so that it is known what is on disk
            hsi.save(self.last.result, self.target, overwrite=self.overwrite or self.written is not None)
            self.written = self.last
            if self.figure is not None:
                write_file(self.figure, to_png(draw_maps(digest(self.last.result))), overwrite=True)

    def words(self) -> str:
        """What is on disk."""
        if self.written is None:
            return "no block came, so there are no maps"
        return f"the maps of {self.written.blocks} of {self.written.expected} blocks are in {str(self.target)!r}"
