# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""Loads the compiled module, which registers torch.ops.nec_ext.

Every way in which that can fail ends in an ImportError of one sentence. A package that was built
with NEC_EXT_BUILD=0 has no such module, and takes the reference.
"""

from __future__ import annotations

from importlib import import_module
from importlib.machinery import PathFinder
from importlib.metadata import distributions
from pathlib import Path
from types import ModuleType

import torch

PACKAGE = Path(__file__).parent


def load() -> ModuleType | None:
    """Import ``nec_ext._C``; return None where it was left out.

    Raises:
        ImportError: another copy has registered the ops in this process, or the module cannot be
            loaded, or it is missing in a package that was built with it.
    """
    spec = PathFinder.find_spec("nec_ext._C", [str(PACKAGE)])
    if spec is None or spec.origin is None:
        if _is_left_out():
            return None
        raise ImportError(_why_missing())
    loaded = torch.ops.loaded_libraries  # torch's own record of what registered ops
    if hasattr(torch.ops.nec_ext, "ngf_forward") and spec.origin not in loaded:
        others = [path for path in map(Path, loaded) if path.parent.name == "nec_ext"]
        origin = "".join(f" from {path.parent}" for path in others)
        raise ImportError(
            f"nec_ext in {PACKAGE} cannot be imported: "
            f"this process has loaded another copy{origin}, and torch has room for one"
        )
    try:
        extension = import_module("nec_ext._C")
    except ImportError as error:
        raise ImportError(
            f"the extension of nec_ext, {spec.origin}, cannot be loaded beside torch "
            f"{torch.__version__}; install nec_ext again with this Python and torch: {error}"
        ) from error
    loaded.add(spec.origin)
    return extension


def _is_left_out() -> bool:
    # The record of an installed package tells whether it was built with a compiled module.
    records = (found.read_text("WHEEL") or "" for found in distributions(name="nec_ext"))
    return any("Root-Is-Purelib: true" in record for record in records)


def _why_missing() -> str:
    if built := sorted(path.name for path in PACKAGE.glob("_C.*.*")):
        return f"nec_ext in {PACKAGE} was built for another Python, as {built[0]}: install it again"
    if (PACKAGE.parent / "csrc").is_dir():
        return (
            f"{PACKAGE} is the source folder of nec_ext, without its extension: start Python in "
            "another folder to use an installed nec_ext, or build the extension here with "
            "pip install --no-build-isolation --editable ."
        )
    return f"nec_ext in {PACKAGE} has no extension: install it again"
