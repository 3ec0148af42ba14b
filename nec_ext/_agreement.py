# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""Ranks tell each other what they were called with: one that fails must not leave the others.

Everything that a rank has to say is a record of fixed size, so that the exchange itself cannot
hang on a disagreement.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from ._arguments import Options, shown
from ._parts import TENSORS

RECORD_BYTES = 1024
MESSAGE_LENGTH = 300  # of an error; printable ASCII takes twice as many bytes in JSON at most
Record = dict[str, Any]


def backends_of(group: dist.ProcessGroup | None) -> dict[str, str]:
    """By type of device, the backend that exchanges its tensors; TypeError if it is no group."""
    if not isinstance(group, dist.ProcessGroup | None):
        raise TypeError(f"group must be a process group that has this rank, got {shown(group)}")
    # As in "cpu:gloo,cuda:nccl". Other names of a backend do not say what it does on which device.
    pairs = (pair.split(":") for pair in dist.get_backend_config(group).split(","))
    return dict(pairs)


def check_backend(backends: Mapping[str, str], device: torch.device) -> None:
    """ValueError unless planes on the device can be exchanged. Gloo would read them on the CPU."""
    backend = backends.get(device.type)
    if backend is None or (backend == "gloo" and device.type != "cpu"):
        having = ",".join(map(":".join, backends.items()))
        raise ValueError(
            f"group must have a backend for images on {device.type}, as cpu:gloo,cuda:nccl has, "
            f"got {having}"
        )


def record_device(backends: Mapping[str, str], images: torch.device | None) -> torch.device:
    """Where records are exchanged: on the CPU where it can be, which need not wait for a GPU.

    On the same type of device on all ranks, whatever their images are on.
    """
    if "cpu" in backends:
        return torch.device("cpu")
    kind = next(iter(backends))
    return images if images is not None and images.type == kind else torch.device(kind)


def describe(tensors: Sequence[Tensor | None], o: Options, dim: int) -> Record:
    """What all ranks must agree on, by the names that an error gives it; and ``planes``."""
    input = tensors[0]
    assert input is not None
    count = input.shape[dim]

    def size(tensor: Tensor) -> list[int]:
        return [n for k, n in enumerate(tensor.shape) if k != dim]

    record: Record = {"planes": count, "the split axis": dim, "the device": input.device.type}
    for name, tensor in zip(TENSORS, tensors, strict=True):
        if tensor is None:
            continue
        record[f"the shape of {name} along the other axes"] = size(tensor)
        record[f"the dtype of {name}"] = str(tensor.dtype)[6:]
        if count > 1:  # of a single plane nobody can tell
            record[f"whether {name} is split"] = tensor.shape[dim] == count
    for name in ("eps", "target_eps"):
        value = getattr(o, name)
        record[name] = "a tensor" if isinstance(value, Tensor) else value
    for name in ("eps_mode", "operator", "spacing", "weight", "reduction"):
        record[name] = getattr(o, name)
    record["mask"] = None if o.mask is None else "a tensor"
    return record


def agree(
    record: Record,
    failure: Exception | None,
    group: dist.ProcessGroup | None,
    device: torch.device | None,
) -> tuple[list[Record], Exception | None]:
    """The records of all ranks, and what stops this one: its own failure first, then the others'.

    Args:
        record: what this rank has to say; not looked at where it has failed.
        failure: what has gone wrong on this rank so far.
        group: the ranks.
        device: of the images, if that is known.
    """
    if failure is not None:
        record = {"error": re.sub("[^ -~]", "?", str(failure))[:MESSAGE_LENGTH]}
    records = _gather(record, group, device)
    errors = (f"rank {k}: {r['error']}" for k, r in enumerate(records) if "error" in r)
    failure = failure or next((ValueError(error) for error in errors), None)
    return records, failure or _disagreement(records)


def _disagreement(records: list[Record]) -> Exception | None:
    for name in dict.fromkeys(name for record in records for name in record):
        having = [k for k, record in enumerate(records) if name in record]
        for k in having if name != "planes" else ():
            if records[k][name] != records[having[0]][name]:
                return ValueError(
                    f"{name} must be the same on every rank: rank {having[0]} has "
                    f"{records[having[0]][name]}, rank {k} has {records[k][name]}"
                )
    return None


def _gather(
    record: Record, group: dist.ProcessGroup | None, device: torch.device | None
) -> list[Record]:
    text = json.dumps(record).encode()
    own = torch.tensor(
        list(text.ljust(RECORD_BYTES, b" ")),
        dtype=torch.uint8,
        device=record_device(backends_of(group), device),
    )
    everyones = own.new_empty(dist.get_world_size(group), RECORD_BYTES)
    dist.all_gather(list(everyones), own, group=group)
    return [json.loads(bytes(row)) for row in everyones.tolist()]
