# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""The files of each subject: whole volumes, and axial slices in files of their own."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ...common.nifti import DataError

if TYPE_CHECKING:
    from .options import DataOptions

KINDS = "t1", "t2"
OLDER_SUFFIXES = {
    "-t1n.nii.gz": ("-t1.nii.gz", "_t1.nii.gz", "_t1.nii"),
    "-t2w.nii.gz": ("-t2.nii.gz", "_t2.nii.gz", "_t2.nii"),
}


@dataclass
class Subject:
    """The files of a subject by contrast, those of slices also by the number of the slice."""

    volumes: dict[str, Path] = field(default_factory=dict)
    slices: dict[str, dict[int, Path]] = field(default_factory=lambda: {kind: {} for kind in KINDS})


class Source(NamedTuple):
    """A volume of a subject, or, if it has a number, a slice: one file for each contrast."""

    subject: str
    paths: tuple[Path, ...]
    number: int | None = None


def find_subjects(options: DataOptions) -> dict[str, Subject]:
    """Find all subjects below the folder of the data, by the names of their files.

    A volume is ``<ID>-t1n.nii.gz`` and a slice ``<ID>-t1n_s080.nii.gz``, in any folder. Of two
    files with one name, the one whose path comes first counts.
    """
    root = Path(options.data or "")
    if not root.is_dir():
        raise DataError(f"{root} is not a folder")
    paths: list[Path] = []
    for folder, inner, names in os.walk(root, followlinks=True):
        inner[:] = [name for name in inner if not name.startswith(".")]
        paths += [Path(folder, name) for name in names if not name.startswith(".")]
    paths.sort()
    subjects: dict[str, Subject] = {}
    for kind in KINDS:
        for suffix in suffixes(options, kind):
            stem, dot, end = re.escape(suffix).partition(r"\.")
            pattern = re.compile(rf"(.+){stem}(?:_s(\d+))?{dot}{end}")
            for path in paths:
                if match := pattern.fullmatch(path.name):
                    subject = subjects.setdefault(match[1], Subject())
                    if match[2] is None:
                        subject.volumes.setdefault(kind, path)
                    else:
                        subject.slices[kind].setdefault(int(match[2]), path)
    return subjects


def find_sources(
    options: DataOptions,
    subjects: Mapping[str, Subject],
    names: Sequence[str],
    kinds: Sequence[str],
    limit: int = 0,
) -> list[Source]:
    """List what has to be read of these subjects: whole volumes, or else all their slice files.

    Args:
        options: the options of the images.
        subjects: all subjects.
        names: the names of those to list.
        kinds: the contrasts that are needed.
        limit: how many slice files of a subject count, evenly spread; 0: all.

    Raises:
        DataError: if a contrast of a subject is missing.
    """
    sources: list[Source] = []
    for name in names:
        subject = subjects[name]
        slices = [subject.slices[kind] for kind in kinds]
        missing = next((kind for kind in kinds if kind not in subject.volumes), None)
        if missing is None:
            sources.append(Source(name, tuple(subject.volumes[kind] for kind in kinds)))
        elif options.dimensions == 3 or not any(slices):
            raise DataError(f"{name} has no {name}{suffixes(options, missing)[0]}")
        elif alone := set.union(*map(set, slices)) - set.intersection(*map(set, slices)):
            raise DataError(f"{name} has slice {min(alone)} in one contrast only")
        else:
            numbers = spread(sorted(slices[0]), limit)
            sources += [Source(name, tuple(files[k] for files in slices), k) for k in numbers]
    return sources


def suffixes(options: DataOptions, kind: str) -> tuple[str, ...]:
    """Return how the names of a contrast's files may end, the likeliest first."""
    suffix = options.t1_suffix if kind == "t1" else options.t2_suffix
    return suffix, *OLDER_SUFFIXES.get(suffix, ())


def spread(numbers: Sequence[int], limit: int) -> Sequence[int]:
    """Choose ``limit`` numbers, evenly spread, one from the middle; 0 or too many: all."""
    if not 0 < limit < len(numbers):
        return numbers
    return [numbers[int((k + 0.5) * len(numbers) / limit)] for k in range(limit)]
