# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""Commands whose output nobody reads any more end quietly."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from helpers import ROOT, run_python

# Without torch, as nec_ext._console it is the same.
START = "from benchmarks.console import run_command\n"
FULL = "'x' * 100_000"  # more than any buffer


def unread(*arguments: str) -> tuple[int, str]:
    """Return exit code and standard error of Python whose output is a pipe without a reader."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        result = subprocess.run(
            [sys.executable, *arguments],
            env={**os.environ, "PYTHONUNBUFFERED": ""},
            cwd=ROOT,
            stdout=writer,
            stderr=subprocess.PIPE,
            text=True,
            timeout=600,
            check=False,
        )
    finally:
        os.close(writer)
    return result.returncode, result.stderr


@pytest.mark.parametrize("printed", ["'a line'", FULL, "'a line', flush=True"])
def test_an_output_that_nobody_reads(printed: str) -> None:
    assert unread("-c", f"{START}run_command(lambda: print({printed}))") == (141, "")


@pytest.mark.parametrize("error", ["BrokenPipeError", "ValueError"])
def test_other_errors_are_seen(error: str) -> None:
    """Errors of other pipes are seen too, and errors of a command whose output nobody reads."""
    code = f"{START}def main():\n    print('a line')\n    raise {error}('wrong')\nrun_command(main)"
    read = run_python("-c", code)
    assert read.stdout == "a line\n"
    for status, text in ((read.returncode, read.stderr), unread("-c", code)):
        assert (status, text.splitlines()[-1]) == (1, f"{error}: wrong")
        assert "Exception ignored" not in text


def test_every_command_ends_so() -> None:
    for folder in ("nec_ext", "examples", "benchmarks"):
        texts = [path.read_text("utf-8") for path in (ROOT / folder).rglob("*.py")]
        ends = [text.split('if __name__ == "__main__":\n')[1:] for text in texts]
        commands = [end for end in ends if end]
        assert commands and all(end[0].startswith("    run_command(") for end in commands)


@pytest.mark.slow
def test_the_report() -> None:
    assert unread("-m", "nec_ext") == (141, "")
