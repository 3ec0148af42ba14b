# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""The snippets of the pages run, and the diff of the README changes no number."""

import re
from collections.abc import Iterator
from importlib.metadata import metadata
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
import torch.distributed as dist
from helpers import ROOT

import nec_ext

nibabel = pytest.importorskip("nibabel")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture
def group() -> Iterator[dist.ProcessGroup]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield dist.group.WORLD
    dist.destroy_process_group()


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, "python")], ids=lambda p: p.name)
def test_snippets(
    page: Path, group: dist.ProcessGroup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    image, target = torch.rand(2, 1, 1, 8, 9, 10)
    for name in ("t1", "t2"):
        voxels = numpy.random.default_rng(0).integers(0, 900, (8, 9, 10), numpy.int16)
        nibabel.save(nibabel.Nifti1Image(voxels, numpy.eye(4)), f"{name}.nii")
    for name in ("generated", "source"):
        numpy.save(f"{name}.npy", voxels.astype("float32"))
    names: dict[str, Any] = {
        **{"torch": torch, "nec_ext": nec_ext, "numpy": numpy, "nibabel": nibabel},
        **{"image": image, "generated": image.clone().requires_grad_(), "target": target},
        **{"source": target, "mr": target, "brain": target > 0.2, "mask": target > 0.1},
        **{"planes_of_generated": image.clone().requires_grad_(), "planes_of_source": target},
        **{"eps": 0.15, "spacing": (1.0, 2.0, 3.0), "group": group},
    }
    for code in blocks(page, "python"):
        exec(code, names)


def test_diff_of_the_readme() -> None:
    (diff,) = blocks(PAGES[0], "diff")
    batches = torch.rand(2, 1, 1, 6, 7, 8)
    losses, gradients = [], []
    for sign in "-+":
        network = torch.nn.Conv3d(1, 1, 3, padding=1)
        network.load_state_dict({name: 0 * v + 0.1 for name, v in network.state_dict().items()})
        names = {"torch": torch, "F": torch.nn.functional, "network": network, "batches": batches}
        exec("".join(re.findall(rf"^[ {sign}](.*\n)", diff, re.MULTILINE)), names)
        losses.append(names["loss"])
        gradients.append(network.weight.grad)
    torch.testing.assert_close(*losses)
    torch.testing.assert_close(*gradients)


def test_badges() -> None:
    facts = metadata("nec_ext")
    (of_torch,) = (need for need in facts.get_all("Requires-Dist") if need.startswith("torch>"))
    for name, text in (
        ("licence", facts["License-Expression"]),
        ("python", f"{facts['Requires-Python'].removeprefix('>=')} or later"),
        ("torch", f"{of_torch.removeprefix('torch>=')} or later"),
    ):
        assert f">{text}</text>" in (ROOT / f"docs/figures/{name}.svg").read_text()
