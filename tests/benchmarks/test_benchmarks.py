# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""The benchmarks run, refuse to time a formula that is wrong, and report what they measured."""

import copy
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from helpers import run_python
from monai.losses import BendingEnergyLoss
from torch import Tensor

import nec_ext
from benchmarks import bench_training, check, plots, report, workloads
from benchmarks.machine import joined
from benchmarks.measure import CPU
from benchmarks.race import Race
from benchmarks.workloads import Registration, Synthesis, Workload
from examples.common.eager import eager_ngf_loss
from examples.common.measure import LossFunction
from examples.registration.warp import warp
from nec_ext import ngf_loss, reference


@pytest.mark.slow
def test_all_of_it_runs(tmp_path: Path) -> None:
    options = ["--quick", "--device", "cpu", "--results", str(tmp_path), "-p", "no:cacheprovider"]
    # Nothing is compiled.
    run = run_python("-m", "pytest", "benchmarks", "-q", *options, TORCHDYNAMO_DISABLE="1")
    assert run.returncode == 0, run.stdout + run.stderr
    (results,) = tmp_path.glob("*.json")
    found = json.loads(results.read_text())
    tests = {row["name"].split("[")[0] for row in found["rows"]}
    assert tests == {
        f"test_{name}"
        for name in ("step", "forward", "size", "batch", "threads", "fits", "options", "training")
    }
    for row in found["rows"]:
        if row["name"] == "test_step[3D 160x192x160]":
            assert row["memory"]["fused"]["peak"] == pytest.approx(1, abs=0.1)
            assert row["memory"]["eager"]["peak"] > 10
        if row["name"] == "test_fits":
            assert max(row["fits"]["peak_bytes"].values()) <= row["fits"]["budget_bytes"]
    assert results.with_suffix(".md").exists()


def test_a_wrong_peer_is_not_timed() -> None:
    race = Race(SimpleNamespace(extra_info={}), CPU, "cpu", quick=True)
    images = race.images((1, 1, 128, 128, 128))
    race.check({"right": eager_ngf_loss}, reference.ngf_loss, *images)
    for wrong in (
        lambda input, target: ngf_loss(input, target) * (1 + 1e-4),
        # The right value with half of the gradient.
        lambda input, target: (ngf_loss(input, target) + ngf_loss(input.detach(), target)) / 2,
        lambda input, target: ngf_loss(input, target) + float("nan"),
    ):
        with pytest.raises(AssertionError, match="peer is wrong"):
            race.check({"peer": wrong}, reference.ngf_loss, *images)


def test_every_call_has_a_turn_in_each_round() -> None:
    def pedantic(call: Any, setup: Any, rounds: int) -> None:
        for _ in range(rounds):
            setup()
            call()

    turns: list[str] = []
    times = SimpleNamespace(stats=SimpleNamespace(data=[1.0, 1.0]))
    benchmark = SimpleNamespace(extra_info={}, pedantic=pedantic, stats=times)
    race = Race(benchmark, CPU, "cpu", quick=True)
    race.times({name: lambda name=name: turns.append(name) for name in ("fused", "a", "b")})
    assert turns[-6:] == ["b", "a", "fused", "a", "b", "fused"]


def test_only_runs_of_the_same_commit_join() -> None:
    facts = {"cpu": "a", "commit": "1234567", "nvidia_smi": "slow"}
    earlier = {**facts, "nvidia_smi": "fast", "rows": [{"name": "x", "ms": 1}, {"name": "y"}]}
    rows = [{"name": "x", "ms": 2}]
    assert joined(earlier, facts, rows) == [{"name": "y"}, {"name": "x", "ms": 2}]
    for change in ({"commit": "7654321"}, {"cpu": "b"}, {"commit": "1234567-dirty"}):
        assert joined(earlier, {**facts, **change}, rows) == rows


# --- In the training steps nothing but the loss is swapped ----------------------------------------

pytestmark = bench_training.pytestmark


# In float64: Adam takes whole steps where a gradient is but rounding errors.
def synthesis() -> Synthesis:
    workload = workloads.tiny("cpu", 3, 16)
    workload.learner.system.double()
    torch.manual_seed(0)
    workload.images = tuple(torch.rand(2, 1, 1, 16, 16, 16, dtype=torch.float64))
    return workload


def registration() -> Registration:
    torch.manual_seed(0)
    noise = F.avg_pool3d(torch.randn(1, 1, 16, 16, 16, dtype=torch.float64), 5, stride=1, padding=2)
    return Registration("noise", noise, -noise.roll(1, dims=2))


