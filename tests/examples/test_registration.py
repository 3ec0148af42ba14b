# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""examples/registration: warps and their measures, the registration, its files and its command."""

import json
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from monai.losses import BendingEnergyLoss
from scipy.ndimage import map_coordinates
from torch import Tensor

from examples.common.nifti import read_pair
from examples.registration import choices, sweep
from examples.registration import images as files
from examples.registration.__main__ import main
from examples.registration.images import Problem, make_problem, phantom_pair
from examples.registration.measure import accuracy
from examples.registration.options import SETTINGS
from examples.registration.register import LOSSES, pyramid, register
from examples.registration.warp import jacobian_determinant, known_warp, warp

# As MONAI's losses index.
pytestmark = pytest.mark.filterwarnings("ignore:Using a non-tuple sequence:UserWarning")

SIZE, SPACING = (12, 14, 10), (2.0, 1.5, 3.0)
TINY = ["--size", "28", "32", "28", "--voxel", "6", "--steps", "2", "--displacement", "10"]
# Axes that point back, up and left, tilted by 10 degrees around the patient's axis.
TILT = np.array([[0.985, -0.174, 0, 0], [0.174, 0.985, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
AFFINE = TILT @ np.array([[0, 0, -5.0, 60], [-5, 0, 0, 70], [0, 5, 0, -50], [0, 0, 0, 1]])


def constant(*mm: float, size: tuple[int, ...] = SIZE) -> Tensor:
    return torch.tensor(mm, dtype=torch.float32).view(1, 3, 1, 1, 1).expand(1, 3, *size).clone()


@pytest.fixture(scope="module")
def problem() -> Problem:
    """Make the phantom in voxels of 5 mm."""
    return make_problem(*phantom_pair((32, 38, 32), 0), voxel=5, levels=1, largest=10, seed=0)


def test_warp_takes_the_image_where_the_displacement_points() -> None:
    image = torch.rand(1, 1, *SIZE)
    moved = warp(image, constant(4.0, -3.0, 6.0), SPACING)  # 2, -2 and 2 voxels
    torch.testing.assert_close(moved[..., :-2, 2:, :-2], image[..., 2:, :-2, 2:])


def test_inverse_undoes_the_warp() -> None:
    spacing = (4.0, 4.0, 4.0)
    known = known_warp((40, 46, 40), spacing, 8, seed=1)
    there_and_back = known.truth + warp(known.inverse, known.truth, spacing)
    inside = (..., slice(4, -4), slice(4, -4), slice(4, -4))
    assert known.truth[inside].norm(dim=1).mean() > 1.5
    # As well as a field that is linear between voxels of 4 mm can.
    assert there_and_back[inside].norm(dim=1).mean() < 0.15


def test_errors_of_truth_and_of_nothing(problem: Problem) -> None:
    truth = problem.known.truth
    exact, nothing = accuracy(truth, problem), accuracy(torch.zeros_like(truth), problem)
    assert exact.tre_max < 1e-6
    off = accuracy(truth + constant(1, 2, 2, size=tuple(truth.shape[2:])), problem)
    assert (off.shift, off.tre_mean) == pytest.approx((3, 3))
    lengths = truth[0].movedim(0, -1)[problem.brain[0, 0]].norm(dim=1)
    assert nothing.tre_mean == pytest.approx(lengths.mean().item())
    assert nothing.tre_max == pytest.approx(lengths.max().item())


def test_jacobian_of_a_fold() -> None:
    folded = constant(0, 0, 0)
    folded[:, 1, :, 5:7] = torch.tensor([8.0, -8.0])[:, None]  # both pass each other
    determinant = jacobian_determinant(folded, SPACING)
    assert (determinant <= 0).nonzero()[:, 3].unique().tolist() == [5, 6]
    assert (determinant <= 0).sum() == 2 * SIZE[0] * SIZE[2]


def test_registration_reduces_the_error_and_a_large_weight_makes_it_smooth(
    problem: Problem,
) -> None:
    images = pyramid(problem.fixed, problem.moving, problem.brain, problem.spacing, 1)
    for loss in LOSSES:
        settings = replace(SETTINGS[loss], smoothness=0.1, steps=40)
        displacement = register(images, settings).displacement().detach()
        nothing = accuracy(torch.zeros_like(displacement), problem)
        assert accuracy(displacement, problem).tre_mean < 0.7 * nothing.tre_mean, loss
    rough, smooth = (
        BendingEnergyLoss()(
            register(images, replace(SETTINGS["ngf"], smoothness=weight, steps=10)).knots
        )
        for weight in (0.0, 100.0)
    )
    assert 0 < smooth < 0.5 * rough


def test_files_keep_their_place_in_space(tmp_path: Path) -> None:
    paths = tmp_path / "t1n.nii.gz", tmp_path / "t2w.nii.gz"
    for volume, path in zip(phantom_pair((32, 38, 32), 0), paths, strict=True):
        stored = np.moveaxis(volume.voxels, 0, 2)  # back, up, left
        nibabel.save(nibabel.Nifti1Image(stored, AFFINE), path)
    t1, t2 = read_pair(*paths)
    problem = make_problem(t1, t2, voxel=5, levels=1, largest=10, seed=0)
    files.save_moving(tmp_path / "moving.nii.gz", problem, t1)
    files.save_result(tmp_path, "true", problem.known.truth, problem, t2)
    moving, warped, field = (
        nibabel.load(tmp_path / f"{name}.nii.gz")
        for name in ("moving", "true-warped", "true-displacement")
    )
    for image in (moving, warped, field):
        np.testing.assert_allclose(image.affine, AFFINE, atol=1e-5)
    # As ITK resamples: from a voxel to mm, along the vector, and to a voxel of the moving image.
    vectors = field.get_fdata()[:, :, :, 0] * [-1, -1, 1]  # from LPS to the RAS of affines
    voxels = np.moveaxis(np.indices(warped.shape), 0, -1)
    points = nibabel.affines.apply_affine(AFFINE, voxels) + vectors
    index = nibabel.affines.apply_affine(np.linalg.inv(AFFINE), points)
    expected = map_coordinates(
        moving.get_fdata(), np.moveaxis(index, -1, 0), order=1, mode="nearest"
    )
    assert np.abs(vectors).max() > 5
    np.testing.assert_allclose(warped.get_fdata(), expected, atol=0.5)  # of 700


def test_command_registers_the_phantom(tmp_path: Path) -> None:
    assert main([*TINY, "--out", str(tmp_path)]) == 0
    names = [f"{loss}-{kind}.nii.gz" for loss in LOSSES for kind in ("displacement", "warped")]
    found = {path.name for path in (tmp_path / "phantom").iterdir()}
    assert found == {*names, "moving.nii.gz", "registration.png"}
    facts = json.loads((tmp_path / "results.json").read_text())
    methods = [row["method"] for row in facts["results"]]
    assert methods == ["before", "NGF, fused", "LNCC", "MI"]


def test_sweeps_try_all_settings_and_choices_are_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "SMOOTHNESS", (0.5, 1.0))
    arguments = [*TINY, "--steps", "1", "--out", str(tmp_path)]
    for more, names in (
        ([], ["LNCC, window 5", "MI, bins 16"]),
        (["--choices"], ["form signed", "spacing left out"]),
    ):
        assert sweep.main([*arguments, *more, "--only", *names]) == 0
        page = (tmp_path / "sweep.md").read_text()
        assert all(f"| {name} |" in page for name in names)
    assert choices.main(arguments) == 0
    for name in ("eps", "mask"):
        assert (tmp_path / f"phantom-{name}.png").stat().st_size > 10_000


def test_one_sentence_says_what_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    head = np.zeros((10, 10, 10), np.float32)
    head[2:8, 2:8, 2:8] = 5
    for name, voxels in (("t1", head), ("small", head[2:]), ("empty", 0 * head)):
        nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), f"{name}.nii.gz")
    for arguments, message in (
        (["t1.nii.gz"], "each T1 needs a T2: got 1 files"),
        (["t1.nii.gz"] * 4, "two pairs are called t1: register them one at a time"),
        (["t1.nii.gz", "small.nii.gz"], "has shape (8, 10, 10), its T1 has (10, 10, 10)"),
        (["t1.nii.gz", "empty.nii.gz"], "empty.nii.gz has no voxel above 0"),
        (["--voxel", "2", "6"], "--voxel takes one size or three, got 2"),
        (["--size", "12", "12", "12", "--displacement", "90"], "a warp of 90 mm folds"),
    ):
        assert main([*arguments, "--out", "out"]) == 1
        printed = capsys.readouterr().err.strip()
        assert printed.startswith("error: ") and message in printed
        assert printed.count("\n") == 0
