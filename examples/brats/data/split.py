# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""The division of the subjects into four groups, and the files of each subject."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ...common.nifti import DataError

if TYPE_CHECKING:
    from .options import DataOptions

SETS = ("train_t1", "train_t2", "val", "test")
# The paper divides the sorted subjects of BraTS 2023 into groups of these sizes. The SHA-256 is of
# a group's names, one per line.
PAPER_SIZES = (400, 400, 10, 441)
PAPER_SHA256 = (
    "bfa1ce421de3840193394b53b54e1b58ccc580bdc386ba29036f982ee83d885e",
    "e7bf781f2d03434b4c4410febacc74b4f4b0cfb0da45c441f7534becdb90d5e9",
    "3b5069c9004344fa97f794af69beaeb439c2919d050e7fcf43c52a6adfa0099a",
    "e311dbe514ad25c558f029ab88e9cd07e506e39f7869c22f936486237e22002e",
)
OLDER_SUFFIXES = {
    "-t1n.nii.gz": ("-t1.nii.gz", "_t1.nii.gz", "_t1.nii"),
    "-t2w.nii.gz": ("-t2.nii.gz", "_t2.nii.gz", "_t2.nii"),
}


def split_subjects(options: DataOptions) -> dict[str, list[str]]:
    """List the subjects of each group: their folder names, or the phantom's numbers."""
    if options.data is None:
        sizes = parse_sizes("phantom_sizes", options.phantom_sizes)
        return _divide([str(k) for k in range(sum(sizes))], sizes)
    root = Path(options.data)
    if not root.is_dir():
        raise DataError(f"{root} is not a folder")
    available = sorted(p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    if options.split.endswith(".json"):
        groups = _read_split(Path(options.split))
    else:
        paper = options.split == "paper"
        sizes = PAPER_SIZES if paper else parse_sizes("split", options.split)
        if len(available) < sum(sizes):
            raise DataError(
                f"split={options.split} needs {sum(sizes)} subjects, {root} has {len(available)}"
            )
        groups = _divide(available, sizes)
        sums = (hashlib.sha256("\n".join(ids).encode()).hexdigest() for ids in groups.values())
        if paper and tuple(sums) != PAPER_SHA256:
            warnings.warn(f"{root} does not have the paper's subjects", stacklevel=3)
    missing = set(itertools.chain(*groups.values())) - set(available)
    if missing:
        raise DataError(f"{root} has no subject {min(missing)}, which the split names")
    _check_disjoint(groups)
    return groups


def _divide(subjects: Sequence[str], sizes: Sequence[int]) -> dict[str, list[str]]:
    rest = iter(subjects)
    return {name: list(itertools.islice(rest, n)) for name, n in zip(SETS, sizes, strict=True)}


def _read_split(path: Path) -> dict[str, list[str]]:
    """Read ``{"train_t1": [...], ...}``, each a list of subjects or ``{"ids": [...]}``."""
    try:
        content = json.loads(path.read_text())
        groups = {name: content[name] for name in SETS}
        groups = {k: v["ids"] if isinstance(v, dict) else v for k, v in groups.items()}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path} must be a JSON file with lists of subjects {', '.join(SETS)}: {error!r}"
        ) from error
    if not all(isinstance(v, list) and v and set(map(type, v)) == {str} for v in groups.values()):
        raise DataError(f"{path} must name subjects, and at least one in each of {', '.join(SETS)}")
    return groups


def _check_disjoint(groups: dict[str, list[str]]) -> None:
    """Refuse a subject that comes twice; warn if training and test share a patient."""
    everyone = sorted(itertools.chain(*groups.values()))
    twice = [a for a, b in itertools.pairwise(everyone) if a == b]
    if twice:
        raise DataError(f"the split names subject {twice[0]} twice")
    # A name is <patient>-<time point>, as in BraTS-GLI-00510-001.
    patients = {
        name: {re.sub(r"(-\d{5})-\d{3}$", r"\1", subject) for subject in subjects}
        for name, subjects in groups.items()
    }
    training = patients["train_t1"] | patients["train_t2"]
    for name in ("val", "test"):
        if shared := training & patients[name]:
            warnings.warn(f"patient {min(shared)} is in training and in {name}", stacklevel=4)


def find_files(options: DataOptions, subjects: Sequence[str]) -> list[Path]:
    """Find the T1 and T2 file of each subject, one after the other; the phantom has none."""
    files: list[Path] = []
    if options.data is None:
        return files
    for subject in subjects:
        folder = Path(options.data) / subject
        for suffix in (options.t1_suffix, options.t2_suffix):
            names = [subject + end for end in (suffix, *OLDER_SUFFIXES.get(suffix, ()))]
            path = next((folder / name for name in names if (folder / name).is_file()), None)
            if path is None:
                raise DataError(f"{folder} has no {names[0]}")
            files.append(path)
    return files


def parse_sizes(name: str, text: str) -> tuple[int, ...]:
    """Read the four numbers of ``n1/n2/n3/n4``."""
    if not re.fullmatch(r"[1-9]\d*(/[1-9]\d*){3}", text):
        raise ValueError(f"{name} must be four numbers n1/n2/n3/n4 of subjects, got {text!r}")
    return tuple(int(part) for part in text.split("/"))


def parse_slices(text: str) -> range:
    """Read the axial slices that ``k``, ``start:stop`` or ``start:stop:step`` names."""
    if not re.fullmatch(r"\d+(:\d+(:[1-9]\d*)?)?", text):
        raise ValueError(f"slices must be k, start:stop or start:stop:step, got {text!r}")
    numbers = [int(part) for part in text.split(":")]
    indices = range(*numbers) if len(numbers) > 1 else range(numbers[0], numbers[0] + 1)
    if not indices:
        raise ValueError(f"slices must name at least one, got {text!r}")
    return indices
