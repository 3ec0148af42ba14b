# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""T1 to T2 synthesis on BraTS by the four systems of the NEC paper, under its protocol."""
