# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""The planted mistakes fit the sources as they are; ``make mutants`` plants them."""

from mutants import run

MUTANTS = run.load()


def test_every_mistake_fits_its_file() -> None:
    for mutant in MUTANTS:
        text = (run.ROOT / mutant.file).read_text("utf-8")
        assert run.planted(mutant, text) != text


def test_enough_files_must_see_each_mistake() -> None:
    assert len(MUTANTS) >= 60
    for mutant in MUTANTS:
        assert len(set(mutant.tests)) >= mutant.needed, mutant.reason
        assert all((run.ROOT / test).is_file() for test in mutant.tests), mutant.tests
    assert len({mutant[:3] for mutant in MUTANTS}) == len(MUTANTS)
