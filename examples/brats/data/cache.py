# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""A cache of the finished images, in files that a training maps into memory."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from ...common import anatomy, nifti, phantom
from ...common.files import write_atomically
from ...common.nifti import DataError
from .options import DataOptions


def path_of(options: DataOptions, name: str, facts: object) -> Path:
    """Make the path of a file from the options, ``facts`` and the code that makes the images."""
    key = asdict(options)
    # Most of these options change the images through the facts alone.
    facts_alone = "split", "subjects", "training_slices", "paired_t1", "phantom_sizes"
    for other in ("cache", "patch", *facts_alone):
        del key[other]
    digest = hashlib.sha256(json.dumps([key, facts], sort_keys=True).encode())
    code = (Path(module.__file__) for module in (anatomy, nifti, phantom))
    for source in (*code, *sorted(Path(__file__).parent.glob("*.py"))):
        digest.update(source.read_bytes())
    return _cache_folder(options.cache) / f"{name}-{digest.hexdigest()[:20]}.pt"


def load(path: Path) -> dict[str, Any] | None:
    """Read a file of :func:`save`; return None if it is missing or damaged."""
    try:
        # Processes on one machine share the pages of a mapped file, and unused pages are not read.
        return torch.load(path, mmap=True, weights_only=True)
    except Exception:  # a missing or damaged file shows in errors of many types
        return None


def save(images: dict[str, Any], path: Path) -> None:
    """Write tensors, numbers and lists of them."""
    try:
        write_atomically(path, functools.partial(torch.save, images))
    except OSError as error:
        raise DataError(f"{path} cannot be written, choose another cache: {error}") from error


def _cache_folder(cache: str | None) -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    choices = [Path(cache)] if cache else [Path(home), Path(tempfile.gettempdir())]
    for base in choices:
        folder = base if cache else base / "nec_ext" / "brats"
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(folder, os.W_OK):
            return folder
    raise DataError(f"the cache {choices[-1]} is not a folder that can be written")
