# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""Build, test, check and measure on a machine with a GPU: ``make gpu-report OUT=FOLDER``.

The command needs no network and installs nothing: it uses the packages of the Python that runs it.
It builds the extension in place. The next steps run even if a step has failed.
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
    """A process to run."""

    name: str
    limit: float  # seconds
    command: list[str]
    environment: dict[str, str]


class Outcome(NamedTuple):
    """The result of a step."""

    name: str
    passed: bool
    seconds: float
    verdict: str
    text: str


def phases(results: Path) -> dict[str, list[Step]]:
    """Return the steps by the name of their log; the steps of one log run at the same time."""
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
        # Each tensor gets its own allocation. In a shared block, an access beyond one tensor would
        # hit another tensor and go unnoticed.
        "PYTORCH_NO_CUDA_MEMORY_CACHING": "1",
        "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}",
    }
    tools = {
        # torch makes calls that may fail, and handles their failures.
        "memcheck": ["--report-api-errors", "no"],
        "racecheck": [],
        "initcheck": [],
        "synccheck": [],
    }
    pytest = ["pytest", "tests/gpu", "-m", "cuda", "-q", "-ra", "--tb=short", "--maxfail=50"]
    # egg_info writes the metadata from which the package reads its version.
    setup = ["setup.py", "egg_info", "build_ext", "--inplace"]
    tests = ["-m", *pytest, "--durations=10", "-p", "no:cacheprovider"]
    if importlib.util.find_spec("xdist"):
        # pytest-benchmark refuses to run beside xdist. Its workers have to collect sets in the same
        # order, for which the step "tests" fixes PYTHONHASHSEED.
        tests += ["-n", "4", "-p", "no:benchmark"]
    goals = ["pytest", "benchmarks", "-m", "yardstick", "--device", "cuda", "-q", "--results"]
    options = ["--error-exitcode", "1", "--print-limit", "20"]
    return {
        "build": [Step("build", 150, [PYTHON, *setup], build)],
        # These run at the same time, as none of them measures a time.
        "checks": [Step("tests", 200, [PYTHON, *tests], {"PYTHONHASHSEED": "0"})]
        + [
            Step(
                tool,
                200,
                [sanitizer, "--tool", tool, *options, *flags, PYTHON, "tests/every_kernel.py"],
                check,
            )
            for tool, flags in tools.items()
        ],
        "benchmark": [Step("benchmark", 200, [PYTHON, "-m", *goals, str(results.parent)], {})],
    }


def run(step: Step) -> Outcome:
    """Run a process and its children, and end them all at the step's limit."""
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
            os.killpg(process.pid, signal.SIGINT)  # pytest then prints the results so far
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
        finally:
            with contextlib.suppress(ProcessLookupError):  # if all of them have ended
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        log.seek(0)
        text = log.read()
    return Outcome(step.name, verdict == "passed", time.monotonic() - start, verdict, text)


def run_all(logs: dict[str, list[Step]], out: Path) -> list[Outcome]:
    """Run all steps and write their logs."""
    outcomes = []
    for log, steps in logs.items():
        print(f"{', '.join(step.name for step in steps)} ...", flush=True)
        with ThreadPoolExecutor(len(steps)) as pool:
            results = [*pool.map(run, steps)]
        (out / f"{log}.log").write_text(
            "".join(f"### {o.name}: {o.verdict}\n{o.text}\n" for o in results)
        )
        outcomes += results
    return outcomes


def summary(outcomes: list[Outcome], results: Path) -> str:
    """Return the outcomes of the steps and the results of the benchmark as Markdown."""
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


def main(folder: str = "", *wanted: str) -> int:
    """Run the steps and return 0 if every one has passed; missed goals are only reported."""
    if not folder:
        print("name the folder of the results: python -m benchmarks.gpu_report FOLDER")
        return 1
    if not torch.cuda.is_available():
        print("gpu-report needs a GPU, and torch sees none.")
        return 1
    out = Path(folder)
    results = out.resolve() / f"{machine.slug({'gpu': torch.cuda.get_device_name()})}.json"
    logs = phases(results)
    if unknown := [log for log in wanted if log not in logs]:
        print(f"there is no {unknown[0]}: the parts are {', '.join(logs)}")
        return 1
    logs = {log: steps for log, steps in logs.items() if not wanted or log in wanted}
    out.mkdir(parents=True, exist_ok=True)
    if "benchmark" in logs:
        results.unlink(missing_ok=True)  # an earlier run may have written them
    outcomes = run_all(logs, out)
    text = summary(outcomes, results)
    (out / "summary.md").write_text(text)
    print(f"\n{text}")
    return 0 if all(outcome.passed for outcome in outcomes) else 1


if __name__ == "__main__":
    run_command(lambda: main(*sys.argv[1:]))