@pytest.mark.parametrize("build", [synthesis, registration])
def test_nothing_but_the_loss_is_swapped(build: Callable[..., Workload]) -> None:
    def way_of(function: LossFunction) -> Tensor:
        workload = build()
        parameters = [tensor for tensor in workload.lasting() if tensor.requires_grad]
        before = torch.cat([p.detach().flatten() for p in parameters])
        for _ in range(2):
            workload.step(function)
        assert all(tensor.grad is None for tensor in workload.lasting())
        return torch.cat([p.detach().flatten() for p in parameters]) - before

    fused, eager, other = map(way_of, (nec_ext.ngf_loss, eager_ngf_loss, F.l1_loss))
    assert (fused - eager).norm() < 1e-8 * eager.norm()
    assert (other - eager).norm() > 0.1 * eager.norm()


def test_a_registration_descends_loss_and_bending_energy() -> None:
    workload = registration()
    fixed, moving = workload.images
    knots = workload.descent.knots
    with torch.no_grad():
        knots.normal_()
    warped = warp(moving, F.interpolate(knots, fixed.shape[2:], mode="trilinear"), (1.0, 1.0, 1.0))
    loss = F.l1_loss(warped, fixed) + 0.1 * BendingEnergyLoss()(knots)
    (expected,) = torch.autograd.grad(loss, knots)
    workload.step(F.l1_loss)
    (state,) = workload.optimizers[0].state.values()
    # The first step makes Adam's mean of the gradients a tenth of the first one.
    torch.testing.assert_close(10 * state["exp_avg"], expected)


# --- Pages, plots and comparisons of made-up results ----------------------------------------------

Results = dict[str, Any]
MACHINE = {
    **{"device": "cpu", "cpu": "Some CPU", "cores": 2, "threads": 2, "system": "Linux"},
    **{"python": "3.11.7", "packages": {"torch": "2.13.0", "monai": None}, "commit": "abc1234"},
    "build": {"cpu_capability": "x86-64-v3"},
}


def quartiles(median: float, spread: float = 0.01) -> list[float]:
    return [median * (1 - spread), median, median * (1 + spread)]


def row(name: str, shape: tuple[int, ...] = (1, 1, 10, 10, 10), **more: Any) -> dict[str, Any]:
    """Make a row in which the fused loss takes 2 ms and others multiples of that."""
    ms = {"fused": quartiles(2), "torch.compile": quartiles(10.5)}
    ms |= {"eager": quartiles(40.28, 0.15), "torch.add": quartiles(0.5)}
    memory = {"fused": {"peak": 1.0, "saved": 1.0}, "eager": {"peak": 15.0, "saved": 12.0}}
    memory["torch.compile"] = {"peak": 6.1, "saved": 2.0}
    facts = {"name": name, "goals": [], "shape": list(shape), "dtype": "float32"}
    return {**facts, "ms": ms, "memory": memory, **more}


def training(name: str, loss_ms: dict[str, float], rest: float) -> dict[str, Any]:
    return {
        "name": f"test_training[{name}]",
        "goals": [],
        "shape": [1, 1, 256, 256, 256],
        "what": f"Trains the {name}.",
        "ms": {call: quartiles(rest + ms) for call, ms in loss_ms.items()},
        "loss_ms": {call: quartiles(ms) for call, ms in loss_ms.items()},
        "peak_bytes": dict.fromkeys(loss_ms, 4_000_000_000),
        "lasting_bytes": 1_000_000_000,
    }


def every_row() -> list[dict[str, Any]]:
    missed = {"name": "eager / fused", "goal": ">= 50", "measured": 20.14, "reached": False}
    fits = {
        "budget_bytes": 2e9,
        "edges": {"fused": 544, "eager": 272},
        "peak_bytes": {"fused": 1_900_000_000, "eager": 1_800_000_000},
    }
    sums = {"fused": quartiles(1), "two torch.sum": quartiles(0.5)}
    option = {"fused": quartiles(2), "fused, plain": quartiles(1)}
    return [
        row("test_step[3D 256x256x256]", goals=[missed]),
        row("test_forward[cube]", ms=sums),
        *(row(f"test_size[{n}]", (1, 1, n, n, n)) for n in (16, 32, 64)),
        *(row(f"test_batch[{n}-device]", (n, 1, 256, 256), clock="device") for n in (1, 4)),
        *(row(f"test_threads[{n}]", threads=n) for n in (1, 2)),
        row("test_options[sobel]", ms=option),
        row("test_fits", fits=fits),
        training("U-Net", {"fused": 0.1, "eager": 1.0}, rest=199.0),
        training("registration", {"fused": 1.0, "eager": 30.0}, rest=70.0),
    ]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "machine.json"
    path.write_text(json.dumps({**MACHINE, "rows": every_row()}))
    return path


