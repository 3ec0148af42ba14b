# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""The bytes that a split loss sends: a model, and a check on 1, 2 and 4 processes of this machine.

``python -m benchmarks.scaling`` writes benchmarks/results/scaling.json, a plot beside it and the
tables of docs/scaling.md. The command measures no time: the time of the sweep comes from the
results of another run, and the rate of a link is an assumption that the tables state.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter

from nec_ext._agreement import RECORD_BYTES
from nec_ext._parts import HALO

from .console import run_command
from .report import insert
from .rows import Results, Row, digits, load, machine_name, median, percent, rows_of, voxels
from .sections import table
from .traffic import counted

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks/results/scaling.json"
PAGE = ROOT / "docs/scaling.md"
SWEEP = ROOT / "benchmarks/results/amd-epyc-2-cores.json"  # has the time of a rank's sweep
SWEEP_CASE = "256x256x256"

EDGES = (512, 1024, 2048, 4096)
RANKS = tuple(2**k for k in range(11))
TABLE_RANKS = (2, 16, 128, 1024)
LINK = 1.25e9  # bytes per second: 10 Gbit/s
REDUCED = 2 * 8  # bytes of the two float64 sums
# The colour-blind can tell these colours apart (Okabe and Ito).
STYLES = (("#0072B2", "o"), ("#D55E00", "s"), ("#009E73", "^"), ("#555555", "D"))

MEASURED_PROCESSES = (1, 2, 4)
MEASURED_PLANE = (256, 256)
MEASURED_PLANES = 8  # per process
STEPS = 20

# -------------------------------------------------------------------------------------------------
# Model
# -------------------------------------------------------------------------------------------------


def message_bytes(plane: int, item_sizes: tuple[int, ...] = (4, 4)) -> int:
    """Count the bytes that a face costs: two planes of every tensor that is split.

    Args:
        plane: voxels of a plane, of all samples and channels.
        item_sizes: bytes of an element of each tensor; by default two float32 images.
    """
    return HALO * plane * sum(item_sizes)


def row_of(edge: int, ranks: int, nanoseconds: float) -> dict[str, Any]:
    """Model a step of a float32 cube on so many ranks, for the rank with the most neighbours."""
    sent = min(ranks - 1, 2) * message_bytes(edge**2)
    sweep = edge**3 / ranks * nanoseconds * 1e-9
    return {
        "edge": edge,
        "ranks": ranks,
        "planes": edge / ranks,
        "halo_bytes": sent,
        "reduce_bytes": REDUCED if ranks > 1 else 0,
        "record_bytes": RECORD_BYTES * ranks,
        "sweep_bytes": 12 * edge**3 // ranks,
        "sweep_seconds": sweep,
        "halo_of_sweep": sent / LINK / sweep,
    }


def model(nanoseconds: float) -> list[dict[str, Any]]:
    """Model all cubes and numbers of ranks that leave each rank a plane."""
    return [row_of(edge, ranks, nanoseconds) for edge in EDGES for ranks in RANKS if ranks <= edge]


def nanoseconds_per_voxel(results: Results) -> float:
    """Read the time of the float32 loss and its gradient in the case nearest to a large volume."""
    row = next(row for row in rows_of(results, "test_step") if SWEEP_CASE in row["name"])
    return 1e6 * median(row, "fused") / voxels(row)


# -------------------------------------------------------------------------------------------------
# Check on processes
# -------------------------------------------------------------------------------------------------


def loopback_bytes() -> int:
    """Read how many bytes came in over the loopback since the machine started; Linux only."""
    lines = Path("/proc/net/dev").read_text().splitlines()
    return next(int(line.split(":")[1].split()[0]) for line in lines if line.strip()[:3] == "lo:")


def step_counted(rank: int, processes: int, folder: str) -> None:
    """Run as one process: count the calls of a step, and the loopback's bytes over many steps."""
    import nec_ext

    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=processes)
    shape = (1, 1, MEASURED_PLANES, *MEASURED_PLANE)
    input, target = torch.rand(shape, requires_grad=True), torch.rand(shape)

    def step(check: bool = False) -> None:
        nec_ext.distributed.ngf_loss(input, target, check=check).backward()

    with counted() as checked:
        step(check=True)
    with counted() as calls:
        step()
    dist.barrier()
    before = loopback_bytes()
    dist.barrier()
    for _ in range(STEPS):
        step()
    dist.barrier()
    loopback = (loopback_bytes() - before) / STEPS
    counts = {"calls": calls, "checked": checked, "loopback_bytes": loopback}
    Path(folder, f"{rank}.json").write_text(json.dumps(counts))
    dist.destroy_process_group()


