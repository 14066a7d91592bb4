"""The fit loop: tolerance, status, progress, checkpoints, resume, seeds and provenance, for every model."""

from __future__ import annotations

import dataclasses
import json
import signal
import threading
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any, ClassVar

import dask
import numpy as np
import pytest
import xarray as xr

import scalehsi as hsi
from scalehsi.fitting.checkpoint import Checkpoint
from scalehsi.fitting.loop import fit_inner
from scalehsi.fitting.model import IterativeModel, Model, State, Stats
from scalehsi.fitting.progress import Progress
from scalehsi.schema import InputError, Interrupted

# One row a model: a new one joins the shared tests here.
MODELS = [
    hsi.NMF(4, max_iter=8, tol=0),
    hsi.NMF(4, weighting="poisson", max_iter=8, tol=0),
    hsi.NMF(4, loss="poisson", max_iter=8, tol=0),
    hsi.NMF(4, loss="poisson", bin_factor=1, sparsity=0.1, max_iter=8, tol=0),
    hsi.NMF(4, loss="poisson", solver="mu", max_iter=8, tol=0),
    hsi.NMF(4, compress=True, max_iter=8, tol=0),
    hsi.NMF(4, simplex=True, max_iter=8, tol=0),
    hsi.NMF(4, sparsity=0.02, max_iter=8, tol=0),
    hsi.NMF(4, orthogonality=0.1, ard="exponential", max_iter=8, tol=0),
    hsi.NMF(4, smoothness=0.1, max_iter=8, tol=0),
    hsi.NMF(4, solver="hals", max_iter=8, tol=0),
    hsi.PCA(4),
    hsi.PCA(4, weighting=None, centre=True),
    hsi.PCA(4, solver="randomized", oversample=8),
    hsi.VCA(4),
    hsi.VCA(4, weighting=None, smooth=0, mode="perspective", constraint="nnls"),
    hsi.NFINDR(4),
    hsi.SSS(4, restarts=4),
    hsi.ICA(4),
    hsi.BLU(4, sweeps=30, burn_in=10),
    hsi.PSNMF(4, bin_factor=4, max_iter=8, tol=0),
    hsi.PSNMF(4, bin_factor=(2, 4), settings="paper", max_iter=8, tol=0),
    hsi.DAEU(4, pretrain=4, epochs=4),
    hsi.UDAS(4, max_iter=8),
    hsi.MTAEU(4, pretrain=4, epochs=4),
]
TOLERANCE = 1e-5
"""Chunks and schedulers change rounding alone."""


def name(model: Model) -> str:
    plain = type(model)(4).to_settings()
    words = [str(v) for k, v in model.to_settings().items() if k not in ("max_iter", "tol") and v != plain[k]]
    return "-".join((model.name, *words))


@pytest.fixture(scope="module")
def cube() -> xr.DataArray:
    lazy, _ = hsi.simulate.chequerboard((24, 20), n_channels=48, seed=3)
    return lazy.compute()


def spectra(result: xr.Dataset) -> np.ndarray:
    return result["endmembers"].values


@pytest.mark.parametrize("model", MODELS, ids=name)
def test_a_result_has_what_the_schema_says(cube: xr.DataArray, model: Model) -> None:
    result = hsi.fit(cube, model, seed=5)
    assert result["endmembers"].dims == ("component", "energy")
    assert result["abundances"].dims == ("component", "y", "x")
    assert result["residual"].dims == ("y", "x")
    assert result["objective"].dims == ("iteration",)
    for axis in ("y", "x", "energy"):
        assert result[axis].attrs["units"] == cube[axis].attrs["units"]
    assert result.attrs["model"] == model.name
    assert type(model).from_settings(json.loads(result.attrs["settings"])) == model
    assert result.attrs["seed"] == 5
    assert "numpy" in json.loads(result.attrs["versions"])
    assert result.attrs["history"].splitlines()[-1].startswith(f"fit {model.name}")
    assert result.attrs["advice"]


