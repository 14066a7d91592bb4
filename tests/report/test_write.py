"""The report: what the page says, when it warns, and what is on disk afterwards."""

from __future__ import annotations

import base64
import io
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr

import scalehsi as hsi
import scalehsi.report.write as report_module
from scalehsi import metrics
from scalehsi.plots import style
from scalehsi.plots.composition import with_error
from scalehsi.plots.digest import digest
from scalehsi.report import captions
from scalehsi.report.chapters import bins
from scalehsi.report.findings import find
from scalehsi.report.write import report
from scalehsi.schema import InputError
from tests.paths import ROOT
from tests.report.results import eds_result, eels_result, masked_result, pca_result, series_result

BLOCKS = {"h1", "h2", "h3", "li", "p", "span", "td", "th"}
VOID = {"meta", "img", "br", "hr", "link"}


class Page(HTMLParser):
    """What is on a page: text, images, addresses; and whether every tag is closed in order."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.html = path.read_text("utf-8")
        self.feed(self.html)
        self.close()
        assert self.open == []
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        self.text += " " if tag in BLOCKS else ""

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attrs for name, attrs in self.tags if name == tag]

    def images(self) -> list[bytes]:
        return [base64.b64decode(image["src"].removeprefix("data:image/png;base64,")) for image in self.all("img")]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    result, truth = eds_result()
    return report(result, tmp_path_factory.mktemp("report") / "deep" / "mantle", truth=truth)


@pytest.fixture(scope="module")
def shown(written: Path) -> Page:
    return Page(written)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the pictures out, where only words or files matter."""
    monkeypatch.setattr(captions, "_spectra", lambda view, marks: iter(()))
    monkeypatch.setattr(captions, "_quality", lambda view: iter(()))
    monkeypatch.setattr(captions, "_composition", lambda composition: iter(()))


@pytest.fixture
def blank(monkeypatch: pytest.MonkeyPatch) -> None:
    """One empty picture for all, where only files or the headline matter."""

    def draw(view: object, marks: object, known: object, composition: object) -> list[captions.Drawing]:
        return [captions.Drawing("maps", "maps.png", style.new_figure(1.0, 1.0), "Nothing.", "Nothing.")]

    monkeypatch.setattr(report_module, "draw", draw)


def said(result: xr.Dataset, level: str | None = None) -> list[str]:
    return [remark.text for remark in find(digest(result)) if level in (None, remark.level)]


# The page


def test_the_page_needs_nothing_from_elsewhere(shown: Page) -> None:
    assert not shown.all("script")
    assert not shown.all("link")
    assert all(image["src"].startswith("data:image/png;base64,") for image in shown.all("img"))
    assert all(link["href"].startswith("#") for link in shown.all("a"))
    assert "http" not in shown.html.replace("data:image/png", "")
    assert len(shown.html) < 8e6


def test_links_lead_to_sections(shown: Page) -> None:
    sections = [section["id"] for section in shown.all("section")]
    assert sections == ["maps", "spectra", "composition", "quality", "truth", "provenance"]
    assert [link["href"] for link in shown.all("a")] == [f"#{name}" for name in sections]


def test_every_picture_is_a_png_with_words_and_lies_beside_the_page(shown: Page, written: Path) -> None:
    from matplotlib.image import imread

    beside = {path.read_bytes(): path.name for path in written.parent.glob("*.png")}
    assert sorted(beside.values()) == [
        *("composite.png", "composition.png", "maps.png", "objective.png", "residual.png", "spectra.png"),
        *("spectrum-1.png", "spectrum-2.png", "spectrum-3.png", "truth.png"),
    ]
    assert len(shown.images()) == 10
    for image, attrs in zip(shown.images(), shown.all("img"), strict=True):
        assert image in beside
        pixels = imread(io.BytesIO(image), format="png")
        assert pixels.shape[1] > 700
        assert pixels[..., :3].std() > 0.01
        assert len(attrs["alt"]) > 20


def test_headline_says_what_it_is_and_how_it_ended(shown: Page) -> None:
    assert "Mantle minerals NMF · 3 components · y 60 × x 60 pixels · 1000 channels, 0.2 to 10.19 keV" in shown.text
    assert "✓ Converged. The objective settled within the tolerance." in shown.text
    assert "⚠" not in shown.text


