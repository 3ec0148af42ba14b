# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""The division of the subjects into groups."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import warnings
from collections.abc import Collection, Sequence
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


def split_subjects(options: DataOptions, known: Collection[str] = ()) -> dict[str, list[str]]:
    """List the subjects of each group: their names, or the phantom's numbers.

    The groups are ``SETS`` and, if a file of the split has it, ``train_paired``.

    Args:
        options: the options of the images.
        known: the names of all subjects; the phantom needs none.
    """
    if options.data is None:
        sizes = parse_sizes("phantom_sizes", options.phantom_sizes)
        groups = _divide([str(k) for k in range(sum(sizes))], sizes)
    elif options.split.endswith(".json"):
        groups = _read_split(Path(options.split))
        if missing := set(itertools.chain(*groups.values())) - set(known):
            raise DataError(f"{options.data} has no subject {min(missing)}, which the split names")
        _check_disjoint(groups)
    else:
        paper = options.split == "paper"
        sizes = PAPER_SIZES if paper else parse_sizes("split", options.split)
        if len(known) < sum(sizes):
            raise DataError(
                f"split={options.split} needs {sum(sizes)} subjects, "
                f"{options.data} has {len(known)}"
            )
        groups = _divide(sorted(known), sizes)
        sums = (hashlib.sha256("\n".join(ids).encode()).hexdigest() for ids in groups.values())
        if paper and tuple(sums) != PAPER_SHA256:
            warnings.warn(f"{options.data} does not have the paper's subjects", stacklevel=3)
        _check_disjoint(groups)
    return {
        name: _sample(group, options.subjects) if name.startswith("train") else group
        for name, group in groups.items()
    }


def _sample(subjects: list[str], count: int) -> list[str]:
    """Keep ``count`` subjects in their order, the same for every run; 0 or too many: all.

    A hash of the name chooses, so that a smaller sample is part of a larger one, and a sample of a
    list that is sorted by its sources has subjects of each.
    """
    if not 0 < count < len(subjects):
        return subjects
    ranked = sorted(subjects, key=lambda name: hashlib.sha256(name.encode()).digest())
    return [name for name in subjects if name in set(ranked[:count])]


def _divide(subjects: Sequence[str], sizes: Sequence[int]) -> dict[str, list[str]]:
    rest = iter(subjects)
    return {name: list(itertools.islice(rest, n)) for name, n in zip(SETS, sizes, strict=True)}


def _read_split(path: Path) -> dict[str, list[str]]:
    """Read ``{"train_t1": [...], ...}``, each a list of subjects or ``{"ids": [...]}``."""
    try:
        content = json.loads(path.read_text())
        names = (*SETS, "train_paired") if "train_paired" in content else SETS
        groups = {name: content[name] for name in names}
        groups = {k: v["ids"] if isinstance(v, dict) else v for k, v in groups.items()}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path} must be a JSON file with lists of subjects {', '.join(SETS)}: {error!r}"
        ) from error
    if not all(isinstance(v, list) and v and set(map(type, v)) == {str} for v in groups.values()):
        raise DataError(f"{path} must name subjects, and at least one in each of {', '.join(SETS)}")
    return groups


def _check_disjoint(groups: dict[str, list[str]]) -> None:
    """Refuse a subject that comes twice, unless in training; warn of one that the groups share."""
    training = {name for key, names in groups.items() if key.startswith("train") for name in names}
    lists = [*groups.values(), *([*training, *groups[name]] for name in ("val", "test"))]
    for one in (*lists, [*groups["val"], *groups["test"]]):
        if twice := next((a for a, b in itertools.pairwise(sorted(one)) if a == b), None):
            raise DataError(f"the split names subject {twice} twice")
    if shared := set(groups["train_t1"]) & set(groups["train_t2"]):
        warnings.warn(f"{min(shared)} is in train_t1 and in train_t2", stacklevel=4)
    # A name is <patient>-<time point>, as in BraTS-GLI-00510-001.
    patients = {re.sub(r"(-\d{5})-\d{3}$", r"\1", name) for name in training}
    for key in ("val", "test"):
        if shared := patients & {re.sub(r"(-\d{5})-\d{3}$", r"\1", name) for name in groups[key]}:
            warnings.warn(f"patient {min(shared)} is in training and in {key}", stacklevel=4)


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