def run(monkeypatch: pytest.MonkeyPatch, main: Any, *arguments: Path) -> Any:
    monkeypatch.setattr(sys, "argv", ["", *map(str, arguments)])
    return main()


def test_readme(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    readme = path.with_name("README.md")
    readme.write_text("no marks")
    with pytest.raises(SystemExit, match="needs the marks <!-- results: begin -->"):
        run(monkeypatch, report.main, path, readme)
    before, after = "before\n<!-- results: begin -->", "<!-- results: end -->\nafter\n"
    readme.write_text(f"{before}\nold\n{after}")
    gpu = path.with_name("gpu.json")
    eager = {**row("")["ms"], "eager": quartiles(3000), "eager, fields": quartiles(10)}
    step = row("test_step[3D 256x256x256]", ms=eager)
    step["memory"]["eager, fields"] = {"peak": 18.2, "saved": 1.0}
    facts = {"device": "cuda", "gpu": "Some GPU", "nvidia_smi": {}, "torch_cuda": "13.0"}
    gpu.write_text(json.dumps({**MACHINE, **facts, "rows": [step]}))
    run(monkeypatch, report.main, path, gpu, readme)
    text = readme.read_text()
    assert text.startswith(before) and text.endswith(after) and "old" not in text
    assert "**In 3D, 5 to 20 times faster than eager PyTorch and 5 times faster than" in text
    assert "| Some CPU, 2 threads | 40.3 ms | 10.5 ms | **2.00 ms** | 500 us |" in text
    assert "| Some GPU | 10.0 ms | 10.5 ms | **2.00 ms** | 500 us |" in text
    assert "| memory | volumes beside the images | 18 | 6.1 | **1** | - |" in text
    assert "The eager loss takes 30 % of a step of registration, 256x256x256 voxels" in text
    assert "less than 2 % of a training step with these networks" in text
    assert "hardly changes the time: U-Net." in text
    assert (readme.parent / "summary.png").stat().st_size > 1000


def test_page_and_plots(path: Path) -> None:
    text = report.write_page(path).read_text()
    assert "| 3D 256x256x256 | 2.00 | 2000 | 5.25 | 20.1 ± 15 % | 0.250 |" in text
    assert "| step[3D 256x256x256] | eager / fused >= 50 | 20.1 | **missed** |" in text
    assert "| 3D 256x256x256 | 1.00 | 1.00 | 15.00 | 12.00 |" in text  # memory
    assert "| eager | 272 | 1.80 | 8.00 |" in text  # of the largest cubes
    assert "| sobel | 2.00 | 2000 | 2.00 |" in text  # twice the plain loss
    assert "| U-Net | fused | 199 | 1 % | < 0.1 % | 0.45 % (within the spread) | 5.00 |" in text
    assert "The eager loss takes 30 % of a step in registration." in text
    assert {plot.stem for plot in path.parent.glob("machine/*.png")} == set(plots.PLOTS)


def test_check(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    old, other = json.loads(path.read_text()), path.with_name("new.json")

    def compared(new: Results) -> tuple[int, list[str]]:
        other.write_text(json.dumps(new))
        code = run(monkeypatch, check.main, path, other)
        return code, capsys.readouterr().out.splitlines()

    new = copy.deepcopy(old)
    step, forward = new["rows"][:2]
    step["ms"]["torch.compile"] = quartiles(0.95 * 10.5)
    assert compared(new)[0] == 0
    step["ms"]["torch.compile"] = quartiles(0.8 * 10.5, 0.07)
    step["memory"]["fused"]["peak"] = 1.2
    forward["ms"]["fused"] = quartiles(1.25)  # and with it what it is compared with falls
    code, (_, *flagged, _) = compared(new)
    assert code == 1
    assert [re.split(r"  +", line) for line in flagged] == [
        ["test_step[3D 256x256x256]", "peak memory, volumes", "1.00", "1.20", "20 %"],
        ["test_step[3D 256x256x256]", "torch.compile / fused", "5.25", "4.20", "-20 %", "7 %"],
        ["test_forward[cube]", "two torch.sum / fused", "0.500", "0.400", "-20 %", "1 %"],
    ]

    code, (last,) = compared({**old, "threads": 4, "rows": old["rows"][1:]})
    assert code == 0
    assert "in one file only: test_step[3D 256x256x256]" in last
    assert "WARNING, measured with different threads 2 and 4" in last
