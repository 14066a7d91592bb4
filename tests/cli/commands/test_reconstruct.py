"""The command reconstruct."""

from __future__ import annotations

import numpy as np
import pytest

import scalehsi as hsi

pytestmark = pytest.mark.long


def test_reconstruct(answer, scene, tmp_path):
    answer("reconstruct", scene / "result.zarr", tmp_path / "d.zarr")
    result = hsi.open_result(scene / "result.zarr")
    denoised = hsi.open_cube(tmp_path / "d.zarr")
    product = np.einsum("kyx,ke->yxe", result["abundances"].values, result["endmembers"].values)
    np.testing.assert_allclose(denoised.values, product, rtol=1e-5, atol=1e-6)
