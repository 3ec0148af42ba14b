# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""docs/scaling.md says what its results hold, and these what their inputs give."""

from __future__ import annotations

import json

import pytest

from benchmarks import rows, scaling
from benchmarks.report import insert

RESULTS = json.loads(scaling.RESULTS.read_text())


def test_page_shows_the_results() -> None:
    page = scaling.PAGE.read_text()
    assert insert(page, scaling.tables(RESULTS), "results") == page
    assert scaling.RESULTS.with_suffix(".png").exists()


def test_results_follow_from_the_measured_sweep() -> None:
    nanoseconds = scaling.nanoseconds_per_voxel(rows.load(scaling.SWEEP))
    assert RESULTS["nanoseconds_per_voxel"] == nanoseconds
    assert RESULTS["model"] == scaling.model(nanoseconds)


def test_processes_sent_what_the_model_says() -> None:
    assert [row["processes"] for row in RESULTS["measured"]] == [1, 2, 4]
    for row in RESULTS["measured"]:
        count = row["processes"]
        assert row["sent_bytes"] == row["expected_bytes"]
        assert row["exchanges"] == [int(count > 1)] * count
        assert row["all_reduces"] == [[scaling.REDUCED]] * count
        assert row["records"] == [[scaling.RECORD_BYTES * count]] * count
        if count > 1:
            assert 1 <= row["loopback_bytes"] / row["expected_bytes"] < 1.05


def test_a_cube_by_hand() -> None:
    row = scaling.row_of(512, 4, 2.0)
    assert row["halo_bytes"] == 2 * 2 * 2 * 512 * 512 * 4  # neighbours, planes, images, voxels
    assert row["sweep_bytes"] == 128 * 512 * 512 * 12
    assert row["sweep_seconds"] == pytest.approx(128 * 512 * 512 * 2e-9)
    # The sentence of the page: the halo takes as long as the sweep on n t R / 32 ranks.
    ranks = 512 * 2e-9 * scaling.LINK / 32
    assert row["halo_of_sweep"] == pytest.approx(4 / ranks)
    assert scaling.row_of(512, 1, 2.0)["halo_bytes"] == 0
