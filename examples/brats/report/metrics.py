# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""Metrics of a synthetic T2: the paper's, further ones, and predictions that need no training.

The paper's protocol matches the histogram of the synthetic image to that of the real one, smooths
it a little, and computes PSNR and SSIM of the whole image on the training grid. Most of these
pixels are background, and the intensities are matched to the truth. So further metrics judge the
brain alone, its structure and its contrast, and three predictions that need no training show what
a system has to beat.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, gaussian_filter
from scipy.stats import wilcoxon
from skimage.exposure import match_histograms
from skimage.metrics import structural_similarity
from torch import Tensor

import nec_ext

from ...common.anatomy import CSF, OEDEMA, WM
from ..data.grid import BACKGROUND, Images
from ..data.images import ImageSet

Array = NDArray[np.float32]
Mask = NDArray[np.bool_]
Row = dict[str, str | float | None]

DATA_RANGE = 2.0  # intensities lie in [-1, 1]
FAITH_EPS = 0.05
EDGE = 0.15  # intensity per pixel: a steeper slope is an edge for ``false_edges``
MAP_BINS = 256
# A row has these values beside its id. The last three are None where a tissue is missing, and those
# of the brain without one.
METRICS = (
    *("psnr", "ssim", "psnr_brain", "ssim_brain", "correlation", "faith", "false_edges"),
    *("csf_inverted", "csf_ratio", "tumour_ratio"),
)


@dataclass(frozen=True)
class MetricOptions:
    """The protocol; the defaults are the paper's."""

    histogram: Literal["image", "foreground", "none"] = "image"  # the part that is matched
    blur: float = 0.5  # standard deviation of the Gaussian for the synthetic image after matching
    blur_unit: Literal["mm", "px"] = "mm"
    ssim_window: Literal["uniform", "gaussian"] = "uniform"  # 7 pixels; Wang et al. 2004

    def __post_init__(self) -> None:
        if not self.blur >= 0:
            raise ValueError(f"blur must not be negative, got {self.blur}")


class Statistic(NamedTuple):
    """Mean and population standard deviation."""

    mean: float
    std: float


# ------------------------------------------------------------------------------------------------
# One image
# ------------------------------------------------------------------------------------------------


def score(fake: Images, images: ImageSet, options: MetricOptions | None = None) -> list[Row]:
    """Compute every metric of every image.

    Args:
        fake: the synthetic T2, unclipped: matching depends on exact ties.
        images: the real ones, in the same order.
        options: the protocol; None: the paper's.

    Returns:
        A row for each image: ``id`` and ``METRICS``. An image that is not finite has NaNs only.
    """
    shapes, wanted = ([tuple(image.shape) for image in group] for group in (fake, images.t2))
    if shapes != wanted:
        raise ValueError(
            f"{len(shapes)} images, {shapes[:1]}..., for {len(wanted)}, {wanted[:1]}..."
        )
    options = options or MetricOptions()
    rows: list[Row] = []
    for k, name in enumerate(images.names):
        synthetic, real = fake[k][0].float().numpy(), images.t2[k][0].numpy()
        row: Row = {"id": name, **dict.fromkeys(METRICS, math.nan)}
        if np.isfinite(synthetic).all():
            brain = images.brain[k][0].numpy()
            matched = post_process(synthetic, real, brain, images.spacing, options)
            row |= _similarity(matched, real, brain, options)
            row["correlation"] = correlation(synthetic[brain], real[brain])
            row["faith"] = faithfulness(fake[k], images.t1[k])
            row["false_edges"] = false_edges(fake[k], images.t1[k], images.t2[k], images.brain[k])
            row |= contrasts(matched, real, tissue_masks(images, k))
        rows.append(row)
    return rows


def post_processed(fake: Tensor, images: ImageSet, options: MetricOptions) -> Tensor:
    """Process all synthetic slices ``(N, 1, H, W)`` for the comparison."""
    matched = [
        post_process(
            fake[k, 0].float().numpy(),
            images.t2[k, 0].numpy(),
            images.brain[k, 0].numpy(),
            images.spacing,
            options,
        )
        for k in range(len(images))
    ]
    return torch.from_numpy(np.stack(matched))[:, None]


def post_process(
    fake: Array, real: Array, brain: Mask, spacing: float, options: MetricOptions
) -> Array:
    """Process a synthetic image for the comparison: match its histogram, then smooth it."""
    if options.histogram == "image":
        fake = match_histograms(fake, real)
    elif options.histogram == "foreground":
        matched = np.full_like(fake, BACKGROUND)
        matched[brain] = match_histograms(fake[brain], real[brain])
        fake = matched
    sigma = options.blur / (spacing if options.blur_unit == "mm" else 1.0)
    return gaussian_filter(fake.astype(np.float32), sigma) if sigma else fake.astype(np.float32)


