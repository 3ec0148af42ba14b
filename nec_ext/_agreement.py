# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""Compares the arguments of ranks, so that a rank that fails does not leave the others waiting.

Each rank sends one record of fixed size: the exchange itself cannot hang on a disagreement.
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
MESSAGE_LENGTH = 300  # characters of an error, each at most two bytes of JSON
Record = dict[str, Any]


def backends_of(group: dist.ProcessGroup | None) -> dict[str, str]:
    """Return the backend of a group for each type of device; TypeError if it is no group."""
    if not isinstance(group, dist.ProcessGroup | None):
        raise TypeError(f"group must be a process group that has this rank, got {shown(group)}")
    # "cpu:gloo,cuda:nccl": the only name of a backend that tells its types of device.
    pairs = (pair.split(":") for pair in dist.get_backend_config(group).split(","))
    return dict(pairs)


def check_backend(backends: Mapping[str, str], device: torch.device) -> None:
    """Raise ValueError unless the group can exchange planes on the device.

    Gloo accepts tensors on a GPU but would read them on the CPU.
    """
    backend = backends.get(device.type)
    if backend is None or (backend == "gloo" and device.type != "cpu"):
        having = ",".join(map(":".join, backends.items()))
        raise ValueError(
            f"group must have a backend for images on {device.type}, as cpu:gloo,cuda:nccl has, "
            f"got {having}"
        )


def record_device(backends: Mapping[str, str], images: torch.device | None) -> torch.device:
    """Choose the device of the records: the CPU if possible, which need not wait for a GPU.

    All ranks choose the same type of device, even if their images are on different ones.
    """
    if "cpu" in backends:
        return torch.device("cpu")
    kind = next(iter(backends))
    return images if images is not None and images.type == kind else torch.device(kind)


def describe(tensors: Sequence[Tensor | None], o: Options, dim: int) -> Record:
    """Return the properties that all ranks must share, named as in an error, and ``planes``."""
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
        if count > 1:  # a single plane does not show it
            record[f"whether {name} is split"] = tensor.shape[dim] == count
    for name in ("eps", "target_eps"):
        value = getattr(o, name)
        record[name] = "a tensor" if isinstance(value, Tensor) else value
    for name in ("eps_mode", "operator", "spacing", "weight", "reduction", "form"):
        record[name] = getattr(o, name)
    record["mask"] = None if o.mask is None else "a tensor"
    return record


def agree(
    record: Record,
    failure: Exception | None,
    group: dist.ProcessGroup | None,
    device: torch.device | None,
) -> tuple[list[Record], Exception | None]:
    """Exchange records; return those of all ranks, and the failure that stops this one, if any.

    A rank's own failure comes first, then those of the others, then a disagreement.

    Args:
        record: the properties of this rank's arguments; unused if it has failed.
        failure: the error of this rank so far.
        group: the ranks.
        device: the device of the images, if it is known.
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


def encode(record: Record) -> bytes:
    """Write a record in as few bytes as JSON allows."""
    return json.dumps(record, separators=(",", ":")).encode()


def _gather(
    record: Record, group: dist.ProcessGroup | None, device: torch.device | None
) -> list[Record]:
    own = torch.tensor(
        list(encode(record).ljust(RECORD_BYTES, b" ")),
        dtype=torch.uint8,
        device=record_device(backends_of(group), device),
    )
    everyones = own.new_empty(dist.get_world_size(group), RECORD_BYTES)
    dist.all_gather(list(everyones), own, group=group)
    return [json.loads(bytes(row)) for row in everyones.tolist()]
