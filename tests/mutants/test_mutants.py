# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""The planted mistakes fit the sources as they are; ``make mutants`` plants them."""

from mutants import run


def test_mistakes_fit_their_files_and_enough_files_must_see_each() -> None:
    mutants = run.load()
    assert len(mutants) >= 60
    assert len({mutant[:3] for mutant in mutants}) == len(mutants)
    for mutant in mutants:
        text = (run.ROOT / mutant.file).read_text("utf-8")
        assert run.planted(mutant, text) != text
        assert len(set(mutant.tests)) >= mutant.needed, mutant.reason
        assert all((run.ROOT / test).is_file() for test in mutant.tests), mutant.tests
