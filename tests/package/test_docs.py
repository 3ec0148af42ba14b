# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""The pages: their snippets run, and a call for another loss is what its formula says."""

import csv
import inspect
import math
import re
import statistics
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import metadata
from pathlib import Path
from typing import Any, NamedTuple

import nibabel
import numpy
import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from helpers import ROOT
from inputs import generator
from monai.networks.layers import GaussianFilter
from torch import Tensor

import nec_ext

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


def test_options_are_those_of_the_signature() -> None:
    page = (ROOT / "docs" / "options.md").read_text()
    stated = dict(re.findall(r"^\| `(\w+)` \| (.+?) \|", page, re.MULTILINE))
    parameters = inspect.signature(nec_ext.ngf_loss).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
    words = {"target_eps": "as `eps`", "spacing": "1", "mask": "none"}
    assert [name for name, value in defaults.items() if value is None] == list(words)
    texts = {n: f'`"{v}"`' if isinstance(v, str) else f"{v:g}" for n, v in defaults.items() if v}
    assert stated == words | texts


def test_badges() -> None:
    facts = metadata("nec_ext")
    (of_torch,) = (need for need in facts.get_all("Requires-Dist") if need.startswith("torch>"))
    for name, text in (
        ("licence", facts["License-Expression"]),
        ("python", f"{facts['Requires-Python'].removeprefix('>=')} or later"),
        ("torch", f"{of_torch.removeprefix('torch>=')} or later"),
    ):
        assert f">{text}</text>" in (ROOT / f"docs/figures/{name}.svg").read_text()


class Row(NamedTuple):
    name: str
    call: str
    error: float


def read_rows() -> list[Row]:
    lines = (ROOT / "docs" / "coming-from.md").read_text().splitlines()
    rows = (re.split(r"(?<!\\)\|", line.strip("|")) for line in lines)
    cells = (row for row in rows if len(row) == 4 and "`" in row[2])
    return [Row(name.strip(), call.strip(" `"), float(error)) for name, _, call, error in cells]


def images(name: str, *shape: int) -> Tensor:
    return torch.rand(shape, dtype=torch.float64, generator=generator(name))


x, y = (images(name, 2, 2, 7, 9, 8) for name in "xy")
mask, other_mask = (images(name, 2, 1, 7, 9, 8).round() for name in ("mask", "other"))
inside = F.pad(torch.ones(5, 7, 6, dtype=torch.float64), [1] * 6)
alpha = images("alpha", 2, 2, 7, 9, 8)
eps, spacing = 0.2, (1.5, 0.8, 1.0)
h = math.prod(spacing)
gaussian = GaussianFilter(3, 0.7).double()


def gradient(image: Tensor, steps: Sequence[float] = (1, 1, 1), mode: str = "replicate") -> Tensor:
    """Central differences, stacked before the axes of the image."""
    padded = F.pad(image, [1] * 6, mode=mode)
    differences = (
        padded[..., 2:, 1:-1, 1:-1] - padded[..., :-2, 1:-1, 1:-1],
        padded[..., 1:-1, 2:, 1:-1] - padded[..., 1:-1, :-2, 1:-1],
        padded[..., 1:-1, 1:-1, 2:] - padded[..., 1:-1, 1:-1, :-2],
    )
    return torch.stack([d / (2 * s) for d, s in zip(differences, steps, strict=True)])


def sobel(image: Tensor, sum_of_weights: float) -> Tensor:
    """Compute the differences of one plane by Sobel's kernel."""
    kernel = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]]).double() / sum_of_weights
    padded = F.pad(image[:, :, 3].flatten(0, 1)[:, None], [1] * 4, mode="replicate")
    both = F.conv2d(padded, torch.stack([kernel, kernel.T])[:, None])
    return both.movedim(1, 0).unflatten(1, image.shape[:2])


def one_sided(image: Tensor) -> Tensor:
    return torch.stack(torch.gradient(image, dim=(2, 3, 4)))


def length(d: Tensor) -> Tensor:
    return d.square().sum(0).sqrt()


def field(d: Tensor, level: Tensor | float = eps) -> Tensor:
    return d / (d.square().sum(0) + level**2).sqrt()


def alignment(
    d: Tensor, e: Tensor, level: Tensor | float = eps, other: Tensor | float | None = None
) -> Tensor:
    return (field(d, level) * field(e, level if other is None else other)).sum(0)


def t(x: Tensor, y: Tensor, *levels: Tensor, **how: Any) -> Tensor:
    return alignment(gradient(x, **how), gradient(y, **how), *levels)


