# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""Measure a training step of NEC in 3D and the NGF loss in it, by backend and size of the crops.

    python -m examples.brats.swap --patches 96,128,160,192
    python -m examples.brats.swap --patches 192 --backends fused,eager checkpointing=true

Networks and batches are those of the preset ``volumes`` on the phantom, unless options change them.
The steps are the trainer's, without its validations and files. ``step_ms``, ``loss_ms`` and
``memory_mb`` mean the same as in a run's log, except that ``memory_mb`` leaves out the memory in
which cuDNN tries its algorithms before the first step. ``loss_mb`` is the memory of the loss and
its gradient alone, beside their images. The command writes ``swap.md`` and ``swap.csv`` again after
every line.
"""

from __future__ import annotations

import argparse
import csv
import gc
import itertools
import time
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from nec_ext._console import run_command

from ..common.commands import exit_code, make_parser
from ..common.tables import markdown
from .data.images import Data, load_data, training_pairs
from .model.networks import check_size
from .options import Options, make_options
from .train.costs import loss_megabytes, loss_milliseconds, peak_megabytes, wait
from .train.distributed import Process, joined, name_of
from .train.learner import Learner

BACKENDS = typing.get_args(typing.get_type_hints(Options)["loss_backend"])
COLUMNS = "patch", "loss", "step_ms", "loss_ms", "memory_mb", "loss_mb"
WARM_UP = 4  # steps in which cuDNN chooses algorithms and the loss may be compiled
ROUNDS = 3  # the fastest round of steps counts, as other work on the machine only adds time

Row = dict[str, Any]


def measure(options: Options, data: Data, process: Process, steps: int) -> Row:
    """Measure a line of the table; it has no costs if the device's memory is too small.

    Args:
        options: the options of the run.
        data: the images; all steps have their first batch.
        process: the process, which names the device.
        steps: the number of steps in a round.
    """
    row: Row = {"patch": options.data.shape[0], "loss": options.loss_backend}
    try:
        return row | _costs(options, data, process.device, Learner(options, process), steps)
    except torch.OutOfMemoryError:
        return row


def _costs(
    options: Options, data: Data, device: torch.device, learner: Learner, steps: int
) -> dict[str, float]:
    batch, patch = options.batch * options.accumulate, options.data.shape[0]
    pairs = training_pairs(data, False, batch, options.seed, patch)
    source, target = (half.to(device) for half in pairs.batch(0))
    loss, images = learner.system.ngf_loss, source.chunk(options.accumulate)[0]

    def run(count: int) -> float:
        wait(device)
        start = time.perf_counter()
        for _ in range(count):  # mid-run the loss has its weight, and rates have not fallen yet
            learner.learn(options.steps // 2, source, target)
        wait(device)
        return 1e3 * (time.perf_counter() - start) / count

    torch.compiler.reset()  # otherwise torch compiles a second size for all sizes
    run(WARM_UP)
    on_gpu = device.type == "cuda"  # a CPU has only the peak of the whole process, for all lines
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(device)
    costs = {"step_ms": min(run(steps) for _ in range(ROUNDS))}
    if on_gpu:
        costs["memory_mb"] = peak_megabytes(device)
    milliseconds = loss_milliseconds(loss, images, learner.precision)
    costs["loss_ms"] = options.accumulate * milliseconds
    if on_gpu:
        costs["loss_mb"] = loss_megabytes(loss, images, learner.precision)
    return costs


def page(rows: Sequence[Row]) -> str:
    """Format a table by size and backend, with steps and peaks relative to the fused loss's."""
    fused = {row["patch"]: row for row in rows if row["loss"] == "fused"}
    titles = [
        *("crop", "loss", "step, ms", "step / fused", "loss in it, ms", "share of the loss"),
        *("peak, MB", "peak / fused", "loss alone, MB"),
    ]

    def cells(row: Row) -> list[str]:
        if "step_ms" not in row:
            return ["out of memory"] + [""] * 6
        fused_row = fused.get(row["patch"], {})

        def shown(name: str, form: str) -> str:
            return format(row[name], form) if name in row else ""

        def by_fused(name: str) -> str:
            return f"{row[name] / fused_row[name]:.3f}" if name in row and name in fused_row else ""

        return [
            *(shown("step_ms", ".4g"), by_fused("step_ms")),
            *(shown("loss_ms", ".3g"), f"{row['loss_ms'] / row['step_ms']:.1%}"),
            *(shown("memory_mb", ".0f"), by_fused("memory_mb"), shown("loss_mb", ".0f")),
        ]

    ordered = sorted(rows, key=lambda row: (row["patch"], BACKENDS.index(row["loss"])))
    lines = ([f"{row['patch']}³", row["loss"], *cells(row)] for row in ordered)
    return markdown(titles, lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return 0, 1 with one sentence on an error, 130 if interrupted."""
    parser = make_parser("brats.swap", __doc__)
    parser.add_argument("values", nargs="*", metavar="KEY=VALUE", help="options of all lines")
    parser.add_argument("--patches", type=_patches, default=(96, 128, 160), metavar="N,N,...")
    parser.add_argument("--backends", default=",".join(BACKENDS), help="default: %(default)s")
    parser.add_argument("--steps", type=int, default=6, help="of a round; default: %(default)s")
    parser.add_argument("--out", type=Path, default=Path("out/brats/swap"))
    parsed = parser.parse_intermixed_args(arguments)
    return exit_code(lambda: _swap(parsed))


def _patches(text: str) -> tuple[int, ...]:
    return tuple(dict.fromkeys(int(part) for part in text.split(",")))


def _swap(parsed: argparse.Namespace) -> None:
    if bad := [value for value in parsed.values if "=" not in value]:
        raise ValueError(f"options are given as key=value, got {bad[0]!r}")
    if parsed.steps < 1:
        raise ValueError(f"steps must be at least 1, got {parsed.steps}")
    phantom = {"data.size": max(parsed.patches), "data.phantom_sizes": "1/1/1/1", "steps": 1000}
    values = dict(value.split("=", 1) for value in parsed.values)
    lines = [
        make_options(
            "nec", "volumes", phantom, values, {"data.patch": patch, "loss_backend": backend}
        )
        for backend, patch in itertools.product(parsed.backends.split(","), parsed.patches)
    ]
    for options in lines:
        check_size(options)
    data = load_data(lines[0].data)
    parsed.out.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    with joined(lines[0].device) as process:
        words = ["NEC, preset volumes", *parsed.values, name_of(process.device)]
        circumstances = ", ".join([*words, f"torch {torch.__version__}"])
        for options in tqdm(lines, unit="line"):
            rows.append(measure(options, data, process, parsed.steps))
            gc.collect()  # frees the networks of this line before the next line makes its own
            text = f"{circumstances}.\n\n{page(rows)}"
            (parsed.out / "swap.md").write_text(text, "utf-8")
            with (parsed.out / "swap.csv").open("w", newline="") as file:
                writer = csv.DictWriter(file, COLUMNS)
                writer.writeheader()
                writer.writerows(rows)
    print(text)
    print(f"written: {parsed.out}/swap.md and swap.csv")


if __name__ == "__main__":
    run_command(main)