def test_components_are_told_in_plain_words(shown: Page) -> None:
    assert "Component 1: 79 % of the counts, strongest lines Mg Kα, Si Kα, O Kα, Al Kα" in shown.text
    assert "Component 2: 16 % of the counts, strongest lines Mg Kα, Fe Kα" in shown.text
    assert "Component 3: 5.4 % of the counts, strongest lines Si Kα, Ca Kα" in shown.text


def test_composition_is_told_with_errors(shown: Page) -> None:
    found = hsi.quantify(eds_result()[0])
    for element in ("Mg", "O"):
        at = float(found["atomic_percent"].sel(element=element)[0])
        error = float(found["atomic_percent_std"].sel(element=element)[0])
        assert f"{element} Kα {with_error(at, error)}" in shown.text
    assert "Cliff-Lorimer ratios with computed k-factors" in shown.text
    assert 'class="pale"' in shown.html


def test_composition_leaves_out_what_has_no_line_and_gives_way_where_it_has_no_meaning(
    tmp_path: Path, quick: None
) -> None:
    result, _ = eds_result(12)
    page = Page(report(result.sel(energy=slice(1.0, None)), tmp_path / "cut"))
    assert "Left out, as no line of theirs lies on the energy axis: O." in page.text
    for number, changed in enumerate(
        (
            result.assign_attrs(elements=[]),
            result.assign_attrs(elements=["Xx"]),
            result.assign_attrs(signal="EELS"),
            result.assign(endmembers=result["endmembers"] * 0),
        )
    ):
        assert "Composition" not in Page(report(changed, tmp_path / str(number))).text
    assert "Composition" not in Page(report(pca_result(), tmp_path / "pca")).text


def test_truth_is_matched_whatever_the_order(shown: Page) -> None:
    for pair in ("CaPv Component 3", "Brg Component 1", "Fp Component 2"):
        assert pair in shown.text
    assert "from the truth on average" in shown.text


def test_provenance_is_complete(shown: Page) -> None:
    for words in (
        "hsi.open_result('result.zarr')",
        "hsi.open_cube('mantle.zarr')",
        "hsi.NMF(n_components=3, loss='frobenius', tol=0.0001, max_iter=300), seed=7)",
        "cropped energy 0.2:10.2",
        "(component 3, y 60, x 60)",
        "10 nm",
        "3 600 of 3 600",
        "2.4.6",
        "max_iter",
        "200.0 keV",
    ):
        assert words in shown.text, words


def test_everything_from_the_data_is_escaped(tmp_path: Path, quick: None) -> None:
    evil = "<script>alert('$x_1$ & more')</script>"
    result, _ = eds_result()
    result = result.assign_coords(component=[evil, "b & c", "<i>"])
    result.attrs |= {
        "title": evil,
        "source": evil,
        "history": [evil],
        "advice": evil,
        "model": evil,
        "elements": [evil],
    }
    result.attrs |= {"settings": f'{{"<b>": "{evil}"}}', "versions": evil, "seed": evil, "signal": "EDS"}
    page = Page(report(result, tmp_path / "r"))
    assert not page.all("script")
    assert not page.all("i")
    assert not page.all("b")
    assert page.text.count(evil) > 6


@pytest.mark.parametrize(
    ("status", "sign", "words"),
    [
        ("max_iter", "⚠", "Stopped at the iteration limit. The iteration limit came first; raise max_iter"),
        ("stagnated", "⚠", "Stalled before it converged. The objective stopped improving"),
        ("interrupted", "⚠", "Interrupted before it converged. The run was stopped; fit again with resume=True"),
        ("nonfinite", "✕", "Failed: NaN or Inf appeared. NaN or Inf appeared; look at the cube"),
    ],
)
def test_status_in_words_with_advice(tmp_path: Path, blank: None, status: str, sign: str, words: str) -> None:
    result, _ = eds_result(20)
    page = Page(report(result.assign_attrs(status=status, advice=""), tmp_path / "r"))
    assert f"{sign} {words}" in page.text
    assert "Converged." not in page.text


# Warnings


def test_a_good_result_gives_no_remark() -> None:
    assert said(eds_result()[0]) == []
    assert said(eds_result(seed=3)[0]) == []
    assert said(eels_result()) == []


