# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""Train one of the four systems of the NEC paper.

    python -m examples.brats.train nec data.data=/data/BraTS2023
    python -m examples.brats.train cut --preset cpu out=out/cut seed=1    # the phantom, in minutes
    python -m examples.brats.train --resume out/cut
    torchrun --nproc-per-node 4 -m examples.brats.train nec data.data=/data/BraTS2023

Ctrl-C saves the state and stops. examples/brats/train/records.py lists the files of a run.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from nec_ext._console import run_command

from ..data.images import load_data
from ..options import parse
from .costs import format_costs
from .distributed import first_before_others, joined
from .loop import Trainer


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the training; return 0 at its end, 1 with one sentence on an error, 130 if stopped."""
    try:
        options, resume = parse(arguments)
        with joined(options.device) as process:
            data = first_before_others(lambda: load_data(options.data))
            trainer = Trainer(options, data, process, resume=resume)
            finished = trainer.fit()
    except (ValueError, OSError, FloatingPointError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:  # before the first step
        return 130
    if not finished:
        print(f"stopped after step {trainer.step}: --resume {options.folder} goes on")
        return 130
    if trainer.costs:
        print(format_costs(trainer.costs, options.loss_backend))
    return 0


if __name__ == "__main__":
    run_command(main)
