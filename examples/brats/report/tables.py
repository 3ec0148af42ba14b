# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""Scores of trained runs on the test images, and the page that compares them."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ...common.nifti import DataError
from ...common.tables import markdown
from ..data.grid import Images
from ..data.images import ImageSet, load_data
from ..data.options import DataOptions
from ..model.inference import predict
from ..train.loop import load_generator
from .figures import planes
from .metrics import (
    METRICS,
    MetricOptions,
    Row,
    Statistic,
    by_subject,
    free_predictions,
    least_wilcoxon_p,
    post_process,
    score,
    summary,
    wilcoxon_p,
)

# Runs whose data differ in these options alone have the same test images.
TRAINING_ONLY = {
    name: getattr(DataOptions(), name)
    for name in ("cache", "patch", "subjects", "training_slices", "paired_t1")
}
TITLES = {
    "psnr": "PSNR (dB)",
    "ssim": "SSIM",
    "psnr_brain": "PSNR brain",
    "ssim_brain": "SSIM brain",
    "correlation": "correlation",
    "faith": "faith",
    "false_edges": "false edges",
    "csf_inverted": "CSF inverted",
    "csf_ratio": "CSF ratio",
    "tumour_ratio": "tumour ratio",
}
LEGEND = """\
A cell is mean ± standard deviation over the images, or the median (least to greatest) of the means
of several seeds. Histogram matching: {histogram}, then a Gaussian of {blur:g} {blur_unit}; SSIM
with a {ssim_window} window. Correlation: Pearson's in the brain. Faith: how well the synthetic
image's edges are aligned with those of the T1, 1 for the T1 itself and its negative, a little more
for steeper edges. False edges: the share of the brain's flat pixels, without an edge of T1 or true
T2 nearby, where the synthetic image has an edge."""
LEGEND_TISSUES = """\
 CSF{tumour} ratio: contrast to white matter as a share of the true one, after
histogram matching, which gives a pale image its contrast back but not the order of its tissues; CSF
inverted: images in which CSF is brighter than white matter, as in T2.{how}"""
UNLABELLED = """\
 For lack of labels CSF is the part of
the brain that belongs to the darkest quarter in T1 and to the brightest in T2, white matter the
reverse."""


# ------------------------------------------------------------------------------------------------
# Scores
# ------------------------------------------------------------------------------------------------


class Evaluation(NamedTuple):
    """The scores, a row per system, seed and image, with the images and the protocol.

    ``fakes`` are the synthetic images of the first run of every system, as its generator made them.
    """

    rows: list[Row]
    images: ImageSet
    protocol: MetricOptions
    fakes: dict[str, Images]


def evaluate(
    runs: Sequence[str], device: str, changes: Mapping[str, object] | None = None
) -> Evaluation:
    """Score runs on their test images.

    Args:
        runs: ``RUN`` or ``NAME=RUN``. The systems come in this order, the free predictions, whose
            seed is None, before them.
        device: the device of the generators.
        changes: changes to the protocol of the first run, under which all runs are compared.
    """
    data_options: DataOptions | None = None
    rows: list[Row] = []
    fakes: dict[str, Images] = {}
    seen: dict[tuple[str, int], str] = {}
    for run in runs:
        name, folder = name_and_folder(run)
        generator, trained = load_generator(folder)
        key = name or trained.system, trained.seed
        if key in seen:
            raise DataError(
                f"{seen[key]} and {folder} are both {key[0]} with seed {key[1]}: "
                "tell them apart as NAME=RUN"
            )
        seen[key] = str(folder)
        same = replace(trained.data, **TRAINING_ONLY)
        if data_options is None:
            data_options = same
            options = replace(trained.metrics, **(changes or {}))
            data = load_data(trained.data)
            for free, fake in free_predictions(data.pairs, data.test).items():
                rows += _labelled(free, None, score(fake, data.test, options))
        if same != data_options:
            names = ", ".join(
                field.name
                for field in fields(same)
                if getattr(same, field.name) != getattr(data_options, field.name)
            )
            raise DataError(f"{folder} was trained on other data than the first run: {names}")
        patch = trained.data.shape[0]
        fake = predict(generator.to(device), data.test.t1, device=device, patch=patch)
        rows += _labelled(*key, score(fake, data.test, options))
        fakes.setdefault(key[0], fake)
    return Evaluation(rows, data.test, options, fakes)


def name_and_folder(run: str) -> tuple[str, Path]:
    """Split ``NAME=RUN``; the name of a plain ``RUN`` is empty."""
    name, equals, folder = run.partition("=")
    return (name, Path(folder)) if equals and not Path(run).exists() else ("", Path(run))


def _labelled(system: str, seed: int | None, rows: Sequence[Row]) -> list[Row]:
    return [{"system": system, "seed": seed, **row} for row in rows]


# ------------------------------------------------------------------------------------------------
# Page
# ------------------------------------------------------------------------------------------------