def test_nearly_empty_component_as_noise_or_as_rare_phase() -> None:
    result, _ = eds_result()
    noise = xr.zeros_like(result.abundances[1]) + np.random.default_rng(0).random((60, 60))
    empty = result.assign(abundances=xr.where(result.component == 2, noise, result.abundances, keep_attrs=True))
    (text,) = [text for text in said(empty, "warning") if "nearly empty" in text]
    assert text.startswith("Component 2 is nearly empty: it holds 0.")
    assert text.endswith("Its map is noise: one component fewer may do (n_components=2).")
    rare = result.assign(abundances=result.abundances * xr.where(result.component == 3, 0.05, 1.0))
    (text,) = [text for text in said(rare, "warning") if "nearly empty" in text]
    assert text.startswith("Component 3")
    assert "may be a rare phase" in text


def test_nearly_equal_spectra() -> None:
    result, _ = eds_result()
    mixed = 0.03 * result.endmembers.values[2] + 0.97 * result.endmembers.values[0]
    twin = result.copy(deep=True)
    twin["endmembers"][2] = mixed
    (text,) = [text for text in said(twin, "warning") if "same spectrum" in text]
    assert text.startswith("Component 1 and Component 3 have nearly the same spectrum (1.")
    assert "n_components=2" in text


def test_structure_in_the_residual_spectrum() -> None:
    result, _ = eds_result()
    line = 0.02 * np.exp(-0.5 * ((result.energy - 8.04) / 0.06) ** 2)
    (text,) = said(result.assign(residual_spectrum=result.residual_spectrum + line), "warning")
    assert "The residual spectrum has structure" in text
    assert "near 8.0" in text
    assert "more than the model" in text


def test_structure_in_the_residual_map() -> None:
    result, _ = eds_result()
    y, x = np.mgrid[:60, :60]
    grain = 1 + 0.4 * (np.hypot(y - 20, x - 45) < 6)
    (text,) = said(result.assign(residual=result.residual * grain), "warning")
    assert "The residual map has structure: it is largest near x = 4" in text
    assert "nm, y = 2" in text
    assert "loss='poisson'" in text


def test_residual_above_counting_noise() -> None:
    result, _ = eds_result()
    (text,) = said(result.assign(residual=1.5 * result.residual), "warning")
    assert "The residual is 1.5 times what counting noise would leave" in text


def test_few_counts() -> None:
    (text,) = said(eds_result(counts=12.0)[0], "warning")
    assert text.startswith("There are few counts: 12 per pixel")
    assert said(eds_result(counts=40.0)[0]) == []


def test_mask_is_a_note_and_its_pixels_do_not_count() -> None:
    result = masked_result()
    assert said(result, "warning") == []
    used = int(result.mask.sum())
    assert said(result, "note") == [
        f"{100 * (1 - used / 3600):.0f} % of the pixels are masked: they were not used, and are grey in the maps."
    ]
    view = digest(result)
    assert (view.pixels_used, view.pixels_total) == (used, 3600)
    inside = result.abundances.where(result.mask).sum(["y", "x"]) * result.endmembers.sum("energy")
    np.testing.assert_allclose(view.shares, inside / inside.sum(), rtol=1e-5)


def test_indicator_is_a_note() -> None:
    result = pca_result()
    indicator = np.full(result.sizes["rank"], 5.0)
    indicator[2] = 1.0
    noted = result.assign(malinowski_ind=("rank", indicator))
    assert said(noted) == ["Malinowski's indicator is lowest at 3 components; this result keeps 4."]
    assert said(noted.isel(component=slice(3))) == []


# Other kinds of results


def test_eels_names_edges(tmp_path: Path) -> None:
    page = Page(report(eels_result(), tmp_path / "r"))
    assert "Component 2: 3.9 % of the total intensity, edges C K" in page.text
    assert "edges Ca L3" in page.text
    assert "edges O K" in page.text
    assert "Component 1: 93 % of the total intensity, largest intensity at 240 eV" in page.text
    assert "Component 1 outshines the others" in page.text


def test_pca_has_signed_maps_a_scree_plot_and_no_composite(tmp_path: Path) -> None:
    path = report(pca_result(), tmp_path / "r")
    names = {file.name for file in path.parent.iterdir()}
    assert "scree.png" in names
    assert not names & {"composite.png", "objective.png"}
    page = Page(path)
    assert "PCA is solved directly" in page.text
    assert "% of the variance" in page.text
    assert "How many components?" in page.text


