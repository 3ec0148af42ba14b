# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""The machine and the software of a measurement."""

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
    """Return the facts that results carry; a GPU's clocks are read, never changed."""
    import nec_ext  # here, as gpu_report needs `slug` before it has built the extension

    record: dict[str, Any] = {
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
        record |= {
            "gpu": torch.cuda.get_device_name(),
            "nvidia_smi": dict(zip(GPU_FACTS.split(","), answer.split(", "), strict=False)),
            "torch_cuda": torch.version.cuda,
        }
    return record


def slug(record: dict[str, Any]) -> str:
    """Return a name for the files of a machine: ``nvidia-h200`` or ``amd-epyc-2-cores``."""
    name = record["gpu"] if "gpu" in record else f"{record['cpu']} {record['cores']} cores"
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def joined(
    earlier: dict[str, Any], record: dict[str, Any], rows: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Return a run's rows, after those of an earlier run that the same commit and machine made.

    A row of the earlier run is dropped if the new run has measured it again.
    """
    settings = record.keys() - {"nvidia_smi"}  # the clocks differ between runs
    same = all(earlier.get(name) == record[name] for name in settings)
    if not same or not record["commit"] or record["commit"].endswith("-dirty"):
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
