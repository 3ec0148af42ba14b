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
BY_STEPS = "Pix2Pix", "NEC", "delay auto", "GAN alone", "CycleGAN", "CUT"
LABELS = {"delay auto": "NEC, delay=auto", "GAN alone": "GAN alone (NEC without NGF)"}
WITH_ALL = "abrupt warm-up"  # beside which subjects were left out
BY_SUBJECTS = {f"{WITH_ALL} data.subjects={n}": f"{n}" for n in (33, 66)} | {WITH_ALL: "all"}
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
    """Draw validation PSNR over the steps, and its best over training subjects.

    Args:
        path: the PNG file to write.
        log: the lines of all runs.
        curves: the validations of seed 0 of each setting, by its name.
    """
    figure = Figure((9.6, 3.6), layout="constrained")
    over_steps, over_subjects = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    best = {line["name"]: float(line["psnr"]) for line in log if line["seed"] in ("", "0")}
    best_map = next(psnr for name, psnr in best.items() if name.startswith("best intensity map"))
    for k, name in enumerate(name for name in BY_STEPS if name in curves):
        steps = [int(line["step"]) for line in curves[name]]
        psnr = [float(line["psnr"]) for line in curves[name]]
        over_steps.plot(steps, psnr, color=COLOURS[k], label=LABELS.get(name, name))
    subjects = {label: best[name] for name, label in BY_SUBJECTS.items() if name in best}
    over_subjects.plot(list(subjects), list(subjects.values()), "o-", color=COLOURS[1])
    over_subjects.margins(x=0.2)
    for axes in (over_steps, over_subjects):
        axes.axhline(best_map, color="#999999", ls="--", label="best intensity map")
        axes.spines[["top", "right"]].set_visible(False)
    over_steps.set(xlabel="training steps", ylabel="PSNR, dB", title="all validations of a run")
    over_subjects.set(xlabel="training subjects per contrast", title=f"best validation, {WITH_ALL}")
    figure.legend(*over_steps.get_legend_handles_labels(), frameon=False, loc="outside right")
    figure.savefig(path, dpi=120)
