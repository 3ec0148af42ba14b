# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""docs/scaling.md says what its results hold, and these what their inputs give."""

import json

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
