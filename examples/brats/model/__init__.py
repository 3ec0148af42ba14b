# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""The networks, their objectives, and the four systems made of them."""
