# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""Where and with what something was measured."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import subprocess
from typing import Any

import torch

PACKAGES = ("torch", "monai", "numpy", "triton")
GPU_FACTS = "driver_version,clocks.sm,clocks.mem,clocks.max.sm,clocks.max.mem,power.limit"


def facts(device: str, cpu: str) -> dict[str, Any]:
    """Facts that results carry. Clocks are read, and left as they are."""
    import nec_ext  # here: the name of a machine is asked for before the extension is built

    found: dict[str, Any] = {
        "device": device,
        "cpu": cpu,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "system": platform.system(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "build": nec_ext.build_info(),
        "commit": _output("git", "describe", "--always", "--dirty"),
    }
    if device == "cuda":
        query = f"--query-gpu={GPU_FACTS}"
        answer = _output("nvidia-smi", query, "--format=csv,noheader", "--id=0") or ""
        found |= {
            "gpu": torch.cuda.get_device_name(),
            "nvidia_smi": dict(zip(GPU_FACTS.split(","), answer.split(", "), strict=False)),
            "torch_cuda": torch.version.cuda,
        }
    return found


def slug(found: dict[str, Any]) -> str:
    """A name for the files of a machine: ``nvidia-h200`` or ``amd-epyc-2-cores``."""
    name = found["gpu"] if "gpu" in found else f"{found['cpu']} {found['cores']} cores"
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def joined(
    earlier: dict[str, Any], found: dict[str, Any], rows: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Rows of a run, and before them those of an earlier one that nothing but tests set apart."""
    settings = found.keys() - {"nvidia_smi"}  # clocks
    same = all(earlier.get(name) == found[name] for name in settings)
    if not same or not found["commit"] or found["commit"].endswith("-dirty"):
        return rows
    again = {row["name"] for row in rows}
    return [row for row in earlier["rows"] if row["name"] not in again] + rows


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _output(*command: str) -> str | None:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
