# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""examples/brats/report/metrics.py: the metrics by hand."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from examples.brats.data.images import ImageSet
from examples.brats.report.metrics import (
    METRICS,
    MetricOptions,
    by_subject,
    intensity_map,
    post_process,
    score,
    summary,
    wilcoxon_p,
)
from examples.common.anatomy import CORE, CSF, GM, OEDEMA, RIM, WM

RAW = MetricOptions(histogram="none", blur=0)


def images(t2: Any, t1: Any = None, brain: Any = None, **changes: Any) -> ImageSet:
    """Make a group of ``(N, H, W)``; without T1 it is the T2, without a brain everything is."""
    t2 = torch.as_tensor(t2, dtype=torch.float32)[:, None]
    t1 = t2 if t1 is None else torch.as_tensor(t1, dtype=torch.float32)[:, None]
    brain = torch.ones_like(t2, dtype=torch.bool) if brain is None else torch.as_tensor(brain)
    names = [f"s{k}" for k in range(len(t2))]
    fields = {"labels": None, "spacing": 1.0} | changes
    return ImageSet(names, t1, t2, brain.reshape(t2.shape), **fields)


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)


def one(fake: Any, group: ImageSet, options: MetricOptions = RAW) -> dict[str, Any]:
    (row,) = score(torch.as_tensor(fake).reshape(group.t2.shape), group, options)
    return row


def test_psnr_of_a_known_error() -> None:
    real = noise(1, 16, 16)
    brain = np.zeros_like(real, bool)
    brain[0, 4:12, 4:12] = True  # a quarter
    fake = real + np.where(brain, 0.2, 0.1).astype(np.float32)
    row = one(fake, images(real, brain=brain))
    assert row["psnr_brain"] == pytest.approx(10 * math.log10(4 / 0.2**2), abs=1e-4)
    mean = (3 * 0.1**2 + 0.2**2) / 4
    assert row["psnr"] == pytest.approx(10 * math.log10(4 / mean), abs=1e-4)


def test_ssim_by_hand() -> None:
    """Compute the SSIM of Wang et al. 2004 of images as large as one window."""
    # Little contrast, so that the constants, and with them the factor of the variances, count.
    real, fake = 0.1 * noise(1, 7, 7), 0.1 * noise(1, 7, 7, seed=1)
    middle = np.zeros_like(real, bool)
    middle[0, 3, 3] = True
    row = one(fake, images(real, brain=middle))
    (var_a, covariance), (_, var_b) = np.cov(real.ravel(), fake.ravel())
    c1, c2 = (0.01 * 2) ** 2, (0.03 * 2) ** 2  # of a data range of 2
    expected = (2 * real.mean() * fake.mean() + c1) / (real.mean() ** 2 + fake.mean() ** 2 + c1)
    expected *= (2 * covariance + c2) / (var_a + var_b + c2)
    assert (row["ssim"], row["ssim_brain"]) == pytest.approx((expected, expected), abs=1e-5)


def test_histogram_is_of_the_whole_image_or_of_the_brain() -> None:
    real = noise(16, 16)
    brain = np.zeros_like(real, bool)
    brain[4:12] = True  # half
    real[~brain] = -1
    fake = real.copy()
    fake[4] = -1  # background where there is brain
    whole, inside = (
        post_process(fake, real, brain, 1.0, MetricOptions(histogram=where, blur=0))
        for where in ("image", "foreground")
    )
    # Ties: all of the background takes the intensity of an eighth of the brain.
    np.testing.assert_allclose(whole[~brain], np.quantile(real[brain], 1 / 8), atol=0.05)
    assert (inside[~brain] == -1).all()
    np.testing.assert_allclose(inside[5:12].max(), real[brain].max())


def test_only_the_synthetic_image_is_smoothed() -> None:
    real, fake = noise(1, 16, 16), noise(1, 16, 16, seed=1)
    group = images(real, spacing=2.0)
    for unit, sigma in (("mm", 0.4), ("px", 0.8)):
        row = one(fake, group, MetricOptions(histogram="none", blur=0.8, blur_unit=unit))
        error = np.square(gaussian_filter(fake[0].astype(float), sigma) - real[0]).mean()
        assert row["psnr"] == pytest.approx(10 * math.log10(4 / error), abs=1e-4)


