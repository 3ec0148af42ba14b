# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""The options of a run, and the command line that sets them.

The defaults are those of the NEC paper. Where the paper is silent, they are values under which its
method works (examples/brats/README.md). Options come in layers, and later layers win: defaults, the
system's own paper, the preset, the configuration file, ``key=value``.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

from ..common.files import read_json
from .data.options import DataOptions
from .presets import PAPER, PRESETS
from .report.metrics import MetricOptions
from .values import (
    Correlation,
    Count,
    Decay,
    Index,
    Positive,
    Rule,
    Share,
    Weight,
    as_text,
    describe,
    parse_value,
)

GROUPS = "data", "metrics"  # options of the images and of their comparison


@dataclass(frozen=True)
class Options:
    """The options of a run. A ``Share`` is a share of all steps.

    :func:`saved_options` reads the options of older runs. So the default of a new option keeps the
    behaviour of those runs, and an option with a new meaning gets another name or other values.
    """

    system: Literal["nec", "pix2pix", "cyclegan", "cut"] = "nec"
    preset: Literal["paper", "release", "cpu", "cpu-brats", "gpu", "volumes"] = "paper"
    out: str = ""  # the run's folder; empty: out/brats/<system>
    data: DataOptions = field(default_factory=DataOptions)
    metrics: MetricOptions = field(default_factory=MetricOptions)
    augment: Literal["none", "flip", "jitter"] = "none"
    jitter: Share = 1.0  # in which augment=jitter enlarges and crops; later it only flips

    # Networks.
    generator: Literal["unet", "resnet"] = "unet"
    # The generator's last activation; head: tanh where the source is no background, and that there.
    output: Literal["none", "tanh", "head"] = "none"
    unet_channels: tuple[Count, ...] = (64, 128, 256, 512, 512, 512, 512, 512)
    unet_units: Count = 9  # convolutions per residual unit
    checkpointing: bool = False  # the U-Net's levels are computed again in the backward pass
    resnet_channels: Count = 64
    resnet_blocks: Count = 9
    antialias: bool = False  # blur where ResNet and discriminator halve and double the image
    discriminator_scales: Count = 3
    discriminator_layers: Annotated[int, Rule("a whole number of at least 2", lambda n: n >= 2)] = 3
    discriminator_channels: Count = 64
    # Spectral normalization of the weights takes the place of instance normalization.
    discriminator_norm: Literal["instance", "spectral", "none"] = "instance"
    discriminator_augment: Literal[
        "none", "translation", "translation+cutout", "brightness+translation+cutout"
    ] = "none"  # of what the discriminator sees, real and fake
    initialization: Literal["default", "normal", "xavier"] = "default"

    # Objectives.
    adversarial: Literal["bce", "lsgan"] = "bce"
    lambda_gan: Weight = 1.0
    lambda_discriminator: Weight = 0.5  # weight of its real and of its fake term
    lambda_ngf: Weight = 1.0  # NEC; 0 leaves the adversarial term alone
    lambda_r1: Weight = 0.0  # gradient penalty of the discriminator at real images
    delay: Share | Literal["auto"] = 0.0  # in which lambda_ngf is 0; auto: until the contrast turns
    delay_steps: tuple[Index, Index] = (500, 20000)  # the least and the most of delay=auto
    delay_correlation: Correlation = -0.3  # with the source, below which the contrast has turned
    ramp: Share = 0.0  # after the delay, in which lambda_ngf grows from 0
    eps: Positive = 0.15
    eps_mode: Literal["additive", "quadrature", "augmented"] = "quadrature"  # eq. (4): additive
    form: Literal["squared", "signed", "absolute", "cross"] = "squared"  # eq. (3): squared
    ngf_scales: Count = 1  # of the NGF loss: the images, their copies of half the size, ...
    operator: Literal["central", "forward", "sobel"] = "sobel"
    loss_backend: Literal["fused", "eager", "compiled"] = "fused"
    lambda_l1: Weight = 100.0  # Pix2Pix, and NEC while it warms up and until the ramp ends
    warmup: Share = 0.0  # in which the source, or its negative in the head, is the target
    warmup_target: Literal["source", "negative"] = "source"
    lambda_cycle: Weight = 10.0
    lambda_identity: Weight = 0.5  # CycleGAN; relative to lambda_cycle
    lambda_nce: Weight = 1.0
    nce_identity: bool = True  # CUT: the contrastive term on target images too
    nce_layers: tuple[Index, ...] = (0, 4, 8, 12, 16)
    nce_patches: Count = 256
    nce_width: Count = 256
    nce_temperature: Positive = 0.07
    pool: Index = 0  # fake images that the discriminator may see again

    # Training.
    seed: Index = 0
    batch: Count = 1  # images per process that are in the networks at a time
    accumulate: Count = 1  # batches per step, whose gradients are averaged
    workers: Index = 0  # processes that make batches ahead, for each that trains
    epochs: Count = 300
    steps: Index = 0  # 0: as many as the epochs have
    lr_generator: Positive = 2e-4
    lr_discriminator: Positive = 2e-4
    betas: tuple[Decay, Decay] = (0.5, 0.999)
    decay: Share = 0.5  # at the end, in which learning rates fall linearly to 0
    coupled_adam: bool = False  # one Adam with lr_generator for all, discriminators never frozen
    ema: Decay = 0.0  # of the averaged generator; 0: no average
    # Networks run in bfloat16 or float16; losses and weights are float32. fp16 scales the losses.
    amp: Literal["none", "bf16", "fp16"] = "none"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    validate_every: Index = 0  # steps; 0: an epoch
    log_every: Count = 50  # steps
    selection: Literal["ssim", "psnr"] = "ssim"  # the validation metric of the best checkpoint

    def __post_init__(self) -> None:
        if len(self.unet_channels) < 2:
            raise ValueError("unet_channels must name the channels of two levels or more")
        if self.generator == "resnet" and self.data.dimensions != 2:
            raise ValueError(
                "the ResNet is for slices: generator=resnet needs data.dimensions=2, "
                "and volumes generator=unet"
            )
        if self.antialias and self.data.dimensions != 2:
            raise ValueError("the blur of antialias is for slices: it needs data.dimensions=2")
        if self.checkpointing and self.generator != "unet":
            raise ValueError("checkpointing is of the U-Net's levels: it needs generator=unet")
        if min(self.data.shape) < 2**self.ngf_scales:
            raise ValueError(
                f"ngf_scales must leave an edge of two pixels, got {self.ngf_scales} for "
                f"{min(self.data.shape)} pixels"
            )
        if self.form == "cross" and self.eps_mode == "augmented":
            raise ValueError("form=cross needs eps_mode=additive or quadrature")
        if self.delay_steps[0] > self.delay_steps[1]:
            raise ValueError(f"delay_steps must ascend, got {as_text(self.delay_steps)}")
        if self.system == "cut":
            self._check_cut()

    def _check_cut(self) -> None:
        if self.generator != "resnet":
            raise ValueError("CUT compares layers of a ResNet: it needs generator=resnet")
        last = (11 if self.antialias else 9) + self.resnet_blocks
        layers = self.nce_layers
        if list(layers) != sorted(set(layers)) or layers[-1] > last:
            raise ValueError(
                f"nce_layers must ascend to {last} at most, the last residual block, "
                f"got {as_text(layers)}"
            )

    @property
    def folder(self) -> Path:
        """The folder in which the run is written."""
        return Path(self.out or f"out/brats/{self.system}")


