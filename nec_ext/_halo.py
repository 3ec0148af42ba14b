# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""One rank's planes of a volume, and the planes around them, which other ranks send."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from ._arguments import Gradients, Options
from ._parts import HALO, TENSORS, Tensors, cut, sums


def _needed(planes: Sequence[int], rank: int, step: int) -> Iterator[tuple[int, int, int]]:
    """Yield the (source, begin, end) of the halo below (step -1) or above (step 1), outwards."""
    missing, source = HALO, rank + step
    while missing > 0 and 0 <= source < len(planes):
        count = min(missing, planes[source])
        begin = planes[source] - count if step < 0 else 0
        yield source, begin, begin + count
        missing -= count
        source += step


class Shard:
    """The planes of one rank and the exchange of their halo, which begins at once.

    A method that needs the halo waits for it.

    Args:
        tensors: the planes of this rank.
        is_split: for each tensor, whether it varies along ``dim``: then it has a halo.
        dim: the axis that is split.
        planes: the number of planes of each rank of the group.
        rank: the number of this rank in the group.
        group: the ranks that share the volume.
    """

    def __init__(
        self,
        tensors: Tensors,
        is_split: Sequence[bool],
        dim: int,
        planes: Sequence[int],
        rank: int,
        group: dist.ProcessGroup | None,
    ) -> None:
        self._tensors, self._dim, self._count = tensors, dim, planes[rank]
        # One message holds the planes of all tensors. The longest elements come first, so that
        # every tensor is aligned.
        sent = [
            (k, t.element_size()) for k, t in enumerate(tensors) if t is not None and is_split[k]
        ]
        self._sent = [k for k, _ in sorted(sent, key=lambda item: -item[1])]
        self._buffers: list[Tensor] = []
        # (buffer, planes) of the messages from below and above, outwards.
        self._received: dict[int, list[tuple[int, int]]] = {-1: [], 1: []}
        operations = []
        for peer in range(max(rank - HALO, 0), min(rank + HALO + 1, len(planes))):
            for step in (-1, 1):
                for source, begin, end in _needed(planes, peer, step):
                    if source == rank:
                        message = self._packed(begin, end)
                        operations.append(
                            dist.P2POp(dist.isend, message, group=group, group_peer=peer)
                        )
        for step, messages in self._received.items():
            for source, begin, end in _needed(planes, rank, step):
                buffer = self._split()[0].new_empty(self._bytes(end - begin), dtype=torch.uint8)
                messages.append((len(self._buffers), end - begin))
                self._buffers.append(buffer)
                operations.append(dist.P2POp(dist.irecv, buffer, group=group, group_peer=source))
        self._operations = operations  # whose buffers have to live until they are done
        self._works = dist.batch_isend_irecv(operations) if operations else []

    def sum(self, options: Options, gradients: Gradients) -> Tensor:
        """Return the sum of ``mask * value`` over the rank's planes, and write their gradients.

        The inner planes need no halo: they are computed in place while it is under way. The two
        planes at each face are computed from a copy of these planes with their halo.
        """
        results = [self._part_sum(begin, end, options, gradients) for begin, end in self._ranges()]
        return torch.cat(results).sum(0, keepdim=True)

    def mask_sum(self, options: Options) -> Tensor:
        """Return the sum of the mask over the rank's planes."""
        return sums(self._tensors, options, self._dim, 0, self._count, of_mask=True)

    def release(self) -> list[Tensor | None]:
        """Hand the tensors over to autograd after :meth:`sum`; :meth:`restore` takes them back."""
        held = [*self._tensors, *self._buffers]
        self._tensors, self._buffers = [], []
        return held

    def restore(self, held: Tensors) -> None:
        """Take back the tensors that :meth:`release` gave."""
        self._tensors = held[: len(TENSORS)]
        self._buffers = [buffer for buffer in held[len(TENSORS) :] if buffer is not None]

    def _part_sum(self, begin: int, end: int, options: Options, gradients: Gradients) -> Tensor:
        slab, first = self._slab(begin, end)
        own = cut(gradients, self._dim, begin, end)
        return sums(slab, options, self._dim, first, first + end - begin, own)

    def _ranges(self) -> list[tuple[int, int]]:
        first = HALO if self._received[-1] else 0
        last = self._count - (HALO if self._received[1] else 0)
        if first >= last:
            return [(0, self._count)]
        ranges = [(first, last), (0, first), (last, self._count)]
        return [(begin, end) for begin, end in ranges if begin < end]

    def _slab(self, begin: int, end: int) -> tuple[list[Tensor | None], int]:
        """Return tensors with the planes begin to end and their halo, and the index of begin."""
        first, last = max(begin - HALO, 0), min(end + HALO, self._count)
        parts = [cut(self._tensors, self._dim, first, last)]
        offset = begin - first
        if begin == 0:
            for halo, count in self._halo(-1):
                parts.insert(0, halo)
                offset += count
        if end == self._count:
            parts += [halo for halo, _ in self._halo(1)]
        if len(parts) == 1:
            return parts[0], offset
        joined = [
            torch.cat(pieces, self._dim) if k in self._sent else pieces[0]
            for k, pieces in enumerate(zip(*parts, strict=True))
        ]
        return joined, offset

    def _split(self) -> list[Tensor]:
        """Return the tensors whose planes a message holds, in its order."""
        return [t for t in map(self._tensors.__getitem__, self._sent) if t is not None]

    def _wait(self) -> None:
        for work in self._works:
            work.wait()
        self._works, self._operations = [], []

    def _bytes(self, planes: int) -> int:
        plane = [t.numel() // t.shape[self._dim] * t.element_size() for t in self._split()]
        return planes * sum(plane)

    def _packed(self, begin: int, end: int) -> Tensor:
        """Pack planes of all tensors that have a halo into one message."""
        parts = [t.narrow(self._dim, begin, end - begin) for t in self._split()]
        return torch.cat([part.contiguous().view(-1).view(torch.uint8) for part in parts])

    def _halo(self, step: int) -> list[tuple[list[Tensor | None], int]]:
        """Return the messages from below or above, outwards: planes and their number."""
        self._wait()
        return [
            (self._unpacked(self._buffers[k], count), count) for k, count in self._received[step]
        ]

    def _unpacked(self, buffer: Tensor, count: int) -> list[Tensor | None]:
        tensors = list(self._tensors)
        for k, own in zip(self._sent, self._split(), strict=True):
            shape = list(own.shape)
            shape[self._dim] = count
            size = math.prod(shape) * own.element_size()
            tensors[k] = buffer[:size].view(own.dtype).view(shape)
            buffer = buffer[size:]
        return tensors
