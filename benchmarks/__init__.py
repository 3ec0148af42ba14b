# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""Benchmarks: time and memory of the fused loss, beside its peers."""
