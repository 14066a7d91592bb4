"""The web pages of a scheduler: those that show, none that acts.

Pages are plain HTTP on loopback, so every user of the machine can read them: names of functions and tasks, code lines,
messages of errors. distributed reads `routes` when a scheduler starts (setting ``distributed.scheduler.http.routes``).
Left out are the programming interface (it retires workers), the proxy (it passes requests on), the stream of events
(each request adds a listener to the scheduler), and the page that measures the hardware (opening it makes the workers
compute, write files and send data). Jupyter is off.
"""

from __future__ import annotations

from typing import Any, Final

from distributed.http import health, statics  # noqa: TID253 - only a scheduler imports this module
from distributed.http.scheduler import info, json, prometheus  # noqa: TID253
from tornado.web import HTTPError, RequestHandler


class Off(RequestHandler):  # type: ignore[misc] # tornado has no types
    """A page that does not exist here."""

    def prepare(self) -> None:
        raise HTTPError(404)


ACTING: Final = ("eventstream", "hardware")

# The first route that fits counts, and all of these come before those of the dashboard.
routes: Final[list[tuple[str, Any, dict[str, Any]]]] = [
    *((rf"{name}(?:/.*)?", Off, {}) for name in ACTING),
    *(
        route
        for module in (info, json, health, prometheus, statics)
        for route in module.routes
        if route[0] not in ACTING
    ),
]