def _similarity(
    fake: Array, real: Array, brain: Mask, options: MetricOptions
) -> dict[str, float | None]:
    gaussian = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    window = gaussian if options.ssim_window == "gaussian" else {}
    ssim, ssim_map = structural_similarity(real, fake, data_range=DATA_RANGE, full=True, **window)
    return {
        "psnr": psnr(fake, real),
        "ssim": float(ssim),
        "psnr_brain": psnr(fake[brain], real[brain]) if brain.any() else None,
        "ssim_brain": float(ssim_map[brain].mean()) if brain.any() else None,
    }


def psnr(fake: Array, real: Array) -> float:
    """Compute the peak signal-to-noise ratio in dB, which is infinite for equal images."""
    error = np.square(fake - real, dtype=np.float64).mean()
    return 10 * math.log10(DATA_RANGE**2 / error) if error else math.inf


def correlation(fake: Array, real: Array) -> float:
    """Compute Pearson's correlation, or 0 if one of the two is constant or empty."""
    if not fake.size:
        return 0.0
    a, b = fake - fake.mean(dtype=np.float64), real - real.mean(dtype=np.float64)
    norm = math.sqrt(np.square(a).sum() * np.square(b).sum())
    return float((a * b).sum() / norm) if norm else 0.0


def faithfulness(fake: Tensor, source: Tensor) -> float:
    """Compute how much of the source's edges is in the synthetic image, both ``(1, ...)``.

    With n the normalized gradient fields, it is sum <n(source), n(fake)>^2 / sum <n(source),
    n(source)>^2: 1 for the source and its negative, less where the image is flatter or its edges
    run elsewhere, a little more than 1 for steeper edges, and 0 if the source has no edge.
    """
    n_source, n_fake = (
        nec_ext.ngf_field(image[None].float(), FAITH_EPS, "quadrature", "sobel")
        for image in (source, fake)
    )
    shared = (n_source * n_fake).sum(2).square().sum().item()
    whole = n_source.square().sum(2).square().sum().item()
    return shared / whole if whole else 0.0


def false_edges(fake: Tensor, source: Tensor, real: Tensor, brain: Tensor) -> float | None:
    """Compute in which share of the brain's flat pixels the synthetic image has an edge.

    An edge is a pixel whose gradient, by Sobel's operator, is longer than ``EDGE``. A pixel is flat
    if neither T1 nor true T2 has an edge there or at a neighbour, diagonal ones included. So the
    share is 0 for the source and for the truth, and an edge that is a pixel off its place is no
    false one. It is None if the brain has no flat pixel. All images are ``(1, ...)``, the synthetic
    one as the generator made it.
    """

    def edges(image: Tensor) -> Mask:
        field = nec_ext.ngf_field(image[None].float(), EDGE, "quadrature", "sobel")
        return field.square().sum(2)[0, 0].numpy() > 0.5  # where the gradient is as long as eps

    known = edges(source) | edges(real)
    flat = brain[0].numpy() & ~binary_dilation(known, np.ones((3,) * known.ndim))
    return float(edges(fake)[flat].mean()) if flat.any() else None


def contrasts(fake: Array, real: Array, masks: Mapping[str, Mask]) -> dict[str, float | None]:
    """Compute the contrast of CSF and tumour to white matter, as a share of the true contrast.

    The image has the true histogram, so a share below 1 does not mean that it is pale, but that
    its tissues have the wrong order or overlap. ``csf_inverted`` is 1 if CSF is brighter than white
    matter, as in T2. Values of a missing tissue are None, and shares of no contrast.
    """
    result: dict[str, float | None] = dict.fromkeys(METRICS[-3:])
    csf, tumour, wm = masks["csf"], masks["tumour"], masks["wm"]

    def contrast(image: Array, tissue: Mask) -> float:
        return float(image[tissue].mean(dtype=np.float64) - image[wm].mean())

    if wm.any() and csf.any():
        result["csf_inverted"] = float(contrast(fake, csf) > 0)
    for name, tissue in (("csf_ratio", csf), ("tumour_ratio", tumour)):
        if wm.any() and tissue.any() and (true := contrast(real, tissue)):
            result[name] = contrast(fake, tissue) / true
    return result


def tissue_masks(images: ImageSet, k: int) -> dict[str, Mask]:
    """Find CSF, white matter and tumour in an image.

    Without labels, CSF is the part of the brain that belongs to the darkest quarter in T1 and to
    the brightest in T2. White matter is the reverse, and the mask of the tumour is empty.
    """
    if images.labels is not None:
        labels = images.labels[k][0].numpy()
        return {"csf": labels == CSF, "wm": labels == WM, "tumour": labels >= OEDEMA}
    brain, t1, t2 = (group[k][0].numpy() for group in (images.brain, images.t1, images.t2))
    dark, bright = [], []
    for image in (t1, t2):
        low, high = np.quantile(image[brain], (0.25, 0.75)) if brain.any() else (0, 0)
        dark.append(brain & (image < low))
        bright.append(brain & (image > high))
    return {
        "csf": dark[0] & bright[1],
        "wm": bright[0] & dark[1],
        "tumour": np.zeros_like(brain),
    }


