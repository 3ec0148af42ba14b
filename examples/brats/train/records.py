# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""The files that a run writes to its folder.

run.json     options and versions, the step reached and the best validation
metrics.csv  a line every ``log_every`` steps and at every validation, with the costs of a step
last.pt      the whole state, from which a run resumes exactly
best.pt      the generator at the best validation, and the options
events.*     the lines of metrics.csv and validation images, for TensorBoard
"""

from __future__ import annotations

import csv
import functools
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import pad

from ...common.files import read_json, write_atomically
from ...common.versions import versions
from ..data.grid import BACKGROUND, Images

State = dict[str, Any]


# ------------------------------------------------------------------------------------------------
# Checkpoints
# ------------------------------------------------------------------------------------------------


def save_checkpoint(path: Path, state: State) -> None:
    """Save tensors, numbers, text, and lists and dictionaries of them."""
    write_atomically(path, functools.partial(torch.save, state))


def load_checkpoint(path: Path) -> State:
    """Load a state to the CPU; raise ValueError with one sentence if it is missing or damaged."""
    if not path.is_file():
        raise ValueError(f"there is no checkpoint {path}")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file shows in errors of many types
        raise ValueError(f"{path} is not a checkpoint, or a damaged one") from error


def read_facts(folder: Path) -> dict[str, Any]:
    """Read run.json; the result is empty if there is none."""
    path = folder / "run.json"
    return read_json(path) if path.exists() else {}


# ------------------------------------------------------------------------------------------------
# Records
# ------------------------------------------------------------------------------------------------


class Records:
    """The writer of run.json, metrics.csv and TensorBoard's events.

    Args:
        folder: the folder of the run, which is made if it is missing.
        columns: the columns of metrics.csv, ``step`` first.
        facts: facts for run.json, beside versions and state.
        step: the step from which a run resumes; the records of later steps are dropped.
    """

    def __init__(
        self, folder: Path, columns: Sequence[str], facts: Mapping[str, object], step: int = 0
    ) -> None:
        self.folder, self.columns = folder, columns
        self.facts = {**facts, **versions()}
        folder.mkdir(parents=True, exist_ok=True)
        for part in folder.glob("*.tmp"):  # a process that was killed while it wrote leaves these
            part.unlink()
        self._cut(step)
        self.events = _summary_writer(folder, step)

    def describe(self, facts: Mapping[str, object]) -> None:
        """Write run.json again, with these facts before those of the whole run."""
        text = json.dumps({**facts, **self.facts}, indent=2, allow_nan=False)
        write_atomically(self.folder / "run.json", lambda file: file.write(text.encode() + b"\n"))

    def add(self, row: Mapping[str, float | None]) -> None:
        """Write a line of metrics.csv; a value that the row lacks stays empty."""
        with (self.folder / "metrics.csv").open("a", newline="") as file:
            csv.DictWriter(file, self.columns).writerow(row)
        if self.events:
            for name, value in row.items():
                if name != "step" and value is not None:
                    self.events.add_scalar(name, value, int(row["step"] or 0))

    def show(self, step: int, images: Sequence[Images]) -> None:
        """Show images in [-1, 1], those of one index side by side, volumes by a middle slice."""
        if self.events:
            rows = []
            for row in zip(*images, strict=True):
                slices = [
                    image if image.dim() == 3 else image[..., image.shape[-1] // 2] for image in row
                ]
                rows.append(torch.cat([image.mT for image in slices], -1))  # the front up
            width = max(row.shape[-1] for row in rows)
            rows = [pad(row, (0, width - row.shape[-1]), value=BACKGROUND) for row in rows]
            grid = torch.cat(rows, -2)
            self.events.add_image("validation", (grid.nan_to_num().clamp(-1, 1) + 1) / 2, step)

    def close(self) -> None:
        """Write the last of TensorBoard's events to disk."""
        if self.events:
            self.events.close()

    def _cut(self, step: int) -> None:
        path = self.folder / "metrics.csv"
        kept: list[dict[str, str]] = []
        if step and path.is_file():
            with path.open(newline="") as file:
                kept = [row for row in csv.DictReader(file) if int(row["step"]) <= step]
        text = io.StringIO()
        writer = csv.DictWriter(text, self.columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(kept)
        write_atomically(path, lambda file: file.write(text.getvalue().encode()))


def _summary_writer(folder: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        print("note: without the package tensorboard there are no events")
        return None
    return SummaryWriter(str(folder), purge_step=step or None)
