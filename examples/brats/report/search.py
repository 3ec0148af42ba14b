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

# Settings that differ in the number of training subjects alone, from few to all.
BY_SUBJECTS = "16 subjects", "33 subjects", "66 subjects", "NEC"
BY_STEPS = "2250 steps", "NEC", "9000 steps", "18000 steps"
METRICS = "psnr", "ssim", "correlation", "faith", "false_edges", "csf_ratio"


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def table(log: Sequence[Line], predictions: Sequence[Line]) -> str:
    """Format a line for each run, in the order of the predictions, after what needs no training."""
    predicted = {line["name"]: line for line in predictions}
    order = list(predicted)
    free = [line for line in log if not line["seed"]]
    trained = sorted(
        (line for line in log if line["seed"]),
        key=lambda line: (
            order.index(line["name"]) if line["name"] in order else len(order),
            line["seed"],
        ),
    )
    titles = [
        "setting",
        "seed",
        "changes",
        "expected, dB",
        "because",
        "at its best, dB",
        "at the end, dB",
    ]
    titles += [TITLES[metric] for metric in METRICS[1:]] + ["loss from step", "minutes"]
    rows = []
    for line in [*free, *trained]:
        guess = predicted.get(line["name"], {})
        code = f"`{line['options']}`" if line["options"] else ""
        cells = [line["name"], line["seed"], code, guess.get("predicted", ""), guess.get("why", "")]
        cells += [_rounded(line["psnr"], 2), _rounded(line["last_psnr"], 2)]
        cells += [_rounded(line[metric], 3) for metric in METRICS[1:]]
        rows.append([*cells, line["onset"], line["minutes"]])
    return markdown(titles, rows)


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
    first = {line["name"]: line for line in log if line["seed"] == "0"}
    best_map = next(float(line["psnr"]) for line in log if line["name"].startswith("best"))
    for k, name in enumerate(name for name in ("Pix2Pix", *BY_SUBJECTS[::-1]) if name in curves):
        label = (
            f"{name}, {first[name]['subjects']} subjects" if "subj" not in name else f"NEC, {name}"
        )
        seen = [int(line["images"]) for line in curves[name]]
        psnr = [float(line["psnr"]) for line in curves[name]]
        over_images.plot(seen, psnr, color=COLOURS[k], label=label)
    names = [name for name in BY_SUBJECTS if name in first]
    over_subjects.plot(
        [int(first[name]["subjects"]) for name in names],
        [float(first[name]["psnr"]) for name in names],
        "o-",
        color=COLOURS[1],
        label="NEC, at its best validation",
    )
    for axes in (over_images, over_subjects):
        axes.axhline(best_map, color="#999999", ls="--", label="best intensity map")
        axes.legend(frameon=False, loc="lower right")
        axes.spines[["top", "right"]].set_visible(False)
    over_images.set(xlabel="images seen", ylabel="PSNR on validation, dB", ylim=(14, None))
    over_subjects.set(xlabel="training subjects with T2", xscale="log")
    figure.savefig(path, dpi=120)