def test_leading_dims_are_shown_at_named_places(tmp_path: Path, quick: None) -> None:
    page = Page(report(series_result(), tmp_path / "r"))
    assert "Shown: time = 0 s; time = 2.5 s; time = 5 s." in page.text
    assert "time 3 × y 60 × x 60" in page.text


def test_four_places_are_chosen_evenly() -> None:
    series = series_result().isel(time=[0, 1, 2] * 3, y=slice(6)).drop_vars(["residual", "time"])
    tilts = xr.DataArray([1.0, 3.0], dims="tilt", coords={"tilt": [-30, 30]})
    result = series.assign(abundances=(series.abundances * tilts).transpose("component", "tilt", ...))
    view = digest(result)
    assert view.positions == ("tilt = -30, time 0", "tilt = -30, time 6", "tilt = 30, time 2", "tilt = 30, time 8")
    expected = result.abundances.isel(tilt=1, time=2).values
    np.testing.assert_allclose(view.maps[:, 2], expected, rtol=1e-6)
    np.testing.assert_allclose(view.totals, 4 * digest(series).totals, rtol=1e-5)


def test_a_bare_result_is_enough(tmp_path: Path) -> None:
    result = xr.Dataset(
        {
            "endmembers": (("component", "energy"), np.ones((1, 8))),
            "abundances": (("component", "y", "x"), np.ones((1, 1, 9))),
        },
        attrs={"model": "X"},
    )
    page = Page(report(result, tmp_path / "r", title="Bare & small"))
    assert page.text.startswith("Bare & small Bare & small X · 1 component · y 1 × x 9 pixels")
    assert "Status unknown." in page.text
    assert "the scale bar counts pixels" in page.text


def test_a_result_of_nothing_but_nan_is_reported_as_such(tmp_path: Path) -> None:
    result, _ = eds_result(12)
    broken = (result * np.nan).assign_attrs(result.attrs | {"status": "nonfinite"})
    page = Page(report(broken, tmp_path / "r"))
    assert "✕" in page.text
    assert "No pixel has a value" in page.text


# Cost


def test_lazy_maps_are_computed_once_and_in_one_go(tmp_path: Path, blank: None) -> None:
    result, truth = eds_result(40)
    calls: list[int] = []

    def block(values: np.ndarray) -> np.ndarray:
        calls.append(1)
        return values

    lazy = da.from_array(result.abundances.values, chunks=(3, 10, 20)).map_blocks(
        block, dtype="f4", meta=np.empty((0,) * 3, "f4")
    )
    result = result.assign(abundances=(("component", "y", "x"), lazy))
    with dask.config.set(scheduler="synchronous"):
        report(result, tmp_path / "r", truth=truth)
    assert len(calls) == 8


def test_large_maps_are_averaged_in_blocks() -> None:
    rng = np.random.default_rng(0)
    maps = da.from_array(rng.random((2, 11, 2001)).astype("f4"), chunks=(2, 4, 300))
    result = xr.Dataset(
        {"endmembers": (("component", "energy"), np.ones((2, 4))), "abundances": (("component", "y", "x"), maps)},
        coords={"x": ("x", 0.5 * np.arange(2001), {"units": "nm"})},
        attrs={"model": "NMF"},
    )
    view = digest(result)
    assert view.block == 3
    assert view.maps.shape == (2, 1, 4, 667)
    np.testing.assert_allclose(view.maps[0, 0, 1, 5], np.asarray(maps)[0, 3:6, 15:18].mean(), rtol=1e-5)
    np.testing.assert_allclose(view.totals, 4 * np.asarray(maps, "f8").sum((1, 2)), rtol=1e-5)
    assert view.pixel_nm == (1.5, 1.5)
    assert view.pixels_total == 11 * 2001


def test_pictures_shrink_until_the_page_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    view = digest(eds_result()[0])
    drawings = list(captions._maps(view))
    full = sum(len(picture.png) for picture in captions.render(drawings)["maps"])
    monkeypatch.setattr(captions, "MOST_BYTES", full - 1)
    assert sum(len(picture.png) for picture in captions.render(drawings)["maps"]) < full