# ------------------------------------------------------------------------------------------------
# All images
# ------------------------------------------------------------------------------------------------


def summary(rows: Sequence[Mapping[str, str | float | None]]) -> dict[str, Statistic]:
    """Compute mean and deviation of every metric over the images that have it.

    A metric that no image has is absent. NaN stays NaN, and one infinite value makes the mean
    infinite and the deviation NaN.
    """
    columns = {name: [row[name] for row in rows if row[name] is not None] for name in METRICS}
    with np.errstate(invalid="ignore"):
        return {
            name: Statistic(float(np.mean(values)), float(np.std(values)))
            for name, values in columns.items()
            if values
        }


def wilcoxon_p(first: Mapping[str, float], second: Mapping[str, float]) -> float:
    """Compute p of Wilcoxon's signed-rank test on two systems' values by subject.

    If all values are equal, p is 1.
    """
    differences = np.array([first[subject] - second[subject] for subject in first])
    if not differences.any():
        return 1.0
    return float(wilcoxon(differences).pvalue)


def least_wilcoxon_p(count: int) -> float:
    """Compute the p of that test where one system is better for each of ``count`` subjects."""
    return float(wilcoxon(np.arange(1, count + 1)).pvalue)


def by_subject(
    rows: Iterable[Mapping[str, str | float | None]], metric: str, subjects: Mapping[str, str]
) -> dict[str, float]:
    """Average a metric over the images of each subject, and over the seeds in ``rows``.

    Slices of one brain are not independent, so a test on slices would find differences where there
    are none.

    Args:
        rows: the rows of one system.
        metric: its name.
        subjects: the subject of each id.
    """
    values: dict[str, list[float]] = {}
    for row in rows:
        values.setdefault(subjects[str(row["id"])], []).append(row[metric])
    return {subject: float(np.mean(values[subject])) for subject in sorted(values)}


# ------------------------------------------------------------------------------------------------
# Predictions that need no training
# ------------------------------------------------------------------------------------------------


def free_predictions(pairs: ImageSet, images: ImageSet) -> dict[str, Images]:
    """Make the predictions that any system has to beat.

    Args:
        pairs: both contrasts of the training subjects, for the intensity map alone.
        images: the images of which the T2 is predicted.
    """
    curve = intensity_map(pairs)

    def each(predict: Callable[[Tensor], Tensor]) -> Images:
        predictions = [predict(t1) for t1 in images.t1]
        return torch.stack(predictions) if isinstance(images.t1, Tensor) else predictions

    return {
        "identity": images.t1,
        "negation in the brain": each(lambda t1: torch.where(t1 > BACKGROUND, -t1, BACKGROUND)),
        "best intensity map": each(lambda t1: apply_intensity_map(curve, t1)),
    }


def intensity_map(pairs: ImageSet) -> Array:
    """Compute the curve from T1 to T2 with the least squared error, ``(MAP_BINS,)``.

    The curve is the mean T2 of the pixels of each T1 intensity, over the whole group without the
    background, and need not be monotone. Element k stands for the centre of bin k of [-1, 1].
    """
    count, total = np.zeros((2, MAP_BINS))
    for t1_image, t2_image in zip(pairs.t1, pairs.t2, strict=True):
        foreground = t1_image > BACKGROUND
        t1, t2 = (image[foreground].numpy() for image in (t1_image, t2_image))
        bins = np.clip(((t1 + 1) / DATA_RANGE * MAP_BINS).astype(int), 0, MAP_BINS - 1)
        count += np.bincount(bins, minlength=MAP_BINS)
        total += np.bincount(bins, weights=t2, minlength=MAP_BINS)
    known = count > 0
    curve = np.interp(_bin_centres(), _bin_centres()[known], total[known] / count[known])
    return curve.astype(np.float32)


def apply_intensity_map(curve: Array, t1: Tensor) -> Tensor:
    """Map T1 by a curve, linear between the centres of its bins; the background stays as it is."""
    mapped = np.interp(t1.numpy(), _bin_centres(), curve).astype(np.float32)
    return torch.where(t1 > BACKGROUND, torch.from_numpy(mapped), BACKGROUND)


def _bin_centres() -> NDArray[np.float64]:
    return (np.arange(MAP_BINS) + 0.5) * (DATA_RANGE / MAP_BINS) - 1