def test_correlation_and_faith() -> None:
    ramp = np.tile(np.linspace(-1, 1, 16, dtype=np.float32), (1, 16, 1))
    group = images(t2=-ramp, t1=ramp)
    assert one(ramp, group)["correlation"] == pytest.approx(-1)
    assert one(-ramp, group)["faith"] == pytest.approx(1)  # whatever the contrast
    for fake in (ramp.transpose(0, 2, 1), 0 * ramp):  # edges across them, and none
        assert one(fake, group)["faith"] == pytest.approx(0, abs=1e-6)
        assert one(fake, group)["correlation"] == pytest.approx(0, abs=1e-6)


def test_false_edges_are_far_from_those_of_t1_and_t2() -> None:
    flat = np.zeros((1, 16, 16), np.float32)
    t1, t2, fake = flat.copy(), flat.copy(), flat.copy()
    t1[:, 4:] = 0.5  # an edge between the rows 3 and 4, so in both
    t2[:, 8:] = 0.5  # and another one
    fake[:, 5:] = 0.5  # a row off the T1's: in its neighbourhood
    fake[:, 12:] = 1.0
    # Rows 2 to 5 and 6 to 9 are near an edge. Of the other eight, 11 and 12 have one.
    row = one(fake, images(t2, t1))
    assert row["false_edges"] == pytest.approx(2 / 8)
    half = np.zeros_like(flat, bool)
    half[:, 12:] = True
    assert one(fake, images(t2, t1, half))["false_edges"] == pytest.approx(1 / 4)
    for same in (t1, t2):
        assert one(same, images(t2, t1))["false_edges"] == 0
    steep = np.arange(16, dtype=np.float32)[None, :, None] * 0.2 + flat
    assert one(fake, images(steep, t1))["false_edges"] is None


def test_contrasts_of_known_tissues() -> None:
    labels = np.full((2, 8, 8), GM, np.uint8)
    labels[:, 0], labels[:, 1] = CSF, WM
    labels[0, 2], labels[0, 3], labels[0, 4] = OEDEMA, CORE, RIM
    tissues = [labels == tissue for tissue in (CSF, WM, OEDEMA, CORE, RIM)]
    real = np.select(tissues, [0.9, -0.5, 0.3, 0.5, 0.7], 0.0)
    fake = np.select(tissues, [0.2, -0.5, -0.7, -0.8, -0.6], 0.1)
    fake[1, 0] = -0.6  # CSF darker than white matter
    group = images(real, labels=torch.from_numpy(labels)[:, None])
    first, second = score(torch.from_numpy(fake).float()[:, None], group, RAW)
    assert first["csf_inverted"] == 1
    assert first["csf_ratio"] == pytest.approx(0.7 / 1.4)
    assert first["tumour_ratio"] == pytest.approx(-0.2 / 1.0)
    assert second["csf_inverted"] == 0
    assert second["tumour_ratio"] is None
    assert summary([first, second])["tumour_ratio"] == pytest.approx((-0.2, 0))


def test_a_diverged_image_shows() -> None:
    group = images(noise(2, 16, 16))
    fake = group.t2 + 0.1
    fake[1, 0, 3, 3] = math.nan
    rows = score(fake, group)
    assert all(math.isnan(rows[1][name]) for name in METRICS)
    assert math.isnan(summary(rows)["ssim"].mean)


def test_wilcoxon() -> None:
    # Ranks of -1 +2 +3 +4: the smaller sum is 1, which 2 of 16 cases reach, on either side.
    mixed = {"a": -1.0, "b": 2.0, "c": 3.0, "d": 4.0}
    assert wilcoxon_p(mixed, dict.fromkeys(mixed, 0.0)) == pytest.approx(4 / 16)


def test_slices_and_seeds_count_once_per_subject() -> None:
    subjects = {"b_s1": "b", "a_s1": "a", "a_s2": "a"}
    rows = [
        {"id": name, "psnr": psnr}
        for name, psnr in (("b_s1", 8.0), ("a_s1", 1.0), ("a_s2", 3.0), ("b_s1", 10.0))
    ]
    assert by_subject(rows, "psnr", subjects) == {"a": 2.0, "b": 9.0}


def test_intensity_map_finds_a_known_curve() -> None:
    def curve(t1: Tensor) -> Tensor:
        return 0.8 * torch.cos(4 * t1)  # rises and falls

    t1 = torch.from_numpy(noise(4, 64, 64))
    t1[:, :20] = -1
    group = images(torch.where(t1 > -1, curve(t1), -1.0), t1)
    centres = -1 + (torch.arange(256) + 0.5) / 128
    np.testing.assert_allclose(intensity_map(group), curve(centres), atol=0.006)
