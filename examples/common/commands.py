# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""How the commands of the examples begin and end."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable


def make_parser(name: str, description: str | None) -> argparse.ArgumentParser:
    """Make the parser of ``python -m examples.<name>``."""
    return argparse.ArgumentParser(
        prog=f"python -m examples.{name}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def exit_code(
    command: Callable[[], bool | None], stopped: str = "stopped: the same command goes on"
) -> int:
    """Run a command: 0; 1 if it says False, or after one sentence on an error; 130 if stopped."""
    try:
        return int(command() is False)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(stopped, file=sys.stderr)
        return 130
