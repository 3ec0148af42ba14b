# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""Runs commands of the shell. It imports nothing else of nec_ext, which need not be built."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NoReturn, TextIO

UNREAD = 128 + 13  # a shell's exit code for SIGPIPE

if sys.argv[:1] == ["-m"] and "nec_ext" in sys.orig_argv:  # python -m nec_ext, before torch
    warnings.filterwarnings("ignore", "Failed to initialize NumPy", UserWarning)


class _Output:
    """Standard output that ends the program once nobody reads it.

    It raises SystemExit: a BrokenPipeError could come from another pipe or file.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except BrokenPipeError:
            self._end()

    def flush(self) -> None:
        try:
            self._stream.flush()
        except BrokenPipeError:
            self._end()

    def _end(self) -> NoReturn:
        # Python flushes the buffers at exit, which would fail again.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)
        raise SystemExit(UNREAD)


def run_command(main: Callable[[], int | None]) -> NoReturn:
    """Run a command and exit with its code; with 141, quietly, once nobody reads its output."""
    if sys.stdout is not None:  # None if it was closed at the start
        sys.stdout = _Output(sys.stdout)
    try:
        sys.exit(main())
    except SystemExit:
        print(end="", flush=True)  # an error at exit could no longer be handled
        raise
    except BaseException:
        with suppress(SystemExit):  # the error of the command matters more
            print(end="", flush=True)
        raise
