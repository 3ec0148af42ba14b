# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""Code that the examples share: the phantom, NIfTI pairs, the eager loss, measuring, commands."""
