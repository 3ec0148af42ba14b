# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""The four systems of the paper's table 1, each in a file that has only its own parts."""

from __future__ import annotations

from ...options import Options
from .base import System
from .cut import CUT
from .cyclegan import CycleGAN
from .nec import NEC
from .pix2pix import Pix2Pix

SYSTEMS = {
    "nec": NEC,
    "pix2pix": Pix2Pix,
    "cyclegan": CycleGAN,
    "cut": CUT,
}


def make_system(options: Options) -> System:
    """Make the system of these options, with new weights."""
    return SYSTEMS[options.system](options)
