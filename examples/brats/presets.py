# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""The presets: for each system, changes to the defaults in ``options.Options``."""

from __future__ import annotations

Settings = dict[str, object]

# In these options each system's own paper differs from the NEC paper. Pix2Pix shares NEC's
# networks, as in the NEC paper. CycleGAN (Zhu et al., ICCV 2017) and CUT (Park et al., ECCV 2020)
# have their own networks, and the learning rates, augmentation and epochs of their authors' code.
_RESNET_AND_PATCHGAN: Settings = {
    "generator": "resnet",
    "output": "tanh",
    "discriminator_scales": 1,
    "discriminator_layers": 5,
    "adversarial": "lsgan",
    "augment": "jitter",
}
PAPER: dict[str, Settings] = {
    "nec": {},
    "pix2pix": {},
    "cyclegan": {
        **_RESNET_AND_PATCHGAN,
        "initialization": "normal",
        "pool": 50,
        "epochs": 200,
    },
    "cut": {
        **_RESNET_AND_PATCHGAN,
        "initialization": "xavier",
        "jitter": 0.5,  # the phase of constant learning rates
        "antialias": True,
        "epochs": 400,
    },
}

# These are the settings of the code that the authors released after the paper. Its networks concern
# two of the systems.
_RELEASE_DATA: Settings = {"data.upper": 99.9, "data.percentile_scope": "volume"}
_RELEASE: Settings = {
    **_RELEASE_DATA,
    "unet_units": 18,
    "discriminator_scales": 2,
    "discriminator_layers": 4,
    "discriminator_channels": 128,
    "lambda_discriminator": 1.0,
    "coupled_adam": True,
    "lr_generator": 1e-4,
    "betas": (0.9, 0.999),
    "epochs": 400,
    "decay": 0.0,
    "warmup": 1 / 400,
    "selection": "psnr",
}

# These networks and steps are for 64x64 images and for minutes on one core. A blur of 0.5 mm has
# hardly any effect at this size, so it is in pixels.
_CPU: Settings = {
    "data.size": 64,
    "metrics.blur_unit": "px",
    "metrics.ssim_window": "gaussian",
    "augment": "flip",
    "unet_channels": (16, 32, 64, 128),
    "unet_units": 2,
    "discriminator_scales": 3,
    "discriminator_layers": 3,
    "discriminator_channels": 32,
    "batch": 2,
    "steps": 2000,
    "lr_generator": 1e-3,
    "validate_every": 200,
}

_CPU_SYSTEMS: dict[str, Settings] = {
    # The delay lets the discriminator settle the contrast before the loss can keep the source's.
    "nec": {
        **_CPU,
        "lambda_ngf": 10.0,
        "delay": 0.13,
        "ramp": 0.1,
        "steps": 3000,
        "lr_discriminator": 1e-3,
    },
    "pix2pix": _CPU,
    "cyclegan": {**_CPU, "generator": "unet", "output": "none", "initialization": "default"},
    "cut": {
        **_CPU,
        "resnet_channels": 16,
        "resnet_blocks": 4,
        "nce_layers": (0, 4, 8, 12, 14),
        "nce_patches": 128,
        "nce_width": 128,
    },
}

# These are changes for real slices. A U-Net of two levels sees some 4 cm. One that sees the whole
# head would paint the mean T2 of a place, whatever the T1 shows there. A slow discriminator and an
# average over the steps bring half a decibel each (results/search/README.md). Without a bound the
# generator may paint white matter darker than the background, whose edges are as good to the NGF
# loss, and lines at the rim of the slice.
_REAL: Settings = {
    "output": "head",
    "data.size": 96,
    "data.crop": 200,
    "data.slices": "70:90",
    "unet_channels": (32, 64),
    "eps": 0.1,
    "lr_discriminator": 2e-4,
    "ema": 0.999,
    "steps": 4500,
    "validate_every": 300,
}
# On real slices the contrast turns late, or turns back, by luck. NEC begins with the negative of
# its source, so that its loss has the right contrast to keep. The L1 distance to it is weak enough
# to fade out beside the adversarial term.
_REAL_NEC: Settings = {
    **_REAL,
    "warmup": 0.1,
    "warmup_target": "negative",
    "lambda_l1": 10.0,
    "delay": 0.1,
    "ramp": 0.2,
}

# These settings are for real slices of 256x256 pixels and for minutes on a GPU. The U-Net has a
# level more, and the discriminator a scale more, to see as much of the head as at 96x96.
_GPU: Settings = {
    "data.size": 256,
    "unet_channels": (32, 64, 128),
    "discriminator_scales": 4,
    "eps": 0.05,
    "batch": 8,
    "workers": 4,
    "amp": "bf16",
    "steps": 6000,
    "validate_every": 500,
}

# These settings train on crops of whole brains of 1 mm, on a GPU.
_VOLUMES: Settings = {
    "data.dimensions": 3,
    "data.patch": 96,
    "generator": "unet",
    "output": "none",
    "augment": "flip",
    "unet_channels": (32, 64, 128, 256, 320),
    "unet_units": 2,
    "discriminator_scales": 2,
    "discriminator_layers": 3,
    "discriminator_channels": 32,
    "ema": 0.999,
    "amp": "bf16",
    "workers": 4,
    "validate_every": 1000,
}

# Each preset changes the paper's settings.
PRESETS: dict[str, dict[str, Settings]] = {
    "paper": {},
    "release": {
        "nec": {**_RELEASE, "lambda_ngf": 3.0, "eps": 0.1},
        "pix2pix": _RELEASE,
        "cyclegan": _RELEASE_DATA,
        "cut": _RELEASE_DATA,
    },
    "cpu": _CPU_SYSTEMS,
    "cpu-brats": {
        "nec": {**_CPU_SYSTEMS["nec"], **_REAL_NEC},
        "pix2pix": {**_CPU_SYSTEMS["pix2pix"], **_REAL},
        # Their identity terms keep the contrast of the source.
        "cyclegan": {**_CPU_SYSTEMS["cyclegan"], **_REAL, "lambda_identity": 0.0},
        "cut": {**_CPU_SYSTEMS["cut"], **_REAL, "output": "tanh", "nce_identity": False},
    },
    "gpu": {
        "nec": {**_CPU_SYSTEMS["nec"], **_REAL_NEC, **_GPU},
        "pix2pix": {**_CPU_SYSTEMS["pix2pix"], **_REAL, **_GPU},
    },
    "volumes": {
        "nec": {
            **_VOLUMES,
            "operator": "central",
            "eps": 0.1,
            "eps_mode": "quadrature",
            "lambda_ngf": 10.0,
            "delay": 0.13,
            "ramp": 0.1,
        },
        "pix2pix": _VOLUMES,
        "cyclegan": {**_VOLUMES, "initialization": "default"},
    },
}
