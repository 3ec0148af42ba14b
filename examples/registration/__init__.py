# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""Deformable registration of T1 to T2 by the NGF loss and by MONAI's losses (README.md)."""
