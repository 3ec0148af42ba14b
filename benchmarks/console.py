# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""``run_command`` of nec_ext/_console.py, loaded without the package.

Some commands build the package, and others do not need it.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

_path = Path(__file__).resolve().parent.parent / "nec_ext" / "_console.py"
_spec = importlib.util.spec_from_file_location("nec_ext_console", _path)
assert _spec is not None and _spec.loader is not None
_module = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_module)

run_command = _module.run_command
