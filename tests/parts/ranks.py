# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""Processes with a gloo group, which stay for as many calls as a test module has.

They are forked from one process that has imported torch; a call takes a few milliseconds.
"""

import contextlib
import os
import signal
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

TIMEOUT = 60  # seconds for a call; what hangs fails
START_TIMEOUT = 300  # on a machine that is busy with other things


def _join(rank: int, count: int, folder: str) -> None:
    torch.set_num_threads(1)
    limit = timedelta(seconds=START_TIMEOUT)
    dist.init_process_group("gloo", f"file://{folder}/store", limit, rank=rank, world_size=count)


class Ranks:
    def __init__(self, count: int, folder: Path) -> None:
        context = mp.get_context("forkserver")
        context.set_forkserver_preload(["torch.distributed.tensor", "torch._dynamo"])
        self._pools = [
            ProcessPoolExecutor(1, context, _join, (rank, count, str(folder)))
            for rank in range(count)
        ]
        self._pids = [call.result(START_TIMEOUT) for call in self._calls(os.getpid)]

    def run(self, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        return [call.result(TIMEOUT) for call in self._calls(function, *arguments)]

    def errors(self, function: Callable[..., Any], *arguments: Any) -> list[str]:
        """Return the errors of all ranks, None of one that has raised none."""
        errors = [call.exception(TIMEOUT) for call in self._calls(function, *arguments)]
        return [error and f"{type(error).__name__}: {error}" for error in errors]

    def _calls(self, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        return [pool.submit(function, *arguments) for pool in self._pools]

    def close(self) -> None:
        for pid in self._pids:
            with contextlib.suppress(ProcessLookupError):  # of one that has died
                os.kill(pid, signal.SIGKILL)
        for pool in self._pools:
            pool.shutdown()
