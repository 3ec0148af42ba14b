# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""Processes with a gloo group, which stay for as many calls as a test module has.

They are forked from one process that has imported torch; a call takes a few milliseconds.
"""

from __future__ import annotations

import contextlib
import os
import time
import traceback
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

TIMEOUT = 60  # seconds for a call; what hangs fails
START_TIMEOUT = 300  # on a machine that is busy with other things


def _serve(rank: int, count: int, folder: str, calls: Connection) -> None:
    torch.set_num_threads(1)
    store = f"file://{folder}/store"
    limit = timedelta(seconds=START_TIMEOUT)
    dist.init_process_group("gloo", store, limit, rank=rank, world_size=count)
    calls.send(("returned", None))
    with contextlib.suppress(EOFError):
        while True:
            function, arguments = calls.recv()
            try:
                calls.send(("returned", function(*arguments)))
            except Exception as error:
                sentence = f"{type(error).__name__}: {error}"
                calls.send(("raised", sentence, traceback.format_exc()))
    os._exit(0)  # without a word to ranks that are gone


class Ranks:
    """The processes of a group."""

    def __init__(self, count: int, folder: Path) -> None:
        context = mp.get_context("forkserver")
        context.set_forkserver_preload(["torch.distributed.tensor", "torch._dynamo"])
        self._calls = []
        for rank in range(count):
            here, there = context.Pipe()
            arguments = (rank, count, str(folder), there)
            context.Process(target=_serve, args=arguments, daemon=True).start()
            there.close()
            self._calls.append(here)
        started = self._answers(START_TIMEOUT)
        assert all(answer[0] == "returned" for answer in started), started

    def run(self, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        """Return the results of all ranks."""
        answers = self.outcomes(function, *arguments)
        assert all(answer[0] == "returned" for answer in answers), answers
        return [answer[1] for answer in answers]

    def errors(self, function: Callable[..., Any], *arguments: Any) -> list[str]:
        """Return the errors of all ranks, each of which has to raise one."""
        answers = self.outcomes(function, *arguments)
        assert all(answer[0] == "raised" for answer in answers), answers
        return [answer[1] for answer in answers]

    def outcomes(self, function: Callable[..., Any], *arguments: Any) -> list[tuple[Any, ...]]:
        """Return ("returned", value), ("raised", error, text), ("died",) or ("hung",) per rank."""
        for calls in self._calls:
            calls.send((function, arguments))
        return self._answers(TIMEOUT)

    def _answers(self, seconds: float) -> list[tuple[Any, ...]]:
        deadline = time.monotonic() + seconds
        return [self._answer(calls, deadline - time.monotonic()) for calls in self._calls]

    @staticmethod
    def _answer(calls: Connection, seconds: float) -> tuple[Any, ...]:
        if not calls.poll(max(seconds, 0)):
            return ("hung",)
        try:
            answer: tuple[Any, ...] = calls.recv()
        except EOFError:
            return ("died",)
        return answer

    def close(self) -> None:
        for calls in self._calls:
            calls.close()