@pytest.mark.parametrize("model", MODELS, ids=name)
def test_the_residual_is_that_of_the_reconstruction(cube: xr.DataArray, model: Model) -> None:
    result = hsi.fit(cube, model)
    rest = cube.astype(float) - hsi.reconstruct(result, dtype="f8").compute()
    np.testing.assert_allclose(result["residual"], np.sqrt((rest**2).mean("energy")), rtol=1e-4)
    mean = cube.mean(("y", "x"))
    np.testing.assert_allclose(result["residual_spectrum"], rest.mean(("y", "x")), atol=2e-5 * float(mean.max()))
    np.testing.assert_allclose(result["mean_spectrum"], mean, rtol=1e-5)


@pytest.mark.parametrize("model", MODELS, ids=name)
@pytest.mark.parametrize("chunks", [{"y": 24, "x": 20}, {"y": 7, "x": 9}, {"y": 1, "x": 20}], ids=str)
@pytest.mark.parametrize("scheduler", ["synchronous", "threads"])
def test_chunks_and_schedulers_change_nothing(
    cube: xr.DataArray, model: Model, chunks: dict[str, int], scheduler: str
) -> None:
    reference = hsi.fit(cube, model)
    with dask.config.set(scheduler=scheduler):
        result = hsi.fit(cube.chunk({**chunks, "energy": 11}), model)
    scale = np.abs(spectra(reference)).max()
    np.testing.assert_allclose(spectra(result), spectra(reference), rtol=0, atol=TOLERANCE * scale * 10)
    # A small objective is a difference of sums as large as the first one.
    slack = 1e-6 * float(np.abs(reference["objective"][0]))
    np.testing.assert_allclose(result["objective"], reference["objective"], rtol=TOLERANCE, atol=slack)


@pytest.mark.parametrize("model", MODELS, ids=name)
def test_a_mask_is_as_good_as_dropping_the_pixels(cube: xr.DataArray, model: Model) -> None:
    used = np.ones(cube.shape[:-1], dtype=bool)
    used[10:] = False
    masked = hsi.fit(cube.assign_coords(mask=(("y", "x"), used)), model)
    dropped = hsi.fit(cube[:10], model)
    np.testing.assert_allclose(masked["objective"][-1], dropped["objective"][-1], rtol=2e-2)
    assert masked["abundances"][:, 10:].isnull().all()
    assert masked["abundances"][:, :10].notnull().all()


def test_what_masked_pixels_hold_does_not_matter(cube: xr.DataArray) -> None:
    used = np.ones(cube.shape[:-1], dtype=bool)
    used[:, 3:5] = False
    wild = cube.astype("f4").copy()
    wild[:, 3:5] = np.nan
    here = hsi.fit(cube.astype("f4").assign_coords(mask=(("y", "x"), used)), MODELS[0])
    there = hsi.fit(wild.assign_coords(mask=(("y", "x"), used)), MODELS[0])
    np.testing.assert_array_equal(spectra(here), spectra(there))


@pytest.mark.parametrize("model", MODELS, ids=name)
def test_four_dimensions_need_no_second_path(cube: xr.DataArray, model: Model) -> None:
    frames = xr.concat([cube, cube], "time").transpose("time", "y", "x", "energy")
    result = hsi.fit(frames.assign_coords(time=[0, 1]), model)
    assert result["abundances"].dims == ("component", "time", "y", "x")
    # Means of random draws, which are counted on the pixel, differ between equal pixels.
    slack = 0.2 if model.name == "BLU" else 1e-5
    np.testing.assert_allclose(result["abundances"][:, 0], result["abundances"][:, 1], rtol=1e-5, atol=slack)


@pytest.mark.parametrize("model", MODELS, ids=name)
def test_the_seed_decides(cube: xr.DataArray, model: Model) -> None:
    first, again = hsi.fit(cube, model, seed=1), hsi.fit(cube, model, seed=1)
    np.testing.assert_array_equal(spectra(first), spectra(again))


