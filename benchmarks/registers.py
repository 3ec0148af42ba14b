# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""Builds the CUDA kernels and reads their registers from the compiler's report: ``make registers``.

Needs nvcc and no GPU. Fails if a kernel of float32 arithmetic spills registers.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from .console import run_command

ROOT = Path(__file__).resolve().parent.parent
FOLDER = "build-cuda"
TYPES = {"f": "float32", "d": "float64"}
# The names of the enumeration, in the order of their numbers.
OPERATORS = [
    name
    for line in (ROOT / "csrc" / "math" / "common.h").read_text().splitlines()
    if line.startswith("enum class Operator ")
    for name in re.findall(r"(\w+) = \d", line)
]
GRADIENTS = ("loss alone", "one gradient", "both gradients")
VARIANTS = ("bare", "weighted", "general")
# A kernel's name as the compiler mangles it, the bytes that it keeps in memory, and its registers.
NAME = re.compile(
    r"Compiling entry function '\S*MarchI([fd])Li(\d)E\S*?OperatorE(\d)E\S*?GradientsE(\d)E"
    r"\S*?VariantE(\d)E\S*' for 'sm_(\d+)'"
)
IN_MEMORY = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill")
REGISTERS = re.compile(r"Used (\d+) registers")


class Kernel(NamedTuple):
    """A kernel on one architecture."""

    architecture: str
    dtype: str
    dim: int
    operator: str
    gradients: str
    variant: str
    in_memory: int  # bytes, in a stack frame or spilled
    registers: int


def build(architectures: Sequence[str]) -> str:
    """Build the extension with its kernels, all anew, and return the compilers' report."""
    command = [
        "setup.py",
        "build",
        "--force",
        "--build-base",
        FOLDER,
        "--build-lib",
        f"{FOLDER}/lib",
    ]
    environment = {
        **os.environ,
        "FORCE_CUDA": "1",
        "TORCH_CUDA_ARCH_LIST": " ".join(architectures),
        # One report after the other, in one thread.
        "NVCC_APPEND_FLAGS": "-Xptxas=-v --threads=1",
    }
    result = subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    if result.returncode != 0:
        raise RuntimeError(result.stdout + result.stderr)
    return result.stdout


def read_kernels(report: str) -> list[Kernel]:
    """Read the kernels of all sweeps from the compilers' report."""
    kernels = []
    for part in report.split("ptxas info    : Compiling")[1:]:
        name, memory, registers = (
            pattern.search(f"Compiling{part}") for pattern in (NAME, IN_MEMORY, REGISTERS)
        )
        if name is None:  # a sum or a scaling
            continue
        if memory is None or registers is None:
            raise RuntimeError(f"the report of ptxas cannot be read: {part}")
        dtype, dim, operator, gradients, variant, architecture = name.groups()
        names = (OPERATORS[int(operator)], GRADIENTS[int(gradients)], VARIANTS[int(variant)])
        in_memory = max(map(int, memory.groups()))
        kernels.append(
            Kernel(architecture, TYPES[dtype], int(dim), *names, in_memory, int(registers[1]))
        )
    if not kernels:
        raise RuntimeError(f"the compilers report no kernel:\n{report}")
    return kernels


def table(kernels: Iterable[Kernel]) -> str:
    """Write Markdown: a line per kernel, a range of registers where architectures differ."""
    registers: dict[tuple[object, ...], dict[str, list[int]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for k in kernels:
        registers[k.dtype, k.dim, k.operator, k.gradients][k.variant].append(k.registers)
    lines = ["| | | | | " + " | ".join(VARIANTS) + " |", "|---" * (4 + len(VARIANTS)) + "|"]
    for (dtype, dim, operator, gradients), by_variant in registers.items():
        cells = [f"{dtype}", f"{dim}D", f"{operator}", f"{gradients}"]
        for variant in VARIANTS:
            counts = by_variant.get(variant, [])
            ends = sorted({min(counts), max(counts)}) if counts else []
            cells.append(" to ".join(map(str, ends)))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> int:
    """Build, print the table; return exit code 1 if a float32 kernel spills registers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--architectures", nargs="+", default=[], help="as 9.0; default: all")
    parser.add_argument("--out", type=Path, help="Markdown file to write")
    arguments = parser.parse_args()
    start = time.monotonic()
    kernels = sorted(read_kernels(build(arguments.architectures)))
    minutes = (time.monotonic() - start) / 60
    in_memory = {
        dtype: sum(k.in_memory for k in kernels if k.dtype == dtype) for dtype in TYPES.values()
    }
    numbers = sorted({int(k.architecture) for k in kernels})
    names = ", ".join(f"{number // 10}.{number % 10}" for number in numbers)
    text = f"""# Registers

Registers per thread of each CUDA kernel, compiled for compute capability
{names}: a range where they differ. More registers mean fewer threads
at a time. `make registers` writes this page, so that a change is seen.

{table(kernels)}

Register spills and stack frames, in bytes, over all kernels and architectures: \
{", ".join(f"{dtype} {count}" for dtype, count in in_memory.items())}.
"""
    print(text)
    print(f"built in {minutes:.1f} min")
    if arguments.out:
        arguments.out.write_text(text)
    for k in kernels:
        if k.in_memory > 0:
            print(f"{k.in_memory} bytes are spilled by {k}")
    return int(in_memory["float32"] > 0)


if __name__ == "__main__":
    run_command(main)
