# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""The page and the figure of a search: what was predicted of every setting, and what came."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from ...common.tables import markdown
from .figures import COLOURS
from .tables import TITLES

Line = Mapping[str, str]

# The settings of the figure: those whose curves differ, and those that differ in subjects alone.
BY_IMAGES = "Pix2Pix", "NEC", "delay auto", "GAN alone", "CycleGAN", "CUT"
BY_SUBJECTS = {"16 subjects": "16", "33 subjects": "33", "66 subjects": "66", "NEC": "all"}
METRICS = "psnr", "ssim", "correlation", "faith", "false_edges", "csf_ratio"


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def tables(log: Sequence[Line], predictions: Sequence[Line]) -> list[str]:
    """Format what came of every prediction, and the metrics of every run, in two tables."""
    rank = {line["name"]: k for k, line in enumerate(predictions)}
    free = [line for line in log if not line["seed"]]
    trained = sorted(
        (line for line in log if line["seed"]),
        key=lambda line: (rank.get(line["name"], len(rank)), line["seed"]),  # unexpected ones last
    )
    came = {name: [line for line in trained if line["name"] == name] for name in rank}
    outcomes = [
        [
            line["name"],
            line["predicted"],
            line["why"],
            ", ".join(_rounded(run["psnr"], 1) for run in came[line["name"]]),
        ]
        for line in predictions
    ]
    titles = ["run", "seed", "PSNR", "at the end", *(TITLES[metric] for metric in METRICS[1:])]
    runs = [
        [
            line["name"],
            line["seed"],
            _rounded(line["psnr"], 2),
            _rounded(line["last_psnr"], 2),
            *(_rounded(line[metric], 2) for metric in METRICS[1:]),
            line["onset"],
        ]
        for line in [*free, *trained]
    ]
    return [
        markdown(
            ["setting", "expected, dB", "why this was expected", "measured, by seed"], outcomes
        ),
        markdown([*titles, "loss from step"], runs),
    ]


def _rounded(text: str, digits: int) -> str:
    return f"{float(text):.{digits}f}" if text else ""


def draw_curves(path: Path, log: Sequence[Line], curves: Mapping[str, Sequence[Line]]) -> None:
    """Draw validation PSNR over the images that were seen, and its best over training subjects.

    Args:
        path: the PNG file to write.
        log: the lines of all runs.
        curves: the validations of seed 0 of each setting, by its name.
    """
    figure = Figure((9.6, 3.6), layout="constrained")
    over_images, over_subjects = figure.subplots(1, 2, sharey=True)
    best = {line["name"]: float(line["psnr"]) for line in log if line["seed"] in ("", "0")}
    best_map = next(psnr for name, psnr in best.items() if name.startswith("best intensity map"))
    for k, name in enumerate(name for name in BY_IMAGES if name in curves):
        seen = [int(line["images"]) for line in curves[name]]
        psnr = [float(line["psnr"]) for line in curves[name]]
        over_images.plot(seen, psnr, color=COLOURS[k], label=name)
    names = [name for name in BY_SUBJECTS if name in best]
    over_subjects.plot(
        [BY_SUBJECTS[name] for name in names],
        [best[name] for name in names],
        "o-",
        color=COLOURS[1],
    )
    for axes in (over_images, over_subjects):
        axes.axhline(best_map, color="#999999", ls="--", label="best intensity map")
        axes.spines[["top", "right"]].set_visible(False)
    over_images.set(xlabel="images seen", ylabel="PSNR on validation, dB", ylim=(14, None))
    over_subjects.set(xlabel="subjects for T1 and for T2 of NEC")
    figure.legend(*over_images.get_legend_handles_labels(), frameon=False, loc="outside right")
    figure.savefig(path, dpi=120)
