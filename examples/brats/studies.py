# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""Study which settings decide NEC's results, and whether CycleGAN and CUT succeed elsewhere.

    python -m examples.brats.studies stability      # NEC: one change at a time
    python -m examples.brats.studies toned          # T1 to T1 under another tone curve
    python -m examples.brats.studies onset --seeds 0,1,2,3,4,5    # NEC: when its loss sets in

The command trains on the phantom with the preset ``cpu``, three seeds each, and writes
``<study>.md``.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nec_ext._console import run_command

from ..common.commands import exit_code, make_parser
from ..common.tables import markdown
from .paper import circumstances, seeds
from .report.tables import evaluate, page
from .train.runs import make_run, train_all
from .values import as_text

SEEDS = 0, 1, 2


@dataclass(frozen=True)
class Study:
    """A comparison of systems under several settings.

    Attributes:
        settings: a system and its options, by the name of their line.
        options: options that all lines share.
    """

    settings: dict[str, tuple[str, dict[str, object]]]
    options: dict[str, object] = field(default_factory=dict)


STUDIES = {
    "stability": Study(
        {
            name: ("nec", changes)
            for name, changes in {
                "as it is": {},
                "lambda 1": {"lambda_ngf": 1},
                "lambda 3": {"lambda_ngf": 3},
                "neither delay nor ramp": {"delay": 0, "ramp": 0},
                "a ramp over 0.3, no delay": {"delay": 0, "ramp": 0.3},
                "lr of the discriminator 2e-4": {"lr_discriminator": 2e-4},
                "discriminator twice as wide": {"discriminator_channels": 64},
                "EMA 0.99": {"ema": 0.99},
            }.items()
        }
    ),
    "onset": Study(
        {
            "after 13 % of the steps": ("nec", {}),
            "when the contrast has turned": ("nec", {"delay": "auto", "ramp": 0}),
        },
        {"amp": "bf16"},
    ),
    # Histogram matching is off, as it would undo the tone curve without any system.
    "toned": Study(
        {"CycleGAN": ("cyclegan", {}), "CUT": ("cut", {})},
        {"data.phantom_target": "toned", "metrics.histogram": "none"},
    ),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return 0, 1 with one sentence on an error, 130 if interrupted."""
    parser = make_parser("brats.studies", __doc__)
    parser.add_argument("study", choices=list(STUDIES))
    parser.add_argument("--out", type=Path, default=Path("out/studies"))
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--seeds", type=seeds, default=SEEDS, metavar="N,N,...", help="0,1,2")
    parsed = parser.parse_args(arguments)
    return exit_code(lambda: _study(parsed.study, parsed.out, parsed.jobs, parsed.seeds))


def _study(name: str, out: Path, jobs: int, seeds: Sequence[int]) -> None:
    study = STUDIES[name]
    runs = [
        make_run(line, system, "cpu", seed, out / name, study.options, changes)
        for line, (system, changes) in study.settings.items()
        for seed in seeds
    ]
    train_all(runs, jobs)
    parts = [
        f"# {name.capitalize()}",
        circumstances(runs, ["studies", name, "--seeds", ",".join(map(str, seeds))]),
        _settings(study),
        page(evaluate([f"{run.name}={run.options.folder}" for run in runs], "cpu")),
    ]
    text = "\n\n".join(parts)
    (out / f"{name}.md").write_text(text, "utf-8")
    print(text)


def _settings(study: Study) -> str:
    """Format a table of the options that each line changes in its system's preset."""
    lines = []
    for line, (system, changes) in study.settings.items():
        values = " ".join(f"{k}={as_text(v)}" for k, v in {**study.options, **changes}.items())
        lines.append((line, system, values and f"`{values}`"))
    return markdown(("", "system", "options"), lines)


if __name__ == "__main__":
    run_command(main)
