# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""examples/brats: a generator on a whole NIfTI volume."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from brats_files import SHAPE, by_hand, save, volume
from torch import Tensor, nn

from examples.brats.data.options import DataOptions
from examples.brats.model.inference import synthesize


class Negation(nn.Module):
    """-x, and a note of the batches that it saw."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []

    def forward(self, images: Tensor) -> Tensor:
        assert not self.training
        self.seen.append(images)
        return -images


@pytest.mark.parametrize("scope", ["slice", "volume"])
def test_volume_keeps_affine_header_and_order(tmp_path: Path, scope: str) -> None:
    voxels = volume(4)
    voxels[:, :, 4] = 0
    affine = np.array([[-1, 0, 0, 5.0], [0, -1, 0, 239], [0, 0, 3, -7], [0, 0, 0, 1]])
    image = nibabel.Nifti1Image(voxels, affine)
    image.header["descrip"] = b"made by hand"
    image.header["cal_max"] = 32767
    image.set_qform(affine, code=4)
    image.header.set_xyzt_units("mm", "sec")
    nibabel.save(image, tmp_path / "t1.nii.gz")

    generator = Negation().train()
    choice = DataOptions(size=16, percentile_scope=scope)
    synthesize(tmp_path / "t1.nii.gz", tmp_path / "new" / "t2.nii.gz", generator, choice)
    result = nibabel.load(tmp_path / "new" / "t2.nii.gz")
    np.testing.assert_array_equal(result.affine, affine)
    assert result.get_data_dtype() == np.float32
    assert bytes(result.header["descrip"]).startswith(b"made by hand")
    assert int(result.header["qform_code"]) == 4
    assert result.header.get_xyzt_units() == ("mm", "sec")
    assert (result.header["cal_min"], result.header["cal_max"]) == (-1, 1)
    found = result.get_fdata()
    for k in range(6):
        expected = np.full((16, 16), -1.0)
        if k != 4:
            expected = -by_hand(voxels[:, :, k], voxels if scope == "volume" else voxels[:, :, k])
        np.testing.assert_allclose(found[:, :, k], expected, atol=1e-5)
    assert len(generator.seen) == 5
    assert generator.training


def test_volume_in_another_orientation_and_resized(tmp_path: Path) -> None:
    # A smooth volume, which survives being enlarged and reduced again.
    grid = np.meshgrid(*(np.linspace(0, np.pi, n) for n in SHAPE), indexing="ij")
    voxels = (1000 * np.sin(grid[0]) * np.sin(grid[1] / 2) * (1 + grid[2])).astype(np.float32)
    save(tmp_path / "lps.nii.gz", voxels)
    canonical = nibabel.as_closest_canonical(nibabel.load(tmp_path / "lps.nii.gz"))
    sagittal = canonical.get_fdata(dtype=np.float32).transpose(1, 2, 0)
    save(tmp_path / "psr.nii.gz", sagittal, canonical.affine[:, [1, 2, 0, 3]])

    choice = DataOptions(size=32, percentile_scope="volume")
    generator = Negation()
    for name in ("lps", "psr"):
        out = tmp_path / f"{name}-out.nii"
        synthesize(tmp_path / f"{name}.nii.gz", out, generator, choice)
    assert all(
        torch.equal(a, b) for a, b in zip(generator.seen[:6], generator.seen[6:], strict=True)
    )
    lps, psr = (nibabel.load(tmp_path / f"{name}-out.nii") for name in ("lps", "psr"))
    np.testing.assert_array_equal(psr.affine, canonical.affine[:, [1, 2, 0, 3]])
    back = nibabel.as_closest_canonical(psr).get_fdata()
    np.testing.assert_array_equal(back, nibabel.as_closest_canonical(lps).get_fdata())
    error = np.abs(lps.get_fdata() + by_hand(voxels, voxels))[1:-1, 1:-1]
    assert error.max() < 0.03  # a shift by half a pixel would make it 0.1