# ------------------------------------------------------------------------------------------------
# Layers
# ------------------------------------------------------------------------------------------------


def make_options(system: str, preset: str = "paper", *layers: Mapping[str, object]) -> Options:
    """Make the options of a system under a preset, changed by ``layers`` in their order.

    Args:
        system, preset: their names.
        layers: values, or texts of values, by name. Options of data and metrics have names like
            ``data.<name>``, or are nested.
    """
    for what, name, known in (("system", system, PAPER), ("preset", preset, PRESETS)):
        if name not in known:
            raise ValueError(f"the {what} must be one of {', '.join(known)}, got {name!r}")
    if preset != "paper" and system not in PRESETS[preset]:
        raise ValueError(f"the preset {preset} is for {', '.join(PRESETS[preset])}, not {system}")
    merged: dict[str, object] = {}
    for layer in (PAPER[system], PRESETS[preset].get(system, {}), *layers):
        merged |= flat(layer)
    return change(Options(), {**merged, "system": system, "preset": preset})


def change(options: Options, values: Mapping[str, object]) -> Options:
    """Change options to values as in :func:`make_options`; raise ValueError if one is bad.

    ``change(Options(), dataclasses.asdict(options))`` gives ``options``, also by way of JSON.
    """
    kinds = typing.get_type_hints(Options, include_extras=True)
    for group in GROUPS:
        inner = typing.get_type_hints(kinds.pop(group), include_extras=True)
        kinds |= {f"{group}.{name}": kind for name, kind in inner.items()}
    parsed: dict[str, Any] = {}
    for key, value in flat(values).items():
        if key not in kinds:
            near = difflib.get_close_matches(key, kinds, cutoff=0.5)
            hint = f"did you mean {' or '.join(near)}?" if near else "see examples/brats/options.py"
            raise ValueError(f"there is no option {key!r}: {hint}")
        try:
            parsed[key] = parse_value(kinds[key], as_text(value))
        except ValueError:
            wanted = describe(kinds[key])
            raise ValueError(f"{key} must be {wanted}, got {as_text(value)!r}") from None
    for group in GROUPS:
        names = [key for key in parsed if key.startswith(f"{group}.")]
        changes = {key.partition(".")[2]: parsed.pop(key) for key in names}
        parsed[group] = dataclasses.replace(getattr(options, group), **changes)
    return dataclasses.replace(options, **parsed)