@pytest.mark.parametrize("model", [m for m in MODELS if m.max_iter > 1], ids=name)
def test_resume_gives_the_numbers_of_an_uninterrupted_run(tmp_path: Path, cube: xr.DataArray, model: Model) -> None:
    whole = hsi.fit(cube, model)
    hsi.fit(cube, dataclasses.replace(model, max_iter=3), checkpoint=tmp_path / "run.ckpt")
    resumed = hsi.fit(cube, model, checkpoint=tmp_path / "run.ckpt", resume=True)
    np.testing.assert_array_equal(spectra(resumed), spectra(whole))
    np.testing.assert_array_equal(resumed["abundances"], whole["abundances"])
    np.testing.assert_array_equal(resumed["objective"], whole["objective"])
    assert resumed.attrs["status"] == whole.attrs["status"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_a_checkpoint_to_go_on_from(tmp_path: Path, cube: xr.DataArray, number: int) -> None:
    model = hsi.NMF(4, max_iter=8, tol=0)
    folder = tmp_path / "run.ckpt"

    def stop(progress: Progress) -> None:
        if progress.iteration == 4 and progress.stage == "iterate":
            signal.raise_signal(number)

    before = signal.getsignal(number)
    with pytest.raises(Interrupted, match=r"after 4 iterations; the state is in .*resume=True") as stopped:
        hsi.fit(cube, model, checkpoint=folder, checkpoint_every=100, progress=stop)
    assert signal.getsignal(number) == before
    assert stopped.value.checkpoint == str(folder)
    resumed = hsi.fit(cube, model, checkpoint=folder, resume=True)
    np.testing.assert_array_equal(spectra(resumed), spectra(hsi.fit(cube, model)))


def test_a_signal_without_checkpoint_says_so(cube: xr.DataArray) -> None:
    def stop(progress: Progress) -> None:
        if progress.iteration == 2:
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Interrupted, match="no checkpoint was set"):
        hsi.fit(cube, MODELS[0], progress=stop)


def test_fitting_in_another_thread_leaves_signals_alone(cube: xr.DataArray) -> None:
    found: list[xr.Dataset] = []
    thread = threading.Thread(target=lambda: found.append(hsi.fit(cube, MODELS[0])))
    thread.start()
    thread.join()
    assert found[0].sizes["iteration"] == 8


def test_a_checkpoint_is_written_by_iterations_or_minutes(
    tmp_path: Path, cube: xr.DataArray, monkeypatch: pytest.MonkeyPatch
) -> None:
    writes: list[int] = []
    write = Checkpoint.write
    monkeypatch.setattr(Checkpoint, "write", lambda self, s: (writes.append(len(s.objective)), write(self, s))[1])
    model = hsi.NMF(4, max_iter=7, tol=0)
    hsi.fit(cube, model, checkpoint=tmp_path / "a", checkpoint_every=3)
    assert writes == [3, 6]
    writes.clear()
    hsi.fit(cube, model, checkpoint=tmp_path / "b", checkpoint_minutes=1e9)
    assert writes == []


def test_a_checkpoint_of_another_fit_is_refused(tmp_path: Path, cube: xr.DataArray) -> None:
    folder = tmp_path / "run.ckpt"
    hsi.fit(cube, hsi.NMF(4, max_iter=2), checkpoint=folder)
    with pytest.raises(InputError, match="holds the state of an earlier fit; resume it with resume=True"):
        hsi.fit(cube, hsi.NMF(4, max_iter=2), checkpoint=folder)
    with pytest.raises(InputError, match="is of another fit: its settings"):
        hsi.fit(cube, hsi.NMF(3, max_iter=2), checkpoint=folder, resume=True)
    with pytest.raises(InputError, match="its seed is 0, this one's is 7"):
        hsi.fit(cube, hsi.NMF(4, max_iter=2), checkpoint=folder, resume=True, seed=7)
    with pytest.raises(InputError, match="its shape"):
        hsi.fit(cube[:12], hsi.NMF(4, max_iter=2), checkpoint=folder, resume=True)


