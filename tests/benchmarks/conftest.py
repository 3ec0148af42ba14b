# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""None of the tests of the benchmarks runs where a package is missing."""

from optional import skipped_without

pytest_pycollect_makemodule = skipped_without(
    "matplotlib", "monai", "nibabel", "scipy", "skimage", "tqdm", "pytest_benchmark"
)
