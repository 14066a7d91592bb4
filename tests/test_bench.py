"""Run the benchmarks on small scenes, and test those of their claims that do not depend on time."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.bench


def bench(name: str) -> Any:
    return importlib.import_module(f"tests.bench.{name}")


def test_relevance_finds_three_phases_of_ten_components() -> None:
    (row,) = bench("priors").phases(range(1))
    assert row["relevant of 10"] == 3
    assert float(row["largest ratio of a phase"]) < 1 / 3


def test_the_default_needs_hardly_more_readings_than_the_best_variant() -> None:
    rows = bench("variants").table(size=64, channels=128, k=5, repeats=1)
    default, *others = rows
    assert default["variant"].startswith("default")
    for limit in ("0.001", "0.0001"):
        counts = [row[f"readings to {limit}"] for row in others if row[f"readings to {limit}"] != "-"]
        assert default[f"readings to {limit}"] <= 1.3 * min(counts)
    # The variant that keeps the sets solves the same problems, so it needs exactly the same readings.
    kept = others[0]
    assert all(default[f"readings to {limit}"] == kept[f"readings to {limit}"] for limit in ("0.01", "0.001"))


def test_pansharpening_is_better_than_methods_with_one_acquisition() -> None:
    pansharpen = bench("pansharpen")
    rows = pansharpen.table({"small": [pansharpen.simulated(2, size=48)]})
    error = {row["method"]: float(row["small: error"]) for row in rows}
    peers = [pansharpen.RAW, pansharpen.BILINEAR, pansharpen.PLAIN, pansharpen.WEIGHTED, pansharpen.SKLEARN]
    assert error[pansharpen.AUTO] < 0.85 * min(error[name] for name in peers)
    assert error[pansharpen.IMAGE] < error[pansharpen.AUTO] < error[pansharpen.JOINT] < error[pansharpen.ALONE]
    assert error[pansharpen.ALONE] < 1.05 * error[pansharpen.TRUE]


def test_the_truth_has_no_error_in_the_tables_of_psnmf() -> None:
    scenes, composition = bench("psnmf_scenes"), bench("psnmf_composition")
    scene = scenes.simulated(1, 147, 48)
    assert scenes.angles(scene.spectra, scene.spectra[::-1])[0].max() < 1e-4
    assert scenes.angles(scene.spectra, scene.spectra[::-1])[1].tolist() == [2, 1, 0]
    assert scenes.cube_error(scene, scene.maps, scene.spectra) < 1e-6
    assert abs(scenes.cube_error(scene, 1.1 * scene.maps, scene.spectra) - 0.1) < 1e-6
    assert abs(scenes.line_correlation(scene, scene.maps, scene.spectra) - 1) < 1e-9
    found = composition.composition(scene, scene.spectra)
    assert composition.largest(found).max() <= 0.05
    assert abs(composition.element_of(found, "Brg", "Nd") - 0.1) < 0.005


def test_joint_reconstruction_is_better_than_separate_ones() -> None:
    """Target values for the paper's noise ratios, and with half of the pixels missing."""
    module = bench("gp_effects")
    first, second = module.ratio_table(seeds=1, sigmas=(0.5,), alphas=(2.0,))
    together, wrong, alone = ([float(v) for v in second[way].split()] for way in ("free", "10 to 11", "alone"))
    assert together[2] - alone[2] >= 0.15
    assert wrong[0] < 0.2
    assert [float(v) for v in first["free"].split()][2] > 0.999
    (half,) = module.missing_table(seeds=1, shares=(0.5,))
    like = [float(v) for v in half["similarity"].split()]
    assert all(a >= b for a, b in zip(like, module.MISSING_ASKED, strict=True))
    assert half["steps"] <= 30
    assert all(0.92 <= float(v) <= 0.99 for v in half["coverage of 95 %"].split())
    known, fitted = module.calibration(draws=1, side=48)
    for row in (known, fitted):
        assert all(0.91 <= float(v) <= 0.98 for v in row["coverage of 95 %"].split())


def test_the_referee_of_unmixing_ranks_the_limit_first_and_draws_its_charts(tmp_path: Any) -> None:
    unmixing, scenes = bench("unmixing"), bench("unmixing_scenes")
    truths, known = [scenes.scene(3)], unmixing.methods(3, networks=False)
    names = ("oracle", "VCA", "VCA, public options", "ICA")
    rows = [unmixing.measured(known[name], truths, name=name, case="3") for name in names]
    for key in ("SAD", "NMSE"):
        assert [row[key] for row in rows] == sorted(row[key] for row in rows)
    unmixing.charts(rows, tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["unmixing_nmse.png", "unmixing_sad.png"]
    assert unmixing.hyperspy("python-that-is-not-there", truths, "3") == []


def test_events_are_ingested_as_they_were_made(tmp_path: Path) -> None:
    pytest.importorskip("rsciio", reason="the extra io is not installed")
    ingest = bench("ingest")
    made = ingest.make_stream(tmp_path / "stream.emd", megabytes=0.5, side=16, frames=3)
    ours = ingest.measure("scalehsi", tmp_path / "stream.emd", tmp_path)
    theirs = ingest.measure("RosettaSciIO, no store", tmp_path / "stream.emd", tmp_path)
    assert ours["counts"] == theirs["counts"] == made


def test_watched_maps_are_those_of_a_projection() -> None:
    rows = bench("live").table(size=32, channels=64, components=3)
    assert [row["blocks"] for row in rows] == [1, 4, ""]
    assert all(row["off"] == 0 for row in rows)