def test_importing_stays_light() -> None:
    heavy = "matplotlib", "xraylib", "torch", "cupy", "distributed", "rsciio"
    loaded = f"[name for name in {heavy} if name in sys.modules]"
    code = f"import sys, scalehsi.report, scalehsi.plots; sys.exit(', '.join({loaded}) or 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_the_public_name_is_called_however_it_was_imported(tmp_path: Path, blank: None) -> None:
    result, _ = eds_result(8)
    assert sys.modules["scalehsi.report"](result, tmp_path / "a") == tmp_path / "a" / "index.html"


# The disk


@pytest.fixture
def small() -> xr.Dataset:
    return eds_result(8)[0]


def test_an_existing_folder_is_refused(tmp_path: Path, small: xr.Dataset) -> None:
    with pytest.raises(InputError, match=r"exists already.*overwrite=True \(--overwrite"):
        report(small, tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="is a file; give the report a folder of its own"):
        report(small, tmp_path / "file", overwrite=True)


def test_only_a_report_is_ever_replaced(tmp_path: Path, small: xr.Dataset, blank: None) -> None:
    path = report(small, tmp_path / "r")
    (path.parent / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"no report wrote \(notes.txt\)"):
        report(small, tmp_path / "r", overwrite=True)
    (path.parent / "notes.txt").unlink()
    path.write_text("<html>a page of mine</html>")
    with pytest.raises(InputError, match="no report wrote"):
        report(small, tmp_path / "r", overwrite=True)
    assert path.read_text() == "<html>a page of mine</html>"


def test_overwriting_leaves_nothing_of_the_old_report(tmp_path: Path, small: xr.Dataset, blank: None) -> None:
    path = report(small, tmp_path / "r")
    (path.parent / "spectrum-9.png").write_bytes(b"old")
    report(small, str(tmp_path / "r"), overwrite=True, title="Second")
    assert "<h1>Second</h1>" in path.read_text("utf-8")
    assert sorted(file.name for file in path.parent.iterdir()) == ["index.html", "maps.png"]
    assert [file.name for file in tmp_path.iterdir()] == ["r"]


def test_a_link_to_a_report_is_followed(tmp_path: Path, small: xr.Dataset, blank: None) -> None:
    report(small, tmp_path / "r")
    (tmp_path / "latest").symlink_to(tmp_path / "r")
    path = report(small, tmp_path / "latest", overwrite=True, title="Second")
    assert path == tmp_path / "latest" / "index.html"
    assert "<h1>Second</h1>" in (tmp_path / "r" / "index.html").read_text("utf-8")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["latest", "r"]