def test_a_damaged_checkpoint_is_refused(tmp_path: Path, cube: xr.DataArray) -> None:
    folder = tmp_path / "run.ckpt"
    hsi.fit(cube, hsi.NMF(4, max_iter=2), checkpoint=folder)
    state = folder / "state.npz"
    state.write_bytes(state.read_bytes()[:100])
    with pytest.raises(InputError, match=r"cannot be read .* remove it to start again"):
        hsi.fit(cube, hsi.NMF(4, max_iter=2), checkpoint=folder, resume=True)


def test_resume_needs_a_folder_and_may_find_it_empty(tmp_path: Path, cube: xr.DataArray) -> None:
    with pytest.raises(InputError, match="resume=True needs the folder"):
        hsi.fit(cube, MODELS[0], resume=True)
    fresh = hsi.fit(cube, MODELS[0], checkpoint=tmp_path / "new", resume=True)
    np.testing.assert_array_equal(spectra(fresh), spectra(hsi.fit(cube, MODELS[0])))


def test_a_looser_tolerance_is_judged_at_once_on_resume(tmp_path: Path, cube: xr.DataArray) -> None:
    folder = tmp_path / "run.ckpt"
    first = hsi.fit(cube, hsi.NMF(4, loss="poisson", max_iter=7, tol=0), checkpoint=folder)
    assert first.attrs["status"] == "max_iter"
    resumed = hsi.fit(cube, hsi.NMF(4, loss="poisson", max_iter=100, tol=1.0), checkpoint=folder, resume=True)
    assert resumed.attrs["status"] == "converged"
    assert 7 <= resumed.sizes["iteration"] < 100  # until the endmembers have stopped turning


def test_progress_counts_blocks_and_iterations(cube: xr.DataArray) -> None:
    seen: list[Progress] = []
    hsi.fit(cube.chunk({"y": 6}), hsi.NMF(4, max_iter=6, tol=0), progress=seen.append)
    assert {p.stage for p in seen} == {"start", "iterate", "maps"}
    assert max(p.done for p in seen) == max(p.total for p in seen) > 0
    iterations = [p.iteration for p in seen]
    assert iterations == sorted(iterations)
    assert iterations[-1] == 6
    left = [p.remaining for p in seen if p.stage == "iterate" and p.remaining is not None]
    assert left
    assert left[-1] < left[0] + 60
    assert all(p.objective is not None for p in seen if p.iteration > 0)


@dataclass(frozen=True)
class Scripted(IterativeModel):
    """Gives the objectives in ``values``, to test what the loop makes of them."""

    n_components: int = 1
    _: KW_ONLY
    values: tuple[float, ...] = ()
    rejected: bool = False
    max_iter: int = 50
    tol: float = 1e-6

    name: ClassVar[str] = "Scripted"

    def init(self, view: Any, seed: int) -> State:
        return {"at": np.asarray(0), "pixels": np.asarray(1)}

    def step(self, view: Any, state: State) -> tuple[State, Stats]:
        at = int(state["at"])
        value = self.values[min(at, len(self.values) - 1)]
        return {**state, "at": np.asarray(at + 1)}, Stats(value, progressing=not self.rejected)

    def finish(self, view: Any, state: State) -> dict[str, xr.DataArray]:
        return {"endmembers": xr.DataArray(np.ones((1, view.n_energies)), dims=("component", "energy"))}

    def projector(self, result: xr.Dataset) -> Any:
        return _ones, {}


def _ones(x: Any, residual: bool) -> Any:
    return {"abundances": np.ones((len(x), 1), "f4"), "residual": np.ones(len(x), "f4")}, {
        "residual_spectrum": x.sum(axis=0)
    }


