# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""Several trainings, each in a process of its own, some of them at the same time."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from tqdm import tqdm

from ..data.images import load_data
from ..model.networks import check_size
from ..options import Options, flat, make_options, saved_options
from ..values import as_text
from .records import read_facts

POLL_SECONDS = 1.0


@dataclass(frozen=True, eq=False)
class Run:
    """A training: the name of its system in tables, and its options."""

    name: str
    options: Options

    @property
    def label(self) -> str:
        return f"{self.name}, seed {self.options.seed}"

    @property
    def log(self) -> Path:
        folder = self.options.folder
        return folder.with_name(f"{folder.name}.log")


def make_run(
    name: str, system: str, preset: str, seed: int, folder: Path, *layers: Mapping[str, object]
) -> Run:
    """Make a run in ``folder/<name>-<seed>``."""
    settings = {"seed": seed, "out": str(folder / f"{slug(name)}-{seed}")}
    return Run(name, make_options(system, preset, *layers, settings))


def slug(name: str) -> str:
    """Make a name fit for files: ``two scales`` becomes ``two-scales``."""
    return re.sub(r"\W+", "-", name.lower())


def train_all(runs: Sequence[Run], jobs: int) -> None:
    """Train the runs that are not finished, ``jobs`` at a time; resume interrupted ones.

    Raises:
        ValueError: with one sentence, if options are impossible, if a folder holds a run with other
            options, or, when all other runs are done, if runs failed.
    """
    if jobs < 1:
        raise ValueError(f"jobs must be at least 1, got {jobs}")
    waiting = [run for run in runs if not finished(run)]
    for run in waiting:
        check_size(run.options)
    for options in dict.fromkeys(run.options.data for run in waiting):
        load_data(options)  # prepares the images once, instead of once in every process
    failures: list[str] = []
    going: dict[Run, subprocess.Popen[bytes]] = {}
    with _interruptible(), tqdm(total=len(waiting), desc="training", unit="run") as bar:
        try:
            while waiting or going:
                while waiting and len(going) < jobs:
                    run = waiting.pop(0)
                    going[run] = _start(run, jobs)
                time.sleep(POLL_SECONDS)
                for run in [run for run, process in going.items() if process.poll() is not None]:
                    if code := going.pop(run).returncode:
                        failures.append(f"{run.label} failed: {_reason(run, code)}")
                    bar.update()
                progress = ", ".join(map(_progress, going))
                if progress != bar.postfix:
                    bar.set_postfix_str(progress)
        finally:
            for process in going.values():
                process.terminate()  # the process saves its state first, except on Windows
            for process in going.values():
                process.wait()
    if failures:
        raise ValueError("; ".join(failures))


def finished(run: Run) -> bool:
    """Return whether a run is finished in its folder; raise ValueError if another run is there."""
    facts = read_facts(run.options.folder)
    if not facts:
        return False
    saved = saved_options(facts, run.options.folder / "run.json")
    wanted, stored = (flat(asdict(options)) for options in (run.options, saved))
    for key in ("steps", "validate_every"):  # 0 stands for the steps of epochs
        wanted[key] = wanted[key] or stored[key]
    elsewhere = {"out", "device", "data.cache"}  # the run is the same in another place
    different = [key for key in wanted if key not in elsewhere and wanted[key] != stored[key]]
    if different:
        raise ValueError(
            f"{run.options.folder} holds a run with another {different[0]}, "
            f"{as_text(stored[different[0]])}: choose another folder"
        )
    return facts.get("state") == "finished"


def _start(run: Run, jobs: int) -> subprocess.Popen[bytes]:
    folder = run.options.folder
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "examples.brats.train"]
    if (folder / "last.pt").exists():
        command += ["--resume", str(folder)]
    else:
        config = folder / "options.json"
        config.write_text(json.dumps(asdict(run.options), indent=2), "utf-8")
        command += ["--config", str(config)]
    environment = {**os.environ, "TQDM_MININTERVAL": "30"}
    if jobs > 1:
        environment["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // jobs))
    with run.log.open("ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, env=environment)


def _progress(run: Run) -> str:
    facts = read_facts(run.options.folder)
    return f"{run.label} at {facts['step']} of {facts['options']['steps']}" if facts else run.label


def _reason(run: Run, code: int) -> str:
    if code < 0:
        return f"{signal.Signals(-code).name}, see {run.log}"
    lines = run.log.read_text("utf-8", errors="replace").splitlines()
    return lines[-1] if lines else f"see {run.log}"


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let SIGTERM, which batch systems send, stop the trainings like Ctrl-C."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
