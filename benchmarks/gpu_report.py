# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""Builds, tests, checks and measures on a machine with a GPU: ``make gpu-report OUT=FOLDER``.

Needs no network and installs nothing: the packages are those of the Python that runs it. The
extension is built in place. A step that fails does not keep the next ones from being tried.
``python -m benchmarks.gpu_report FOLDER build checks`` leaves the benchmark out.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import torch
from torch.utils import cpp_extension

from examples.common.tables import markdown

from . import machine
from .console import run_command
from .report import tables

ROOT = Path(__file__).resolve().parent.parent
PYTHON = sys.executable


class Step(NamedTuple):
    """One process."""

    name: str
    limit: float  # seconds
    command: list[str]
    environment: dict[str, str]


class Outcome(NamedTuple):
    """What became of a step."""

    name: str
    passed: bool
    seconds: float
    verdict: str
    text: str


def phases(results: Path) -> dict[str, list[Step]]:
    """Steps by the name of their log; those of one log are run side by side."""
    architecture = ".".join(map(str, torch.cuda.get_device_capability()))
    build = {
        "TORCH_CUDA_ARCH_LIST": os.environ.get("TORCH_CUDA_ARCH_LIST", architecture),
        "FORCE_CUDA": "1",
        # torch's build looks for ninja on the path.
        "PATH": f"{Path(PYTHON).parent}{os.pathsep}{os.environ['PATH']}",
    }
    sanitizer = shutil.which("compute-sanitizer") or str(
        Path(cpp_extension.CUDA_HOME or "", "bin", "compute-sanitizer")
    )
    check = {
        # An allocation of its own for each tensor: otherwise what lies beyond one is another.
        "PYTORCH_NO_CUDA_MEMORY_CACHING": "1",
        "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}",
    }
    tools = {
        # torch asks for what may fail, and copes.
        "memcheck": ["--report-api-errors", "no"],
        "racecheck": [],
        "initcheck": [],
        "synccheck": [],
    }
    pytest = ["pytest", "tests/gpu", "-m", "cuda", "-q", "-ra", "--tb=short", "--maxfail=50"]
    # The metadata beside the package is where it finds its version.
    setup = ["setup.py", "egg_info", "build_ext", "--inplace"]
    tests = ["-m", *pytest, "--durations=10", "-p", "no:cacheprovider"]
    if importlib.util.find_spec("xdist"):
        # pytest-benchmark would refuse, and workers have to collect sets in the same order.
        tests += ["-n", "4", "-p", "no:benchmark"]
    goals = ["pytest", "benchmarks", "-m", "yardstick", "--device", "cuda", "-q", "--results"]
    options = ["--error-exitcode", "1", "--print-limit", "20"]
    return {
        "build": [Step("build", 150, [PYTHON, *setup], build)],
        # Side by side: none of these measures a time.
        "checks": [Step("tests", 200, [PYTHON, *tests], {"PYTHONHASHSEED": "0"})]
        + [
            Step(
                tool,
                200,
                [sanitizer, "--tool", tool, *options, *own, PYTHON, "tests/gpu/every_kernel.py"],
                check,
            )
            for tool, own in tools.items()
        ],
        "benchmark": [Step("benchmark", 200, [PYTHON, "-m", *goals, str(results.parent)], {})],
    }


def run(step: Step) -> Outcome:
    """Runs a process with all that it starts, and ends them at the step's limit."""
    start = time.monotonic()
    with tempfile.TemporaryFile("w+", errors="replace") as log:
        try:
            process = subprocess.Popen(
                step.command,
                cwd=ROOT,
                env={**os.environ, **step.environment},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            return Outcome(step.name, False, 0.0, "failed", f"{error}\n")
        try:
            verdict = "passed" if process.wait(step.limit) == 0 else "failed"
        except subprocess.TimeoutExpired:
            verdict = f"ended after {step.limit:g} s"
            os.killpg(process.pid, signal.SIGINT)  # on which pytest tells what it has found
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
        finally:
            with contextlib.suppress(ProcessLookupError):  # nothing of it is left
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        log.seek(0)
        text = log.read()
    return Outcome(step.name, verdict == "passed", time.monotonic() - start, verdict, text)


def run_all(logs: dict[str, list[Step]], out: Path) -> list[Outcome]:
    """Runs all steps and writes their logs."""
    outcomes = []
    for log, steps in logs.items():
        print(f"{', '.join(step.name for step in steps)} ...", flush=True)
        with ThreadPoolExecutor(len(steps)) as pool:
            found = [*pool.map(run, steps)]
        (out / f"{log}.log").write_text(
            "".join(f"### {o.name}: {o.verdict}\n{o.text}\n" for o in found)
        )
        outcomes += found
    return outcomes


def summary(outcomes: list[Outcome], results: Path) -> str:
    """The steps, and what the benchmark has found, as Markdown."""
    steps = [
        (
            o.name,
            o.verdict,
            f"{o.seconds:.0f}",
            (o.text.strip().splitlines() or [""])[-1].strip("= "),
        )
        for o in outcomes
    ]
    parts = [markdown(("step", "", "seconds", "last line of its log"), steps)]
    if results.exists():
        parts.append(tables(json.loads(results.read_text())))
    return "\n\n".join(parts) + "\n"


def main(out: Path, *wanted: str) -> int:
    """Exit code 0 if every step has passed. Yardsticks that are missed are only reported."""
    if not torch.cuda.is_available():
        print("gpu-report needs a GPU, and torch sees none.")
        return 1
    results = out.resolve() / f"{machine.slug({'gpu': torch.cuda.get_device_name()})}.json"
    out.mkdir(parents=True, exist_ok=True)
    results.unlink(missing_ok=True)  # of another run
    logs = {log: steps for log, steps in phases(results).items() if not wanted or log in wanted}
    outcomes = run_all(logs, out)
    text = summary(outcomes, results)
    (out / "summary.md").write_text(text)
    print(f"\n{text}")
    return 0 if all(outcome.passed for outcome in outcomes) else 1


if __name__ == "__main__":
    run_command(lambda: main(Path(sys.argv[1]), *sys.argv[2:]))
