"""All steps are lazy and keep the metadata; a step written as text is the step."""

from __future__ import annotations

import dask.array as da
import pytest
import xarray as xr

import scalehsi as hsi
from scalehsi import prepare
from scalehsi.schema import InputError
from tests.helpers import raise_if_dask_computes, random_mask
from tests.prepare.cubes import Step, cube
from tests.prepare.eels import edge_cube

STEPS: dict[str, Step] = {
    "crop": lambda c: prepare.crop(c, y=(1, 4), energy=(0.1, 0.5)),
    "bin": lambda c: prepare.bin(c, y=2, x=3, energy=2),
    "mask": lambda c: prepare.mask(c, min_counts=20, y=(1, 4)),
    "thin": lambda c: prepare.thin(c, fraction=0.3, seed=2)[0],
    "thin, the rest": lambda c: prepare.thin(c, fraction=0.3, seed=2)[1],
}


@pytest.mark.parametrize("name", STEPS)
def test_a_step_computes_nothing_for_a_lazy_cube_and_gives_the_same_values(name: str) -> None:
    masked = cube(mask=random_mask((6, 7)))
    lazy = masked.chunk({"y": 4, "x": 3})
    with raise_if_dask_computes(0):
        found = STEPS[name](lazy)
    want = STEPS[name](masked)
    assert isinstance(found.data, da.Array)
    xr.testing.assert_identical(found.compute(), want)


@pytest.mark.parametrize("name", STEPS)
def test_a_step_leaves_its_argument_and_keeps_what_is_known(name: str) -> None:
    given_ = cube(mask=random_mask((6, 7)))
    before = given_.copy(deep=True)
    given_.values.flags.writeable = False
    found = STEPS[name](given_)
    xr.testing.assert_identical(given_, before)
    assert given_.attrs == before.attrs
    assert {k: v for k, v in found.attrs.items() if k != "history"} == {
        k: v for k, v in before.attrs.items() if k != "history"
    }
    assert found.attrs["history"][0] == "read"
    assert len(found.attrs["history"]) == 2
    assert found.dtype.kind == "u"
    assert [found[d].attrs.get("units") for d in ("y", "x", "energy")] == ["nm", "nm", "keV"]
    assert found.name == given_.name


@pytest.mark.parametrize("name", STEPS)
def test_a_step_takes_a_cube_alone(name: str) -> None:
    with pytest.raises(InputError, match="a cube ends in the dims"):
        STEPS[name](cube().transpose("energy", "y", "x"))


# Steps as text.


@pytest.mark.parametrize(
    ("text", "step"),
    [
        ("crop:energy=0.2:0.5", lambda c: prepare.crop(c, energy=(0.2, 0.5))),
        ("crop:y=1:,x=:3", lambda c: prepare.crop(c, y=(1, None), x=(None, 3))),
        ("crop: y = 1:4 , x=0:2", lambda c: prepare.crop(c, y=(1, 4), x=(0, 2))),
        ("crop:y=-1e3:2.5e0", lambda c: prepare.crop(c, y=(-1000, 2.5))),
        ("bin:y=2,x=2,energy=4", lambda c: prepare.bin(c, y=2, x=2, energy=4)),
        ("mask:min_counts=20", lambda c: prepare.mask(c, min_counts=20)),
        ("mask:max_counts=2.5e1,y=1:3", lambda c: prepare.mask(c, max_counts=25, y=(1, 3))),
    ],
)
def test_a_step_as_text_is_the_step(text: str, step: Step) -> None:
    xr.testing.assert_identical(prepare.apply_step(cube(), text), step(cube()))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "there is no step ''; Known: .*bin, crop,.* mask"),
        ("cropp:y=1:2", "there is no step 'cropp'; did you mean 'crop'"),
        ("crop", "step 'crop' has no arguments; key=value is expected"),
        ("bin:", "step 'bin:' has no arguments"),
        ("crop:y", "step 'crop:y': key=value is expected, got 'y'; for example crop:energy=200:900"),
        ("crop:=1:2", "key=value is expected, got '=1:2'"),
        ("crop:z=1:2", "step 'crop:z=1:2': crop has no setting 'z'; .*Known: energy, x, y"),
        ("mask:min_count=3", "did you mean 'min_counts'"),
        ("crop:y=1:b", "step 'crop:y=1:b': a number is expected, got 'b'"),
        ("crop:y=1:2:3", "a number is expected, got '2:3'"),
        ("crop:y=3", r"crop: y=3; a range \(low, high\) is expected"),
        ("bin:y=", "step 'bin:y=': a value is missing after '='"),
        ("bin:y=two", "a number is expected, got 'two'"),
        ("bin:y=2:4", r"bin: y=\(2.0, 4.0\); a whole number from 1 to 6 is expected"),
        ("bin:y=inf", "bin: y=inf; a whole number from 1 to 6 is expected"),
        ("bin:y=nan", "bin: y=nan; a whole number from 1 to 6 is expected"),
        ("bin:y=2,y=3", "step 'bin:y=2,y=3': y is given twice; write two steps"),
        ("mask:min_counts=1:2", r"mask: min_counts=\(1.0, 2.0\); a number is expected"),
        ("mask:where=1", r"mask: an array of shape \(6, 7\) is expected"),
    ],
)
def test_a_wrong_step_as_text_is_answered_with_what_to_type(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        prepare.apply_step(cube(), text)


def test_a_fit_of_stabilised_values_says_that_mixtures_are_no_sums(caplog: pytest.LogCaptureFixture) -> None:
    made = edge_cube((4, 4))
    hsi.fit(prepare.anscombe(made, gain=1.0, readout=0.0), hsi.PCA(2))
    assert "after anscombe mixtures are no sums of spectra any more" in caplog.text
    caplog.clear()
    hsi.fit(made, hsi.PCA(2))
    assert "anscombe" not in caplog.text