def nec(t: Tensor) -> Tensor:
    return 1 - t.square().mean() / 2


def masked_mean(values: Tensor, weights: Tensor) -> Tensor:
    weights = weights.expand_as(values)
    return (weights * values).sum() / weights.sum()


def level_of(image: Tensor, weights: Tensor | None = None, of: Any = torch.mean) -> Tensor:
    """Apply a statistic to the gradient's lengths in a mask, for every image on its own."""
    lengths = length(gradient(image.detach()))
    weights = torch.ones_like(image) if weights is None else weights.expand_as(image)
    values = [of(lengths[b, c][weights[b, c] > 0]) for b in range(2) for c in range(2)]
    return torch.stack(values).view(2, 2, 1, 1, 1)


def rms(values: Tensor) -> Tensor:
    return values.square().mean().sqrt()


def additive_field(image: Tensor) -> Tensor:
    d = gradient(image)
    return d / (length(d) + eps)


def authors_field(image: Tensor) -> Tensor:
    d = sobel(image, 8)
    return d / ((d.square().sum(0) + eps**2).sqrt() + 1e-8)


def quotient(x: Tensor, y: Tensor, absolute: bool = False) -> Tensor:
    d, e = gradient(x), gradient(y)
    product = (d * e).sum(0)
    product = product.abs() if absolute else product
    lengths = (d.square().sum(0) + eps**2).sqrt() * (e.square().sum(0) + eps**2).sqrt()
    return (product + eps * eps) / lengths


def cross(x: Tensor, y: Tensor) -> Tensor:
    fields = (field(gradient(image, spacing)) for image in (x, y))
    return torch.linalg.cross(*fields, dim=0).square().sum(0)


def eroded(weights: Tensor) -> Tensor:
    outside = (weights == 0).double().expand(2, 1, 7, 9, 8)
    plus = torch.zeros(3, 3, 3).double()
    plus[1, 1, :] = plus[1, :, 1] = plus[:, 1, 1] = 1
    reached = F.conv3d(F.pad(outside, [1] * 6, mode="replicate"), plus[None, None])
    return (reached == 0).double()


INNER = (..., *[slice(1, -1)] * 3)
# From the images to the number, for the name of the row.
FORMULAS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "NEC, the paper": lambda x, y, a: nec((additive_field(x) * additive_field(y)).sum(0)),
    "NEC, the authors' code": lambda x, y, a: nec((authors_field(x) * authors_field(y)).sum(0)),
    "1 - t²": lambda x, y, a: (1 - t(x, y) ** 2).mean(),
    "(1 - t²) / 2, in a mask": lambda x, y, a: masked_mean((1 - t(x, y) ** 2) / 2, mask),
    "AirLab, and copies of it": lambda x, y, a: -(t(x, y) ** 2).mean() / 2,
    "FAIR, NGFdot": lambda x, y, a: h * x.numel() - h * (t(x, y, steps=spacing) ** 2).sum(),
    "FAIR, NGFcross": lambda x, y, a: h / 2 * cross(x, y).sum(),
    "signed": lambda x, y, a: (1 - t(x, y)).mean(),
    "signed, Huber": lambda x, y, a: F.huber_loss(t(x, y), torch.ones_like(x)),
    "MIRTK": lambda x, y, a: (1 - quotient(x, y)).mean() / 2,
    "ritk": lambda x, y, a: (1 - quotient(x, y) ** 2).mean(),
    "absolute, augmented": lambda x, y, a: (1 - quotient(x, y, True)).mean(),
    "preserved texture, a metric": lambda x, y, a: (t(x, y) ** 2).mean(),
    "AdaNGF, its edge map": lambda x, y, a: length(field(gradient(x), a.sqrt())),
    "AdaNGF": lambda x, y, a: nec(t(x, y, a.sqrt())),
    "Haber and Modersitzki": lambda x, y, a: nec(t(x, y, level_of(x), level_of(y))),
    "MIRTK, ritk": lambda x, y, a: nec(t(x, y, level_of(x, mask), level_of(y, mask))),
    "from the fixed image alone": lambda x, y, a: nec(t(x, y, level_of(y))),
    "AirLab": lambda x, y, a: nec(t(x, y, gradient(y).abs().sum(0).mean())),
    "a median": lambda x, y, a: nec(t(x, y, level_of(x, mask, torch.median))),
    "a share of the RMS": lambda x, y, a: nec(t(x, y, 0.1 * level_of(x, mask * other_mask, rms))),
    "differences not halved": lambda x, y, a: nec(alignment(2 * gradient(x), 2 * gradient(y))),
    "Sobel without its 1/8, in 2D": lambda x, y, a: nec(alignment(sobel(x, 1), sobel(y, 1))),
    "`torch.gradient`, cropped": lambda x, y, a: nec(alignment(one_sided(x), one_sided(y))[INNER]),
    "zero padding, cropped": lambda x, y, a: nec(t(x, y, mode="constant")[INNER]),
    "times the spacing": lambda x, y, a: nec(t(x, y, steps=[1 / s for s in spacing])),
    "smoothed before": lambda x, y, a: nec(t(gaussian(x), gaussian(y))),
    "FireANTs, masked": lambda x, y, a: torch.stack(
        [masked_mean(1 - t(x, y)[b] ** 2 / 2, mask[b]) for b in range(2)]
    ).mean(),
    "two masks": lambda x, y, a: masked_mean(1 - t(x, y) ** 2 / 2, mask * other_mask),
    "kornia": lambda x, y, a: nec(t(x, y)),
    "SGDIR": lambda x, y, a: nec(t(x.mean(1, keepdim=True), y.mean(1, keepdim=True))),
    "weights from edges": lambda x, y, a: masked_mean(
        1 - t(x, y) ** 2 / 2, length(field(gradient(y)))
    ),
    "an eroded mask": lambda x, y, a: masked_mean(1 - t(x, y) ** 2 / 2, eroded(mask)),
}


