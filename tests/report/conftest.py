"""What the tests of the report share: a whole report, written once, and reports without drawn figures."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest
import xarray as xr

from scalehsi.report import write
from scalehsi.report.page import Drawing, Picture
from tests.report.pages import Page
from tests.report.results import blurred, counts_of_truth, eds_result, with_bin_scan


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report with a truth, other methods, the cube and a scan of bins."""
    result, truth = eds_result()
    result = with_bin_scan(result, used=4, refined=2)
    signed = result.assign(endmembers=result.endmembers - 2e-3).assign_attrs(model="PCA")
    place = tmp_path_factory.mktemp("report") / "deep" / "mantle"
    others = {"Blurred": blurred(), "PCA": signed}
    return write.report(result, place, truth=truth, others=others, cube=counts_of_truth(), line="Ca Ka")


@pytest.fixture(scope="session")
def shown(written: Path) -> Page:
    return Page(written)


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write reports with a few bytes for each figure, where only words or files matter."""

    def render(drawings: Iterable[Drawing]) -> dict[str, Picture]:
        return {drawing.file: Picture(drawing.file.encode(), 1050) for drawing in drawings}

    monkeypatch.setattr(write, "render_drawings", render)


@pytest.fixture
def small() -> xr.Dataset:
    return eds_result(8)[0]
