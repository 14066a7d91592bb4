"""The report of a result: one self-contained HTML page and its figures.

`scalehsi.report(result, folder)` and ``from scalehsi.report import report`` are the same function.
"""

from scalehsi.callables import make_callable
from scalehsi.report.write import report

__all__ = ["report"]

make_callable(__name__)
