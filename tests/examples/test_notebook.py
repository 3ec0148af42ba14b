# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""examples/quickstart: the notebook has the cells of the file, whose code does what it says."""

import json
import re
import sys
from typing import Any

import matplotlib.pyplot as plt
import pytest
from helpers import ROOT

FILE = ROOT / "examples" / "quickstart.py"


def cells() -> list[str]:
    first, *parts = re.split(r"^# %%( \[markdown\])?\n", FILE.read_text(), flags=re.MULTILINE)
    pairs = zip(parts[::2], parts[1::2], strict=True)
    rest = [re.sub(r"^# ?", "", t, flags=re.MULTILINE) if mark else t for mark, t in pairs]
    return [cell.strip() for cell in (first, *rest)]


def test_notebook_is_the_file() -> None:
    notebook = json.loads(FILE.with_suffix(".ipynb").read_text())
    assert ["".join(cell["source"]) for cell in notebook["cells"]] == cells()


def test_code(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(plt, "show", lambda: plt.close("all"))
    names: dict[str, Any] = {}
    exec(FILE.read_text().replace("(80, 96, 80)", "(40, 48, 40)"), names)
    assert names["aligned"].mean() < names["apart"].mean()
    assert names["after"] < names["before"] / 4
    shown = capsys.readouterr().out
    (fused, eager) = re.findall(
        r"loss ([\d.]+), length of the gradient (\S+)\n.* ([\d.]+) vol", shown
    )
    assert fused[:2] == eager[:2]
    assert float(fused[2]) < 1.2 and float(eager[2]) > 10
