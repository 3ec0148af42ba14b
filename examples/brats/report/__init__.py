# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""The judgement of runs: metrics, tables and figures."""
