# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""Translate the kernels of a PTX file to C++, for tests of what nvcc compiles without a GPU.

``python translate.py kernels.ptx kernels.cpp``

An instruction becomes a call of a function that machine.h has, and a register a variable. What
machine.h does not have does not compile.
"""

import re
import sys
from pathlib import Path

KERNEL = re.compile(r"\.visible \.entry (\w+)\(.*?\n\{(.*?)\n\}", re.DOTALL)
REGISTERS = re.compile(r"\.reg \.(\w+)\s+%(\w+)<(\d+)>;")
COMMENT_OR_HINT = re.compile(r"//.*|\.pragma [^;]*;")
GUARDED = re.compile(r"@(!?)%(\w+)\s+(.*)")
OPERAND = re.compile(r"\{[^}]*\}|\[[^]]*\]|[^,\s]+")
TYPES = {"pred", *(kind + bits for kind in "busf" for bits in ("8", "16", "32", "64"))}
# The registers that a kernel does not declare, and its shared memory.
NAMES = {
    "%tid.x": "threadIdx.x",
    "%ntid.x": "blockDim.x",
    "%ctaid.x": "blockIdx.x",
    "%nctaid.x": "gridDim.x",
    "_ZN3nec4cuda6memoryE": "kSharedMemory",
}


def translate_operand(text: str) -> str:
    """Return a register, a number, an address or a list of them as C++."""
    text = text.strip()
    if text in NAMES:
        return NAMES[text]
    if text.endswith("_param_0"):  # of a kernel's name
        return "u64(arguments)"
    if text[0] == "{":
        return ", ".join(map(translate_operand, text[1:-1].split(",")))
    if text[0] == "[":
        base, _, offset = text[1:-1].partition("+")
        return f"u64({translate_operand(base)}) + ({offset or 0})"
    if text[0] == "%":
        return f"v_{text[1:]}"
    if text[:2] in ("0f", "0d"):
        return f"get<f{'32' if text[1] == 'f' else '64'}>(0x{text[2:]}ull)"
    return f"{int(text)}ll"


def translate_instruction(text: str) -> str:
    """Return an instruction as a statement: its parts but the types name the function."""
    if guarded := GUARDED.match(text):
        return f"if ({guarded[1]}v_{guarded[2]}) {{ {translate_instruction(guarded[3])} }}"
    code, *rest = text.split(None, 1)
    parts = code.replace("::", "_").split(".")
    operands = OPERAND.findall(rest[0]) if rest else []
    if parts[0] == "ret":
        return "return;"
    if parts[0] == "bra":
        return f"goto {operands[0].replace('$', '')};"
    if parts[0] == "ld":  # so that the address comes first, as that of a store does
        operands.reverse()
    if parts[0] == "mov" and operands[0][0] == "{":
        parts[0] = "unpack"
    types = [part for part in parts if part in TYPES]
    # How many numbers an access moves shows in its operands.
    name = "_".join(part for part in parts if part not in {*types, "v2", "v4"})
    of_types = f"<{', '.join(types)}>" if types else ""
    return f"{name}_{of_types}({', '.join(map(translate_operand, operands))});"


def translate_kernel(name: str, body: str) -> str:
    """Return a kernel as a function, which one thread runs."""
    lines = [f'extern "C" void ptx_{name}(const char* arguments) {{']
    for kind, prefix, end in REGISTERS.findall(body):
        lines += [f"{kind} v_{prefix}{number};" for number in range(1, int(end))]
    for line in REGISTERS.sub("", body).splitlines():
        if line.startswith("$"):
            lines.append(f"{line.strip().replace('$', '')};")
        else:
            statements = filter(None, map(str.strip, line.split(";")))
            lines += map(translate_instruction, statements)
    return "\n".join([*lines, "}", ""])


def main(source: str, target: str) -> None:
    """Translate one file."""
    text = COMMENT_OR_HINT.sub("", Path(source).read_text())
    kernels = [translate_kernel(*kernel.groups()) for kernel in KERNEL.finditer(text)]
    if not kernels:
        sys.exit(f"{source} has no kernel")
    lines = ['#include "cuda_runtime.h"', "using namespace ptx;", *kernels]
    Path(target).write_text("\n".join(lines))


if __name__ == "__main__":
    main(*sys.argv[1:])
