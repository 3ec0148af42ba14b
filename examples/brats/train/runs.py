# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""Several trainings, some of them at a time, each a process of its own."""

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
    """One training: a system as it is called in tables, and its options."""

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
    """A run in ``folder/<name>-<seed>``."""
    slug = re.sub(r"\W+", "-", name.lower())
    own = {"seed": seed, "out": str(folder / f"{slug}-{seed}")}
    return Run(name, make_options(system, preset, *layers, own))


def train_all(runs: Sequence[Run], jobs: int) -> None:
    """Trains what is not trained yet, ``jobs`` runs at a time; goes on with what was interrupted.

    Raises:
        ValueError: with one sentence: options that cannot be, a folder that holds a run with other
            options, or, when all the others are done, which runs failed.
    """
    if jobs < 1:
        raise ValueError(f"jobs must be at least 1, got {jobs}")
    waiting = [run for run in runs if not finished(run)]
    for run in waiting:
        check_size(run.options)
    for options in dict.fromkeys(run.options.data for run in waiting):
        load_data(options)  # prepared once, not by every process
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
                process.terminate()  # after saving its state, except on Windows
            for process in going.values():
                process.wait()
    if failures:
        raise ValueError("; ".join(failures))


def finished(run: Run) -> bool:
    """Whether the run's folder holds it, whole; ValueError if it holds another one."""
    facts = read_facts(run.options.folder)
    if not facts:
        return False
    known = saved_options(facts, run.options.folder / "run.json")
    asked, found = (flat(asdict(options)) for options in (run.options, known))
    for key in ("steps", "validate_every"):  # where 0 becomes what an epoch has
        asked[key] = asked[key] or found[key]
    elsewhere = {"out", "device", "data.cache"}  # the same run, in another place
    different = [key for key in asked if key not in elsewhere and asked[key] != found[key]]
    if different:
        raise ValueError(
            f"{run.options.folder} holds a run with another {different[0]}, "
            f"{as_text(found[different[0]])}: choose another folder"
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
    """SIGTERM, as of a batch system, stops the trainings like Ctrl-C."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