def page(evaluation: Evaluation, published: Mapping[str, str] | None = None) -> str:
    """Return the table, its legend, and the tests of significance, in Markdown.

    Args:
        evaluation: the evaluation of any runs.
        published: the values that a paper reports for systems, which get a column of their own.
    """
    rows, images, options, _ = evaluation
    shapes = [image.shape[1:] for image in images.t2]
    size = " x ".join(str(max(n)) for n in zip(*shapes, strict=True))
    # Slices have one size, volumes do not.
    size = f"volumes up to {size} voxels" if isinstance(images.t2, list) else f"{size} pixels"
    legend = LEGEND.format(**vars(options))
    if images.labels is None:
        legend += LEGEND_TISSUES.format(tumour="", how=UNLABELLED)
    else:
        legend += LEGEND_TISSUES.format(tumour=" and tumour", how="")
    count = f"{len(images)} test images of {len(set(images.subjects))} subjects"
    parts = [f"{count}, {size} of {images.spacing:g} mm.", table(rows, published), legend]
    return "\n\n".join([*parts, *significance(rows, images)]) + "\n"


def table(rows: Sequence[Row], published: Mapping[str, str] | None = None) -> str:
    """Format a table with a line for each system, without metrics that no image has."""
    published = published or {}
    systems = _by(rows, "system")
    summaries = {
        system: [summary(part) for part in _by(runs, "seed").values()]
        for system, runs in systems.items()
    }
    metrics = [m for m in METRICS if any(m in one for runs in summaries.values() for one in runs)]
    titles = ["system", "seeds", *(["published"] if published else [])]
    titles += [TITLES[metric] for metric in metrics]
    lines = []
    for system, runs in summaries.items():
        seeds = "-" if _is_free(systems[system]) else str(len(runs))
        cells = [system, seeds, *([published.get(system, "-")] if published else [])]
        cells += [_cell(metric, runs) for metric in metrics]
        lines.append(cells)
    return markdown(titles, lines)


def _is_free(rows: Sequence[Row]) -> bool:
    """Return whether the system of these rows needed no training."""
    return rows[0]["seed"] is None


def _cell(metric: str, seeds: Sequence[dict[str, Statistic]]) -> str:
    if metric not in seeds[0]:
        return "-"
    means = [one[metric].mean for one in seeds]
    if metric == "csf_inverted":
        show = "{:.0%}".format
    else:
        show = ("{:.2f}" if metric.startswith("psnr") else "{:.3f}").format
    if len(means) > 1:
        return f"{show(np.median(means))} ({show(min(means))} to {show(max(means))})"
    deviation = "" if metric == "csf_inverted" else f" ± {show(seeds[0][metric].std)}"
    return show(means[0]) + deviation


def significance(rows: Sequence[Row], images: ImageSet) -> list[str]:
    """Compare all pairs of trained systems in a table; return nothing for fewer than two."""
    systems = [(name, part) for name, part in _by(rows, "system").items() if not _is_free(part)]
    if len(systems) < 2:
        return []
    subjects = dict(zip(images.names, images.subjects, strict=True))
    titles = "first", "second", "PSNR difference (dB)", "p", "SSIM difference", "p"
    lines = []
    for (first, first_rows), (second, second_rows) in itertools.combinations(systems, 2):
        cells = [first, second]
        for metric, form in (("psnr", "+.2f"), ("ssim", "+.3f")):
            a = by_subject(first_rows, metric, subjects)
            b = by_subject(second_rows, metric, subjects)
            gain = np.mean(list(a.values())) - np.mean(list(b.values()))
            cells += [format(gain, form), f"{wilcoxon_p(a, b):.1e}"]
        lines.append(cells)
    count = len(set(images.subjects))
    note = (
        f"Differences are first minus second, by subject (n = {count}), of means over seeds and "
        "slices. The test is\nWilcoxon's signed-rank test, two-sided, not corrected for the number "
        f"of pairs; the smallest p that this n allows is {least_wilcoxon_p(count):.1e}. It takes "
        "the trained networks as they are, and says nothing of other seeds."
    )
    return [markdown(titles, lines), note]


def _by(rows: Sequence[Row], key: str) -> dict[str, list[Row]]:
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row[key], []).append(row)
    return groups


def write_csv(rows: Sequence[Row], path: Path) -> None:
    """Write a line for each row, with an empty cell for a missing value."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["system", "seed", "id", *METRICS])
        writer.writeheader()
        writer.writerows(rows)


def draw_planes(evaluation: Evaluation, path: Path, case: str | None = None) -> None:
    """Draw a volume by the first run of every system, as they are compared.

    Args:
        evaluation: an evaluation of volumes.
        path: the PNG file to write.
        case: the name of the volume; None: one for which the first system has its median PSNR.
    """
    rows, images, protocol, fakes = evaluation
    psnr = {(row["system"], row["id"]): row["psnr"] for row in reversed(rows)}  # the first seed's
    if case is None:
        ranked = sorted(images.names, key=lambda name: psnr[next(iter(fakes)), name])
        case = ranked[len(ranked) // 2]
    if case not in images.names:
        raise DataError(f"there is no test image {case}: they are {', '.join(images.names)}")
    k = images.names.index(case)
    t1, t2, brain = (group[k][0].numpy() for group in (images.t1, images.t2, images.brain))
    shown = {"T1, the source": t1, "T2, the truth": t2}
    for system, fake in fakes.items():
        compared = post_process(fake[k][0].numpy(), t2, brain, images.spacing, protocol)
        shown[f"{system}\n{psnr[system, case]:.1f} dB"] = compared
    planes(path, shown)