def test_a_drawing_that_fails_leaves_nothing(
    tmp_path: Path, small: xr.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(view: object) -> None:
        raise RuntimeError("no ink")

    monkeypatch.setattr(captions, "draw_residual", fail)
    with pytest.raises(RuntimeError, match="no ink"):
        report(small, tmp_path / "deep" / "r")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_the_old_report(
    tmp_path: Path, small: xr.Dataset, blank: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = report(small, tmp_path / "r")
    before = path.read_bytes()
    write = Path.write_bytes

    def full(self: Path, data: bytes) -> int:
        if self.name == "index.html":
            raise OSError(28, "No space left on device")
        return write(self, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        report(small, tmp_path / "r", overwrite=True, title="Second")
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["r"]


def test_a_rename_that_fails_puts_the_old_report_back(
    tmp_path: Path, small: xr.Dataset, blank: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = report(small, tmp_path / "r")
    before = path.read_bytes()
    rename = Path.rename

    def refuse(self: Path, target: Path) -> Path:
        if self.name.endswith(".partial"):
            raise PermissionError(13, "Permission denied")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(PermissionError, match="Permission denied"):
        report(small, tmp_path / "r", overwrite=True, title="Second")
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["r"]


@pytest.mark.parametrize(
    ("spoil", "match"),
    [
        (lambda r: r.abundances, "got a DataArray"),
        (lambda r: r.drop_vars("abundances"), "it lacks abundances"),
        (
            lambda r: r.transpose("energy", "component", "y", "x", "iteration"),
            "endmembers has dims .*expected .component, ..., energy",
        ),
        (lambda r: r.rename(y="row"), "abundances has dims .*'row'.*expected .component, ..., y, x"),
        (lambda r: r.isel(x=slice(0)), "abundances is empty"),
    ],
)
def test_what_is_no_result_is_refused(tmp_path: Path, small: xr.Dataset, spoil: object, match: str) -> None:
    with pytest.raises(InputError, match=match):
        report(spoil(small), tmp_path / "r")
    assert list(tmp_path.iterdir()) == []


def test_a_truth_that_does_not_fit_is_refused(tmp_path: Path, small: xr.Dataset) -> None:
    _, truth = eds_result(8)
    with pytest.raises(
        InputError, match="the truth has 500 channels, the result 1000; give the truth the same preparation"
    ):
        report(small, tmp_path / "r", truth=truth.isel(energy=slice(500)))
    with pytest.raises(InputError, match=r"truth: .*lacks abundances.*scalehsi\.simulate"):
        report(small, tmp_path / "r", truth=truth.drop_vars("abundances"))


# Beside other methods, what denoising brings, and bins


def blurred() -> xr.Dataset:
    """Another method's result: worse spectra in another order, and worse maps."""
    result, _ = eds_result()
    mixed = 0.7 * result.endmembers + 0.3 * result.endmembers.mean("component")
    noise = np.random.default_rng(5).gamma(2.0, 10.0, result.abundances.shape)
    return result.assign(endmembers=mixed, abundances=result.abundances + noise).isel(component=[1, 2, 0])


def counts() -> xr.DataArray:
    truth = eds_result()[1]
    drawn = np.random.default_rng(3).poisson(np.einsum("kyx,ke->yxe", truth.abundances, truth.endmembers))
    coords = {name: truth[name] for name in ("y", "x", "energy")}
    attrs = {"signal": "EDS", "elements": ["O", "Mg", "Al", "Si", "Ca", "Fe"]}
    return xr.DataArray(drawn.astype("u2"), dims=("y", "x", "energy"), coords=coords, attrs=attrs)


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Path:
    result, truth = eds_result()
    scan = {"bin_score": [-2.0, -0.1, 0.0], "bin_score_error": [0.1, 0.05, 0.0], "bin_stability": [3.0, 2.0, 2.5]}
    result = result.assign({name: ("bin", values) for name, values in scan.items()}).assign_coords(bin=[4, 8, 12])
    result = result.assign(bin_factor=("axis", [8, 8]), fine_bin_factor=("axis", [2, 2]))
    signed = result.assign(abundances=result.abundances - 50.0).assign_attrs(model="PCA")
    others = {"Blurred": blurred(), "PCA": signed}
    place = tmp_path_factory.mktemp("story") / "page"
    return report(result, place, truth=truth, others=others, cube=counts(), line="Ca Ka")


def test_the_story_has_its_sections_and_pictures(story: Path) -> None:
    page = Page(story)
    sections = [section["id"] for section in page.all("section")]
    assert sections == [
        *("maps", "spectra", "composition", "quality", "truth", "methods", "denoised", "bins", "provenance"),
    ]
    assert {"methods.png", "methods-spectra.png", "denoised.png", "bins.png"} <= {
        p.name for p in story.parent.iterdir()
    }
    assert len(page.html) < 8e6
    # Scores of PCA are no maps of phases: it is among the denoised maps alone.
    assert "The same cube by Blurred and NMF." in page.text
    assert "Correlation with truth measured Blurred PCA NMF" in page.text


def test_a_report_replaces_one_with_more_sections(story: Path, tmp_path: Path, blank: None) -> None:
    shutil.copytree(story.parent, tmp_path / "page")
    report(eds_result(20)[0], tmp_path / "page", overwrite=True)
    assert sorted(p.name for p in (tmp_path / "page").iterdir()) == ["index.html", "maps.png"]


def test_other_methods_are_matched_and_scored(tmp_path: Path, quick: None) -> None:
    result, truth = eds_result()
    page = Page(report(result, tmp_path / "r", truth=truth, others={"Blurred": blurred()}))
    rows = {}
    for name, each in {"Blurred": blurred(), "NMF": result}.items():
        rows[name] = np.degrees(metrics.score(each.assign_coords(energy=truth.energy), truth)["spectral_angle"].values)
    cells = [f"{name} {a:.2f} {b:.2f}" for name, a, b in zip(("CaPv", "Brg", "Fp"), *rows.values(), strict=True)]
    mean = f"Mean {rows['Blurred'].mean():.2f} {rows['NMF'].mean():.2f}"
    for words in (
        *cells,
        mean,
        "Spectral angle (°) Blurred NMF",
        "hsi.NMF(3, loss='frobenius', tol=0.0001, max_iter=300)",
    ):
        assert words in page.text, words
    alone = Page(report(result, tmp_path / "s", others={"Blurred": blurred()}))
    assert "components are matched by their spectra. Angles are those to NMF." in alone.text
    assert "Spectral angle (°) Blurred Component 1" in alone.text


def test_denoising_is_told_in_numbers_where_the_truth_is_known(tmp_path: Path, quick: None) -> None:
    result, truth = eds_result()
    page = Page(report(result, tmp_path / "r", truth=truth, cube=counts(), line="Fe Ka"))
    table = metrics.denoise_report(counts(), {"NMF": result}, truth=truth)
    assert table["window"].values.tolist() == ["O Ka", "Mg Ka", "Al Ka", "Si Ka", "Ca Ka", "Fe Ka"]
    for line, (raw, ours) in zip(("O Kα", "Mg Kα"), table["correlation"].values.T, strict=False):
        assert f"{line} {raw:.3f} {ours:.3f}" in page.text
    assert "Whole cube, error {:.1f} % {:.1f} %".format(*100 * table["cube_error"].values) in page.text
    assert "a window at Fe Kα (6.34 to 6.46 keV)" in page.text
    plain = Page(report(result, tmp_path / "s", cube=counts()))
    # Without a word about the line: the one with the fewest counts.
    windows = metrics.line_windows(counts())
    sums = {name: float(result.mean_spectrum.sel(energy=slice(*ends)).sum()) for name, ends in windows.items()}
    assert min(sums, key=lambda name: sums[name]) == "Ca Ka"
    assert "a window at Ca Kα (3.63 to 3.75 keV)" in plain.text
    assert "fit both halves of hsi.prepare.thin(cube)" in plain.text


def test_what_cannot_be_set_beside_is_said(tmp_path: Path, quick: None) -> None:
    result, truth = eds_result()
    with pytest.raises(InputError, match=r"'small' has maps of 20 x 60 and 1000 channels, the result 60 x 60"):
        report(result, tmp_path / "r", others={"small": blurred().isel(y=slice(20))})
    with pytest.raises(InputError, match="line='Fe Ka' is drawn from the cube"):
        report(result, tmp_path / "r", line="Fe Ka")
    with pytest.raises(InputError, match="which map is to be drawn"):
        report(result, tmp_path / "r", cube=counts().assign_attrs(elements=[]))
    with pytest.raises(InputError, match="the result 'NMF' has the sizes"):
        report(result, tmp_path / "r", cube=counts().isel(y=slice(30)), truth=truth.isel(y=slice(30)))
    assert not (tmp_path / "r").exists()


def test_a_result_whose_bins_were_given_has_no_curve(tmp_path: Path, quick: None) -> None:
    result, _ = eds_result(20)
    page = Page(report(result.assign(bin_factor=("axis", [8, 8])), tmp_path / "r"))
    assert "bins" not in [section["id"] for section in page.all("section")]
    assert "How large should the bins be?" not in page.text


def test_the_choice_of_bins_is_told_in_words() -> None:
    result = eds_result(20)[0]
    scan = {"bin_score": [-2.0, -0.1, 0.0], "bin_score_error": [0.1, 0.05, 0.0], "bin_stability": [3.0, 2.0, 2.5]}
    result = result.assign({name: ("bin", values) for name, values in scan.items()}).assign_coords(bin=[4, 8, 12])
    other = bins.chapter(result.assign(bin_factor=("axis", [8, 8]), fine_bin_factor=("axis", [2, 2])))
    best = bins.chapter(result.assign(bin_factor=("axis", [12, 12]), fine_bin_factor=("axis", [1, 1])))
    assert other is not None
    assert best is not None
    assert "Of sides of 4, 8, 12 pixels, 12 did best. 8 was used: the middle of those" in other.words
    assert "refined on bins of 2 × 2 pixels" in other.words
    assert "Of sides of 4, 8, 12 pixels, 12 did best and was used." in best.words
    assert "refined on single pixels" in best.words
