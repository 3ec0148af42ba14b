# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""The images: from files or the phantom to batches."""