def test_every_row_has_its_formula() -> None:
    assert [row.name for row in read_rows()] == list(FORMULAS)


@pytest.mark.parametrize("row", read_rows(), ids=lambda row: row.name)
def test_call(row: Row) -> None:
    def values(of: Callable[[Tensor, Tensor, Tensor], Tensor]) -> tuple[Tensor, ...]:
        leaves = x.clone().requires_grad_(), alpha.clone().requires_grad_()
        value = of(leaves[0], y, leaves[1])
        upstream = torch.randn(value.shape, dtype=value.dtype, generator=generator("upstream"))
        gradients = torch.autograd.grad(
            value, leaves, upstream, allow_unused=True, materialize_grads=True
        )
        return value.detach(), *gradients

    def call(x: Tensor, y: Tensor, alpha: Tensor) -> Tensor:
        names = {
            **vars(nec_ext),
            "image_gradient": nec_ext.reference.image_gradient,
            "huber": lambda loss: F.huber_loss(loss, torch.zeros_like(loss)),
            **{"x": x, "y": y, "x2d": x[:, :, 3], "y2d": y[:, :, 3], "alpha": alpha},
            **{"mask": mask, "other_mask": other_mask, "inside": inside},
            **{"eps": eps, "h": h, "spacing": spacing, "gaussian": gaussian},
            "q": {"eps": eps, "eps_mode": "quadrature"},
        }
        return eval(row.call, names)

    for actual, expected in zip(values(call), values(FORMULAS[row.name]), strict=True):
        assert (actual - expected).norm() <= row.error * expected.norm()


def test_the_results_in_pages_are_those_of_the_files() -> None:
    brats = ROOT / "examples/brats/results/brats/metrics.csv"
    values: dict[str, dict[str, list[float]]] = {}
    with brats.open(newline="") as file:
        for row in csv.DictReader(file):
            values.setdefault(row["system"], {}).setdefault(row["seed"], []).append(
                float(row["psnr"])
            )
    psnr = {
        name: statistics.median(statistics.mean(seed) for seed in seeds.values())
        for name, seeds in values.items()
    }
    readme = (ROOT / "README.md").read_text("utf-8")
    page = (ROOT / "examples/brats/README.md").read_text("utf-8")
    for name in ("NEC", "Pix2Pix", "best intensity map"):
        assert f"{psnr[name]:.1f} dB" in readme, name
    for name in ("best", "CUT", "CycleGAN", "GAN alone", "NEC", "Pix2Pix"):
        known = next(value for key, value in psnr.items() if key.startswith(name))
        assert re.search(rf"^\| \**{name}[^|]*\| {known:.1f} \|", page, re.M), name

    results = (ROOT / "examples/registration/results/brats/results.md").read_text("utf-8")
    before, ngf, lncc, mi = re.findall(
        r"([\d.]+) mm", results.partition("Mean over the pairs:")[2]
    )[:4]
    stated = (
        f"{before} mm of error become {ngf} mm, with MONAI's local cross-correlation {lncc} mm and"
    )
    assert f"{stated} with its mutual information {mi} mm" in " ".join(readme.split())