@pytest.mark.parametrize(
    ("model", "status", "iterations"),
    [
        (Scripted(values=(10.0, 5.0, 4.0, 3.9)), "converged", 9),
        (Scripted(values=tuple(1.0 / (i + 1) for i in range(60))), "max_iter", 50),
        (Scripted(values=(10.0, 9.0, float("nan"))), "nonfinite", 2),
        (Scripted(values=(10.0,), rejected=True), "stagnated", 12),
    ],
    ids=["converged", "max_iter", "nonfinite", "stagnated"],
)
def test_status_and_advice(cube: xr.DataArray, model: Model, status: str, iterations: int) -> None:
    result = hsi.fit(cube, model)
    assert result.attrs["status"] == status
    assert result.sizes["iteration"] == iterations
    assert result.attrs["advice"].endswith(".")


@dataclass(frozen=True)
class Outer(Scripted):
    """Fits another model inside."""

    inner: tuple[float, ...] = (10.0, 5.0, 5.0)

    name: ClassVar[str] = "Outer"

    def init(self, view: Any, seed: int) -> State:
        found = fit_inner(view, Scripted(values=self.inner), seed, purpose="a part of it")
        return {"at": np.asarray(0), "pixels": found.state["pixels"]}


def test_the_status_of_an_inner_fit_is_recorded(cube: xr.DataArray, tmp_path: Path) -> None:
    model = Outer(values=(1.0,))
    result = hsi.fit(cube, model, checkpoint=tmp_path)
    record = {"purpose": "a part of it", "model": "Scripted", "status": "converged", "iterations": 7}
    assert json.loads(result.attrs["inner_fits"]) == [record]
    again = hsi.fit(cube, model, checkpoint=tmp_path, resume=True)
    assert again.attrs["inner_fits"] == result.attrs["inner_fits"]
    assert "inner_fits" not in hsi.fit(cube, Scripted(values=(1.0,))).attrs


def test_an_inner_fit_that_becomes_non_finite_is_said(cube: xr.DataArray, caplog: pytest.LogCaptureFixture) -> None:
    result = hsi.fit(cube, Outer(values=(1.0,), inner=(10.0, 9.0, float("inf"))))
    assert json.loads(result.attrs["inner_fits"])[0]["status"] == "nonfinite"
    assert "(a part of it, by Scripted) became non-finite after 2 iterations" in caplog.text
    assert "a part of it" in result.attrs["advice"]


def test_large_maps_stay_lazy(cube: xr.DataArray, monkeypatch: pytest.MonkeyPatch) -> None:
    here = hsi.fit(cube.chunk({"y": 6}), MODELS[0])
    monkeypatch.setattr("scalehsi.fitting.last_pass.CLIENT_MAP_BYTES", 100)
    lazy = hsi.fit(cube.chunk({"y": 6}), MODELS[0])
    assert lazy["abundances"].chunks is not None
    assert lazy["residual"].chunks is not None
    np.testing.assert_allclose(lazy["abundances"], here["abundances"], rtol=1e-6)
    np.testing.assert_allclose(lazy["residual"], here["residual"], rtol=1e-6)


def test_wrong_arguments_are_refused(cube: xr.DataArray) -> None:
    with pytest.raises(InputError, match="a model such as"):
        hsi.fit(cube, "nmf")
    with pytest.raises(InputError, match="seed is a whole number"):
        hsi.fit(cube, MODELS[0], seed=-1)
    with pytest.raises(InputError, match="checkpoint_every"):
        hsi.fit(cube, MODELS[0], checkpoint_every=0)
    with pytest.raises(InputError, match="device 'gpu' is not known"):
        hsi.fit(cube, MODELS[0], device="gpu")


def test_auto_takes_a_device_that_the_model_runs_on(cube: xr.DataArray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scalehsi.arrays._cuda_problem", lambda: "")
    assert "cuda" not in MODELS[3].devices
    result = hsi.fit(cube, MODELS[3], device="auto")
    assert result.attrs["status"] == "max_iter"
    with pytest.raises(InputError, match="runs on cpu, not on cuda"):
        hsi.fit(cube, MODELS[3], device="cuda")
