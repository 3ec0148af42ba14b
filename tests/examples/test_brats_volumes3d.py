# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""examples/brats in 3D: volumes, crops of them, training on these, and whole volumes again."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from brats_files import NAMES, SHAPE, by_hand, options, save, volume
from brats_runs import lines, random_volumes, run_file
from skimage.metrics import structural_similarity
from torch import Tensor, nn

from examples.brats import evaluate
from examples.brats.data.images import load_data, training_pairs
from examples.brats.data.options import DataOptions
from examples.brats.data.sampling import Patches, read_ahead
from examples.brats.model import inference
from examples.brats.report.metrics import (
    MetricOptions,
    free_predictions,
    score,
)
from examples.brats.train import __main__ as train
from examples.brats.train.records import load_checkpoint

ROOT = Path(__file__).parents[2]
BOX = slice(2, 14), slice(3, 13), slice(0, 6)  # around the voxels of brats_files.volume
AFFINE = np.array([[-1, 0, 0, 5.0], [0, -1, 0, 239], [0, 0, 1, -7], [0, 0, 0, 1]])


class Negation(nn.Module):
    """-x, and a note of the shapes that it saw."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[tuple[int, ...]] = set()

    def forward(self, images: Tensor) -> Tensor:
        self.seen.add(tuple(images.shape[1:]))
        return -images


def test_volumes_are_normalized_whole_and_cropped_to_the_brain(root: Path, own_cache: Path) -> None:
    larger = np.pad(volume(77), ((4, 0), (0, 2), (1, 0)))  # of another shape than the others
    for kind in ("t1n", "t2w"):
        save(root / NAMES[2] / f"{NAMES[2]}-{kind}.nii.gz", larger)
    data = load_data(options(root, dimensions=3))
    assert data.target.names == data.target.subjects == NAMES[1:3]
    assert [image.shape for image in data.target.t2] == [(1, 12, 10, 6)] * 2
    np.testing.assert_allclose(data.source.t1[0][0], by_hand(volume(0), volume(0))[BOX], atol=1e-6)
    expected = by_hand(larger, larger)[4:, :-2, 1:][BOX]
    np.testing.assert_allclose(data.target.t2[1][0], expected, atol=1e-6)
    np.testing.assert_array_equal(data.target.brain[1][0], larger[4:, :-2, 1:][BOX] > 0)
    # One file per volume: another split has the same ones.
    assert len(list(own_cache.iterdir())) == 5
    load_data(options(root, dimensions=3, split="2/1/1/1"))
    assert len(list(own_cache.iterdir())) == 5


def test_volumes_of_another_spacing(root: Path) -> None:
    affine = np.diag([-1.0, -1, 2, 1])
    for name in NAMES:
        for kind in ("t1n", "t2w"):
            smooth = np.zeros((16, 16, 6), np.int16)
            smooth[2:14, 2:14] = 100 + np.arange(12)[:, None, None]
            save(root / name / f"{name}-{kind}.nii.gz", smooth, affine)
    images = load_data(options(root, dimensions=3, spacing=2.0)).source
    assert images.t1[0].shape == images.brain[0].shape == (1, 6, 6, 6)
    assert images.spacing == 2.0
    low, high = np.percentile(smooth, [1, 99])
    expected = 2 * (100.5 + 2 * np.arange(6) - low) / (high - low) - 1
    np.testing.assert_allclose(images.t1[0][0, 1:-1, 3, 3], expected[1:-1], atol=2e-3)
    assert images.brain[0].all()


def places(*shape: int) -> Tensor:
    """A volume of three channels that say where a voxel is, from 0 to 1 along each axis."""
    axes = [(torch.arange(n) + 0.5) / n for n in shape]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"))


def test_crops_of_two_brains_are_of_one_place() -> None:
    source, target = places(30, 40, 26), places(33, 36, 24)
    everywhere = [torch.ones(1, *image.shape[1:], dtype=torch.bool) for image in (source, target)]
    patches = Patches(16, everywhere[:1], everywhere[1:])
    rng = np.random.default_rng(0)
    corners = []
    for _ in range(50):
        place = patches.draw((0, 0), rng)
        a, b = (patches.cut(image, place) for image in (source, target))
        assert a.shape == b.shape == (3, 16, 16, 16)
        middles = (image.mean((1, 2, 3)) for image in (a, b))
        torch.testing.assert_close(*middles, rtol=0, atol=1.5 / 24)
        corners.append((place > 0.5).tolist())
    assert len(set(map(tuple, corners))) == 8


def test_a_fifth_of_a_crop_is_brain_in_both() -> None:
    brains = [torch.zeros(1, 40, 40, 40, dtype=torch.bool) for _ in range(2)]
    brains[0][:, :20] = True  # left
    brains[1][:, :, :20] = True  # front
    patches = Patches(8, brains[:1], brains[1:])
    rng = np.random.default_rng(0)
    shares = [
        [patches.cut(brain.float(), place).clamp(0).mean().item() for brain in brains]
        for place in (patches.draw((0, 0), rng) for _ in range(60))
    ]
    assert min(map(min, shares)) >= 0.2
    assert min(map(min, shares)) < 0.4  # no more is asked for


def test_the_middle_where_no_crop_is_a_fifth_brain() -> None:
    left, right = (torch.zeros(1, 40, 40, 40, dtype=torch.bool) for _ in range(2))
    left[:, :16], right[:, -16:] = True, True
    patches = Patches(8, [left], [right])  # the same crop has one of them at most
    assert patches.draw((0, 0), np.random.default_rng(0)).tolist() == [0.5] * 3


@pytest.mark.parametrize("paired", [False, True])
def test_batches_depend_on_their_numbers_only(paired: bool) -> None:
    data = random_volumes()
    pairs = training_pairs(data, paired, batch_size=2, seed=3, patch=16)
    expected = [pairs.batch(step, "flip", 1, 2) for step in range(5)]
    again = training_pairs(data, paired, batch_size=2, seed=3, patch=16)
    for workers in (0, 2):
        batches = read_ahead(lambda k: again.batch(k, "flip", 1, 2), range(2, 5), workers, False)
        for found, (source, target) in zip(batches, expected[2:], strict=True):
            assert torch.equal(found[0], source)
            assert torch.equal(found[1], target)
            assert source.shape == target.shape == (2, 1, 16, 16, 16)
            assert not torch.equal(source, target)
    if paired:  # negated, a T1 gives itself away in a crop of its T2
        twins = training_pairs(random_volumes(), True, batch_size=2, seed=3, patch=16)
        twins.target = [-image for image in twins.source]
        source, target = twins.batch(0, "flip")
        padding = (source == -1) & (target == -1)
        assert torch.equal(target[~padding], -source[~padding])


def test_windows_of_a_volume_that_is_no_multiple() -> None:
    shapes = (1, 21, 13, 9), (1, 5, 8, 30)
    images = [torch.rand(shape) for shape in shapes]
    generator = Negation().train()
    found = inference.predict(generator, images, patch=8)
    for fake, image in zip(found, images, strict=True):
        torch.testing.assert_close(fake, -image)
    assert generator.seen == {(1, 8, 8, 8)}
    assert generator.training


def test_a_synthetic_volume_is_on_the_grid_of_its_file(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(volume(4), AFFINE)
    image.header["descrip"] = b"made by hand"
    image.set_qform(AFFINE, code=4)
    nibabel.save(image, tmp_path / "t1.nii.gz")
    choice = DataOptions(dimensions=3, patch=8)
    inference.synthesize(tmp_path / "t1.nii.gz", tmp_path / "t2.nii.gz", Negation(), choice)
    result = nibabel.load(tmp_path / "t2.nii.gz")
    np.testing.assert_array_equal(result.affine, AFFINE)
    assert bytes(result.header["descrip"]).startswith(b"made by hand")
    assert int(result.header["qform_code"]) == 4
    expected = np.full(SHAPE, -1.0)
    expected[BOX] = -by_hand(volume(4), volume(4))[BOX]
    np.testing.assert_allclose(result.get_fdata(), expected, atol=1e-5)

    # In another order of axes, and resampled there and back.
    canonical = nibabel.as_closest_canonical(image)
    turned = canonical.get_fdata(dtype=np.float32).transpose(1, 2, 0)
    save(tmp_path / "turned.nii", turned, canonical.affine[:, [1, 2, 0, 3]])
    back = []
    for name in ("t1.nii.gz", "turned.nii"):
        coarse = DataOptions(dimensions=3, patch=8, spacing=2.0)
        inference.synthesize(tmp_path / name, tmp_path / "out.nii", Negation(), coarse)
        back.append(nibabel.as_closest_canonical(nibabel.load(tmp_path / "out.nii")).get_fdata())
    np.testing.assert_allclose(*back, atol=1e-6)
    save(tmp_path / "flat.nii", 0 * volume(0))
    with pytest.raises(inference.DataError, match=r"flat.nii has no contrast"):
        inference.synthesize(tmp_path / "flat.nii", tmp_path / "out.nii", Negation(), choice)


def test_volumes_are_scored_one_by_one() -> None:
    images = random_volumes().test
    fakes = [0.5 * image for image in images.t1]
    protocol = MetricOptions(histogram="none", blur=0)
    for row, fake, real, brain in zip(
        score(fakes, images, protocol), fakes, images.t2, images.brain, strict=True
    ):
        error = (fake - real)[brain].square().mean().item()
        assert row["psnr_brain"] == pytest.approx(10 * np.log10(4 / error), rel=1e-5)
        _, similar = structural_similarity(
            fake[0].numpy(), real[0].numpy(), data_range=2, full=True
        )
        assert row["ssim_brain"] == pytest.approx(similar[brain[0].numpy()].mean())
    for fake in free_predictions(images, images).values():
        assert len(score(fake, images, protocol)) == 2


TINY = (
    *("--preset", "volumes", "data.patch=16", "unet_channels=4,8", "unet_units=1", "amp=none"),
    *("discriminator_channels=4", "device=cpu", "log_every=1", "data.split=1/2/1/1", "workers=1"),
    *("delay=0", "ema=0"),
)


def test_from_files_to_a_page(
    root: Path, own_cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for k, name in enumerate(NAMES):  # larger than the window of SSIM
        for j, kind in enumerate(("t1n", "t2w")):
            save(root / name / f"{name}-{kind}.nii.gz", volume(2 * k + j, (16, 16, 12)))
    run, page, out = (root.parent / name for name in ("run", "page", "t2.nii.gz"))
    words = ["nec", *TINY, f"data.data={root}", "steps=1", "validate_every=1", "accumulate=2"]
    assert train.main([*words, f"out={run}"]) == 0
    assert evaluate.main([str(run), f"other={run}", "--out", str(page)]) == 0
    text = (page / "table.md").read_text()
    assert text.startswith(
        "1 test images of 1 subjects, volumes up to 12 x 10 x 12 voxels of 1 mm."
    )
    assert "| other | 1 |" in text
    assert (page / "planes.png").stat().st_size > 1000
    assert evaluate.main([str(run), "--out", str(page), "--case", "another"]) == 1
    error = capsys.readouterr().err
    assert error.endswith(f"error: there is no test image another: they are {NAMES[4]}\n")
    t1 = root / NAMES[4] / f"{NAMES[4]}-t1n.nii.gz"
    assert evaluate.main([str(run), "--volume", str(t1), str(out)]) == 0
    assert nibabel.load(out).shape == (16, 16, 12)


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("ps"), reason="no ps lists the processes")
def test_a_signal_to_the_trainer_and_its_workers(
    tmp_path: Path, own_cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a batch system or a terminal sends it, to all processes at once."""
    run = tmp_path / "run"
    phantom = "data.size=32", "data.phantom_sizes=2/2/2/2", f"out={run}", f"data.cache={own_cache}"
    # The last option of a name counts.
    words = ["nec", *TINY, *phantom, "data.split=paper", "workers=2", "steps=100000"]
    process = subprocess.Popen(
        [sys.executable, "-m", "examples.brats.train", *words],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # a group of its own, whose number is that of its first process
    )
    try:
        wait_until(lambda: len(lines(run)) > 2 if (run / "last.pt").exists() else process.poll())
        members = set(group_of(process.pid))
        os.killpg(process.pid, signal.SIGTERM)
        out, error = process.communicate(timeout=60)
        assert process.returncode == 130, error
        assert len(members) == 3
        wait_until(lambda: not group_of(process.pid))
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    step = run_file(run)["step"]
    assert step >= 2
    assert out == f"stopped after step {step}: --resume {run} goes on\n"
    assert run_file(run)["state"] == "interrupted"
    assert load_checkpoint(run / "last.pt")["step"] == step
    assert train.main(["--resume", str(run), f"steps={step + 2}"]) == 0
    assert run_file(run)["step"] == step + 2
    assert [int(row["step"]) for row in lines(run)] == list(range(step + 3))


def wait_until(condition: Callable[[], object], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def group_of(number: int) -> list[int]:
    """The processes of a group that have not ended."""
    listed = subprocess.run(["ps", "-eo", "pgid=,pid=,stat="], capture_output=True, text=True)
    rows = (row.split() for row in listed.stdout.splitlines())
    return [int(pid) for group, pid, state in rows if int(group) == number and state[0] != "Z"]