def saved_options(saved: Mapping[str, object], path: Path) -> Options:
    """Read the options that a run has saved under ``options``; missing ones have their defaults.

    A ValueError names the file if the options are not those of this version.
    """
    values = saved.get("options")
    if not isinstance(values, Mapping):
        raise ValueError(f"{path} must hold the options of a run")
    try:
        return change(Options(), values)
    except ValueError as error:
        raise ValueError(f"{path} is of another version: {error}") from error


def flat(values: Mapping[str, object]) -> dict[str, object]:
    """Flatten ``{"data": {"size": 64}}`` to ``{"data.size": 64}``."""
    flattened = {key: value for key, value in values.items() if key not in GROUPS}
    for group in GROUPS:
        inner = values.get(group, {})
        if not isinstance(inner, Mapping):
            raise ValueError(f"{group} has options of its own, {group}.<name>: got {inner!r}")
        flattened |= {f"{group}.{key}": value for key, value in inner.items()}
    return flattened


# ------------------------------------------------------------------------------------------------
# Command line
# ------------------------------------------------------------------------------------------------


class _Parser(argparse.ArgumentParser):
    """A parser that leaves it to its caller to print an error."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(message)


def parse(arguments: Sequence[str] | None = None) -> tuple[Options, bool]:
    """Parse a command line; return the options, and whether the run in their folder is resumed.

    Raises:
        ValueError: with one sentence about the error.
    """
    parser = _Parser(
        prog="python -m examples.brats.train",
        usage="%(prog)s nec|pix2pix|cyclegan|cut [options] [key=value ...]",
        description="Train one system. Keys and their defaults: examples/brats/options.py.",
    )
    parser.add_argument("words", nargs="*", help=argparse.SUPPRESS)
    parser.add_argument("--preset", help=", ".join(PRESETS))
    parser.add_argument("--config", type=Path, help="JSON file of options")
    parser.add_argument(
        "--resume", type=Path, metavar="RUN", help="folder of the run to go on with"
    )
    parser.add_argument("--loss-backend", help="fused, eager or compiled; as loss_backend=")
    parsed = parser.parse_intermixed_args(arguments)

    systems = [word for word in parsed.words if "=" not in word]
    values: dict[str, object] = dict(word.split("=", 1) for word in parsed.words if "=" in word)
    if parsed.loss_backend:
        values["loss_backend"] = parsed.loss_backend
    if parsed.preset:
        values["preset"] = parsed.preset
    if parsed.resume:
        if parsed.config or "preset" in values:
            raise ValueError("a run goes on with its own options: leave out preset and --config")
        if "epochs" in values:
            raise ValueError("a run goes on to a step: give steps in place of epochs")
        path = parsed.resume / "run.json"
        saved = saved_options(read_json(path), path)
        if systems and systems != [saved.system]:
            raise ValueError(f"{parsed.resume} is a run of {saved.system}, not of {systems[0]}")
        return change(saved, {**values, "system": saved.system, "out": parsed.resume}), True
    named = {**(flat(read_json(parsed.config)) if parsed.config else {}), **values}
    if not systems and "system" in named:
        systems = [str(named["system"])]
    if len(systems) != 1:
        raise ValueError(f"name one system, of {', '.join(PAPER)}: got {' '.join(systems) or None}")
    return make_options(systems[0], str(named.get("preset", "paper")), named), False
