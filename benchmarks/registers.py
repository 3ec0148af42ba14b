# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""Registers of the CUDA kernels, as the compiler reports them: ``make registers``.

Needs nvcc and no GPU. Fails if a kernel of float32 arithmetic keeps registers in memory.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from .console import run_command

CSRC = Path(__file__).resolve().parent.parent / "csrc"
FILES = ("sweep_float_2d", "sweep_float_3d", "sweep_double_2d", "sweep_double_3d")
# Architectures that share a pass of the front end, as in setup.py.
PASSES = (("75", "80", "86", "89"), ("90", "100", "120"))
TYPES = {"f": "float32", "d": "float64"}
# The names of the enumeration, in the order of their numbers.
OPERATORS = [
    name
    for line in (CSRC / "math" / "common.h").read_text().splitlines()
    if line.startswith("enum class Operator ")
    for name in re.findall(r"(\w+) = \d", line)
]
GRADIENTS = ("loss alone", "one gradient", "both gradients")
VARIANTS = ("plain", "strided", "general")
# A kernel's name as the compiler mangles it, what it keeps in memory, and its registers.
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


def compile_kernels(file: str, architectures: Sequence[str]) -> list[Kernel]:
    """Return what ptxas says of the kernels of a file."""
    with tempfile.TemporaryDirectory() as folder:
        codes = ",".join(f"sm_{architecture}" for architecture in architectures)
        target = f"-gencode=arch=compute_{architectures[0]},code=[{codes}]"
        command = ["nvcc", "-std=c++17", "-O3", "-c", target, "-Xptxas=-v"]
        command += ["-o", f"{folder}/object", str(CSRC / "cuda" / f"{file}.cu")]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise RuntimeError(result.stderr)
    kernels = []
    # One report after the other, each from its name on.
    for report in result.stderr.split("ptxas info    : Compiling")[1:]:
        found = [p.search(f"Compiling{report}") for p in (NAME, IN_MEMORY, REGISTERS)]
        if any(match is None for match in found):
            raise RuntimeError(f"what ptxas reports cannot be read: {report}")
        name, memory, registers = (match.groups() for match in found if match)
        dtype, dim, operator, gradients, variant, architecture = name
        names = (OPERATORS[int(operator)], GRADIENTS[int(gradients)], VARIANTS[int(variant)])
        kernels.append(
            Kernel(
                architecture,
                TYPES[dtype],
                int(dim),
                *names,
                max(map(int, memory)),
                int(registers[0]),
            )
        )
    return kernels


def table(kernels: Iterable[Kernel]) -> str:
    """Markdown, a line per kernel, the range over architectures where they differ."""
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
    """Exit code 1 if a float32 kernel keeps registers in memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--architectures", nargs="+", default=sum(PASSES, ()))
    parser.add_argument("--out", type=Path, help="Markdown file to write")
    arguments = parser.parse_args()
    passes = [[a for a in group if a in arguments.architectures] for group in PASSES]
    pairs = [(file, group) for file in FILES for group in passes if group]
    with ThreadPoolExecutor(2) as pool:
        kernels = [k for some in pool.map(compile_kernels, *zip(*pairs, strict=True)) for k in some]
    in_memory = {
        dtype: sum(k.in_memory for k in kernels if k.dtype == dtype) for dtype in TYPES.values()
    }
    names = ", ".join(f"{name[:-1]}.{name[-1]}" for name in arguments.architectures)
    text = f"""# Registers

Per thread, of every kernel of a sweep, compiled for compute capability {names}; a range where they
differ. Written by `make registers`.

{table(kernels)}

Bytes of registers kept in memory, over all kernels and architectures: \
{", ".join(f"{dtype} {count}" for dtype, count in in_memory.items())}.
"""
    print(text)
    if arguments.out:
        arguments.out.write_text(text)
    for k in kernels:
        if k.in_memory > 0:
            print(f"{k.in_memory} bytes of registers are kept in memory by {k}")
    return int(in_memory["float32"] > 0)


if __name__ == "__main__":
    run_command(main)
