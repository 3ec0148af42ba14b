# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""Recipes: the NGF loss in the frameworks that people work in (README.md)."""
