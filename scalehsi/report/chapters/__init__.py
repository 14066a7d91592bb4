"""The chapters of the report, one file each. A new file in this folder becomes a chapter; no other file is edited.

A file has a number ``ORDER``, by which the chapters are sorted, and a function ``chapter(view, context)``. The function
returns None when the chapter does not apply to a result. It decides that from the variables of the result, not from the
name of the model.
"""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
from collections.abc import Mapping, Sequence

import xarray as xr

from scalehsi.physics.identify import Mark
from scalehsi.plots.digest import Digest
from scalehsi.report.page import Chapter


@dataclasses.dataclass(frozen=True, eq=False)
class Context:
    """What a chapter may use beside the digest of the result.

    Attributes
    ----------
    result : Dataset
        The result of the report; may be lazy.
    marks : list of lists of Mark
        Labels of the lines or edges in each component's spectrum.
    truth : Dataset, optional
        Truth of simulated data, and `truth_view` its digest.
    others : mapping of str to Dataset
        Results of other methods on the same cube.
    cube : DataArray, optional
        The cube that was fitted.
    line : str or (low, high), optional
        Energy window of the denoised maps.
    scan : Dataset, optional
        A length-scale scan.
    """

    result: xr.Dataset
    marks: Sequence[Sequence[Mark]]
    truth: xr.Dataset | None = None
    truth_view: Digest | None = None
    others: Mapping[str, xr.Dataset] = dataclasses.field(default_factory=dict)
    cube: xr.DataArray | None = None
    line: str | Sequence[float] | None = None
    scan: xr.Dataset | None = None

    def all_results(self, view: Digest) -> dict[str, xr.Dataset]:
        """The results of all methods by name; the result of the report is the last one."""
        own = view.model if view.model not in self.others else f"{view.model} of this report"
        return {**self.others, own: self.result}


def applicable_chapters(view: Digest, context: Context) -> list[Chapter]:
    """The chapters that apply to a result, in the order of the page.

    Raises
    ------
    InputError
        When the context holds something that this result cannot use.
    """
    modules = [importlib.import_module(f"{__name__}.{found.name}") for found in pkgutil.iter_modules(__path__)]
    chapters = [module.chapter(view, context) for module in sorted(modules, key=lambda module: module.ORDER)]
    return [chapter for chapter in chapters if chapter is not None]
