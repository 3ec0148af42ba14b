# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""Programs that use nec_ext, short and read top to bottom."""
