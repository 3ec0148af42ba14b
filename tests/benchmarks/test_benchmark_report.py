# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""Pages, plots and comparisons say what made-up results hold."""

from __future__ import annotations

import copy
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from benchmarks import check, plots, report

Results = dict[str, Any]
EDGES, BATCHES = (16, 32, 64), (1, 4)
CPU = {
    "device": "cpu",
    "cpu": "Some CPU",
    "cores": 2,
    "threads": 2,
    "system": "Linux",
    "python": "3.11.7",
    "packages": {"torch": "2.13.0", "monai": None},
    "build": {"cpu_capability": "x86-64-v3"},
    "commit": "abc1234",
}
GPU = {**CPU, "device": "cuda", "gpu": "Some GPU", "nvidia_smi": {}, "torch_cuda": "13.0"}


def quartiles(median: float, spread: float = 0.01) -> list[float]:
    return [median * (1 - spread), median, median * (1 + spread)]


def row(name: str, shape: tuple[int, ...] = (1, 1, 10, 10, 10), **more: Any) -> dict[str, Any]:
    """Make a row in which the fused loss takes 2 ms and others multiples of that."""
    return {
        "name": name,
        "goals": [],
        "shape": list(shape),
        "dtype": "float32",
        "ms": {
            "fused": quartiles(2),
            "torch.compile": quartiles(10.5),
            "eager": quartiles(40.28, 0.15),
            "torch.add": quartiles(0.5),
        },
        "memory": {"fused": {"peak": 1.0, "saved": 1.0}, "eager": {"peak": 15.0, "saved": 12.0}},
        **more,
    }


def training(name: str, loss_ms: dict[str, float], rest: float) -> dict[str, Any]:
    return {
        "name": f"test_training[{name}]",
        "goals": [],
        "what": f"Trains the {name}.",
        "ms": {call: quartiles(rest + ms) for call, ms in loss_ms.items()},
        "loss_ms": {call: quartiles(ms) for call, ms in loss_ms.items()},
        "peak_bytes": dict.fromkeys(loss_ms, 4_000_000_000),
        "lasting_bytes": 1_000_000_000,
    }


def every_row() -> list[dict[str, Any]]:
    missed = {"name": "eager / fused", "goal": ">= 50", "measured": 20.14, "reached": False}
    reached = {"name": "peak memory, volumes", "goal": "<= 1.01", "measured": 1.0, "reached": True}
    fits = {
        "budget_bytes": 2e9,
        "edges": {"fused": 544, "eager": 272},
        "peak_bytes": {"fused": 1_900_000_000, "eager": 1_800_000_000},
    }
    forward = row("test_forward[cube]")
    forward["ms"] = {"fused": quartiles(1), "two torch.sum": quartiles(0.5)}
    threads = [row(f"test_threads[{n}]", threads=n) for n in (1, 2)]
    threads[1]["ms"]["fused"] = quartiles(1.25)
    option = row("test_options[sobel]")
    option["ms"]["fused, plain"] = quartiles(1)
    return [
        row("test_step[cube]", goals=[missed, reached]),
        forward,
        *(row(f"test_size[{n}]", (1, 1, n, n, n)) for n in EDGES),
        *(row(f"test_batch[{n}-device]", (n, 1, 256, 256), clock="device") for n in BATCHES),
        *threads,
        option,
        row("test_fits", fits=fits),
        training("U-Net", {"fused": 0.1, "eager": 1.0}, rest=199.0),
        training("registration", {"fused": 1.0, "eager": 30.0}, rest=70.0),
    ]


def write(folder: Path, facts: Results, rows: list[dict[str, Any]]) -> Path:
    path = folder / "machine.json"
    path.write_text(json.dumps({**facts, "rows": rows}))
    return path


def links(page: Path) -> set[str]:
    return set(re.findall(r"!\[[^]]+\]\(([^)]+)\)", page.read_text()))


