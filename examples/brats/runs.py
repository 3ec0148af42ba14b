# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""Several trainings, some of them at a time, each a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tqdm import tqdm

from .data import load_data
from .options import Options, make_options
from .records import read_facts

POLL_SECONDS = 1.0


@dataclass(frozen=True, eq=False)
class Run:
    """One training: a system as it is called in tables, and its options."""

    name: str
    options: Options

    @property
    def label(self) -> str:
        return f"{self.name}, seed {self.options.seed}"

    @property
    def log(self) -> Path:
        return self.options.folder.with_suffix(".log")


def make_run(
    name: str, system: str, preset: str, seed: int, folder: Path, *layers: Mapping[str, object]
) -> Run:
    """A run in ``folder/<name>-<seed>``."""
    slug = name.lower().replace(" ", "-")
    own = {"seed": seed, "out": str(folder / f"{slug}-{seed}")}
    return Run(name, make_options(system, preset, *layers, own))


def train_all(runs: Sequence[Run], jobs: int) -> None:
    """Trains what is not trained yet, ``jobs`` runs at a time; goes on with what was interrupted.

    Raises:
        ValueError: with one sentence: a folder holds a run with other options, or a run failed.
    """
    waiting = [run for run in runs if not finished(run)]
    if not waiting:
        return
    load_data(waiting[0].options.data)  # prepared once, not by every process
    going: dict[Run, subprocess.Popen[bytes]] = {}
    with tqdm(total=len(waiting), desc="training", unit="run") as bar:
        try:
            while waiting or going:
                while waiting and len(going) < jobs:
                    run = waiting.pop(0)
                    going[run] = _start(run, jobs)
                time.sleep(POLL_SECONDS)
                for run in [run for run, process in going.items() if process.poll() is not None]:
                    if going.pop(run).returncode:
                        raise ValueError(f"{run.label} failed: {_last_line(run.log)}")
                    bar.update()
                bar.set_postfix_str(", ".join(map(_progress, going)))
        finally:
            for process in going.values():
                process.terminate()  # it saves its state first
            for process in going.values():
                process.wait()


def finished(run: Run) -> bool:
    """Whether the run's folder holds it, whole; ValueError if it holds another one."""
    facts = read_facts(run.options.folder)
    if not facts:
        return False
    asked, found = json.loads(json.dumps(asdict(run.options))), facts["options"]
    for key in ("steps", "validate_every"):  # where 0 becomes what an epoch has
        asked[key] = asked[key] or found[key]
    different = [key for key in asked if asked[key] != found.get(key)]
    if different:
        raise ValueError(
            f"{run.options.folder} holds a run with another {different[0]}: "
            "remove it or choose another folder"
        )
    return bool(facts["state"] == "finished")


def _start(run: Run, jobs: int) -> subprocess.Popen[bytes]:
    folder = run.options.folder
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "examples.brats.train"]
    if (folder / "last.pt").exists():
        command += ["--resume", str(folder)]
    else:
        config = folder / "options.json"
        config.write_text(json.dumps(asdict(run.options), indent=2))
        command += ["--config", str(config)]
    environment = {**os.environ, "TQDM_MININTERVAL": "30"}
    if jobs > 1:
        environment["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // jobs))
    with run.log.open("ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, env=environment)


def _progress(run: Run) -> str:
    facts = read_facts(run.options.folder)
    return f"{run.label} at {facts['step']} of {facts['options']['steps']}" if facts else run.label


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()
    return lines[-1] if lines else f"see {log}"
