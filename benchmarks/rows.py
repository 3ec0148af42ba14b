# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""The rows of a results file, figures derived from them, and the text of figures."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

Results = dict[str, Any]
Row = dict[str, Any]

NOISY = 0.1  # spreads above this are shown
ITEM_SIZES = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}


def load(path: Path) -> Results:
    """Read the results that a run of the benchmarks has written."""
    try:
        results = json.loads(path.read_text())
    except OSError as error:
        raise SystemExit(f"{path} cannot be read: {error.strerror}.") from None
    except ValueError:
        raise SystemExit(f"{path} is not JSON.") from None
    if not isinstance(results, dict) or not {"device", "packages", "rows"} <= results.keys():
        raise SystemExit(f"{path} is not what `pytest benchmarks --results` writes.")
    return results


def rows_of(results: Results, test: str) -> list[Row]:
    """Return the rows of a test that have times; rows of a failed test may lack them."""
    rows = (row for row in results["rows"] if row["name"].partition("[")[0] == test)
    return [row for row in rows if "ms" in row]


def training_rows(results: Results) -> list[Row]:
    """Return the rows of training steps for which the loss alone was timed too."""
    return [row for row in rows_of(results, "test_training") if "loss_ms" in row]


def case(row: Row) -> str:
    """Return the parameters of a test, without its clock."""
    parameters = row["name"].partition("[")[2].removesuffix("]").split("-")
    return "-".join(text for text in parameters if text != row.get("clock"))


def median(row: Row, call: str) -> float:
    """Return the median time of a call in milliseconds."""
    return float(row["ms"][call][1])


def fastest(row: Row, peer: str) -> str:
    """Return the fastest formulation of a peer, of ``eager`` and ``eager, fields`` for example."""
    names = [name for name in row["ms"] if name == peer or name.startswith(f"{peer}, ")]
    return min(names, key=lambda name: median(row, name), default=peer)


def ratio(row: Row, call: str) -> float:
    """Return the median time of a call as a multiple of the fused loss's."""
    return median(row, call) / median(row, "fused")


def spread(row: Row, call: str) -> float:
    """Return half the interquartile range of a call's times, relative to the median."""
    lower, middle, upper = row["ms"][call]
    return float((upper - lower) / 2 / middle)


def share(row: Row, call: str) -> float:
    """Return the share of a training step that the loss and its gradient take."""
    return float(row["loss_ms"][call][1]) / median(row, call)


def saved(row: Row, call: str) -> tuple[float, str]:
    """Return the share of the step with eager that a call saves, and a note if that is noise."""
    part = 1 - median(row, call) / median(row, "eager")
    noise = max(spread(row, call), spread(row, "eager"))
    return part, " (within the spread)" if call != "eager" and abs(part) < noise else ""


def voxels(row: Row) -> int:
    return math.prod(row["shape"])


def rate(row: Row, call: str, volumes: int) -> float:
    """Return the rate in GB/s of a call that moves so many volumes."""
    return volumes * voxels(row) * ITEM_SIZES[row["dtype"]] / median(row, call) / 1e6


def machine_name(results: Results) -> str:
    if "gpu" in results:
        return str(results["gpu"])
    return f"{results['cpu']}, {results['threads']} thread{'s' * (results['threads'] != 1)}"


def versions(results: Results) -> str:
    packages = [f"{name} {version}" for name, version in results["packages"].items() if version]
    if "gpu" in results:
        driver = results["nvidia_smi"].get("driver_version")
        facts = [f"driver {driver}", f"CUDA {results['torch_cuda']}"]
    else:
        facts = [str(results["build"]["cpu_capability"])]
    return ", ".join([*facts, *packages, f"commit {results['commit']}"])


def digits(value: float, significant: int = 3) -> str:
    """Format a number with so many significant digits and no exponent: 0.0500, 1.05, 1230."""
    rounded = float(f"{value:.{significant - 1}e}")
    exponent = math.floor(math.log10(abs(rounded))) if rounded else 0
    return f"{rounded:.{max(0, significant - 1 - exponent)}f}"


def percent(part: float) -> str:
    """Format a share in percent with two significant digits, from 99.5 % on without decimals."""
    if abs(part) < 1e-3:
        return "< 0.1 %"
    return f"{100 * part:{'.2g' if abs(part) < 0.995 else '.0f'}} %"


def duration(ms: float) -> str:
    for unit, factor in (("s", 1e-3), ("ms", 1)):
        if ms * factor >= 1:
            return f"{digits(ms * factor)} {unit}"
    return f"{digits(1e3 * ms)} us"


def mark(row: Row, call: str) -> str:
    """Return the spread of a time after a ±, or an empty text if the spread is small."""
    part = spread(row, call)
    return f" ± {percent(part)}" if part > NOISY else ""
