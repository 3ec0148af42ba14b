# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""Check on the phantom that the systems meet twelve criteria, in three quarters of an hour.

    python -m examples.brats.acceptance

The command trains all systems with the preset ``cpu`` and three seeds, and NEC once with the eager
loss. It writes the page of ``examples.brats.paper``, and ``acceptance.md`` beside it.
"""

from __future__ import annotations

import itertools
import math
import operator
import os
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from nec_ext._console import run_command

from ..common.commands import exit_code, make_parser
from ..common.tables import markdown
from . import paper
from .data.images import load_data, training_pairs
from .model.objectives import make_ngf_loss
from .options import Options
from .report.metrics import Row, summary
from .report.tables import evaluate
from .train.distributed import Process
from .train.learner import Learner
from .train.records import read_facts
from .train.runs import Run, make_run, train_all

SEEDS = 0, 1, 2
CURVE_STEPS = 50
INF = math.inf

Means = Mapping[tuple[str, int | None], Mapping[str, float]]  # of each metric, by system and seed


class Criterion(NamedTuple):
    """A line of the page; each of its ``values`` has to lie between the bounds."""

    name: str
    what: str
    values: Sequence[float]
    low: float = -INF
    high: float = INF

    @property
    def met(self) -> bool:
        return all(self.low <= value <= self.high for value in self.values)


def means_of(rows: Sequence[Row]) -> Means:
    """Average each metric over the test images, by system and seed."""
    groups = itertools.groupby(rows, operator.itemgetter("system", "seed"))
    return {
        key: {name: value.mean for name, value in summary(list(group)).items()}
        for key, group in groups
    }


def criteria(means: Means) -> list[Criterion]:
    """Make the criteria C1 to C10."""

    def each(system: str, metric: str) -> list[float]:
        return [means[system, seed][metric] for seed in SEEDS]

    def median(system: str, metric: str) -> float:
        return statistics.median(each(system, metric))

    def gains(metric: str) -> list[float]:
        pairs = zip(each("NEC", metric), each("GAN alone", metric), strict=True)
        return [nec - gan for nec, gan in pairs]

    free = means["identity", None]
    unpaired = max(median(system, "psnr") for system in ("CycleGAN", "CUT"))
    psnr = median("NEC", "psnr")
    supervised = median("Pix2Pix", "psnr") - psnr
    contrast = each("CycleGAN", "csf_ratio")
    lines: list[tuple[str, str, Sequence[float], float, float]] = [
        ("C1", "NEC, PSNR in dB, median of the seeds", [psnr], 19, INF),
        ("C1", "NEC, PSNR in dB, every seed", each("NEC", "psnr"), 17.5, INF),
        ("C2", "NEC, SSIM, median", [median("NEC", "ssim")], 0.60, INF),
        ("C3", "NEC - GAN alone, PSNR, same seed", gains("psnr"), 3.5, INF),
        ("C3", "NEC - GAN alone, SSIM, same seed", gains("ssim"), 0.2, INF),
        ("C4", "NEC - identity, PSNR", [psnr - free["psnr"]], 5, INF),
        ("C5", "NEC - the better of CycleGAN and CUT, PSNR", [psnr - unpaired], 3, INF),
        ("C6", "Pix2Pix - NEC, PSNR", [supervised], 0, 5),
        ("C7", "NEC, CSF ratio", [median("NEC", "csf_ratio")], 0.55, INF),
        ("C7", "identity, CSF ratio", [free["csf_ratio"]], -INF, 0),
        ("C7", "CycleGAN, CSF ratio (not judged)", contrast, -INF, INF),
        ("C8", "NEC, correlation in the brain", [median("NEC", "correlation")], 0.65, INF),
        ("C9", "NEC, faith", [median("NEC", "faith")], 0.75, INF),
        ("C9", "NEC - GAN alone, faith, same seed", gains("faith"), 0.12, INF),
        ("C10", "NEC, tumour ratio", [median("NEC", "tumour_ratio")], 0.6, INF),
    ]
    return [Criterion(*line) for line in lines]


def curve(options: Options, threads: int = 1) -> tuple[list[float], float]:
    """Record NEC's NGF loss over the first steps, and its largest difference to the eager loss.

    The difference is relative, and both losses have the same images in each step.
    """
    data = load_data(options.data)
    pairs = training_pairs(data, False, options.batch, options.seed)
    learner = Learner(options, Process())
    loss, eager = learner.system.ngf_loss, make_ngf_loss(replace(options, loss_backend="eager"))
    differences: list[float] = []

    def compared(fake: Tensor, source: Tensor) -> Tensor:
        value = loss(fake, source)
        differences.append(abs(value.item() / eager(fake.detach(), source).item() - 1))
        return value

    learner.system.ngf_loss = compared
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    losses = [
        learner.learn(step, *pairs.batch(step, options.augment))["ngf"].item()
        for step in range(CURVE_STEPS)
    ]
    torch.set_num_threads(before)
    return losses, max(differences)


def backends(means: Means, run: Run) -> list[Criterion]:
    """Judge C11: the fused loss and the eager one train alike.

    Where the loss takes part from the first step, Adam's steps and the adversarial game let any
    rounding error grow to as much as 1e-2 within tens of steps. Sums in another order suffice.
    """
    at_once = replace(run.options, delay=0.0, ramp=0.0)
    fused, eager, fused_at_once, eager_at_once, reordered = (
        curve(replace(options, loss_backend=name), threads)
        for options, name, threads in (
            (run.options, "fused", 1),
            (run.options, "eager", 1),
            (at_once, "fused", 1),
            (at_once, "eager", 1),
            (at_once, "eager", 2),
        )
    )

    def gap(a: list[float], b: list[float]) -> float:
        return max(abs(x / y - 1) for x, y in zip(a, b, strict=True))

    psnr = means["NEC", 0]["psnr"] - means["NEC eager", 0]["psnr"]
    free = gap(fused_at_once[0], eager_at_once[0])
    threads = gap(reordered[0], eager_at_once[0])
    lines = (
        ("fused / eager loss, trained with either", gap(fused[0], eager[0]), 1e-4),
        ("fused / eager loss on the same images", fused_at_once[1], 1e-4),
        ("trained with either, without delay (not judged)", free, INF),
        ("eager on two threads / on one, without delay (not judged)", threads, INF),
    )
    return [
        *(
            Criterion("C11", f"{what}, {CURVE_STEPS} steps", [worst], high=h)
            for what, worst, h in lines
        ),
        Criterion("C11", "fused - eager, PSNR at the end, same seed", [psnr], -1.5, 1.5),
    ]


def duration(runs: Sequence[Run], jobs: int) -> Criterion:
    """Judge C12: the minutes of the three short systems, with ``jobs`` runs at a time."""
    names = "NEC", "Pix2Pix", "GAN alone"
    seconds = [read_facts(run.options.folder)["seconds"] for run in runs if run.name in names]
    minutes = sum(seconds) / len(SEEDS) / jobs / 60
    return Criterion("C12", f"minutes for {', '.join(names)}, {jobs} at a time", [minutes], 0, 12)


def table(rows: Sequence[Criterion]) -> str:
    """Format a table with a line for each criterion."""
    lines = []
    for criterion in rows:
        measured = ", ".join(f"{value:.3g}" for value in criterion.values)
        bounds = [(">=", criterion.low), ("<=", criterion.high)]
        wanted = " and ".join(f"{sign} {b:g}" for sign, b in bounds if abs(b) < INF)
        judged = ("met" if criterion.met else "**missed**") if wanted else ""
        lines.append((criterion.name, criterion.what, measured, wanted, judged))
    return markdown(("", "criterion", "measured", "wanted", ""), lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return 0 if all twelve criteria are met, else 1."""
    parser = make_parser("brats.acceptance", __doc__)
    parser.add_argument("--out", type=Path, default=Path("out/acceptance"))
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parsed = parser.parse_args(arguments)
    return exit_code(lambda: _accept(parsed.out, parsed.jobs))


def _accept(out: Path, jobs: int) -> bool:
    runs = paper.plan("cpu", SEEDS, out / "runs", {})
    eager = make_run("NEC eager", "nec", "cpu", 0, out / "runs", {"loss_backend": "eager"})
    train_all([*runs, eager], jobs)
    rows = paper.write(out, runs, ["acceptance"], "cpu", None)
    more = evaluate([f"{eager.name}={eager.options.folder}"], "cpu").rows
    means = means_of([*rows, *(row for row in more if row["system"] == eager.name)])
    nec = next(run for run in runs if run.name == "NEC")
    lines = [*criteria(means), *backends(means, nec), duration(runs, jobs)]
    text = table(lines)
    (out / "acceptance.md").write_text(text + "\n", "utf-8")
    print(text)
    return all(line.met for line in lines)


if __name__ == "__main__":
    run_command(main)