def measured() -> Iterator[dict[str, Any]]:
    """Yield rows of the bytes that processes send, beside the bytes of the model."""
    for processes in MEASURED_PROCESSES:
        with tempfile.TemporaryDirectory() as folder:
            mp.spawn(step_counted, (processes, folder), processes)
            texts = [Path(folder, f"{rank}.json").read_text() for rank in range(processes)]
        ranks = [json.loads(text) for text in texts]
        messages = [rank["calls"].get("messages", []) for rank in ranks]
        plane = MEASURED_PLANE[0] * MEASURED_PLANE[1]
        yield {
            "processes": processes,
            "exchanges": [len(rank["calls"].get("batch_isend_irecv", [])) for rank in ranks],
            "messages": messages,
            "all_reduces": [rank["calls"]["all_reduce"] for rank in ranks],
            "records": [rank["checked"]["all_gather"] for rank in ranks],
            "expected_bytes": 2 * (processes - 1) * message_bytes(plane),
            "sent_bytes": sum(map(sum, messages)),
            "loopback_bytes": ranks[0]["loopback_bytes"],
        }


# -------------------------------------------------------------------------------------------------
# Page
# -------------------------------------------------------------------------------------------------


def amount(count: float) -> str:
    """Format a number of bytes with a unit."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("KB", 1e3)):
        if count >= factor:
            return f"{digits(count / factor)} {unit}"
    return f"{count:.0f} B"


def tables(results: dict[str, Any]) -> str:
    """Return the tables of docs/scaling.md."""
    assumptions = (
        f"A sweep takes {digits(results['nanoseconds_per_voxel'])} ns per voxel ({SWEEP_CASE} on "
        f"{results['machine']}, commit {results['commit']}), and a link carries "
        f"{results['link_bytes_per_second'] / 1e9} GB/s."
    )
    volumes = table(
        [row for row in results["model"] if row["ranks"] in TABLE_RANKS],
        ("volume", lambda row: f"{row['edge']}^3"),
        ("ranks", lambda row: str(row["ranks"])),
        ("planes of a rank", lambda row: f"{row['planes']:.0f}"),
        ("bytes that its sweep reads and writes", lambda row: amount(row["sweep_bytes"])),
        ("bytes of halo that it sends", lambda row: amount(row["halo_bytes"])),
        ("time of the halo / time of the sweep", lambda row: percent(row["halo_of_sweep"])),
    )

    def calls(row: Row) -> str:
        reduced = row["all_reduces"][0]
        return f"{row['exchanges'][0]}, {len(reduced)} of {sum(reduced)} B"

    processes = table(
        results["measured"],
        ("processes", lambda row: str(row["processes"])),
        ("bytes of halo by the model", lambda row: amount(row["expected_bytes"])),
        ("bytes handed to `isend`", lambda row: amount(row["sent_bytes"])),
        ("bytes over the loopback", lambda row: amount(row["loopback_bytes"])),
        ("exchanges, all-reduces of a rank", calls),
    )
    return f"{assumptions}\n\n{volumes}\n\n{processes}"


def draw(results: dict[str, Any], path: Path) -> None:
    """Draw the time of the halo, as a share of that of the sweep, over the number of ranks."""
    figure = Figure(figsize=(6.4, 4), layout="constrained")
    axes = figure.add_subplot()
    for edge, (colour, marker) in zip(EDGES, STYLES, strict=True):
        rows = [row for row in results["model"] if row["edge"] == edge and row["ranks"] > 1]
        axes.plot(
            [row["ranks"] for row in rows],
            [100 * row["halo_of_sweep"] for row in rows],
            color=colour,
            marker=marker,
            markersize=4,
            label=f"{edge}³ voxels",
        )
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.axhline(100, color="black", linewidth=0.8)
    axes.text(2, 115, "above: the exchange takes\nlonger than the sweep", fontsize=9)
    ranks = [ranks for ranks in RANKS if ranks > 1]
    axes.set_xticks(ranks, [str(count) for count in ranks])
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g} %"))
    axes.set(xlabel="ranks", ylabel="time of the exchange, % of that of the sweep")
    axes.grid(axis="y", linewidth=0.4, alpha=0.5)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9, loc="lower right")
    figure.suptitle(
        "Model of a float32 cube in slabs, one per rank: "
        f"{digits(results['nanoseconds_per_voxel'])} ns per voxel, "
        f"{results['link_bytes_per_second'] / 1e9} GB/s",
        x=0.01,
        ha="left",
        fontsize=10,
    )
    figure.savefig(path, dpi=150)


def main() -> None:
    sweep = load(SWEEP)
    nanoseconds = nanoseconds_per_voxel(sweep)
    results = {
        "nanoseconds_per_voxel": nanoseconds,
        "machine": machine_name(sweep),
        "commit": sweep["commit"],
        "link_bytes_per_second": LINK,
        "torch": torch.__version__,
        "model": model(nanoseconds),
        "measured": list(measured()),
    }
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    draw(results, RESULTS.with_suffix(".png"))
    PAGE.write_text(insert(PAGE.read_text(), tables(results), "results"))


if __name__ == "__main__":
    run_command(main)
