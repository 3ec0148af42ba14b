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
from examples.common.nifti import DataError


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


def test_volume_outside_the_crop_is_background(tmp_path: Path) -> None:
    save(tmp_path / "t1.nii", volume(4))
    choice = DataOptions(data="any", size=10, crop=10)
    synthesize(tmp_path / "t1.nii", tmp_path / "t2.nii", Negation(), choice)
    found = nibabel.load(tmp_path / "t2.nii").get_fdata()
    expected = np.full(SHAPE, -1.0)
    for k in range(SHAPE[2]):
        expected[3:13, 3:13, k] = -by_hand(volume(4)[3:13, 3:13, k], volume(4)[:, :, k])
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_volume_refuses(tmp_path: Path) -> None:
    save(tmp_path / "t1.nii.gz", volume(0))
    save(tmp_path / "flat.nii.gz", volume(0)[:, 2:14])
    for path, out, choice, message in (
        ("none.nii.gz", "out.nii.gz", DataOptions(), "none.nii.gz does not exist"),
        ("t1.nii.gz", "out.png", DataOptions(), "out.png must end in .nii or .nii.gz"),
        ("flat.nii.gz", "out.nii", DataOptions(), "flat.nii.gz must have square axial slices"),
    ):
        with pytest.raises(DataError, match=message):
            synthesize(tmp_path / path, tmp_path / out, Negation(), choice)
