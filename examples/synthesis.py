# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""Make a T2 from a T1 without pairs: NEC on the brain phantom, in one file to copy from.

    python -m examples.synthesis                                   # slices: two minutes
    python -m examples.synthesis --dims 3 --size 64 --steps 3000   # volumes: for a GPU

The generator sees T1 of some subjects, the discriminator T2 of others. The discriminator teaches
the contrast; the NGF loss between the generator's input and output keeps the anatomy. At the end,
the results for new subjects are compared with their true T2: the example prints the PSNR and draws
a figure in out/synthesis.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from monai.networks.nets import MultiScalePatchDiscriminator, UNet
from torch import Tensor
from tqdm import tqdm

import nec_ext
from nec_ext._console import run_command

from .common.phantom import brain_phantom

TEST_SUBJECTS = 6

# --------------------------------------------------------------------------------------------------
# Images: (N, 1, X, Y) or (N, 1, X, Y, Z) in [-1, 1], background -1
# --------------------------------------------------------------------------------------------------


def load(subjects: range, size: int, dims: int) -> tuple[Tensor, Tensor]:
    """Make the T1 and the T2 of subjects; replace this by your own images."""
    pairs = [
        [scaled(image) for image in brain_phantom((size,) * dims, index=index)[:2]]
        for index in tqdm(subjects, desc="phantom", leave=False)
    ]
    t1, t2 = (torch.stack(images)[:, None] for images in zip(*pairs, strict=True))
    return t1, t2


def scaled(image: np.ndarray) -> Tensor:
    """Scale the percentiles 1 and 99 of an image to -1 and 1."""
    low, high = np.percentile(image, (1, 99))
    return torch.from_numpy(2 * np.clip((image - low) / (high - low), 0, 1) - 1).float()


def draw(images: Tensor, count: int) -> Tensor:
    """Draw images at random, half of them mirrored."""
    batch = images[torch.randint(len(images), (count,))]
    return batch.flip(2) if torch.rand(()) < 0.5 else batch


# --------------------------------------------------------------------------------------------------
# Training
# --------------------------------------------------------------------------------------------------


def adversarial_loss(logits: list[Tensor], real: bool) -> Tensor:
    """Average the cross-entropy to the answer ``real`` over the maps of all scales."""
    return torch.stack([F.softplus(-scale if real else scale).mean() for scale in logits]).mean()


def train(t1: Tensor, t2: Tensor, options: argparse.Namespace) -> UNet:
    """Train a generator on T1 of some subjects and T2 of others."""
    generator = UNet(
        options.dims, 1, 1, channels=(16, 32, 64, 128), strides=(2, 2, 2), num_res_units=2
    ).to(t1.device)
    discriminator = MultiScalePatchDiscriminator(
        num_d=3, num_layers_d=1, spatial_dims=options.dims, channels=16, in_channels=1
    ).to(t1.device)
    optimizers = [
        torch.optim.Adam(network.parameters(), lr=1e-3, betas=(0.5, 0.999))
        for network in (discriminator, generator)
    ]

    def judge(images: Tensor, real: bool) -> Tensor:
        return adversarial_loss(discriminator(images)[0], real)

    bar = tqdm(range(options.steps), unit="step")
    for step in bar:
        source, target = draw(t1, options.batch), draw(t2, options.batch)
        fake = generator(source)

        discriminator_loss = (judge(target, True) + judge(fake.detach(), False)) / 2
        optimizers[0].zero_grad()
        discriminator_loss.backward()
        optimizers[0].step()

        # The NGF loss does not depend on the direction of an edge. So it starts when the
        # discriminator has turned the contrast: from the first step on it would keep the source's.
        done = step / options.steps
        weight = options.weight * min(max((done - 0.13) / 0.1, 0), 1)
        ngf = nec_ext.ngf_loss(
            fake, source, eps=options.eps, eps_mode="quadrature", operator="sobel"
        )
        optimizers[1].zero_grad()
        (judge(fake, True) + weight * ngf).backward()
        optimizers[1].step()

        for optimizer in optimizers:  # constant at first, then falling to 0
            optimizer.param_groups[0]["lr"] = 1e-3 * min(1.0, 2 * (1 - done))
        if step % 20 == 0:
            bar.set_postfix(ngf=f"{ngf.item():.3f}", discriminator=f"{discriminator_loss:.2f}")
    return generator.eval()


# --------------------------------------------------------------------------------------------------
# Results
# --------------------------------------------------------------------------------------------------


def psnr(images: Tensor, truth: Tensor) -> float:
    """Average the peak signal-to-noise ratio over images, in dB."""
    errors = (images - truth).square().flatten(1).mean(1)
    return (10 * torch.log10(4 / errors)).mean().item()


def show(path: Path, columns: dict[str, Tensor]) -> None:
    """Draw a row for each image, front up; a volume is shown by its middle slice."""
    rows = min(3, TEST_SUBJECTS)
    figure = Figure((2.4 * len(columns), 2.4 * rows + 0.3), layout="constrained")
    panels = figure.subplots(rows, len(columns), squeeze=False)
    for column, (title, images) in enumerate(columns.items()):
        panels[0, column].set_title(title)
        for row in range(rows):
            image = images[row, 0]
            image = image if image.dim() == 2 else image[..., image.shape[-1] // 2]
            panels[row, column].imshow(image.T.numpy(), "gray", origin="lower", clim=(-1, 1))
            panels[row, column].axis("off")
    figure.savefig(path, dpi=120)


def main(arguments: list[str] | None = None) -> int:
    """Train, print the PSNR, and draw the figure."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.synthesis",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--dims", type=int, choices=(2, 3), default=2, help="slices or volumes")
    add("--size", type=int, default=64, help="voxels along each side, a multiple of 8")
    add("--subjects", type=int, default=40, help="for T1, and as many others for T2")
    add("--steps", type=int, default=1200)
    add("--batch", type=int, default=2)
    add("--weight", type=float, default=10.0, help="weight of the NGF loss; 0 leaves it out")
    add("--eps", type=float, default=0.15, help="intensity per voxel: smaller edges are noise")
    add("--seed", type=int, default=0)
    add("--out", type=Path, default=Path("out/synthesis"))
    options = parser.parse_args(arguments)
    if options.size < 8 or options.size % 8:
        parser.error(f"--size must be a multiple of 8, got {options.size}")

    torch.manual_seed(options.seed)
    n = options.subjects
    t1, _ = load(range(n), options.size, options.dims)
    _, t2 = load(range(n, 2 * n), options.size, options.dims)
    source, truth = load(range(2 * n, 2 * n + TEST_SUBJECTS), options.size, options.dims)

    device = "cuda" if torch.cuda.is_available() else "cpu"
    generator = train(t1.to(device), t2.to(device), options)
    with torch.no_grad():
        result = generator(source.to(device)).cpu()

    print(f"PSNR to the true T2: {psnr(source, truth):.1f} dB of the T1, ", end="")
    print(f"{psnr(result, truth):.1f} dB of the result")
    options.out.mkdir(parents=True, exist_ok=True)
    figure = options.out / "synthesis.png"
    show(figure, {"T1": source, "result": result, "true T2": truth})
    print(f"figure: {figure}")
    return 0


if __name__ == "__main__":
    run_command(main)