def run(monkeypatch: pytest.MonkeyPatch, main: Any, *arguments: Path) -> Any:
    monkeypatch.setattr(sys, "argv", ["", *map(str, arguments)])
    return main()


def test_page() -> None:
    text = report.tables({**CPU, "rows": every_row()})
    assert "| cube | 2.00 | 2000 | 5.25 | 20.1 ± 15 % | 0.250 |" in text
    assert "| step[cube] | eager / fused >= 50 | 20.1 | **missed** |" in text
    assert "| step[cube] | peak memory, volumes <= 1.01 | 1 | reached |" in text
    assert "1 of 2 are reached." in text
    assert "| cube | 1.00 | 1.00 | 15.00 | 12.00 |" in text  # memory
    assert "| cube | 1.00 | 1000 | 0.500 |" in text  # forward
    assert "| eager | 272 | 1.80 | 8.00 |" in text  # of the largest cubes
    assert "| sobel | 2.00 | 2000 | 2.00 |" in text  # twice the plain loss
    assert "| registration | fused | 71.0 | 1 % | 1.4 % | 29 % | 5.00 |" in text
    assert "| U-Net | fused | 199 | 1 % | < 0.1 % | 0.45 % (within the spread) | 5.00 |" in text
    assert "The eager loss takes 0.5 % of a step in U-Net: there, below 2 %, the choice" in text
    assert "The eager loss takes 30 % of a step in registration." in text


def test_plots_are_those_of_the_page(tmp_path: Path) -> None:
    old = tmp_path / "machine" / "old.png"
    old.parent.mkdir()
    old.touch()
    page = report.write_page(write(tmp_path, CPU, every_row()))
    assert links(page) == {f"machine/{name}.png" for name in plots.PLOTS}
    assert {path.relative_to(tmp_path).as_posix() for path in old.parent.iterdir()} == links(page)


def test_plots_of_some_tests(tmp_path: Path) -> None:
    for test, drawn in (
        ("fits", set()),
        ("size", {"size", "bandwidth", "memory"}),
        ("threads[1]", set()),  # no plot of a single point
        ("threads", {"threads"}),
        ("training", {"training"}),
    ):
        rows = [r for r in every_row() if r["name"].startswith(f"test_{test}")]
        page = report.write_page(write(tmp_path, CPU, rows))
        assert links(page) == {f"machine/{name}.png" for name in drawn}
        assert {path.stem for path in tmp_path.glob("machine/*")} == drawn


def heights(name: str, call: str) -> list[float]:
    """Read the heights that a plot shows of a call."""
    axes = Figure().add_subplot()
    assert plots.PLOTS[name].fill({**CPU, "rows": every_row()}, axes)
    (line,) = (c.lines[0] for c in axes.containers if c.get_label().startswith(call))
    return [float(y) for y in line.get_ydata()]


def test_what_plots_show() -> None:
    assert heights("size", "fused") == pytest.approx([2e6 / n**3 for n in EDGES])
    assert heights("batch", "torch.compile") == pytest.approx([10_500, 10_500])
    assert heights("bandwidth", "fused") == pytest.approx([25, 25, 25])
    assert heights("threads", "fused") == pytest.approx([1, 1.6])
    volumes = [4e-9 * n**3 for n in EDGES]
    assert heights("memory", "eager") == pytest.approx([*(17 * v for v in volumes), 1.8])


def test_terminal() -> None:
    for each in every_row():
        lines = report.row_lines(each)
        assert lines[0].startswith(f"{each['name']}: fused ")
        assert max(map(len, lines)) <= report.WIDTH
    text = "\n".join(report.row_lines(every_row()[0]))
    assert "fused 2.00 ms, 2000 ns per voxel" in text
    assert "torch.compile 5.25x; eager 20.1x ± 15 %" in text
    assert "MISSED: eager / fused >= 50, measured 20.1" in text


