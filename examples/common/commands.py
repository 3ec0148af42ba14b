# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""The parser and the exit codes of the examples' commands."""

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
    command: Callable[[], bool | None], stopped: str = "stopped: the same command resumes"
) -> int:
    """Run a command and return its exit code.

    The code is 0 after success, 1 if the command returns False or fails (stderr then has one
    sentence), and 130 if the command is stopped.
    """
    try:
        return int(command() is False)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(stopped, file=sys.stderr)
        return 130
