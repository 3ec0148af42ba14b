# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""How commands begin and end. Imports nothing of nec_ext, which need not be built for it."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NoReturn, TextIO

UNREAD = 128 + 13  # as a shell tells of SIGPIPE

if sys.argv[:1] == ["-m"] and "nec_ext" in sys.orig_argv:  # python -m nec_ext, before torch
    warnings.filterwarnings("ignore", "Failed to initialize NumPy", UserWarning)


class _Output:
    """Standard output that ends the program once nobody reads it.

    By a SystemExit, which is not mistaken for the error of another pipe or file.
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
        # What is left in the buffers, which are flushed at exit, has to go somewhere.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)
        raise SystemExit(UNREAD)


def run_command(main: Callable[[], int | None]) -> NoReturn:
    """Runs a command and exits with its code; quietly with 141 where nobody reads its output."""
    if sys.stdout is not None:  # which is closed
        sys.stdout = _Output(sys.stdout)
    try:
        sys.exit(main())
    except SystemExit:
        print(end="", flush=True)  # now, where an error has a place to go
        raise
    except BaseException:
        with suppress(SystemExit):  # the error is worth more
            print(end="", flush=True)
        raise