README = """before
<!-- gpu results: begin -->
of a GPU
<!-- gpu results: end -->
between
<!-- results: begin -->
old
<!-- results: end -->
after
"""


@pytest.mark.parametrize("facts", [CPU, GPU], ids=["cpu", "gpu"])
def test_readme(facts: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "some" / "results"
    folder.mkdir(parents=True)
    rows = [r for r in every_row() if re.match("test_(step|size|training)", r["name"])]
    path, readme = write(folder, facts, rows), tmp_path / "README.md"
    readme.write_text(README)
    run(monkeypatch, report.main, path, readme)
    text = readme.read_text()
    old, other = ("old", "of a GPU") if facts is CPU else ("of a GPU", "old")
    before, after = README.split(f"\n{old}\n")
    assert text.startswith(before) and text.endswith(after) and other in text
    new = text[len(before) : -len(after)]
    assert "5.25 | 20.1 ± 15 % | 0.250 | 1.00 | 15.00 |" in new
    assert "| registration | 100 ms | 30 % | 71.0 ms | 1.4 % |" in new
    assert "(some/results/machine.md)" in new and "`some/results/machine.json`" in new
    assert links(readme) == {"some/results/machine/size.png"}
    run(monkeypatch, report.main, path, readme)
    assert readme.read_text() == text


def test_readme_without_marks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, readme = write(tmp_path, CPU, every_row()[:1]), tmp_path / "README.md"
    for text in ("", "<!-- results: begin -->", "<!-- results: end --> <!-- results: begin -->"):
        readme.write_text(text)
        with pytest.raises(SystemExit, match="needs the marks <!-- results: begin -->"):
            run(monkeypatch, report.main, path, readme)
        assert readme.read_text() == text


def test_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    old = {**CPU, "rows": every_row()}
    (tmp_path / "old.json").write_text(json.dumps(old))

    def compared(new: Results) -> tuple[int, list[str]]:
        (tmp_path / "new.json").write_text(json.dumps(new))
        code = run(monkeypatch, check.main, tmp_path / "old.json", tmp_path / "new.json")
        return code, capsys.readouterr().out.splitlines()

    assert compared(old) == (0, [f"{len(old['rows'])} rows compared."])

    new = copy.deepcopy(old)
    step, forward = new["rows"][:2]
    step["ms"]["torch.compile"] = quartiles(0.95 * 10.5)
    step["memory"]["fused"]["saved"] = 1.05
    assert compared(new)[0] == 0

    step["ms"]["torch.compile"] = quartiles(0.8 * 10.5, 0.07)
    step["memory"]["fused"]["peak"] = 1.2
    forward["ms"]["fused"] = quartiles(1.25)  # and with it what it is compared with falls
    code, (_, *flagged, last) = compared(new)
    assert code == 1 and last == f"{len(old['rows'])} rows compared."
    assert [re.split(r"  +", line) for line in flagged] == [
        ["test_step[cube]", "peak memory, volumes", "1.00", "1.20", "20 %"],
        ["test_step[cube]", "torch.compile / fused", "5.25", "4.20", "-20 %", "7 %"],
        ["test_forward[cube]", "two torch.sum / fused", "0.500", "0.400", "-20 %", "1 %"],
    ]

    different = {**old, "threads": 4, "rows": copy.deepcopy(old["rows"][1:])}
    del different["rows"][0]["ms"]["two torch.sum"]
    code, (last,) = compared(different)
    assert code == 0
    assert "in one file only: test_step[cube], two torch.sum of test_forward[cube]" in last
    assert "WARNING, measured with different threads 2 and 4" in last


def test_bad_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "bad.json"
    for main, text in (
        (report.main, None),
        (check.main, "no JSON"),
        (report.main, "[]"),
        (check.main, '{"rows": []}'),
    ):
        if text is not None:
            path.write_text(text)
        with pytest.raises(SystemExit, match=r"^\S+bad\.json (cannot be read:|is not) .*\.$"):
            run(monkeypatch, main, path, path)
